// Package fsm turns log entries into calls of the registry, and the registry into
// snapshots and back. It is thin on purpose: what an entry means is the registry's
// business, when one is proposed is cluster's.
//
// # Entries
//
// The encoders (Batch and the Encode functions) are called by whoever proposes:
// ingest, executor and cluster, on any goroutine. An entry is
//
//	type, version, plane, key width, body, CRC32C
//
// and docs/formats.md is its normative description, byte by byte. Encoders do not
// judge what they are given, except that a Batch refuses (with -1) a record whose
// names are too long or that would not fit. So a leader calls Check before it
// proposes: an entry that is refused after it has been committed stops every
// replica, and one that Check has passed is never refused by the same build.
//
//	batch := fsm.NewBatch(session)
//	n := batch.Ops(ops)                          // -1: refused, see Batch
//	applied, err := node.Propose(ctx, batch.Encode(number, now))
//	result := applied.Result.(fsm.BatchResult).Records[n].Ops
//	batch.Reset()
//
// # Results
//
// Apply answers a worker batch with a BatchResult, a created event with a
// registry.EventCreateResult, the run and the finish of an event with an error or
// nil, the beginning of a term with the ids of the events it interrupted
// ([]string), anything else with nil. An error is a verdict on that entry: the
// registry refused it, on every replica alike, or this replica has stopped (a
// *RefusedError).
//
// A replica that proposes a batch at another, which leads, gets its result from there
// as bytes: AppendResult, DecodeResult.
//
// # The state machine
//
// FSM implements raft.FSM and raft.BatchingFSM. Raft's own goroutine calls
// Apply, Snapshot and Restore, one at a time; Persist runs beside them on another;
// everything else may be called from anywhere. The package starts no goroutine
// and reads no clock.
//
// An entry is applied whole or not at all: all of it is checked before the first
// record reaches the registry. An entry that this build cannot apply stops the
// FSM for good: it and all after it stay unapplied, no snapshot is given, and
// OnFatal is told once. Skipping it would fork the state.
package fsm
