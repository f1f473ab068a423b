package index

import (
	"fmt"
	"math/bits"
	"sync/atomic"
)

// DefaultShards is the number of shards of an index whose Options name none: at ten
// million keys a shard is about a megabyte and takes well under a millisecond to
// rebuild.
const DefaultShards = 256

// Options shape an index. The zero value will do.
type Options struct {
	Shards int // a power of two up to 65536; 0 means DefaultShards
	Keys   int // how many keys to make room for at once; it grows and shrinks anyway
}

// Validate reports what is wrong with the options.
func (o Options) Validate() error {
	if o.Shards != 0 && (o.Shards < 1 || o.Shards > 1<<16 || bits.OnesCount(uint(o.Shards)) != 1) {
		return fmt.Errorf("index shards %d: want a power of two from 1 to 65536", o.Shards)
	}
	if o.Keys < 0 {
		return fmt.Errorf("index keys %d: want 0 or more", o.Keys)
	}
	return nil
}

// Index maps keys to the holders that hold them.
//
// Concurrency: one goroutine at a time is the writer; it alone calls the methods
// marked so. Readers call the others beside it, from any goroutine.
type Index[V any] struct {
	shards    []shard
	shardBits uint
	sets      setTable[V]
	evicted   evicted

	// The writer's.
	memo           []memo
	scratch        []*Holder[V]
	holders        uint64 // made so far
	clock          uint64 // counts drops and freezes: orders one against the other
	drops          uint32
	sweepAt        struct{ shard, slot int }
	bytes          int64 // of the shards' tables and what does not grow
	loaded         int   // the most keys that Put has brought a shard to
	distinct, dead int64

	// Published by the writer at the end of each call that changes them.
	pubKeys, pubDead, pubBytes atomic.Int64
}

// New makes an empty index. It panics on options that do not validate.
func New[V any](o Options) *Index[V] {
	if err := o.Validate(); err != nil {
		panic("bug: " + err.Error())
	}
	n := o.Shards
	if n == 0 {
		n = DefaultShards
	}
	x := &Index[V]{
		shards:    make([]shard, n),
		shardBits: uint(bits.TrailingZeros(uint(n))),
		memo:      make([]memo, 1<<memoBits),
	}
	x.sets.init()
	x.bytes = int64(n)*64 + int64(len(x.memo))*24 + evictedBytes
	x.evicted.pending = make([]uint64, 0, evictedBatch)
	for i := range x.shards {
		s := &x.shards[i]
		s.spread = float64(i) / float64(n)
		size := slotsFor(o.Keys/n, s.spread)
		s.table.Store(newTable(size))
		x.bytes += int64(size) * slotBytes
	}
	x.publish()
	return x
}

// NewHolder makes a visible holder without keys. Writer only.
func (x *Index[V]) NewHolder(v V) *Holder[V] {
	x.holders++
	return &Holder[V]{V: v, seq: x.holders, mix: mix(x.holders + 0x9e3779b97f4a7c15)}
}

// Hide makes readers skip a holder. Writer only.
func (x *Index[V]) Hide(h *Holder[V]) { h.hidden.Store(true) }

// Show undoes Hide. Writer only.
func (x *Index[V]) Show(h *Holder[V]) { h.hidden.Store(false) }

// Admit makes h hold key, and reports whether it did not before. A dropped holder
// holds nothing any more. Writer only.
func (x *Index[V]) Admit(h *Holder[V], key Key) bool {
	if h.died.Load() != 0 || !x.admit(h, key, mix(key)) {
		return false
	}
	h.tally(1, KeySum(key))
	x.publish()
	return true
}

// Evict makes h hold key no longer, and reports whether it did. Writer only.
func (x *Index[V]) Evict(h *Holder[V], key Key) bool {
	if h.died.Load() != 0 || !x.evict(h, key, mix(key)) {
		return false
	}
	h.tally(-1, -KeySum(key))
	x.publish()
	return true
}

// Drop ends a holder: readers see it no more, its entries are dead and go with the
// sweep. Cost: O(1). Writer only.
func (x *Index[V]) Drop(h *Holder[V]) {
	if h.died.Load() != 0 {
		return
	}
	x.clock++
	x.drops++
	h.died.Store(x.clock)
	x.dead += h.count.Load()
	h.count.Store(0)
	h.sum.Store(0)
	x.publish()
}

// Holders returns who holds a key, in order of NewHolder; nil if nobody does. Hidden
// and dead holders may be among them.
//
// Concurrency: any goroutine. Ownership: the slice is immutable and may be kept.
// Cost: no lock, no allocation, one cache miss as a rule.
func (x *Index[V]) Holders(key Key) []*Holder[V] {
	hash := mix(key)
	s := x.shard(hash)
	for {
		_, val := s.table.Load().find(key, hash<<x.shardBits)
		if val == 0 {
			return nil
		}
		if set := x.sets.get(val); set != nil {
			return set.holders
		}
		// The set was freed after the slot was read, so the slot has moved on (I3).
	}
}

// Len returns the number of distinct keys. It is an estimate: a key whose holders
// are all hidden, or dead and not swept yet, counts. Any goroutine.
func (x *Index[V]) Len() int64 { return x.pubKeys.Load() }

// DeadEntries returns how many (key, holder) pairs wait for the sweep. Any goroutine.
func (x *Index[V]) DeadEntries() int64 { return x.pubDead.Load() }

// Bytes returns about how much memory the index takes, without what freezes keep.
// Any goroutine.
func (x *Index[V]) Bytes() int64 { return x.pubBytes.Load() }

// Shards returns the number of shards. Any goroutine.
func (x *Index[V]) Shards() int { return len(x.shards) }

func (x *Index[V]) shard(hash uint64) *shard { return &x.shards[hash>>(64-x.shardBits)] }

func (x *Index[V]) admit(h *Holder[V], key Key, hash uint64) bool {
	s := x.shard(hash)
	t := s.table.Load()
	i, old := t.find(key, hash<<x.shardBits)
	from := orEmpty(old)
	to := x.step(stepAdmit, from, h)
	if to == from {
		return false
	}
	x.put(s, t, i, key, old, to)
	if from == emptySet {
		x.evicted.forget(hash, old != 0)
	}
	return true
}

func (x *Index[V]) evict(h *Holder[V], key Key, hash uint64) bool {
	s := x.shard(hash)
	t := s.table.Load()
	i, from := t.find(key, hash<<x.shardBits)
	if from == 0 || from == emptySet {
		return false
	}
	to := x.step(stepEvict, from, h)
	if to == from {
		return false
	}
	x.put(s, t, i, key, from, to)
	if to == emptySet {
		x.evicted.add(hash)
	}
	x.shrink(s)
	return true
}

// put stores a slot's new set and keeps the books. The table may be another one
// afterwards.
func (x *Index[V]) put(s *shard, t *table, i int, key Key, old, to uint64) {
	if old == 0 && s.used >= t.limit {
		x.rebuild(s)
		t = s.table.Load()
		i, _ = t.find(key, mix(key)<<x.shardBits)
	}
	live := s.live
	s.store(t, i, key, old, to)
	x.distinct += int64(s.live - live)
	x.sets.move(orEmpty(old), to)
	if s.frozen != nil && s.frozen.overfull {
		x.rebuild(s)
	}
}

// shrink gives back a table that is mostly empty. It was at 60 % or more once, so
// the copy is paid for by the keys that went.
func (x *Index[V]) shrink(s *shard) {
	if n := len(s.table.Load().slots); s.live < n/4 && n > 2*minSlots {
		x.rebuild(s)
	}
}

func (x *Index[V]) rebuild(s *shard) {
	if len(x.evicted.pending) > 0 {
		x.evicted.flush()
	}
	x.bytes += s.rebuild(x.shardBits, 0)
}

func (x *Index[V]) publish() {
	set := func(a *atomic.Int64, v int64) {
		if a.Load() != v {
			a.Store(v)
		}
	}
	set(&x.pubKeys, x.distinct)
	set(&x.pubDead, x.dead)
	set(&x.pubBytes, x.bytes+x.sets.bytes)
	if len(x.evicted.pending) > 0 {
		x.evicted.flush()
	}
}
