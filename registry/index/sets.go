package index

import (
	"slices"
	"sync/atomic"
)

const (
	segmentBits = 10
	segmentSets = 1 << segmentBits

	// emptySet is the value of a slot whose key nobody holds: set 0, generation 1.
	emptySet = 1 << 32

	// Sets that no slot refers to are kept for a while, because the next batch is
	// likely to pass through the same ones: so many, and so many holders in all.
	maxRetired        = 4096
	maxRetiredHolders = 1 << 16

	queuedBit = 1 << 31 // in setMeta.refs: the set stands in the retired queue
)

// holderSet is an immutable set of holders, sorted by seq. Equal sets are one set
// (I2).
type holderSet[V any] struct {
	holders []*Holder[V]
	gen     uint32 // of its id; a reader who comes with another one reads again
}

// setMeta is what the writer alone knows of a set.
type setMeta struct {
	hash    uint64 // wrapping sum of its holders' mix
	gen     uint32 // current generation of the id
	refs    uint32 // slots of live tables that refer to it, and queuedBit
	next    uint32 // next set of the same hash, 0 at the end
	cleanAt uint32 // at this number of drops it had no dead holder
}

type segment[V any] [segmentSets]atomic.Pointer[holderSet[V]]

// setTable interns holder sets and names each by a value {generation, id}, which is
// what a slot carries: no pointer per key.
type setTable[V any] struct {
	// dir finds a set by id. The writer stores segments and sets; readers load.
	dir atomic.Pointer[[]atomic.Pointer[segment[V]]]

	meta   []*[segmentSets]setMeta
	born   []uint64 // per segment: the freeze number at which it was made or copied
	next   uint32   // the lowest id never used
	free   []uint32
	byHash map[uint64]uint32 // hash -> first set of a chain by setMeta.next

	retired        []uint32 // a queue: from head on
	retiredHead    int
	retiredHolders int
	maxRetired     int // maxRetired, but for tests that want ids used again soon

	freeze uint64       // number of the last freeze
	frozen atomic.Int64 // freezes that are not released; Release subtracts
	bytes  int64
}

func (t *setTable[V]) init() {
	t.byHash = make(map[uint64]uint32)
	t.maxRetired = maxRetired
	dir := make([]atomic.Pointer[segment[V]], 4)
	t.dir.Store(&dir)
	t.bytes = int64(len(dir)) * 8
	t.install(t.newID(), &holderSet[V]{gen: 1})
	t.of(0).gen = 1
}

// get returns the set of a slot's value, or nil when it was freed since the value
// was read: then the slot has another value by now. Any goroutine.
func (t *setTable[V]) get(val uint64) *holderSet[V] {
	id := uint32(val)
	s := (*t.dir.Load())[id>>segmentBits].Load()[id%segmentSets].Load()
	if s == nil || s.gen != uint32(val>>32) {
		return nil
	}
	return s
}

func (t *setTable[V]) of(id uint32) *setMeta { return &t.meta[id>>segmentBits][id%segmentSets] }

// alive reports whether a value names a set that has not been freed since.
func (t *setTable[V]) alive(val uint64) bool { return t.of(uint32(val)).gen == uint32(val>>32) }

// intern returns the value of the set made of a, b and c in that order (sorted by seq
// as a whole; none is kept). In three parts, so that a wide set is copied once.
func (t *setTable[V]) intern(hash uint64, a, b, c []*Holder[V]) uint64 {
	n := len(a) + len(b) + len(c)
	if n == 0 {
		return emptySet
	}
	first := t.byHash[hash]
	for id := first; id != 0; id = t.of(id).next {
		val := uint64(t.of(id).gen)<<32 | uint64(id)
		if s := t.get(val).holders; len(s) == n && slices.Equal(s[:len(a)], a) &&
			slices.Equal(s[len(a):n-len(c)], b) && slices.Equal(s[n-len(c):], c) {
			return val
		}
	}
	id := t.newID()
	m := t.of(id)
	m.hash, m.refs, m.next, m.cleanAt = hash, 0, first, 0
	own := append(append(append(make([]*Holder[V], 0, n), a...), b...), c...)
	t.install(id, &holderSet[V]{holders: own, gen: m.gen})
	t.byHash[hash] = id
	t.bytes += setBytes(n)
	return uint64(m.gen)<<32 | uint64(id)
}

// setBytes is the memory of a set of n holders beyond its place in the segments: the
// set, its slice, and its share of byHash (40, measured on a million sets).
func setBytes(n int) int64 { return 32 + int64(n)*8 + 40 }

func (t *setTable[V]) newID() uint32 {
	if n := len(t.free); n > 0 {
		id := t.free[n-1]
		t.free = t.free[:n-1]
		return id
	}
	id := t.next
	t.next++
	if seg := int(id >> segmentBits); seg == len(t.meta) {
		t.addSegment(seg)
	}
	return id
}

func (t *setTable[V]) addSegment(seg int) {
	dir := *t.dir.Load()
	if seg == len(dir) {
		wider := make([]atomic.Pointer[segment[V]], 2*len(dir))
		for i := range dir {
			wider[i].Store(dir[i].Load())
		}
		t.bytes += int64(len(dir)) * 8
		dir = wider
	}
	dir[seg].Store(new(segment[V]))
	t.dir.Store(&dir)
	t.meta = append(t.meta, new([segmentSets]setMeta))
	t.born = append(t.born, t.freeze)
	t.bytes += segmentSets * (8 + 24)
}

// install puts a set (or nil) at an id. A segment that a freeze may read is copied
// before it changes.
func (t *setTable[V]) install(id uint32, s *holderSet[V]) {
	i := id >> segmentBits
	at := &(*t.dir.Load())[i]
	seg := at.Load()
	if t.born[i] < t.freeze && t.frozen.Load() > 0 {
		own := new(segment[V])
		for j := range seg {
			own[j].Store(seg[j].Load())
		}
		own[id%segmentSets].Store(s)
		at.Store(own)
		t.born[i] = t.freeze
		return
	}
	seg[id%segmentSets].Store(s)
}

// move accounts for a slot that went from one set to another. Order: after the slot
// was stored, because it may free from (I3).
func (t *setTable[V]) move(from, to uint64) {
	t.of(uint32(to)).refs++
	m := t.of(uint32(from))
	m.refs--
	if m.refs == 0 && uint32(from) != 0 {
		t.retire(uint32(from), m)
	}
}

// retire queues a set that no slot refers to. What falls out of the queue still
// unused is freed.
func (t *setTable[V]) retire(id uint32, m *setMeta) {
	m.refs = queuedBit
	t.retired = append(t.retired, id)
	t.retiredHolders += t.size(id, m)
	for len(t.retired)-t.retiredHead > t.maxRetired || t.retiredHolders > maxRetiredHolders {
		old := t.retired[t.retiredHead]
		t.retiredHead++
		om := t.of(old)
		n := t.size(old, om)
		t.retiredHolders -= n
		om.refs &^= queuedBit
		if om.refs == 0 {
			t.release(old, om, n)
		}
	}
	if t.retiredHead > maxRetired {
		t.retired = append(t.retired[:0], t.retired[t.retiredHead:]...)
		t.retiredHead = 0
	}
}

func (t *setTable[V]) size(id uint32, m *setMeta) int {
	return len(t.get(uint64(m.gen)<<32 | uint64(id)).holders)
}

// release frees a set's id. Its generation moves on, so that a reader who still
// carries the old value notices.
func (t *setTable[V]) release(id uint32, m *setMeta, holders int) {
	if first := t.byHash[m.hash]; first != id {
		before := t.of(first)
		for before.next != id {
			before = t.of(before.next)
		}
		before.next = m.next
	} else if m.next != 0 {
		t.byHash[m.hash] = m.next
	} else {
		delete(t.byHash, m.hash)
	}
	m.gen++
	t.install(id, nil)
	t.free = append(t.free, id)
	t.bytes -= setBytes(holders)
}
