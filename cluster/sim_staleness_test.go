package cluster

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// What replicas say of the age of their state is true, whoever takes itself for the leader:
// links fail in one direction each, some are slow, and leaders hang in the middle of a
// write, so that raft does not get to the lease while another leads and commits.
//
// One seed again: go test -run TestSim_StalenessIsTrue ./cluster -sim.seed 7
func TestSim_StalenessIsTrue(t *testing.T) {
	first, last := simSeeds(min(*simRuns, 4))
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { stalenessIsTrue(t, seed, *simCycles/4) })
		})
	}
}

func stalenessIsTrue(t *testing.T, seed uint64, cycles int) {
	replicas := 3 + 2*int(seed%2)
	c := startSim(t, simOptions{seed: seed, replicas: replicas, delay: time.Millisecond})
	c.load.pace = 2
	c.mustLead()

	// Everybody is asked every 4 ms, which no client does.
	stopping, deposed := make(chan struct{}), 0
	asking := make(chan struct{})
	go func() {
		defer close(asking)
		reader := &simReader{c: c}
		for {
			select {
			case <-stopping:
				return
			case <-time.After(4 * time.Millisecond):
			}
			leader := c.leader()
			for _, l := range c.up() {
				reader.read(l, Read{}, time.Second)
				if l != leader && l.IsLeader() && l.staleness() != StalenessUnknown {
					deposed++
				}
			}
		}
	}()

	for cycle := range cycles {
		c.load.start()
		leader := c.leaderOr()
		mute := cycle%2 == 0 // and holds on to its leadership
		release := func() {}
		if mute || c.rand.IntN(3) > 0 {
			release = leader.disk.hang()
		}
		for _, a := range c.all() {
			for _, b := range c.others(a.id) {
				switch n := c.rand.IntN(10); {
				case a == leader && (mute || n < 6), n < 2 && !mute: // it is heard by few, and hears most
					c.net.Cut(a.id, b)
				case n < 4:
					d := c.upTo(150 * time.Millisecond)
					c.net.Delay(a.id, b, d, d/2)
				}
			}
		}
		c.wait(500*time.Millisecond + c.upTo(2*time.Second))
		if c.rand.IntN(2) == 0 {
			release()
			release = func() {}
			c.wait(c.upTo(300 * time.Millisecond))
		}
		c.heal()
		c.wait(c.upTo(100 * time.Millisecond))
		release()
		c.load.stop()
		c.settle()
		if t.Failed() {
			t.Fatalf("seed %d, cycle %d\n%s", seed, cycle, c.state())
		}
	}
	close(stopping)
	<-asking
	n := c.h.seen()
	t.Logf("seed %d: %d replicas, %d times somebody led no more and did not know, %+v", seed, replicas, deposed, n)
	if n.terms < cycles/4 || n.staleKnown < 100*cycles || deposed < cycles {
		t.Error("too little has happened for this run to mean anything")
	}
}
