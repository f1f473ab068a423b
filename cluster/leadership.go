package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

var (
	errLost   = errors.New("leadership lost")
	errClosed = errors.New("replica is closing")
)

// retryTerm is the pause before a leader whose term's work failed tries again.
const retryTerm = 2 * time.Second

// lead is the leadership loop (I4). raft's channel keeps only the newest word, so
// "gained" after "gained" means lost and gained again: stop, then start.
// Owner: Node, until stopping. It blocks while the work of a term ends.
func (n *Node) lead() {
	var t *term // the term whose work runs
	stop := func(cause error) {
		if t != nil {
			t.stop(cause)
			t = nil
		}
	}
	defer func() { stop(errClosed) }()
	var retry <-chan time.Time
	for {
		var failed <-chan error
		if t != nil {
			failed = t.failed
		}
		select {
		case <-n.stopping:
			return
		case gained := <-n.raft.LeaderCh():
			stop(errLost)
			retry = nil
			if gained {
				t = n.beginTerm()
			}
		case err := <-failed:
			stop(err)
			n.log.Warn("work of this term ended, handing leadership over", "error", err)
			n.handOver(context.Background())
			retry = time.After(retryTerm)
		case <-retry:
			retry = nil
			if n.raft.State() == raft.Leader {
				t = n.beginTerm()
			}
		}
	}
}

// term is one term's work of the leader.
type term struct {
	cancel context.CancelCauseFunc
	failed chan error    // at most one, when the work cannot go on
	done   chan struct{} // closed when every goroutine of it has ended
}

// stop cancels the work and waits for all of it.
func (t *term) stop(cause error) {
	t.cancel(cause)
	<-t.done
}

func (n *Node) beginTerm() *term {
	ctx, cancel := context.WithCancelCause(context.Background())
	t := &term{cancel: cancel, failed: make(chan error, 1), done: make(chan struct{})}
	// Owner: the leadership loop; ends with ctx, or when the work fails.
	go func() {
		defer close(t.done)
		defer cancel(nil)
		if err := n.runTerm(ctx); err != nil && ctx.Err() == nil {
			t.failed <- err
		}
	}()
	return t
}

// runTerm does the leader's work until ctx ends.
func (n *Node) runTerm(ctx context.Context) error {
	number := n.raft.CurrentTerm()
	// The term's own first entry. When it is applied, everything committed before
	// is, and our applied index has caught up with the commit index, which raft's
	// own no-op does not give.
	applied, _, err := n.apply(ctx, n.entries.termBegin(number))
	if err != nil {
		return fmt.Errorf("begin term %d: %w", number, err)
	}
	if err := n.machine.WaitApplied(ctx, applied.Index); err != nil {
		return fmt.Errorf("begin term %d: %w", number, err)
	}
	if now := n.raft.CurrentTerm(); now != number {
		return fmt.Errorf("begin term %d: it is term %d already", number, now)
	}
	n.view.update(func(s *viewState) { s.leading, s.term = true, number })
	n.log.Info("leading", "node", n.id, "term", number, "index", applied.Index)

	return n.runTasks(ctx, number)
}

// runTasks runs the leader's tasks until ctx ends or one fails, and waits for all.
func (n *Node) runTasks(ctx context.Context, number uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	own := LeaderTask{Name: "membership", Run: n.manageMembers}
	for _, task := range append([]LeaderTask{own}, n.opts.LeaderTasks...) {
		wg.Add(1)
		// Owner: this term; ends with ctx.
		go func() {
			defer wg.Done()
			if err := task.Run(ctx, number); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("leader task %q: %w", task.Name, err))
			}
		}()
	}
	<-ctx.Done()
	// Now and not when the tasks have ended, which may take seconds: meanwhile this node
	// would pass for the leader.
	n.view.update(func(s *viewState) { s.leading, s.term = false, 0 })
	wg.Wait()
	return context.Cause(ctx)
}

// handOver gives leadership to another voter, if there is one that answers, and waits for
// it as long as raft tries, or until ctx ends.
func (n *Node) handOver(ctx context.Context) {
	if _, ok := soleVoter(n.configuration()); ok || n.raft.State() != raft.Leader {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*n.times.hold())
	defer cancel()
	if err := n.handTo(ctx); err != nil {
		n.log.Warn("leadership was not handed over", "error", err)
	}
}

// await runs a call into raft that knows no context. When ctx ends first the call
// goes on alone, and its outcome is unknown.
func (n *Node) await(ctx context.Context, f func() error) error {
	if !n.futures.enter() {
		return ErrStopped
	}
	done := make(chan error, 1)
	go func() {
		defer n.futures.leave()
		done <- f()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-n.gone:
		return ErrStopped
	}
}
