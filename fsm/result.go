package fsm

import "github.com/kvctrl/kvctrl/registry"

// BatchResult is what applying a worker batch gave. A duplicate was applied
// before, under the same session and number: it changed nothing, and its results
// went with the first answer.
type BatchResult struct {
	Duplicate bool
	Records   []RecordResult // by the record numbers that Batch gave; nil for a duplicate
}

// RecordResult is the registry's answer to one record; the record's kind says
// which field holds it.
type RecordResult struct {
	Register     registry.RegisterResult
	Ops          registry.OpsResult
	SyncStart    registry.SyncStartResult
	Sync         registry.SyncResult // of a SyncBatch or SyncEnd
	Deregistered bool                // the worker was known
}
