package index

import "slices"

// A slot changes by going from one holder set to another. Most changes of a batch
// are the same step again (an engine's ranks admit the same chunks one after the
// other), so steps are remembered.

type step uint64

const (
	stepAdmit step = iota
	stepEvict
	stepClean
	stepKinds = 4 // how far apart the steps of two holders are in memo.who
)

const memoBits = 12

// memo is a remembered step: from one set to another. who tells holder and kind, and
// for stepClean the number of drops at which it was computed. A remembered target may
// have been freed since; its generation tells.
type memo struct{ from, who, to uint64 }

// step returns the set that a slot of set from goes to. The value is the same when
// nothing changes.
func (x *Index[V]) step(kind step, from uint64, h *Holder[V]) uint64 {
	who := uint64(kind)
	if kind == stepClean {
		who |= uint64(x.drops) * stepKinds
	} else {
		who |= h.seq * stepKinds
	}
	m := &x.memo[(from*0x9e3779b97f4a7c15^who*0xbf58476d1ce4e5b9)>>(64-memoBits)]
	if m.from == from && m.who == who && x.sets.alive(m.to) {
		return m.to
	}
	var to uint64
	switch kind {
	case stepAdmit:
		to = x.plus(from, h)
	case stepEvict:
		to = x.minus(from, h)
	case stepClean:
		to = x.cleaned(from)
	}
	*m = memo{from, who, to}
	return to
}

func bySeq[V any](h *Holder[V], seq uint64) int {
	switch {
	case h.seq < seq:
		return -1
	case h.seq > seq:
		return 1
	}
	return 0
}

func (x *Index[V]) plus(from uint64, h *Holder[V]) uint64 {
	set := x.sets.get(from).holders
	i, held := slices.BinarySearchFunc(set, h.seq, bySeq[V])
	if held {
		return from
	}
	return x.sets.intern(x.sets.of(uint32(from)).hash+h.mix, set[:i], []*Holder[V]{h}, set[i:])
}

func (x *Index[V]) minus(from uint64, h *Holder[V]) uint64 {
	set := x.sets.get(from).holders
	i, held := slices.BinarySearchFunc(set, h.seq, bySeq[V])
	if !held {
		return from
	}
	return x.sets.intern(x.sets.of(uint32(from)).hash-h.mix, set[:i], nil, set[i+1:])
}

// cleaned returns the set without its dead holders.
func (x *Index[V]) cleaned(from uint64) uint64 {
	set := x.sets.get(from).holders
	hash := x.sets.of(uint32(from)).hash
	x.scratch = x.scratch[:0]
	for _, h := range set {
		if h.died.Load() != 0 {
			hash -= h.mix
		} else {
			x.scratch = append(x.scratch, h)
		}
	}
	if len(x.scratch) == len(set) {
		x.scratch = x.scratch[:0]
		return from
	}
	return x.internScratch(hash)
}

// internScratch interns the holders in x.scratch and forgets them there, so that the
// scratch keeps no dead holder alive.
func (x *Index[V]) internScratch(hash uint64) uint64 {
	to := x.sets.intern(hash, x.scratch, nil, nil)
	clear(x.scratch)
	x.scratch = x.scratch[:0]
	return to
}
