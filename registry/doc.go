// Package registry is the state of the cache controller: which workers there are,
// which chunks each of them holds, and what became of the commands. It is plain
// data behind plain functions. It never does I/O, reads no clock, starts no
// goroutine and logs nothing; the time is what an entry says.
//
// # Callers
//
// One writer, the FSM, applies entries: Register, Deregister, ApplyOps, SyncStart,
// SyncBatch, SyncEnd, Lease, CreateEvent, RunEvent, FinishEvent, BeginTerm,
// SetMember, RemoveMember, AcceptBatch, Sweep and Snapshot are its alone, one call at
// a time. Everything else may be called from any goroutine beside it.
//
// Search and P2PLookup take no lock and allocate nothing for a key. The other queries
// (lists, events, totals, digest) share a lock with the writer, who holds it for one
// change at a time: at most the length of one run of operations, about a millisecond
// for 10 000. What they return is a copy of one moment between two changes.
//
// Determinism: the same entries in the same order make equal registries, down to the
// digest, whatever the shards of the index, its sweeps, and snapshots in between.
// DESIGN.md has the invariants by number and the choices.
//
// # Glossary
//
//   - instance: one serving engine, named by its instance_id. It is there as long as it
//     has a worker.
//   - worker: one rank of an instance; what LMCache calls a worker process.
//   - location: a storage backend of a worker, by its LMCache name
//     ("LocalCPUBackend"). An opaque string, except that full syncs and peers know
//     the CPU's.
//   - key, chunk: a chunk is a stretch of tokens whose KV cache is stored as one
//     piece; its key is its hash, 64 bits.
//   - stream: the numbered events (admits and evicts) of one location of one worker.
//   - holder: an owner of keys in the index; one per stream, and a hidden second one
//     while the stream is in a full sync.
//   - late: of operations, that the stream has moved on without them: another replica
//     took what the worker said after them, and was faster. They are not applied.
//   - gap: a message whose numbers do not follow the stream's last one. The stream is
//     lossy from then until a full sync has made it good.
//   - sync: a full sync, a worker's announcement of all it holds in one location.
//   - event: an operator's command and what became of it.
//   - entry: an entry of the replicated log; the only source of changes.
//   - index: from key to holders (package registry/index); also the position of an
//     entry in the log, outside this package.
//   - session: one run of one replica's batcher, whose batches are numbered.
package registry
