package fsm

import "sync/atomic"

// Stats count what this process has applied since it started; they are not part of
// the state.
type Stats struct {
	Entries    uint64 // commands applied
	Operations uint64 // keys in applied worker batches, full syncs included
	Duplicates uint64 // worker batches that had been applied before
	Ignored    uint64 // entries of a newer build that were safe to skip
	Restores   uint64 // snapshots restored
	Stopped    bool   // an entry was refused; see RefusedError
}

type counters struct {
	entries, operations, duplicates, ignored, restores atomic.Uint64
	stopped                                            atomic.Bool
}

// Stats reads the counters.
func (f *FSM) Stats() Stats {
	c := &f.counts
	return Stats{
		Entries:    c.entries.Load(),
		Operations: c.operations.Load(),
		Duplicates: c.duplicates.Load(),
		Ignored:    c.ignored.Load(),
		Restores:   c.restores.Load(),
		Stopped:    c.stopped.Load(),
	}
}
