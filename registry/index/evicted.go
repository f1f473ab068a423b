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

// evicted remembers the keys that lost their last holder by an evict and have had none
// since, the latest at each place of a fixed table. It is a hint: a key may be forgotten,
// and, one time in two thousand million, taken for another.
type evicted struct {
	// pending are hashes not noted yet; the writer's. Their slots have not left the index
	// yet: a rebuild flushes before it drops them (forget).
	pending []uint64

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

// forget is for a key that has got a holder. Should that be lost otherwise than by an
// evict, the one before says nothing any more. known is whether the key had a slot: one
// without is not pending. The writer's.
func (e *evicted) forget(hash uint64, known bool) {
	if known && len(e.pending) > 0 {
		e.flush()
	}
	place := hash >> (64 - evictedBits)
	if e.tags[place] != tag(hash) { // nobody else writes there
		return
	}
	e.mu.Lock()
	e.tags[place] = 0
	e.mu.Unlock()
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

// Evicted reports whether a key lost its last holder by an evict and has had none since,
// among the latest 65 536 or so that did. It is a hint, for people: freezes do not have
// it, a loaded index begins without. Any goroutine.
func (x *Index[V]) Evicted(key Key) bool { return x.evicted.has(mix(key)) }
