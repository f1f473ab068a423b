package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/fsm"
)

// Applied is where a committed entry stands and what the state machine said.
type Applied struct {
	Index  uint64
	Result any // the state machine's own verdict; may be an error value
}

// Propose puts an entry into the log and waits until it is applied here.
//
// Only the leader proposes: elsewhere the answer is a *NotLeaderError that names
// it. While there is no leader the call waits for one, up to two election
// timeouts, and then returns ErrNoLeader. What the errors prove stands with them.
//
// Ownership: the entry's bytes belong to raft from now on, also after an error.
// Cost: blocks for a commit, which is an fsync on a majority.
func (n *Node) Propose(ctx context.Context, entry []byte) (Applied, error) {
	if err := n.checkSize(entry); err != nil {
		return Applied{}, err
	}
	if err := n.enter(); err != nil {
		return Applied{}, err
	}
	defer n.calls.leave()
	return n.propose(ctx, func(uint64) []byte { return entry })
}

// propose waits for this node to lead and proposes what entry gives for the term.
// It may ask for it again when raft refused the first.
func (n *Node) propose(ctx context.Context, entry func(term uint64) []byte) (Applied, error) {
	start := time.Now()
	applied, kind, err := n.proposeLeading(ctx, entry)
	n.proposals.count(kind, time.Since(start))
	if n.opts.Hooks.Proposed != nil {
		n.opts.Hooks.Proposed(kind.String(), time.Since(start))
	}
	return applied, err
}

func (n *Node) proposeLeading(ctx context.Context, entry func(term uint64) []byte) (applied Applied, kind outcome, err error) {
	kind = outcomeRefused
	err = n.atLeader(ctx, leaderCall{
		here: func(ctx context.Context, term uint64) (again bool, err error) {
			applied, kind, err = n.apply(ctx, entry(term))
			return kind == outcomeRefused && passing(err), err
		},
		there: func(_ context.Context, to peerTarget) (again bool, err error) {
			return false, &NotLeaderError{Leader{NodeID: to.ID, URL: n.urlOf(to.ID)}}
		},
	})
	return applied, kind, err
}

// maxEnqueue is how long raft's main loop may take to accept an entry. It accepts
// between two fsyncs.
const maxEnqueue = 10 * time.Second

type answer struct {
	applied Applied
	err     error
}

// apply proposes one entry, leading or not. A refused one comes with raft's error.
//
// raft's futures know no context, must not be asked twice at once, and may stay
// open for ever: one goroutine owns each, everybody else waits beside it.
func (n *Node) apply(ctx context.Context, entry []byte) (Applied, outcome, error) {
	if err := n.machine.Check(entry); err != nil {
		return Applied{}, outcomeRefused, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	select {
	case n.slots <- struct{}{}:
	case <-ctx.Done():
		return Applied{}, outcomeRefused, context.Cause(ctx)
	case <-n.gone:
		return Applied{}, outcomeRefused, ErrStopped
	case <-n.broken:
		return Applied{}, outcomeRefused, n.failed()
	}
	timeout := maxEnqueue
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(deadline), time.Millisecond)) // raft takes 0 for no limit
	}
	answers := make(chan answer, 1)
	if !n.futures.enter() {
		<-n.slots
		return Applied{}, outcomeRefused, ErrStopped
	}
	go func() {
		defer n.futures.leave()
		defer func() { <-n.slots }()
		f := n.raft.Apply(entry, timeout)
		a := answer{err: f.Error()}
		a.applied.Index = f.Index()
		if a.err == nil {
			a.applied.Result = f.Response()
		}
		answers <- a
	}()
	var a answer
	select {
	case a = <-answers:
	case <-ctx.Done():
		select {
		case a = <-answers:
		default:
			return Applied{}, outcomeUnknown, unknown(context.Cause(ctx))
		}
	case <-n.gone:
		return Applied{}, outcomeUnknown, unknown(ErrStopped)
	case <-n.broken: // who waits for a dead disk holds up the end of the process
		return Applied{}, outcomeUnknown, unknown(n.failed())
	}
	n.watchTransfer(a.err)
	return n.judge(a)
}

// judge says what raft's answer proves and puts it into our words.
func (n *Node) judge(a answer) (Applied, outcome, error) {
	switch kind := classify(a.err, a.applied.Index); {
	case kind == outcomeUnknown:
		return Applied{}, kind, unknown(a.err)
	case kind == outcomeApplied:
		if refused := refusal(a.applied.Result); refused != nil {
			// Committed, but the state machine of this replica has stopped before it.
			return Applied{}, outcomeUnknown, unknown(refused)
		}
		return a.applied, kind, nil
	case errors.Is(a.err, raft.ErrEnqueueTimeout):
		return Applied{}, kind, ErrBusy
	case errors.Is(a.err, raft.ErrRaftShutdown):
		return Applied{}, kind, ErrStopped
	default:
		return Applied{}, kind, a.err
	}
}

// refusal is why the state machine has not applied an entry, nil when it has. Any
// other error among its results is a verdict on one that it has applied.
func refusal(result any) error {
	var refused *fsm.RefusedError
	if err, ok := result.(error); ok && errors.As(err, &refused) {
		return refused
	}
	return nil
}

// outcome is what is known of a proposal.
type outcome uint8

const (
	outcomeApplied outcome = iota // committed and applied here
	outcomeRefused                // not in the log, and never will be
	outcomeUnknown                // may be committed, now or later
)

func (o outcome) String() string { return [...]string{"applied", "refused", "unknown"}[o] }

// classify says what raft's answer proves (I3). An entry that never got a position
// was not proposed, and only four errors are ever given to such a one; all else may
// commit under the next leader, or after a restart.
func classify(err error, index uint64) outcome {
	if err == nil {
		return outcomeApplied
	}
	if index == 0 {
		for _, before := range []error{raft.ErrNotLeader, raft.ErrLeadershipTransferInProgress, raft.ErrEnqueueTimeout, raft.ErrRaftShutdown} {
			if errors.Is(err, before) {
				return outcomeRefused
			}
		}
	}
	return outcomeUnknown
}

// passing reports whether a refusal is worth waiting for its end.
func passing(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress)
}
