package cluster

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A replica that was away is sent entries as soon as it is back, however long it was
// away: raft alone waits for up to ten seconds more.
func TestSim_BackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1, delay: time.Millisecond})
		for _, away := range []time.Duration{time.Second, 12 * time.Second, 40 * time.Second} {
			leader, follower := c.mustLead(), c.followers()[0]
			follower.replica.crash()
			c.mark() // something to catch up with
			c.wait(away)
			begin := time.Now()
			follower.replica.start()
			back := follower.replica.now()
			await(t, "caught up", isTrue("still behind", func() bool { return back.machine.Applied() >= leader.machine.Applied() }))
			if took := time.Since(begin); took > 1500*time.Millisecond {
				t.Errorf("after %v away it took %v to catch up", away, took)
			}
			c.settle()
		}
	})
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatience()
		returned := func(id raft.ServerID) <-chan error {
			ch := make(chan error, 1)
			go func() { ch <- p.await(id) }()
			synctest.Wait()
			return ch
		}
		if err := <-returned("a"); err != nil {
			t.Errorf("of a peer that nothing is known of: %v", err)
		}
		p.note("a", errors.New("connection refused"))
		p.note("a", errors.New("connection refused"))
		first, second := returned("a"), returned("a")
		select {
		case <-first:
			t.Fatal("it did not wait for a silent peer")
		default:
		}
		p.note("b", nil)
		p.note("a", nil)
		for _, ch := range []<-chan error{first, second} {
			if err := <-ch; err != nil {
				t.Error(err)
			}
		}

		p.note("a", errors.New("connection refused"))
		begin := time.Now()
		if err := p.await("a"); err != nil || time.Since(begin) != maxPatience {
			t.Errorf("a peer that stays silent: %v after %v, want none after %v", err, time.Since(begin), maxPatience)
		}
		last := returned("a")
		p.end()
		p.end()
		if err := <-last; !errors.Is(err, raft.ErrTransportShutdown) {
			t.Errorf("at the end: %v", err)
		}
	})
}
