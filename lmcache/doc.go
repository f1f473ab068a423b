// Package lmcache speaks LMCache's own language: the messages between cache
// controller, workers and orchestrators of all releases 0.3.3 to 0.5.6, and the chunk
// hashes by which the keys in them come from tokens. It is pure: it does no I/O,
// reads no clock, starts no goroutine, logs nothing, and knows nothing of this
// program's state, sockets or cluster. Everything in it may be called from any
// goroutine, except where a type says otherwise.
//
// # Messages
//
// Receivers (package ingest for the worker sockets, package executor for a worker's
// answers, the simulated workers for the other side) hand every frame to Decode and
// switch on the type:
//
//	m, err := lmcache.Decode(frame)
//	if err != nil {
//		drops.Count(lmcache.ReasonOf(err)) // one bad frame never stops the rest
//		return
//	}
//	switch m := m.(type) {
//	case *lmcache.BatchedKVOperationMsg:
//		...
//	}
//
// A receiver on a worker socket has two duties that Decode cannot take over: to refuse
// what IsOrchestrator tells, and to refuse or ignore the other planes (PlaneOf).
// Senders call Append; the simulator writes as older workers do with AppendWith.
//
// Decode has the names of all fields of all releases. A field that is unknown is
// skipped, one that is missing has its default or is an error, and a value of another
// type is an error: what LMCache's own decoder does. DESIGN.md lists the deviations.
//
// # Hashes
//
// A Profile is one variant of LMCache's hashing; NewHasher and Chain give the keys of
// a prompt under it. AutoCandidates lists the profiles to try where the variant is not
// known. Lookups (package httpapi) are the caller. DESIGN-hash.md has the reasons.
//
// # Glossary
//
//   - message: one map on the wire, named by its field "type".
//   - frame: the bytes of one message, one part of a ZeroMQ message.
//   - generation: releases whose messages have the same bytes (Gen).
//   - plane: who talks to whom with a message (Plane).
//   - chunk, key: a chunk is a stretch of tokens whose KV cache is stored as one piece;
//     its key is the 64-bit pattern of its hash, whatever form that had on the wire.
//   - signs: what the form of the keys on the wire tells about the hash (Signs).
package lmcache
