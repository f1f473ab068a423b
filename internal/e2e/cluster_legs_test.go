package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// clusterArgs make a leg quick: short chunks, full syncs side by side, snapshots often
// enough to fall into it.
var clusterArgs = []string{"--chunk-size", "16", "--hash", "builtin@0", "--max-syncs", "64", "--worker-deadline", "5s",
	"--log-bytes-snapshot", "4194304"}

// spell is how long a load goes on before, and again after, something happens to it.
func spell() time.Duration {
	if *long {
		return 20 * time.Second
	}
	return 2 * time.Second
}

// leg is one way of hurting a cluster of three under load.
type leg struct {
	o ClusterOptions
	// drained: nothing is on its way to a process that ends.
	drained bool
	// rounds of hurt in the long form. Default 5; the short form has one.
	rounds int
	// hurt hurts the cluster and leaves it whole: all replicas run.
	hurt func(t *testing.T, c *Cluster, l *clusterLoad)
}

func (g leg) run(t *testing.T) {
	t.Helper()
	if raceEnabled && !*long {
		t.Skip("three replicas with the race detector want a machine for themselves: make unit runs this without it, make e2e GOTESTFLAGS=-race with it")
	}
	g.o.Args = append(slices.Clone(clusterArgs), g.o.Args...) // the last of two counts
	began := time.Now()
	c := StartCluster(t, 3, g.o)
	l := startClusterLoad(t, c, fullRates())
	rounds := 1
	switch {
	case *long && g.rounds == 0:
		rounds = 5
	case *long:
		rounds = g.rounds
	}
	forming := time.Since(began)
	for range rounds {
		<-time.After(spell())
		g.hurt(t, c, l)
		c.Await()
		<-time.After(spell() / 2)
	}
	hurting := time.Since(began) - forming
	l.settle(g.drained)
	t.Logf("took %s: %s to form and start the load, %s under load, the rest to settle and check",
		time.Since(began).Round(time.Millisecond), forming.Round(time.Millisecond), hurting.Round(time.Millisecond))
}

// TestCluster_Calm: a load and nothing else.
func TestCluster_Calm(t *testing.T) {
	leg{drained: true, hurt: func(*testing.T, *Cluster, *clusterLoad) {}}.run(t)
}

// TestCluster_Kill kills the leader, and then a follower, with kill -9.
func TestCluster_Kill(t *testing.T) {
	leg{hurt: func(t *testing.T, c *Cluster, l *clusterLoad) {
		for _, pick := range []func() *Replica{c.Leader, func() *Replica { return c.Followers()[0] }} {
			r := pick()
			r.Kill()
			from := time.Now()
			c.Leader() // of the two others
			<-time.After(spell())
			l.commandsFlow(from)
			l.losesNothing()
			r.Restart()
			c.Await()
			<-time.After(spell() / 2)
		}
	}}.run(t)
}

// TestCluster_Pause stops the leader past its lease: when it goes on it believes for a
// moment that it leads, with readers waiting for it. Then it stops a follower. Neither
// holds the others up, and neither loses anything.
func TestCluster_Pause(t *testing.T) {
	leg{drained: true, hurt: func(t *testing.T, c *Cluster, l *clusterLoad) {
		for _, pick := range []func() *Replica{c.Leader, func() *Replica { return c.Followers()[1] }} {
			r := pick()
			r.Pause()
			from := time.Now()
			c.Leader()
			<-time.After(spell())
			l.commandsFlow(from)
			l.askPaused(r)
			r.Resume()
			c.Await()
			<-time.After(spell() / 2)
		}
	}}.run(t)
}

func TestCluster_RestartAll(t *testing.T) {
	leg{hurt: func(t *testing.T, c *Cluster, l *clusterLoad) {
		for _, r := range c.Replicas() {
			r.Kill()
		}
		for _, r := range c.Replicas() {
			r.Relaunch()
		}
	}}.run(t)
}

// TestCluster_RestartAllDrained: when nothing was on its way, the end of all replicas
// costs nobody anything.
func TestCluster_RestartAllDrained(t *testing.T) {
	leg{drained: true, hurt: func(t *testing.T, c *Cluster, l *clusterLoad) {
		l.stop()
		l.shownEverywhere("all that was said before the kill")
		for _, r := range c.Replicas() {
			r.Kill()
		}
		for _, r := range c.Replicas() {
			r.Relaunch()
		}
	}, rounds: 1}.run(t)
}

// TestCluster_RollingRestart stops and starts one replica after the other, as an upgrade
// does.
func TestCluster_RollingRestart(t *testing.T) {
	leg{hurt: func(t *testing.T, c *Cluster, l *clusterLoad) {
		from := time.Now()
		for _, r := range c.Replicas() {
			if code := r.Terminate(); code != 0 {
				t.Errorf("SIGTERM ended the replica on %s with exit code %d, want 0", r.PeerAddr(), code)
			}
			r.Restart()
			c.Await()
			l.losesNothing()
		}
		l.commandsFlow(from)
	}}.run(t)
}

// TestCluster_DiskFull fills the disk of the leader and then that of a follower: each ends
// by itself, the others go on, and with room it is back.
func TestCluster_DiskFull(t *testing.T) {
	var mounts []string
	for range 3 {
		mounts = append(mounts, mountTmpfs(t, "512m"))
	}
	leg{o: ClusterOptions{DataDir: func(i int) string { return filepath.Join(mounts[i], "data") }}, rounds: 2,
		hurt: func(t *testing.T, c *Cluster, l *clusterLoad) {
			fill := func(r *Replica) {
				t.Helper()
				mount := filepath.Dir(r.DataDir)
				filler := filepath.Join(mount, "filler")
				r.ExpectDown()
				fillDisk(t, filler, mount, 0)
				wantEnd(t, r.AwaitEnd(), r.Log(), codeStorage, "start this replica again")
				c.Leader()
				<-time.After(spell() / 2)
				l.losesNothing()
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
				r.Restart()
				c.Await()
			}
			fill(c.Leader())
			fill(c.Followers()[0])
		}}.run(t)
}

// TestCluster_ReplaceNode puts an empty replica in the place of a dead one, first of a
// follower, then of the leader. The log is cut, so that it gets a snapshot; what makes the
// log long enough is too much under the race detector, where it may get the log instead.
func TestCluster_ReplaceNode(t *testing.T) {
	leg{o: ClusterOptions{Args: []string{"--log-bytes-snapshot", "1048576"}}, hurt: func(t *testing.T, c *Cluster, l *clusterLoad) {
		replace := func(r *Replica) {
			t.Helper()
			if !raceEnabled {
				l.growLog()
			}
			before := len(r.Log())
			c.Replace(r)
			c.AwaitMembers(3)
			if !raceEnabled && !strings.Contains(r.Log()[before:], "Installed remote snapshot") {
				t.Errorf("the empty replica on %s was not given a snapshot", r.PeerAddr())
			}
		}
		replace(c.Followers()[0])
		<-time.After(spell() / 2)
		l.losesNothing()
		replace(c.Leader())
	}}.run(t)
}

// TestCluster_JoinAndLeave lets a fourth replica join, lead, and leave, and another one
// join and leave as a follower.
func TestCluster_JoinAndLeave(t *testing.T) {
	leg{drained: true, hurt: func(t *testing.T, c *Cluster, l *clusterLoad) {
		leave := func(r *Replica, by *Replica) {
			t.Helper()
			s, err := c.Status(r)
			if err != nil {
				t.Fatal(err)
			}
			r.ExpectDown()
			c.must(by, http.StatusOK, "/admin/leave", map[string]any{"node_id": s.NodeID})
			wantEnd(t, r.AwaitEnd(), r.Log(), codeRemoved, "removed")
			c.Forget(r)
			c.AwaitMembers(3)
		}
		fourth := c.Add()
		c.AwaitMembers(4)
		s, err := c.Status(fourth)
		if err != nil {
			t.Fatal(err)
		}
		c.must(c.Followers()[0], http.StatusOK, "/admin/transfer", map[string]any{"node_id": s.NodeID})
		if leader := c.Leader(); leader != fourth {
			t.Errorf("after a transfer to %s the replica on %s leads", s.NodeID, leader.PeerAddr())
		}
		<-time.After(spell() / 2)
		leave(fourth, fourth)
		fifth := c.Add()
		c.AwaitMembers(4)
		leave(fifth, c.Followers()[0])
	}}.run(t)
}

// TestCluster_Partition cuts the network: the leader alone, a follower alone, and single
// directions of a leader's links.
func TestCluster_Partition(t *testing.T) {
	leg{drained: true, o: ClusterOptions{Namespaces: true}, hurt: func(t *testing.T, c *Cluster, l *clusterLoad) {
		for _, cut := range []struct {
			name   string
			elects bool // the two others must elect another leader
			cut    func(leader *Replica, followers []*Replica)
		}{
			{"the leader alone", true, func(leader *Replica, _ []*Replica) { c.Isolate(leader) }},
			{"a follower alone", false, func(_ *Replica, followers []*Replica) { c.Isolate(followers[0]) }},
			{"the leader is not heard", true, func(leader *Replica, followers []*Replica) {
				c.Cut(leader, followers[0])
				c.Cut(leader, followers[1])
			}},
			{"the leader hears nobody", true, func(leader *Replica, followers []*Replica) {
				c.Cut(followers[0], leader)
				c.Cut(followers[1], leader)
			}},
			{"leader and one follower", false, func(leader *Replica, followers []*Replica) {
				c.Cut(leader, followers[1])
				c.Cut(followers[1], leader)
			}},
			{"one follower is not heard by the leader", false, func(leader *Replica, followers []*Replica) { c.Cut(followers[0], leader) }},
		} {
			leader := c.Leader()
			term := c.term(leader)
			t.Logf("%6.2fs: cut: %s", time.Since(l.began).Seconds(), cut.name)
			cut.cut(leader, c.Followers())
			<-time.After(2500 * time.Millisecond) // five election timeouts
			c.Heal()
			t.Logf("%6.2fs: healed", time.Since(l.began).Seconds())
			if now := c.term(c.Await()); cut.elects && now <= term {
				t.Errorf("%s: the term was %d and is %d: the cut was none", cut.name, term, now)
			}
		}
	}}.run(t)
}
