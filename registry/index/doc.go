// Package index maps chunk keys to the holders that hold them: compact, sharded,
// for one writer and any number of readers that take no lock and allocate nothing.
//
// It knows nothing of workers, locations or logs, does no I/O, reads no clock and
// starts no goroutine. The registry is its only caller: the writer is the goroutine
// that applies the log; readers are those that answer lookups; a freeze is read by
// the goroutine that writes a snapshot.
//
//	x := index.New[*Stream](index.Options{})
//	h := x.NewHolder(stream)
//	index.Apply(x, h, keys, evict)          // writer: a batch, in order
//	for _, h := range x.Holders(key) {      // any goroutine
//		if h.Visible() { ... h.V ... }
//	}
//	x.Drop(h)                               // writer: O(1), gone for readers at once
//	x.Sweep(1024)                           // writer: a little of the cleaning up
//
// Words used here:
//
//	holder   an owner of keys (in the registry: one stream of one worker)
//	set      an immutable set of holders; each key's slot names one
//	entry    a (key, holder) pair
//	dead     an entry whose holder was dropped; no reader counts it
//	freeze   the index as it was at one moment, readable while the writer goes on
//
// How it works, why so, and its limits in figures: DESIGN.md.
package index
