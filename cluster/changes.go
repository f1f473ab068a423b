package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// changeTimeout bounds one change of the membership, with its wait for those before.
	changeTimeout = 20 * time.Second
	// tendTick is how often the leader looks after members that are not voters yet.
	tendTick = time.Second
)

// change is one change of the membership, for the leader's goroutine that makes them.
type change struct {
	ctx  context.Context
	do   func(context.Context) error
	done chan error // one answer, always
}

// change has the leader make a change, one at a time.
func (n *Node) change(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, changeTimeout,
		fmt.Errorf("%w: the change was not made within %v: ask again", ErrUnknownOutcome, changeTimeout))
	defer cancel()
	c := change{ctx, do, make(chan error, 1)}
	for {
		s, changed := n.view.get()
		if !s.leading {
			return n.notLeading()
		}
		select {
		case n.changes <- c:
			return <-c.done
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: other changes of the membership are under way: %w", ErrBusy, ctx.Err())
		case <-n.stopping:
			return ErrStopped
		}
	}
}

// manageMembers is the leader's task that makes every change of the membership.
func (n *Node) manageMembers(ctx context.Context, _ uint64) error {
	n.pending.clear() // the term has begun: what was open is decided
	if err := n.settleAddress(ctx); err != nil {
		return err
	}
	n.markMember()
	var tending sync.WaitGroup
	defer tending.Wait()
	near := nearness{}
	looked := make(chan []raft.Server) // those near the leader, at most one look under way
	looking := false
	tick := time.NewTicker(tendTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case c := <-n.changes:
			c.done <- n.makeChange(ctx, c)
		case <-tick.C:
			n.forgetStrangers(ctx)
			waiting := n.waitingForVote()
			if looking || len(waiting) == 0 {
				continue
			}
			looking = true
			tending.Add(1)
			// Owner: this task; ends within some seconds, or with ctx.
			go func() {
				defer tending.Done()
				is := n.whoIsNear(ctx, waiting)
				select {
				case looked <- is:
				case <-ctx.Done():
				}
			}()
		case is := <-looked:
			looking = false
			for _, s := range near.note(is, time.Now()) {
				n.makeVoter(ctx, s)
			}
		}
	}
}

// makeChange makes a change within the caller's ctx and the term.
func (n *Node) makeChange(term context.Context, c change) error {
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	defer context.AfterFunc(term, func() { cancel(fmt.Errorf("%w: leadership moved: ask again", ErrUnknownOutcome)) })()
	return c.do(ctx)
}

// changed awaits a change of raft's configuration that concerns one node, and says what
// became of it.
func (n *Node) changed(ctx context.Context, id raft.ServerID, f func() raft.IndexFuture) error {
	n.pending.add(id)
	err := n.await(ctx, func() error { return f().Error() })
	switch {
	case err == nil:
		n.pending.drop(id)
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		n.pending.drop(id)
		return n.notLeading()
	case errors.Is(err, raft.ErrEnqueueTimeout), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		n.pending.drop(id)
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, ErrUnknownOutcome):
		return err
	}
	return unknown(err)
}

// pendingChanges are the nodes with a change in this leader's log that may not be
// committed, now or for the rest of the term. Any goroutine.
type pendingChanges struct {
	mu  sync.Mutex
	ids map[raft.ServerID]bool
}

func (p *pendingChanges) add(id raft.ServerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ids == nil {
		p.ids = map[raft.ServerID]bool{}
	}
	p.ids[id] = true
}

func (p *pendingChanges) drop(id raft.ServerID) {
	p.mu.Lock()
	delete(p.ids, id)
	p.mu.Unlock()
}

func (p *pendingChanges) clear() {
	p.mu.Lock()
	clear(p.ids)
	p.mu.Unlock()
}

func (p *pendingChanges) has(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ids[raft.ServerID(id)]
}
