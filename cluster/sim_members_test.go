package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// newForming lays out n1 to nN that are told of each other and have empty disks.
func newForming(t *testing.T, o simOptions) *simCluster {
	c := newSim(t, o)
	var names []string
	for i := range o.replicas {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	for _, name := range names {
		r := c.add(name)
		r.join, r.expect = names, o.replicas
	}
	c.setDelay(o.delay)
	return c
}

// voters gives the members as the leader sees them and how many of them vote.
func (c *simCluster) voters() (members, voters int) {
	for _, s := range c.mustLead().configuration().Servers {
		members++
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	return members, voters
}

// wantOneCluster wants every replica that is up to be a voter of one cluster, ready,
// and its disk to say so.
func (c *simCluster) wantOneCluster(voters int) {
	c.t.Helper()
	awaitLong(c.t, "one cluster of all", func() error { return c.together(voters) })
	id := c.mustLead().Identity().ClusterID
	for _, l := range c.up() {
		if got := l.replica.disk.file(clusterIDFile); got != id {
			c.t.Errorf("%s has written down cluster %q, the leader's is %q", l.NodeID(), got, id)
		}
	}
}

// awaitLong is await for what takes more than seconds of virtual time.
func awaitLong(t testing.TB, what string, ok func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		if err = ok(); err == nil {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("%s: %v", what, err)
}

// Empty replicas that are started in any order, late, and crash, while links fail in
// any direction: they found one cluster, once, and it works.
func TestSim_Forming(t *testing.T) {
	first, last := simSeeds(*simRuns / 2)
	for seed := first; seed <= last; seed++ {
		replicas := 3
		if seed%5 == 0 {
			replicas = 5
		}
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newForming(t, simOptions{seed: seed, replicas: replicas, delay: time.Millisecond, events: true})
				c.load.pace = 4
				all := c.all()
				for range 4 + c.rand.IntN(12) {
					r := c.pick()
					switch c.rand.IntN(6) {
					case 0, 1, 2:
						if r.now() == nil {
							r.start()
						}
					case 3:
						r.crash()
					case 4:
						a, b := c.pickPair()
						c.net.Cut(a.id, b.id)
					case 5:
						c.net.HealAll()
					}
					c.wait(c.upTo(1500 * time.Millisecond))
				}
				c.heal()
				c.wantOneCluster(len(all))
				c.load.start()
				c.wait(time.Second)
				c.load.stop()
				c.settle()
				c.load.verify(c.mustLead())

				// All at once again: nobody forms a second one.
				id := c.mustLead().Identity().ClusterID
				for _, r := range all {
					r.crash()
				}
				c.heal()
				c.wantOneCluster(len(all))
				if now := c.mustLead().Identity().ClusterID; now != id {
					t.Errorf("cluster %q after a restart of all, it was %q", now, id)
				}
				c.settle()
				c.load.verify(c.mustLead())
			})
		})
	}
}

// An empty replica joins a cluster under load, becomes a voter when it has caught up,
// and has the state of the others; one that leaves is gone, says so, and may come back
// empty; one that lost its disk is replaced by itself. Nobody waits for any of it.
func TestSim_JoinAndLeaveUnderLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1, delay: time.Millisecond, events: true})
		c.mustLead()
		c.load.start()
		c.wait(5 * time.Second) // the log has been cut: who comes is sent a snapshot
		longest := c.h.watchGap()
		restores := c.h.seen().restores

		newcomer := c.add("n4")
		newcomer.join, newcomer.expect = c.others("n4"), 1
		c.setDelay(c.opts.delay)
		newcomer.start()
		c.wantOneCluster(4)
		if c.h.seen().restores == restores {
			t.Error("the new one was not sent a snapshot: the test proves less than it says")
		}

		for _, leads := range []bool{false, true} { // a follower leaves, the leader leaves
			leader := c.mustLead()
			who := leader
			if !leads {
				who = c.followers()[0]
			}
			r := who.replica
			told := r.expectFatal()
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			if err := leader.Leave(ctx, r.id, false); err != nil {
				t.Errorf("leave of %s: %v", r.id, err)
			}
			cancel()
			c.wantRemoved(r, told)
			r.stop()
			r.gone = true
			if err := r.tryStart(); !errors.Is(err, ErrRemoved) {
				t.Errorf("%s starts on the disk of a removed replica: %v", r.id, err)
			}
			c.wantOneCluster(3)

			r.disk.wipe()
			r.founding, r.gone, r.fatal = false, false, nil
			r.join, r.expect = c.others(r.id), 1
			r.start()
			c.wantOneCluster(4)
		}

		// A disk is replaced.
		r := c.followers()[0].replica
		r.crash()
		c.wait(time.Second)
		r.disk.wipe()
		r.founding = false
		r.join, r.expect = c.others(r.id), 1
		r.start()
		c.wantOneCluster(4)

		if d := longest(); d > 500*time.Millisecond {
			t.Errorf("%v without an acknowledgement while members came and went", d)
		}
		c.load.stop()
		c.settle()
		for _, l := range c.members() {
			c.load.verify(l)
		}
	})
}

// Members come, go and lose their disks, while links fail and replicas crash, all
// under load: nothing acknowledged is lost.
func TestSim_MembersChangeThroughFaults(t *testing.T) {
	first, last := simSeeds(*simRuns / 7)
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := startSim(t, simOptions{seed: seed, delay: time.Millisecond, events: true})
				c.load.pace = 4 // seconds go by until a new one votes
				c.mustLead()
				for cycle := range 10 {
					c.load.start()
					if c.rand.IntN(2) == 0 {
						simFaults[c.rand.IntN(len(simFaults))].begin(c)
					}
					c.wait(c.upTo(300 * time.Millisecond))
					what := c.changeMembers(fmt.Sprintf("x%d", cycle))
					c.wait(c.upTo(2 * time.Second))
					c.heal()
					present := 0
					for _, r := range c.all() {
						if !r.gone {
							present++
						}
					}
					awaitLong(t, "one cluster of all", func() error { return c.together(present) })
					c.load.stop()
					c.settle()
					for _, l := range c.members() {
						c.load.verify(l)
					}
					if t.Failed() {
						t.Fatalf("seed %d, cycle %d (%s)\n%s", seed, cycle, what, c.state())
					}
				}
			})
		})
	}
}

// together wants so many voters, all of them up and ready. Who was removed is up no
// longer.
func (c *simCluster) together(voters int) error {
	if c.leader() == nil {
		return errors.New("nobody leads")
	}
	for _, l := range c.up() {
		if err := l.Ready(); err != nil {
			return fmt.Errorf("%s: %w", l.NodeID(), err)
		}
	}
	if m, v := c.voters(); m != voters || v != voters {
		return fmt.Errorf("%d members, %d of them vote, want %d", m, v, voters)
	}
	return nil
}

// changeMembers lets somebody join, leave, or come back with an empty disk. What it
// begins comes to its end when the faults have.
func (c *simCluster) changeMembers(newcomer string) (what string) {
	var present []*simReplica
	for _, r := range c.all() {
		if !r.gone {
			present = append(present, r)
		}
	}
	r := present[c.rand.IntN(len(present))]
	switch k := c.rand.IntN(3); {
	case k == 0 && len(present) < 5, len(present) <= 3 && k < 2:
		r = c.add(newcomer)
		c.joinEmpty(r)
		return newcomer + " joins"
	case k == 1:
		return r.id + c.removeFor(r)
	default: // at most one at a time may have lost its disk
		if r.now() != nil && len(c.up()) == len(present) {
			r.crash()
			r.disk.wipe()
			c.joinEmpty(r)
			return r.id + " lost its disk"
		}
		return "nothing"
	}
}

func (c *simCluster) joinEmpty(r *simReplica) {
	r.founding = false
	r.join, r.expect = c.others(r.id), 1
	c.setDelay(c.opts.delay)
	r.start()
}

// removeFor removes a replica if the leader lets it. When the outcome is unknown it
// waits until it is known.
func (c *simCluster) removeFor(r *simReplica) string {
	l := c.leader()
	if l == nil || r.now() == nil {
		return " would leave, and nobody leads"
	}
	told := r.expectFatal()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.fatal = nil
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	err := l.Leave(ctx, r.id, false)
	cancel()
	c.heal()
	removed := err == nil
	if err != nil && !errors.Is(err, ErrQuorum) && !errors.Is(err, ErrUnknownNode) {
		c.wait(10 * time.Second)
		awaitLong(c.t, "a leader that says who is a member", func() error {
			l := c.leader()
			if l == nil {
				return errors.New("nobody leads")
			}
			removed = !slices.ContainsFunc(l.configuration().Servers, func(s raft.Server) bool { return string(s.ID) == r.id })
			return nil
		})
	}
	if !removed {
		return fmt.Sprintf(" stays: %v", err)
	}
	c.wantRemoved(r, told)
	r.stop()
	r.gone = true
	return " leaves"
}

// wantRemoved wants a removed replica to notice.
func (c *simCluster) wantRemoved(r *simReplica, told <-chan error) {
	c.t.Helper()
	select {
	case err := <-told:
		if !errors.Is(err, ErrRemoved) {
			c.t.Errorf("%s, which was removed, says %v", r.id, err)
		}
	case <-time.After(time.Minute):
		c.t.Fatalf("%s was removed a minute ago and has not noticed\n%s", r.id, c.state())
	}
}
