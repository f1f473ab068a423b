package cluster

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Readers at a follower share questions to the leader, and the leader's no-ops.
func TestRead_FollowersShareRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 6, delay: time.Millisecond})
		leader, follower := c.mustLead(), c.followers()[0]
		await(t, "ready", follower.Ready)
		asked, applied := leader.Counters().PeerRequests, leader.Counters().Applied
		begin := time.Now()
		var wg sync.WaitGroup
		for range 200 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if f, err := follower.Read(context.Background(), Read{Consistency: Linearizable}); err != nil || f.Staleness != 0 {
					t.Errorf("%+v, %v", f, err)
				}
			}()
		}
		wg.Wait()
		polls := 2 * uint64(1+time.Since(begin)/freshTick)
		if got := leader.Counters().PeerRequests - asked; got > 3+polls {
			t.Errorf("%d requests for 200 readers, want at most 3 and at most %d polls", got, polls)
		}
		if got := leader.Counters().Applied - applied; got > 3 {
			t.Errorf("%d entries for 200 readers, want at most 3", got)
		}
	})
}

// A linearizable read at a follower goes on at the next leader; without one it says so.
func TestRead_FollowerWhoseLeaderGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 7, delay: time.Millisecond})
		leader, follower := c.mustLead(), c.followers()[0]
		await(t, "ready", follower.Ready)
		c.isolate(leader.NodeID())
		begin := time.Now()
		if _, err := follower.Read(context.Background(), Read{Consistency: Linearizable}); err != nil || time.Since(begin) > 3*time.Second {
			t.Errorf("the leader is cut off: %v after %v, want the next one to answer", err, time.Since(begin))
		}
		// The one that is cut off knows nothing and does not say otherwise.
		if _, err := leader.Read(context.Background(), Read{Consistency: Linearizable}); !errors.Is(err, ErrNoLeader) {
			t.Errorf("at the one that is cut off: %v", err)
		}
		if f, err := leader.Read(context.Background(), Read{}); err != nil || f.Staleness < time.Since(begin) {
			t.Errorf("at the one that is cut off: %+v, %v, %v after the cut", f, err, time.Since(begin))
		}
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := leader.Read(short, Read{Consistency: Bounded, MaxStaleness: 500 * time.Millisecond}); !errors.Is(err, ErrStale) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("bounded, at the one that is cut off: %v", err)
		}
		c.heal()
		c.settle()
		if _, err := leader.Read(context.Background(), Read{Consistency: Bounded, MaxStaleness: 500 * time.Millisecond}); err != nil {
			t.Errorf("bounded, after it is back: %v", err)
		}
	})
}

// Who does not lead does not say what is committed.
func TestServeCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 8})
		leader, follower := c.mustLead(), c.followers()[0]
		ask := func(l *simLife) error {
			from := c.followers()[1]
			if from == l {
				from = c.followers()[0]
			}
			_, err := from.callPeer(context.Background(), peerTarget{l.NodeID(), l.PeerAddr()}, pathCommit, []byte(`{"applied":7}`))
			return err
		}
		c.wait(time.Second)
		if err := ask(leader); err != nil {
			t.Errorf("the leader: %v", err)
		}
		var e *PeerError
		if err := ask(follower); !errors.Is(err, ErrNotLeader) || !errors.As(err, &e) || e.Status != http.StatusMisdirectedRequest {
			t.Errorf("a follower: %v", err)
		}
	})
}

// slowToTell is a state machine whose waiters learn of an index long after it is applied.
type slowToTell struct {
	StateMachine
	late time.Duration
}

func (s slowToTell) WaitApplied(ctx context.Context, index uint64) error {
	err := s.StateMachine.WaitApplied(ctx, index)
	<-time.After(s.late)
	return err
}

// A read with a bound and a least index waits for the index. The bound holds for the
// answer, not for the moment of the question.
func TestRead_BoundHoldsAfterTheWaitForAnIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bound, late = 600 * time.Millisecond, 5 * time.Second
		c := startSim(t, simOptions{seed: 1, delay: time.Millisecond, tune: func(o *Options) { o.FSM = slowToTell{o.FSM, late} }})
		await(t, "a leader that has begun", isTrue("its term has not begun", func() bool { return c.leader() != nil && c.leader().Ready() == nil }))
		follower := c.followers()[0]
		await(t, "a fresh follower", follower.Ready)
		index := follower.machine.Applied() + 1
		go func() { // ends before late is over
			<-time.After(time.Second)
			c.mark()
			<-time.After(time.Second)
			c.isolate(follower.NodeID())
		}()
		ctx, cancel := context.WithTimeout(context.Background(), 7*time.Second)
		defer cancel()
		f, err := follower.Read(ctx, Read{Consistency: Bounded, MaxStaleness: bound, MinIndex: index})
		if !errors.Is(err, ErrStale) {
			t.Errorf("read of a replica that is cut off, with bound %v: %+v, %v", bound, f, err)
		}
	})
}
