package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
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
// Errors: ErrNotLeader (this replica cannot tell, the leader can), ErrNoLeader,
// ErrStale together with ctx's error when the time ran out, ErrStopped.
func (n *Node) Read(ctx context.Context, r Read) (Freshness, error) {
	if !n.calls.enter() { // a failed disk does not spoil the state in memory
		return Freshness{}, ErrStopped
	}
	defer n.calls.leave()

	var zeroStaleness bool
	switch r.Consistency {
	case Bounded:
		proven, err := n.waitFresh(ctx, r.MaxStaleness)
		if err != nil {
			return Freshness{}, err
		}
		zeroStaleness = proven
	case Linearizable:
		if err := n.barrier(ctx); err != nil {
			return Freshness{}, err
		}
		zeroStaleness = true
	}
	if r.MinIndex > n.machine.Applied() {
		if err := n.machine.WaitApplied(ctx, r.MinIndex); err != nil {
			return Freshness{}, fmt.Errorf("%w: applied index %d, asked for %d: %w", ErrStale, n.machine.Applied(), r.MinIndex, err)
		}
	}
	f := Freshness{Index: n.machine.Applied()}
	if !zeroStaleness {
		f.Staleness = n.staleness()
	}
	return f, nil
}

// waitFresh waits until the state is within the bound. A bound that leadership
// alone cannot vouch for is met by a barrier, which proves it (proven).
func (n *Node) waitFresh(ctx context.Context, bound time.Duration) (proven bool, err error) {
	for {
		if n.staleness() <= bound {
			return false, nil
		}
		s, changed := n.view.get()
		switch {
		case s.leading:
			return true, n.barrier(ctx)
		case s.leader != "" && s.leader != n.id:
			return false, &NotLeaderError{Leader{NodeID: s.leader, URL: n.urlOf(s.leader)}}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false, fmt.Errorf("%w: nobody leads, the bound was %v: %w", ErrStale, bound, context.Cause(ctx))
		case <-n.stopping:
			return false, ErrStopped
		}
	}
}

// barrier returns when everything that was committed before the call is applied
// here (I5). All callers that come while one no-op is under way ride the next one.
func (n *Node) barrier(ctx context.Context) error {
	if !n.futures.enter() {
		return ErrStopped
	}
	round, lead := n.noop.join()
	if lead {
		// Owner: Node, among the futures; ends when nobody waits any more.
		go func() {
			defer n.futures.leave()
			n.noop.run(n.proposeNoop)
		}()
	} else {
		n.futures.leave()
	}
	select {
	case <-round.done:
	case <-ctx.Done():
		return fmt.Errorf("%w: no entry was committed in time: %w", ErrStale, context.Cause(ctx))
	}
	if round.err != nil {
		return round.err
	}
	if err := n.machine.WaitApplied(ctx, round.index); err != nil {
		return fmt.Errorf("%w: applied index %d, committed %d: %w", ErrStale, n.machine.Applied(), round.index, err)
	}
	return nil
}

// noopTimeout bounds one no-op, so that riders of the next do not wait for ever.
const noopTimeout = 10 * time.Second

func (n *Node) proposeNoop() (uint64, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), noopTimeout,
		fmt.Errorf("no entry was committed for %v: %w", noopTimeout, context.DeadlineExceeded))
	defer cancel()
	applied, err := n.propose(ctx, n.entries.noop)
	if errors.Is(err, ErrUnknownOutcome) {
		// It changes nothing, so nobody need know whether it will commit.
		err = fmt.Errorf("%w: %w", ErrNoLeader, err)
	}
	return applied.Index, err
}

// sharedNoop gathers readers behind one no-op at a time. Any goroutine.
type sharedNoop struct {
	mu      sync.Mutex
	next    *round // not yet proposed
	running bool
}

// round is one no-op and who rides it. index and err are set before done closes.
type round struct {
	done  chan struct{}
	index uint64
	err   error
}

// join takes a seat in the next round. lead is true for the caller that must see
// to it that run is called.
func (s *sharedNoop) join() (r *round, lead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &round{done: make(chan struct{})}
	}
	lead, s.running = !s.running, true
	return s.next, lead
}

// run proposes rounds until nobody waits. A round begins after the last rider has
// joined, so its entry is committed after every rider's read began.
func (s *sharedNoop) run(propose func() (uint64, error)) {
	for {
		s.mu.Lock()
		r := s.next
		s.next = nil
		s.running = r != nil
		s.mu.Unlock()
		if r == nil {
			return
		}
		r.index, r.err = propose()
		close(r.done)
	}
}
