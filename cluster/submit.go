package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
)

const pathPropose = "/cluster/propose"

// submitTimeout bounds one attempt at the leader; then the outcome is unknown. A
// store that takes longer is dead (Options.StoreTimeout).
const submitTimeout = 15 * time.Second

// Submit is Propose on any replica: here when this one leads, else at the leader, over
// the peer port. From afar only worker batches are taken: they carry session and
// number, and so may be tried again (ErrUnknownOutcome) at this or the next leader
// without being applied twice. Errors are those of Propose, never ErrNotLeader.
//
// It returns when the entry is applied where it was proposed; here that may be some
// milliseconds later.
//
// Ownership: as Propose.
func (n *Node) Submit(ctx context.Context, entry []byte) (Applied, error) {
	if err := n.checkSize(entry); err != nil {
		return Applied{}, err
	}
	if err := n.enter(); err != nil {
		return Applied{}, err
	}
	defer n.calls.leave()
	var applied Applied
	err := n.atLeader(ctx, leaderCall{
		here: func(ctx context.Context, _ uint64) (again bool, err error) {
			applied, err = n.propose(ctx, func(uint64) []byte { return entry })
			return errors.Is(err, ErrNotLeader), err
		},
		there: func(ctx context.Context, to peerTarget) (again bool, err error) {
			start := time.Now()
			var kind outcome
			applied, kind, again, err = n.submitTo(ctx, to, entry)
			n.forwards.count(kind, time.Since(start))
			return again, err
		},
	})
	return applied, err
}

func (n *Node) checkSize(entry []byte) error {
	if len(entry) > n.opts.MaxEntry {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, len(entry), n.opts.MaxEntry)
	}
	return nil
}

// submitTo proposes at another replica.
func (n *Node) submitTo(ctx context.Context, to peerTarget, entry []byte) (_ Applied, _ outcome, again bool, err error) {
	ctx, release := n.whileLeading(ctx, to)
	defer release()
	ctx, cancel := context.WithTimeoutCause(ctx, submitTimeout, fmt.Errorf("no answer within %v: %w", submitTimeout, context.DeadlineExceeded))
	defer cancel()
	b, err := n.callPeer(ctx, to, pathPropose, entry)
	if err == nil {
		a, err := decodeApplied(b)
		if err != nil {
			return Applied{}, outcomeUnknown, false, unknown(fmt.Errorf("answer of %v: %w", to, err))
		}
		return a, outcomeApplied, false, nil
	}
	again, known := refusedThere(err)
	if !known {
		return Applied{}, outcomeUnknown, false, unknown(err)
	}
	return Applied{}, outcomeRefused, again, err
}

// refusedThere reports whether an error of a call to the leader proves that it did not
// do what it was asked (known), and if so whether that is for the sake of who leads, or
// of the connection (again).
func refusedThere(err error) (again, known bool) {
	if errors.Is(err, ErrUnknownOutcome) {
		return false, false
	}
	var e *PeerError
	if !errors.As(err, &e) {
		unsent := errors.Is(err, ErrUnreachable)
		return unsent, unsent
	}
	switch e.Code {
	case codeStopping, codeDeadline: // a context's error alone: see propose
		return true, true
	case codeCluster: // on a connection from before this node was in the cluster, which is closed; or the leader is back without its disk, and another will lead
		return true, true
	case codeNoPath, codeMethod, codeBodyLimit, codeBody:
		return false, true
	}
	for _, sentinel := range []error{ErrNotLeader, ErrNoLeader} {
		if errors.Is(err, sentinel) {
			return true, true
		}
	}
	for _, sentinel := range []error{ErrTooLarge, ErrInvalid, ErrBusy} {
		if errors.Is(err, sentinel) {
			return false, true
		}
	}
	return false, false
}

// servePropose proposes a worker batch for another replica.
func (n *Node) servePropose(ctx context.Context, from Identity, entry []byte) ([]byte, error) {
	if len(entry) == 0 || fsm.Type(entry[0]) != fsm.TypeWorkerBatch {
		// Nothing else bears being proposed twice.
		return nil, fmt.Errorf("%w: node %q may have worker batches proposed, nothing else", ErrInvalid, from.NodeID)
	}
	a, err := n.propose(ctx, func(uint64) []byte { return entry })
	if err != nil {
		return nil, err
	}
	b, err := encodeApplied(a)
	if err != nil {
		return nil, unknown(err)
	}
	return b, nil
}

// An answer to a proposal is the index, 8 bytes big endian, and the result as fsm
// writes it.
func encodeApplied(a Applied) ([]byte, error) {
	return fsm.AppendResult(binary.BigEndian.AppendUint64(nil, a.Index), a.Result)
}

func decodeApplied(b []byte) (Applied, error) {
	if len(b) < 8 {
		return Applied{}, fmt.Errorf("%d bytes, want an index and a result", len(b))
	}
	result, err := fsm.DecodeResult(b[8:])
	return Applied{Index: binary.BigEndian.Uint64(b), Result: result}, err
}
