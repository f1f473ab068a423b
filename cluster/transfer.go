package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// ErrTransferStuck is what OnFatal is told when a leadership transfer does not end
// and the leader refuses everything (hashicorp/raft #696).
var ErrTransferStuck = errors.New("a leadership transfer does not end")

// Transfer hands leadership to a voter, when nodeID is empty to the one that is furthest
// of those that answer. On another replica than the leader it returns a *NotLeaderError, for a
// target that cannot lead ErrNotVoter, when it or nobody answers ErrUnreachable, and
// ErrConflict when nobody takes it in time. Transferring to who leads already is done.
func (n *Node) Transfer(ctx context.Context, nodeID string) error {
	if err := n.enter(); err != nil {
		return err
	}
	defer n.calls.leave()
	if !n.IsLeader() {
		return n.notLeading()
	}
	if nodeID == n.id {
		return nil
	}
	conf := n.configuration()
	if nodeID == "" {
		if _, only := soleVoter(conf); only {
			return fmt.Errorf("transfer leadership: node %q is the only voter: %w", n.id, ErrNotVoter)
		}
		return n.transferred(n.handTo(ctx), nodeID)
	}
	for _, s := range conf.Servers {
		if s.ID == raft.ServerID(nodeID) && s.Suffrage == raft.Voter { // raft does not look
			// Nor whether it answers, and for one that hangs it would refuse every entry until
			// its request has timed out.
			if _, err := n.look(ctx, peerTarget{nodeID, string(s.Address)}); ctx.Err() != nil {
				return fmt.Errorf("transfer leadership to %q: %w", nodeID, context.Cause(ctx))
			} else if err != nil {
				return inWords(ErrUnreachable, "leadership was not handed over: node %q at %s does not answer (%w)", nodeID, s.Address, err)
			}
			return n.transferred(n.await(ctx, func() error { return n.raft.LeadershipTransferToServer(s.ID, s.Address).Error() }), nodeID)
		}
	}
	return fmt.Errorf("transfer leadership to %q: %w", nodeID, ErrNotVoter)
}

func (n *Node) transferred(err error, to string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return n.notLeading()
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrStopped
	case errors.Is(err, raft.ErrEnqueueTimeout) || errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("transfer leadership: another transfer is under way: %w", ErrBusy)
	case errors.Is(err, ErrUnreachable):
		return inWords(ErrUnreachable, "leadership was not handed over: %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, ErrStopped), errors.Is(err, ErrUnknownOutcome):
		return fmt.Errorf("transfer leadership: %w", err)
	case to == "":
		return inWords(ErrConflict, "leadership was not handed over: no other voter took it in time (%w)", err)
	}
	return inWords(ErrConflict, "leadership was not handed over: node %q did not take it in time (%w)", to, err)
}

// notLeading says who leads instead.
func (n *Node) notLeading() error {
	if l, ok := n.Leader(); ok && l.NodeID != n.id {
		return &NotLeaderError{l}
	}
	return ErrNoLeader
}

// transferWatch notes since when raft has refused everything because of a transfer.
type transferWatch struct {
	mu    sync.Mutex
	since time.Time
}

// watchTransfer ends the node when raft refuses every entry for the sake of a
// transfer for longer than any transfer takes (two election timeouts).
func (n *Node) watchTransfer(err error) {
	w := &n.transferRefused
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !errors.Is(err, raft.ErrLeadershipTransferInProgress):
		w.since = time.Time{}
	case w.since.IsZero():
		w.since = time.Now()
	case time.Since(w.since) > 4*n.times.election && n.raft.State() == raft.Leader:
		n.fail(fmt.Errorf("%w: everything has been refused for %v; start this replica again",
			ErrTransferStuck, time.Since(w.since).Round(time.Millisecond)))
	}
}
