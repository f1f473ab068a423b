package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

const pathReadIndex = "/cluster/read-index"

// barrier returns when everything that was committed before the call is applied
// here (I5). At the leader all callers that come while one no-op is under way ride the
// next one; so do, at a follower, all that come while it asks the leader.
func (n *Node) barrier(ctx context.Context) error {
	var index uint64
	err := n.atLeader(ctx, leaderCall{
		here: func(ctx context.Context, _ uint64) (again bool, err error) {
			index, err = n.ride(ctx, &n.noop, n.proposeNoop)
			return rideAgain(ctx, err), err
		},
		there: func(ctx context.Context, _ peerTarget) (again bool, err error) {
			index, err = n.ride(ctx, &n.asks, n.askReadIndex)
			return rideAgain(ctx, err), err
		},
	})
	if err == nil {
		if err = n.machine.WaitApplied(ctx, index); err == nil {
			return nil
		}
		err = fmt.Errorf("applied index %d, committed %d: %w", n.machine.Applied(), index, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: what is committed was not learned or not applied in time: %w", ErrStale, err)
	}
	return err
}

// rideAgain reports whether a round that failed is worth another. It changes nothing,
// so it does not matter what became of it.
func rideAgain(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() == nil && !errors.Is(err, ErrStopped)
}

// roundTimeout bounds one round, so that riders of the next do not wait for ever.
const roundTimeout = 10 * time.Second

func roundContext() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), roundTimeout,
		fmt.Errorf("nothing was learned of the commit index for %v: %w", roundTimeout, context.DeadlineExceeded))
}

// proposeNoop commits an entry that changes nothing. It works at the leader.
func (n *Node) proposeNoop() (uint64, error) {
	ctx, cancel := roundContext()
	defer cancel()
	applied, err := n.propose(ctx, n.entries.noop)
	return applied.Index, err
}

// askReadIndex asks the leader, which rides a no-op of its own.
func (n *Node) askReadIndex() (uint64, error) {
	ctx, cancel := roundContext()
	defer cancel()
	to, err := n.leaderTarget()
	if err != nil {
		return 0, err
	}
	ctx, release := n.whileLeading(ctx, to)
	defer release()
	b, err := n.callPeer(ctx, to, pathReadIndex, nil)
	if err == nil && len(b) != 8 {
		err = fmt.Errorf("answer of %v: %d bytes, want an index", to, len(b))
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// serveReadIndex gives a follower the index of an entry that was committed after it
// asked: 8 bytes, big endian. Who does not lead does not ask further.
func (n *Node) serveReadIndex(ctx context.Context, _ Identity, _ []byte) ([]byte, error) {
	if s, _ := n.view.get(); !s.leading {
		return nil, n.notLeading()
	}
	index, err := n.ride(ctx, &n.noop, n.proposeNoop)
	if err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint64(nil, index), nil
}

// ride takes a seat in the next round and waits for its index.
func (n *Node) ride(ctx context.Context, s *sharedRounds, learn func() (uint64, error)) (uint64, error) {
	if !n.futures.enter() {
		return 0, ErrStopped
	}
	round, lead := s.join()
	if lead {
		// Owner: Node, among the futures; ends when nobody waits any more.
		go func() {
			defer n.futures.leave()
			s.run(learn)
		}()
	} else {
		n.futures.leave()
	}
	select {
	case <-round.done:
		return round.index, round.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// sharedRounds gathers readers behind one question at a time. Any goroutine.
type sharedRounds struct {
	mu      sync.Mutex
	next    *round // not yet begun
	running bool
}

// round is one question and who waits for its answer. index and err are set before
// done closes.
type round struct {
	done  chan struct{}
	index uint64
	err   error
}

// join takes a seat in the next round. lead is true for the caller that must see
// to it that run is called.
func (s *sharedRounds) join() (r *round, lead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &round{done: make(chan struct{})}
	}
	lead, s.running = !s.running, true
	return s.next, lead
}

// run goes round until nobody waits. A round begins after the last rider has joined,
// so the index is learned after every rider's read began.
func (s *sharedRounds) run(learn func() (uint64, error)) {
	for {
		s.mu.Lock()
		r := s.next
		s.next = nil
		s.running = r != nil
		s.mu.Unlock()
		if r == nil {
			return
		}
		r.index, r.err = learn()
		close(r.done)
	}
}
