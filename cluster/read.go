package cluster

import (
	"context"
	"fmt"
	"math"
	"time"
)

// Consistency is how fresh the state must be before it is asked.
type Consistency uint8

const (
	// Stale asks for nothing: what this replica has.
	Stale Consistency = iota
	// Bounded asks for a state no older than MaxStaleness.
	Bounded
	// Linearizable asks for everything that was committed when the read began.
	Linearizable
)

// Read says what a read of the state wants.
type Read struct {
	Consistency  Consistency
	MaxStaleness time.Duration // with Bounded
	MinIndex     uint64        // the state must have applied this index: read your writes
}

// Freshness says how fresh the state is that can be asked now.
type Freshness struct {
	Index uint64 // applied; the state is at least this
	// Staleness is an upper bound: everything committed longer ago is in the state.
	// StalenessUnknown when nothing is known.
	Staleness time.Duration
}

// StalenessUnknown is the staleness of a replica that has not heard what the
// cluster has committed.
const StalenessUnknown = time.Duration(math.MaxInt64)

// Read waits until this replica's state is as fresh as asked and says how fresh it
// is; the caller then asks the state. Without conditions it never waits and works
// without a leader.
//
// A follower asks the leader what is committed, over the peer port, and waits for its
// own state to have it.
//
// Errors: ErrNoLeader, ErrStale together with ctx's error when the time ran out,
// ErrStopped.
func (n *Node) Read(ctx context.Context, r Read) (Freshness, error) {
	if !n.calls.enter() { // a failed disk does not spoil the state in memory
		return Freshness{}, ErrStopped
	}
	defer n.calls.leave()

	if r.Consistency == Linearizable {
		if err := n.barrier(ctx); err != nil {
			return Freshness{}, err
		}
	}
	if r.MinIndex > n.machine.Applied() {
		if err := n.machine.WaitApplied(ctx, r.MinIndex); err != nil {
			return Freshness{}, fmt.Errorf("%w: applied index %d, asked for %d: %w", ErrStale, n.machine.Applied(), r.MinIndex, err)
		}
	}
	var f Freshness
	switch r.Consistency {
	case Stale:
		f.Staleness = n.staleness()
	case Bounded: // last, so that no wait makes it older than it was judged to be
		var err error
		if f.Staleness, err = n.waitFresh(ctx, r.MaxStaleness); err != nil {
			return Freshness{}, err
		}
	}
	f.Index = n.machine.Applied()
	return f, nil
}

// waitFresh waits until the state is within the bound and says how old it may be. A bound
// that the note of the leader's commit index cannot vouch for is met by a barrier, which
// proves it.
func (n *Node) waitFresh(ctx context.Context, bound time.Duration) (time.Duration, error) {
	for {
		if old := n.staleness(); old <= bound {
			return old, nil
		}
		s, changed := n.view.get()
		if s.leading || s.leader != "" && s.leader != n.id {
			return 0, n.barrier(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: nobody leads, the bound was %v: %w", ErrStale, bound, context.Cause(ctx))
		case <-n.stopping:
			return 0, ErrStopped
		}
	}
}
