package e2e

import (
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
		return 30 * time.Second
	}
	return 2 * time.Second
}

// TestCluster_Calm: a load and nothing else.
func TestCluster_Calm(t *testing.T) {
	c := StartCluster(t, 1, ClusterOptions{Args: clusterArgs})
	l := startClusterLoad(t, c, fullRates())
	<-time.After(2 * spell())
	l.settle(true)
}
