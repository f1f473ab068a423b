package cluster

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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
	first, last := simSeeds(*simRuns)
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { partitionAndHeal(t, seed, *simCycles) })
		})
	}
}

// simSeeds gives the first and the last seed of so many runs.
func simSeeds(runs int) (first, last uint64) {
	if *simSeed != 0 {
		return *simSeed, *simSeed
	}
	return 1, uint64(max(runs, 1))
}

func partitionAndHeal(t *testing.T, seed uint64, cycles int) {
	begin := time.Now()
	o := simOptions{seed: seed, delay: time.Millisecond, events: true, wal: seed%2 == 0}
	c := startSim(t, o)
	c.load.pace = 2
	c.mustLead()
	for cycle := range cycles {
		c.load.start()
		var faults []string
		for range 1 + c.rand.IntN(2) {
			f := simFaults[c.rand.IntN(len(simFaults))]
			faults = append(faults, f.name)
			f.begin(c)
			c.wait(c.upTo(time.Second))
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
	if got, want := c.h.replay(last).Registry().Digest(), c.h.digestAfter(last); got != want {
		t.Errorf("a replica that was there all the time has digest %s after index %d, the others %s", got, last, want)
	}
	n := c.h.seen()
	t.Logf("seed %d: %v of virtual time, %+v", seed, time.Since(begin), n)
	if n.acked < 10*cycles || n.reads < 5*cycles || n.staleKnown < 5*cycles || n.bounded < cycles || n.finished < cycles/3 || n.terms < cycles/5 || n.digests < 5*cycles {
		t.Error("too little has happened for this run to mean anything")
	}
}
