package index

import "sync/atomic"

// State is what readers make of a holder.
type State uint32

const (
	Visible State = iota // its keys count in answers
	Hidden               // it is being filled aside (a full sync): readers skip it
	Dead                 // dropped: its entries wait for the sweep
)

// Holder is an owner of keys. V is what the index's user knows the owner by; it
// is set once, by NewHolder.
//
// Concurrency: every method may be called from any goroutine. Count and Sum are
// published by the writer at the end of each call, and are two words: a reader
// beside the writer may see one of them newer than the other.
type Holder[V any] struct {
	V V

	seq uint64 // rank in order of NewHolder; sorts holder sets
	mix uint64 // this holder's share of a set's hash

	hidden atomic.Bool
	died   atomic.Uint64 // the index's clock at Drop, 0 while it lives
	count  atomic.Int64
	sum    atomic.Uint64
}

// State returns the holder's state of this moment.
func (h *Holder[V]) State() State {
	switch {
	case h.died.Load() != 0:
		return Dead
	case h.hidden.Load():
		return Hidden
	}
	return Visible
}

// Visible reports whether the holder counts in answers.
func (h *Holder[V]) Visible() bool { return h.died.Load() == 0 && !h.hidden.Load() }

// Count returns how many keys are held; 0 once dropped.
func (h *Holder[V]) Count() int64 { return h.count.Load() }

// Sum returns the wrapping sum of KeySum over the keys held, 0 once dropped: it is
// equal for equal sets of keys, in whatever order they came.
func (h *Holder[V]) Sum() uint64 { return h.sum.Load() }

// tally adds to what the holder publishes of itself. Writer only.
func (h *Holder[V]) tally(count int64, sum uint64) {
	h.count.Store(h.count.Load() + count)
	h.sum.Store(h.sum.Load() + sum)
}
