package cluster

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// latencies proposes at the leader, a few at a time, and gives how long each took
// to be applied there, in order of size.
func (c *simCluster) latencies(proposals int) []time.Duration {
	c.t.Helper()
	leader := c.mustLead()
	const atATime = 4
	took := make(chan time.Duration, proposals)
	for range proposals / atATime {
		var done []chan struct{}
		for range atATime {
			d := make(chan struct{})
			done = append(done, d)
			go func() {
				defer close(d)
				begin := time.Now()
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				if _, err := leader.Propose(ctx, fsm.EncodeLease(registry.Lease{At: now()})); err != nil {
					c.t.Errorf("propose: %v", err)
				}
				took <- time.Since(begin)
			}()
		}
		for _, d := range done {
			<-d
		}
		c.wait(5 * time.Millisecond)
	}
	close(took)
	var all []time.Duration
	for d := range took {
		all = append(all, d)
	}
	slices.Sort(all)
	return all
}

// wantLatencies compares with what a whole cluster needs.
func wantLatencies(t *testing.T, what string, got, whole []time.Duration) {
	t.Helper()
	p50, p99 := got[len(got)/2], got[len(got)*99/100]
	w50, w99 := whole[len(whole)/2], whole[len(whole)*99/100]
	t.Logf("%s: p50 %v, p99 %v; with all in order %v, %v", what, p50, p99, w50, w99)
	// One of two followers is left to make up the majority: the faster of the two is not
	// to be had any more.
	if limit := w50 + 3*time.Millisecond; p50 > limit {
		t.Errorf("%s: half of the proposals took %v and more, with all in order %v", what, p50, w50)
	}
	if limit := 2*w99 + 5*time.Millisecond; p99 > limit {
		t.Errorf("%s: a hundredth of the proposals took %v and more, with all in order %v", what, p99, w99)
	}
}

// A follower that is far away, or whose disk is slow, slows nobody but itself.
func TestSim_SlowFollowerSlowsNobody(t *testing.T) {
	for _, tc := range []struct {
		name string
		slow func(c *simCluster, leader, follower string)
	}{
		{"far from the leader", func(c *simCluster, leader, f string) {
			c.net.Delay(leader, f, 150*time.Millisecond, 20*time.Millisecond)
			c.net.Delay(f, leader, 150*time.Millisecond, 20*time.Millisecond)
		}},
		{"far from everybody", func(c *simCluster, _, f string) {
			for _, other := range c.others(f) {
				c.net.Delay(other, f, 100*time.Millisecond, 0)
				c.net.Delay(f, other, 100*time.Millisecond, 0)
			}
		}},
		{"slow disk", func(c *simCluster, _, f string) { c.replica(f).disk.slow(200 * time.Millisecond) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := startSim(t, simOptions{seed: 1, delay: time.Millisecond})
				whole := c.latencies(400)
				leader, follower := c.mustLead(), c.followers()[0]
				term := leader.Term()
				tc.slow(c, leader.NodeID(), follower.NodeID())
				c.load.start()
				slow := c.latencies(400)
				c.load.stop()
				wantLatencies(t, tc.name, slow, whole)
				if now := c.mustLead(); now.Term() != term {
					t.Errorf("term %d, it was %d", now.Term(), term)
				}
				c.wait(3 * time.Second)
				if lag := leader.machine.Applied() - follower.machine.Applied(); lag > 100 {
					t.Errorf("the slow one is %d entries behind when all is quiet", lag)
				}
				c.setDelay(time.Millisecond)
				c.settle()
			})
		})
	}
}

// A follower whose disk hangs slows nobody, and says so and ends; with its disk
// whole again it comes back.
func TestSim_HangingFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1, delay: time.Millisecond})
		whole := c.latencies(400)
		leader, follower := c.mustLead(), c.followers()[0]
		r, term := follower.replica, leader.Term()
		told := r.expectFatal()
		release := r.disk.hang()
		begin := time.Now()
		wantLatencies(t, "a hanging disk", c.latencies(400), whole)
		wantStoreFault(t, <-told)
		if took := time.Since(begin); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("noticed after %v, the limit is 10s", took)
		}
		if now := c.mustLead(); now.Term() != term {
			t.Errorf("term %d, it was %d", now.Term(), term)
		}
		c.endHanging(r, release)
		r.start()
		l := r.now()
		await(t, "ready", l.Ready)
		c.settle()
	})
}

// A leader whose disk hangs holds the others up until it notices (its heartbeats go
// on), and then ends: what was acknowledged is with the others, who go on.
func TestSim_HangingLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1, delay: time.Millisecond, events: true})
		r := c.mustLead().replica
		c.load.start()
		c.wait(time.Second)
		longest := c.h.watchGap()
		told := r.expectFatal()
		release := r.disk.hang()
		wantStoreFault(t, <-told)
		c.endHanging(r, release)
		c.wait(3 * time.Second)
		c.load.stop()
		c.settle()
		c.load.verify(c.mustLead())
		if d := longest(); d > 13*time.Second {
			t.Errorf("%v without an acknowledgement; it takes 10s to notice, and an election", d)
		}
		r.start()
		l := r.now()
		await(t, "ready", l.Ready)
		c.settle()
		c.load.verify(c.mustLead())
	})
}

// expectFatal makes OnFatal of this replica no failure of the test.
func (r *simReplica) expectFatal() <-chan error {
	told := make(chan error, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fatal = func(err error) { told <- err }
	return told
}

func wantStoreFault(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrStore) {
		t.Errorf("OnFatal was told %v, want a fault of the store", err)
	}
}

// endHanging ends a replica whose disk hangs, as kvctrld does after OnFatal: Close,
// which must not wait for the disk, and the end of the process.
func (c *simCluster) endHanging(r *simReplica, release func()) {
	c.t.Helper()
	l, begin := r.end(), time.Now()
	if err := l.Close(context.Background()); err == nil {
		c.t.Errorf("%s: Close says nothing of a disk that hangs", r.id)
	}
	if took := time.Since(begin); took > 2*time.Second {
		c.t.Errorf("%s: Close took %v with a hanging disk", r.id, took)
	}
	r.host.Down()
	r.disk.crash()
	close(l.dead)
	release() // the process is gone, its calls with it
}

func (c *simCluster) replica(id string) *simReplica {
	for _, r := range c.all() {
		if r.id == id {
			return r
		}
	}
	c.t.Fatalf("no replica %q", id)
	return nil
}
