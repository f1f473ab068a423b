package cluster

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

var (
	simSeed   = flag.Uint64("sim.seed", 0, "run the simulated cluster with this seed only; 0 for all of a run")
	simRuns   = flag.Int("sim.runs", 20, "how many seeds to run")
	simCycles = flag.Int("sim.cycles", 50, "partition-and-heal cycles with each seed")
)

// A thousand times the cluster is taken apart and put together again, under load.
// After each time every replica has the same state at the same index, and it is what
// the clients were told.
//
// One seed again: go test -race -run TestSim_PartitionAndHeal ./cluster -sim.seed 7
func TestSim_PartitionAndHeal(t *testing.T) {
	first, runs := uint64(1), *simRuns
	if *simSeed != 0 {
		first, runs = *simSeed, 1
	}
	for seed := first; seed < first+uint64(runs); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { partitionAndHeal(t, seed, *simCycles) })
		})
	}
}

func partitionAndHeal(t *testing.T, seed uint64, cycles int) {
	begin := time.Now()
	o := simOptions{seed: seed, delay: time.Millisecond, events: true}
	c := startSim(t, o)
	c.mustLead()
	for cycle := range cycles {
		c.load.start()
		var faults []string
		for range 1 + c.rand.IntN(2) {
			f := simFaults[c.rand.IntN(len(simFaults))]
			faults = append(faults, f.name)
			f.begin(c)
			c.wait(c.upTo(1200 * time.Millisecond))
		}
		c.heal()
		c.wait(c.upTo(300 * time.Millisecond))
		c.load.stop()
		index := c.settle()
		c.load.verify(c.mustLead())
		if t.Failed() {
			t.Fatalf("seed %d, cycle %d (%s), index %d\n%s", seed, cycle, strings.Join(faults, ", "), index, c.state())
		}
	}
	last := c.settle()
	if got, want := c.h.replay(last).Registry().Digest(), *c.h.at(last).digest; got != want {
		t.Errorf("a replica that was there all the time has digest %s after index %d, the others %s", got, last, want)
	}
	t.Logf("seed %d: %v of virtual time, %+v", seed, time.Since(begin), c.h.seen())
}

// A leader that was cut off, and learns of a newer term by the answers to what it had
// sent, ends its replication: later it stops in order (hashicorp/raft #612: with two
// requests under way the sender hangs for good, and where a follower only refuses one,
// it is never sent an entry again).
func TestSim_CutOffLeaderEndsItsReplication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1, delay: time.Millisecond, events: true})
		c.load.start()
		for range 12 {
			c.wait(500 * time.Millisecond)
			leader := c.mustLead()
			c.isolate(leader.NodeID())
			c.wait(1500 * time.Millisecond)
			if now := c.mustLead(); now == leader {
				t.Fatalf("%s still leads", leader.NodeID())
			}
			c.heal()
		}
		c.load.stop()
		c.settle()
		c.load.verify(c.mustLead())
	}) // the replicas stop here, each within its limits
}

// A snapshot that was sent long ago, over a connection that is given up by now, does
// not take a follower back to what it was then: raft itself would install it.
func TestSim_LateSnapshotDoesNotTakeTheStateBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1, tune: func(o *Options) {
			o.SnapshotThreshold, o.TrailingLogs = 1<<20, 2<<20 // a store that has two newer ones would drop it
		}})
		leader, follower := c.mustLead(), c.followers()[0]
		c.load.start()
		c.wait(time.Second)
		if err := leader.Snapshot(context.Background()); err != nil {
			t.Fatal(err)
		}
		snap := leader.replica.disk.newest()
		c.wait(time.Second)
		c.load.stop()
		c.settle()
		was := follower.machine.Applied()
		if was <= snap.meta.Index {
			t.Fatalf("the snapshot is of index %d, the follower at %d", snap.meta.Index, was)
		}

		var answer raft.InstallSnapshotResponse
		err := leader.parts.transport.InstallSnapshot(raft.ServerID(follower.NodeID()), follower.parts.transport.LocalAddr(), &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.NodeID()), Addr: []byte(leader.PeerAddr())},
			SnapshotVersion: snap.meta.Version, Term: leader.Term(),
			LastLogIndex: snap.meta.Index, LastLogTerm: snap.meta.Term,
			Configuration: raft.EncodeConfiguration(snap.meta.Configuration), ConfigurationIndex: snap.meta.ConfigurationIndex,
			Size: snap.meta.Size,
		}, &answer, bytes.NewReader(snap.data))
		if err == nil || answer.Success {
			t.Errorf("the follower takes it: %+v, %v", answer, err)
		}
		if now := follower.machine.Applied(); now < was {
			t.Errorf("the follower went from index %d back to %d", was, now)
		}
		c.settle()
		c.load.verify(follower)
		c.load.start()
		c.wait(time.Second)
		c.load.stop()
		c.settle()
		c.load.verify(follower)
		if n := c.h.seen(); n.refusedRestores != 1 {
			t.Errorf("%+v: want one refused snapshot", n)
		}
	})
}
