package index

import (
	"sync"
	"sync/atomic"
)

// Frozen is the index as it was at Freeze: which living holder held which key. The
// writer goes on meanwhile. There may be several at a time.
//
// Concurrency: Range from one goroutine at a time (any, beside the writer). Release
// from any goroutine, after the last Range has returned.
type Frozen[V any] struct {
	x        *Index[V]
	at       uint64 // the index's clock: who died later lives here
	shards   []frozenShard
	segments []*segment[V]
	vals     []uint64 // scratch of Range
	alive    []*Holder[V]
	released atomic.Bool
}

// frozenShard is one shard of a freeze: the table of that time, and what the writer
// has overwritten in it since.
type frozenShard struct {
	older    *frozenShard // the next freeze of this shard; writer only
	overfull bool         // undo has outgrown the table: rebuild; writer only

	mu    sync.Mutex
	table *table // nil once released
	undo  []undo
}

// undo is a slot's value before it was overwritten.
type undo struct {
	val  uint64
	slot uint32
}

// Freeze holds the present state fast for a reader. Cost: O(shards), microseconds;
// after it each change of a table that is still shared costs some nanoseconds more
// and 16 bytes, until the shard is rebuilt, or the freeze released. Writer only.
func (x *Index[V]) Freeze() *Frozen[V] {
	x.clock++
	x.sets.freeze++
	x.sets.frozen.Add(1)
	f := &Frozen[V]{x: x, at: x.clock, shards: make([]frozenShard, len(x.shards))}
	for i := range x.shards {
		s, fs := &x.shards[i], &f.shards[i]
		s.prune()
		fs.table = s.table.Load()
		fs.older = s.frozen
		s.frozen = fs
	}
	dir := *x.sets.dir.Load()
	f.segments = make([]*segment[V], len(x.sets.meta))
	for i := range f.segments {
		f.segments[i] = dir[i].Load()
	}
	return f
}

// Shards returns the number of shards.
func (f *Frozen[V]) Shards() int { return len(f.shards) }

// Range calls fn for every key of a shard and those of its holders that were not
// dead at Freeze (hidden ones are given too). The slice is valid during the call only.
//
// Order: scattered over the shard, on purpose. In the order of their slots the keys
// would fill a smaller table from its low end while they are loaded into another
// index, and linear probing would degrade to a search through all of them.
func (f *Frozen[V]) Range(shard int, fn func(key Key, holders []*Holder[V])) {
	if f.released.Load() {
		panic("bug: index freeze is ranged over after its release")
	}
	fs := &f.shards[shard]
	slots := fs.table.slots
	// Values first, then what was overwritten: the writer records before it
	// overwrites, so whatever is too new here is in undo by now (I4).
	f.vals = f.vals[:0]
	for i := range slots {
		f.vals = append(f.vals, atomic.LoadUint64(&slots[i].val))
	}
	fs.mu.Lock()
	for i := len(fs.undo) - 1; i >= 0; i-- {
		f.vals[fs.undo[i].slot] = fs.undo[i].val
	}
	fs.mu.Unlock()
	step := scatter(len(f.vals))
	for n, i := 0, 0; n < len(f.vals); n, i = n+1, (i+step)%len(f.vals) {
		val := f.vals[i]
		if val == 0 || val == emptySet {
			continue
		}
		id := uint32(val)
		set := f.segments[id>>segmentBits][id%segmentSets].Load()
		if alive := f.living(set.holders); len(alive) > 0 {
			fn(slots[i].key, alive)
		}
	}
	clear(f.alive)
}

// scatter returns a step that visits all of n places, each far from the one before:
// near the golden ratio of n, and without a common divisor with it.
func scatter(n int) int {
	step := max(n*618/1000, 1)
	for {
		a, b := n, step
		for b != 0 {
			a, b = b, a%b
		}
		if a == 1 {
			return step
		}
		step++
	}
}

func (f *Frozen[V]) living(holders []*Holder[V]) []*Holder[V] {
	dead := func(h *Holder[V]) bool {
		died := h.died.Load()
		return died != 0 && died <= f.at
	}
	for i, h := range holders {
		if !dead(h) {
			continue
		}
		f.alive = append(f.alive[:0], holders[:i]...)
		for _, h := range holders[i+1:] {
			if !dead(h) {
				f.alive = append(f.alive, h)
			}
		}
		return f.alive
	}
	return holders
}

// Release ends the freeze. What it kept is freed, and the writer stops recording for
// it. A second call does nothing.
func (f *Frozen[V]) Release() {
	if f.released.Swap(true) {
		return
	}
	for i := range f.shards {
		fs := &f.shards[i]
		fs.mu.Lock()
		fs.table, fs.undo = nil, nil
		fs.mu.Unlock()
	}
	f.segments, f.vals, f.alive = nil, nil, nil
	f.x.sets.frozen.Add(-1)
}

// record tells every freeze of this shard's table a slot's value before it changes.
func (s *shard) record(slot int, val uint64) {
	for at := &s.frozen; *at != nil; {
		fs := *at
		fs.mu.Lock()
		if fs.table == nil { // released
			fs.mu.Unlock()
			*at = fs.older
			continue
		}
		fs.undo = append(fs.undo, undo{val, uint32(slot)})
		if len(fs.undo) >= len(fs.table.slots) {
			s.frozen.overfull = true
		}
		fs.mu.Unlock()
		at = &fs.older
	}
}

// prune forgets released freezes.
func (s *shard) prune() {
	for at := &s.frozen; *at != nil; {
		fs := *at
		fs.mu.Lock()
		gone := fs.table == nil
		fs.mu.Unlock()
		if gone {
			*at = fs.older
		} else {
			at = &fs.older
		}
	}
}
