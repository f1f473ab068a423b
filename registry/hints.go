package registry

import (
	"slices"

	"github.com/kvctrl/kvctrl/registry/index"
)

// This file holds what is remembered for people who ask why a lookup found nothing.
// It is not state: no digest and no snapshot has it, replicas may differ in it, and
// after a restore it begins empty. All of it is bounded.

const (
	maxFirstKeys = 32 // per process of a worker
	maxDeparted  = 64

	// sampleSlots bounds the scan of SampleKeys: half a millisecond. It is all of an
	// index of some hundred thousand keys, and of a larger one a part as good as any.
	sampleSlots = 1 << 18
)

// Why a worker is among the departed.
const (
	DepartedExpired      = "expired"      // silent for too long
	DepartedDeregistered = "deregistered" // by its own word, or an operator's
)

// Departed is a worker that is no longer registered.
type Departed struct {
	WorkerRef
	At   Micros
	Why  string // "expired" or "deregistered"
	Keys int64  // (chunk, location) pairs it held
}

// WasEvicted reports whether a chunk lost its last holder by an evict, not long ago, and
// has had none since: it is among some 65 536 that did.
//
// Concurrency: any goroutine, without the registry's lock; some 20 ns. A hint (see this
// file's beginning): yes is wrong once in two thousand million times, no is no proof.
func (r *Registry) WasEvicted(k Key) bool { return r.idx.Evicted(index.Key(k)) }

// FirstKeys returns the first keys, up to 32, that this replica saw a worker's present
// process admit or announce, and those of the process before it, told by their
// registrations: one that was given up and comes back by a heartbeat goes on. A hint.
func (r *Registry) FirstKeys(ref WorkerRef) (before, now []Key) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if w := r.workers[ref]; w != nil {
		return slices.Clone(w.firsts.before), slices.Clone(w.firsts.now)
	}
	return r.departed.firstKeys(ref), nil
}

// Departed returns the latest workers, up to 64, that have gone, newest first. A hint.
func (r *Registry) Departed() []Departed {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]Departed, 0, len(r.departed))
	for _, d := range slices.Backward(r.departed) {
		out = append(out, d.Departed)
	}
	return out
}

// SampleKeys returns up to n keys that an instance holds now, in no order. It looks at
// some 260 000 places of the index, half a millisecond: of an index of ten million keys
// it finds nothing of an instance that holds a few dozen. Any goroutine; it takes the
// lock for a moment only.
func (r *Registry) SampleKeys(instance string, n int) []Key {
	r.mu.RLock()
	inst := r.byID[instance]
	r.mu.RUnlock()
	if inst == nil || n <= 0 {
		return nil
	}
	var out []Key
	var last []*index.Holder[*stream] // most keys of an instance have the same holders
	held := false
	r.idx.Sample(sampleSlots, func(k index.Key, holders []*index.Holder[*stream]) bool {
		if !same(holders, last) {
			last = holders
			held = slices.ContainsFunc(holders, func(h *index.Holder[*stream]) bool { return h.Visible() && h.V.worker.instance == inst })
		}
		if held {
			out = append(out, Key(k))
		}
		return len(out) < n
	})
	return out
}

// firstKeys are the first keys of a worker's process, and of the one before it.
type firstKeys struct{ now, before []Key }

func (f *firstKeys) full() bool { return len(f.now) == maxFirstKeys }

// add notes the keys of a run that are admitted.
func (f *firstKeys) add(keys []Key, evict Bitmap) {
	for i, k := range keys {
		if f.full() {
			return
		}
		if !evict.Has(i) {
			f.now = append(f.now, k)
		}
	}
}

// turn begins another process. One that stored nothing leaves nothing to compare with,
// and is passed over.
func (f *firstKeys) turn() {
	if len(f.now) > 0 {
		f.now, f.before = nil, f.now
	}
}

// departures are the latest workers that have gone, oldest first.
type departures []departure

type departure struct {
	Departed
	first []Key
}

func (d *departures) add(w *worker, at Micros, why string) {
	gone := departure{Departed: Departed{WorkerRef: w.ref, At: at, Why: why}}
	for _, st := range w.streams {
		gone.Keys += st.holder.Count()
	}
	w.firsts.turn()
	gone.first = w.firsts.before
	if len(*d) == maxDeparted {
		*d = slices.Delete(*d, 0, 1)
	}
	*d = append(*d, gone)
}

// firstKeys returns the first keys of a worker's last process before it went.
func (d departures) firstKeys(ref WorkerRef) []Key {
	for _, gone := range slices.Backward(d) {
		if gone.WorkerRef == ref {
			return gone.first
		}
	}
	return nil
}
