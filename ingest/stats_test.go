package ingest

import (
	"testing"

	"github.com/kvctrl/kvctrl/cluster"
)

// TestCounters_Batches: a batch counts once, by its size and with all its attempts,
// when the log has acknowledged it.
func TestCounters_Batches(t *testing.T) {
	log := newMemLog()
	q := runBatcher(t, log, nil)
	await(t, q, register)
	attempts := 0
	log.fail(func([]byte) (bool, error) {
		if attempts++; attempts < 4 {
			return false, cluster.ErrNoLeader
		}
		return true, nil
	})
	await(t, q, op(0))
	log.fail(func([]byte) (bool, error) { return false, cluster.ErrInvalid })
	if o := await(t, q, op(1)); o.Err == nil {
		t.Fatal("an entry that cannot be applied was acknowledged")
	}

	bytes := 0
	for _, e := range log.entries {
		bytes += len(e)
	}
	if s := q.stats.batchBytes.Snapshot(); s.Count != 2 || s.Sum != float64(bytes) || s.Buckets[256] != 2 {
		t.Errorf("sizes %+v, want two with %d bytes together", s, bytes)
	}
	// Three pauses of at least 5, 10 and 20 ms.
	if s := q.stats.commitSeconds.Snapshot(); s.Count != 2 || s.Sum < .035 {
		t.Errorf("times %+v, want two, the one that was tried again with all its tries", s)
	}
}
