package index

import "sync/atomic"

const (
	slotBytes = 16
	minSlots  = 16
)

// slot is a key and what holds it. val is 0 in a slot never used, which ends a
// probe; else it names a holder set, and the key beside it stays that key for as
// long as the table lives (I1).
//
// val is stored by the writer and loaded by readers atomically; that publishes the
// key too, which is written once, before val, and read only after a val that is not
// 0. A table that readers cannot see yet is filled with plain stores.
type slot struct{ key, val uint64 }

// table is an open-addressing table with linear probing. A slot's place grows
// with its hash, so a rebuild reads and writes in order.
type table struct {
	slots []slot
	limit int // used slots at which the table is rebuilt
}

func newTable(slots int) *table {
	return &table{slots: make([]slot, slots), limit: slots - slots/5}
}

// slotsFor is the size of a table for so many live keys. Tables are rebuilt when they
// are full to 80 %; a new one is full to 52 to 60 %, by the shard's place among the
// others (spread, 0 to 1): with different steps of growth, shards do not come due
// together. That is 20 to 31 bytes a key, and two to three copies of a key by the
// time a table has grown past it.
func slotsFor(live int, spread float64) int {
	return max(minSlots, int(float64(live)/(0.52+0.08*spread))+1)
}

// find returns the slot of a key, or the free slot where it would go, and that
// slot's value as it was at some moment of the call. Any goroutine.
func (t *table) find(key Key, hash uint64) (int, uint64) {
	s := t.slots
	for i := scale(hash, len(s)); ; {
		if i >= len(s) {
			i = 0
		}
		// The value first: the key is there once the value is (I1).
		v := atomic.LoadUint64(&s[i].val)
		if v == 0 || s[i].key == key {
			return i, v
		}
		i++
	}
}

// place puts a key that is not in the table into it. Only before the table is
// published.
func (t *table) place(key Key, hash, val uint64) {
	s := t.slots
	for i := scale(hash, len(s)); ; i++ {
		if i >= len(s) {
			i = 0
		}
		if s[i].val == 0 {
			s[i] = slot{key, val}
			return
		}
	}
}

// shard is one part of the keys. Readers use only the table's pointer; the rest is
// the writer's.
type shard struct {
	table  atomic.Pointer[table]
	used   int          // slots with a value, empty sets included
	live   int          // slots whose set is not empty
	frozen *frozenShard // the freezes that still read the table, newest first
	spread float64      // this shard's place among all, 0 to 1
	_      [3]uint64    // fills a cache line: a shard's counts stay clear of its neighbour's pointer
}

// store changes a slot's value from old to val, and writes the key first where the
// slot was free. Freezes that still read this table are told before.
func (s *shard) store(t *table, i int, key Key, old, val uint64) {
	if s.frozen != nil {
		s.record(i, old)
	}
	if old == 0 {
		t.slots[i].key = key
		s.used++
	}
	atomic.StoreUint64(&t.slots[i].val, val)
	wasLive, isLive := old != 0 && old != emptySet, val != emptySet
	if isLive && !wasLive {
		s.live++
	} else if wasLive && !isLive {
		s.live--
	}
}

// rebuild moves the live keys into a fresh table with room for so many, or for those
// there are, and publishes it. No set changes hands, so no reader of the old table is
// left with a value that has gone (I3). It returns the change in bytes.
func (s *shard) rebuild(shardBits uint, room int) int64 {
	old := s.table.Load()
	next := newTable(slotsFor(max(s.live, room), s.spread))
	for i := range old.slots {
		if e := old.slots[i]; e.val != 0 && e.val != emptySet {
			next.place(e.key, mix(e.key)<<shardBits, e.val)
		}
	}
	s.table.Store(next)
	s.used = s.live
	s.frozen = nil // the old table is not written any more: the freezes own it
	return int64(len(next.slots)-len(old.slots)) * slotBytes
}

// orEmpty is the set of a slot's value: a slot never used is as good as one whose set
// is empty.
func orEmpty(val uint64) uint64 {
	if val == 0 {
		return emptySet
	}
	return val
}
