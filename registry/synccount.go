package registry

import "sync/atomic"

// SyncCounts count full syncs since this registry was made or loaded. They are for
// people: no state, in no snapshot and no digest, and a restore begins anew.
type SyncCounts struct {
	Started   uint64
	Completed uint64
	Failed    uint64 // given up: by time, or for too many evicts meanwhile
	Replaced  uint64 // by a new start of the same worker, which had given up
	Dropped   uint64 // with their worker, that left or began anew
}

// syncCounters are the live figures: the writer counts, anybody reads.
type syncCounters struct {
	started, completed, failed, replaced, dropped atomic.Uint64
}

// SyncCounts returns the figures. Those that run now are Started less the others, as far
// as they were started since this registry was made.
func (r *Registry) SyncCounts() SyncCounts {
	c := &r.syncs
	return SyncCounts{Started: c.started.Load(), Completed: c.completed.Load(), Failed: c.failed.Load(),
		Replaced: c.replaced.Load(), Dropped: c.dropped.Load()}
}
