package index

import "sync"

const (
	evictedBits  = 16 // of the hash: the place
	evictedSlots = 1 << evictedBits

	// evictedBatch is how many are noted under the lock at a time: some hundred
	// nanoseconds that a reader may wait.
	evictedBatch = 256
	evictedBytes = evictedSlots*4 + evictedBatch*8
)

// evicted remembers the keys that lost their last holder by an evict, the latest at
// each place of a fixed table. It is a hint: a key may be forgotten, and, one time in
// two thousand million, taken for another.
type evicted struct {
	pending []uint64 // hashes not noted yet; the writer's

	mu   sync.Mutex // held for evictedBatch stores by the writer, for one load by readers
	tags [evictedSlots]uint32
}

// tag tells the keys of one place apart; 0 is none.
func tag(hash uint64) uint32 { return uint32(hash) | 1 }

// add takes a key's hash. The writer's.
func (e *evicted) add(hash uint64) {
	e.pending = append(e.pending, hash)
	if len(e.pending) == evictedBatch {
		e.flush()
	}
}

func (e *evicted) flush() {
	e.mu.Lock()
	for _, hash := range e.pending {
		e.tags[hash>>(64-evictedBits)] = tag(hash)
	}
	e.mu.Unlock()
	e.pending = e.pending[:0]
}

func (e *evicted) has(hash uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.tags[hash>>(64-evictedBits)] == tag(hash)
}

// Evicted reports whether a key lost its last holder by an evict, among the latest
// 65 536 or so that did. It does not say that nobody holds the key now. It is a hint,
// for people: freezes do not have it, a loaded index begins without. Any goroutine.
func (x *Index[V]) Evicted(key Key) bool { return x.evicted.has(mix(key)) }
