package cluster

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A leader that dies has a successor soon after it has been silent for the heartbeat
// timeout: raft alone looks only now and then.
func TestSim_SuccessorIsQuick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1, delay: time.Millisecond})
		var took []time.Duration
		for range 60 {
			c.settle()
			<-time.After(c.upTo(time.Second)) // at any moment between two heartbeats
			leader := c.mustLead()
			dead := time.Now()
			leader.replica.crash()
			c.mark()
			took = append(took, time.Since(dead))
			leader.replica.start()
		}
		slices.Sort(took)
		t.Logf("kill of the leader to the next entry: p50 %v, p90 %v, worst %v", took[len(took)/2], took[len(took)*9/10], took[len(took)-1])
		// The heartbeat timeout, and an eighth of it for the second in line.
		if p90 := took[len(took)*9/10]; p90 > 700*time.Millisecond {
			t.Errorf("p90 is %v, want at most 700ms", p90)
		}
	})
}
