package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

// TestCounters_Forwarding: what another replica put into the log has a histogram of its
// own, failed attempts count by cause, and a batch that outlived a leader counts once.
func TestCounters_Forwarding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReplicas(t, 1, always)
		c.elect(0)
		n := c.nodes[1]
		q := newBatcher(Options{Log: n, State: n, Leader: n, Session: session()}.withDefaults(), newCounters())
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { q.run(ctx) })
		await(t, q, register)

		errs := []error{cluster.ErrNoLeader, &cluster.NotLeaderError{}, fmt.Errorf("%w: %w", cluster.ErrUnknownOutcome, cluster.ErrStopped),
			cluster.ErrBusy, errors.New("something else"), context.DeadlineExceeded}
		c.odds = func(int) fate {
			if len(errs) == 0 {
				return fine
			}
			return failed
		}
		c.failure = func() error { err := errs[0]; errs = errs[1:]; return err }
		await(t, q, op(0))
		c.elect(-1)
		go func() { // ends with the election
			time.Sleep(2500 * time.Millisecond)
			c.elect(1)
		}()
		await(t, q, op(1))
		await(t, q, op(2)) // at home
		cancel()
		running.Wait()

		retries := map[RetryCause]uint64{}
		for cause, n := range q.stats.retries {
			retries[cause] = n.Load()
		}
		want := map[RetryCause]uint64{RetryNoLeader: 3, RetryNotLeader: 1, RetryUnknown: 1, RetryBusy: 1, RetryOther: 2}
		if !maps.Equal(retries, want) {
			t.Errorf("retries %v, want %v", retries, want)
		}
		if n := q.stats.leaderChanges.Load(); n != 1 {
			t.Errorf("%d batches outlived their leader, want 1", n)
		}
		if all, forwarded := q.stats.commitSeconds.Snapshot(), q.stats.forwardSeconds.Snapshot(); all.Count != 4 || forwarded.Count != 3 {
			t.Errorf("%d batches, %d of them forwarded, want 4 and 3", all.Count, forwarded.Count)
		}
	})
}
