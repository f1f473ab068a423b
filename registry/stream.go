package registry

import (
	"fmt"
	"math/bits"
	"sync/atomic"

	"github.com/kvctrl/kvctrl/registry/index"
)

// stream is the events of one location of one worker, and what they add up to.
type stream struct {
	location string
	worker   *worker
	number   uint64
	slot     uint32

	lossy atomic.Bool // published by the writer: events were lost and not made good

	// Guarded by Registry.mu. The index has its own rules: readers reach a holder
	// through it, never through this field.
	holder   *index.Holder[*stream]
	stores   bool // has held, or announced, at least one key
	gaps     int64
	sequence sequence
	sync     *fullSync // nil when none is running
	lastSync string    // id of the last full sync that completed or was given up
	synced   bool      // it completed
	syncedAt Micros    // when it ended; 0 for never
}

// ApplyOps applies a run of operations to a stream. They are applied whatever
// their numbers: LMCache's contract. A break in the numbers marks the stream lossy.
// What comes late, by another replica than the one the worker has moved to, is not
// applied: a loss was noted when it was passed over.
//
// Cost: one index operation a key, two while the stream is in a full sync.
func (r *Registry) ApplyOps(o Ops) OpsResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(o.At)

	w := r.workers[o.Stream.WorkerRef]
	if w == nil {
		return OpsResult{Unknown: true}
	}
	if len(o.Keys) == 0 {
		return OpsResult{}
	}
	st, refused := r.openStream(w, o.Stream.Location)
	if st == nil {
		return OpsResult{Refused: refused}
	}
	v := st.sequence.judge(o, birth{fromZero: !w.adopted, at: w.registered})
	res := OpsResult{Gap: v.gap, Late: v.late}
	if v.lossy {
		r.lose(st)
	}
	if v.late > 0 {
		r.late += int64(v.late)
		if o = o.after(v.late); len(o.Keys) == 0 {
			return res
		}
	}
	if v.gap && st.sequence.count() {
		st.gaps++
		r.gaps++
	}
	if !w.firsts.full() {
		w.firsts.add(o.Keys, o.Evict)
	}
	admitted := r.applyRun(st, o)
	if st.sync != nil {
		r.applySyncing(st, o)
	}
	r.markStoring(st, admitted)
	return res
}

// applyRun applies a run to a stream's holder and reports whether it has admitted a key.
//
// A stream that has lost events is sound again when its last key is evicted: of what it
// says, which is nothing, nothing can be false. Not the CPU cache, which a full sync
// repairs. Determinism: it does not matter how the run was cut, nor what came after the
// evict.
func (r *Registry) applyRun(st *stream, o Ops) (admitted bool) {
	if !st.lossy.Load() || st.location == CPULocation || st.sync != nil || o.Evict.count() < st.holder.Count() {
		admitted, _ := index.Apply(r.idx, st.holder, o.Keys, o.Evict)
		return admitted > 0
	}
	for i, k := range o.Keys {
		if !o.Evict.Has(i) {
			admitted = r.idx.Admit(st.holder, index.Key(k)) || admitted
		} else if r.idx.Evict(st.holder, index.Key(k)) && st.holder.Count() == 0 {
			st.lossy.Store(false)
		}
	}
	return admitted
}

// count returns how many are in the set.
func (b Bitmap) count() (n int64) {
	for _, set := range b {
		n += int64(bits.OnesCount8(set))
	}
	return n
}

// markStoring notes that a stream has held a key.
func (r *Registry) markStoring(st *stream, stores bool) {
	if stores && !st.stores {
		st.stores = true
		st.worker.instance.publishStoring()
	}
}

// openStream finds a stream or makes it. The reason is set when it does neither.
func (r *Registry) openStream(w *worker, location string) (st *stream, refused string) {
	if st := w.stream(location); st != nil {
		return st, ""
	}
	if len(w.streams) >= r.opts.MaxLocations {
		return nil, fmt.Sprintf("worker %q/%d has %d locations, the most there may be: %q is not kept", w.ref.Instance, w.ref.Worker, len(w.streams), location)
	}
	st = r.newStream(w, location, r.nextNumber())
	st.lossy.Store(w.adopted)
	return st, ""
}

func (r *Registry) newStream(w *worker, location string, number uint64) *stream {
	st := &stream{location: location, worker: w, number: number, slot: r.streamSlots.take()}
	st.holder = r.idx.NewHolder(st)
	w.streams = append(w.streams, st)
	return st
}

// dropStreams ends all streams of a worker, their keys and syncs.
func (r *Registry) dropStreams(w *worker) {
	if len(w.streams) == 0 {
		return
	}
	for _, st := range w.streams {
		if r.endSync(st) {
			r.syncs.dropped.Add(1)
		}
		r.idx.Drop(st.holder)
		r.streamSlots.free(st.slot)
	}
	w.streams = nil
	w.instance.publishStoring()
}

// lose notes that events of a stream were lost. During a full sync it cannot be
// told whether the sync still covers them, so the sync will not make the stream
// whole; else a worker's CPU cache wants a sync, the only location that has one.
func (r *Registry) lose(st *stream) {
	st.lossy.Store(true)
	switch {
	case st.sync != nil:
		st.sync.tainted = true
	case st.location == CPULocation:
		st.worker.want(ReasonEventsLost)
	}
}

// want notes that a worker owes a full sync; the first reason stays.
func (w *worker) want(reason string) {
	if w.wanted == "" {
		w.wanted = reason
	}
}
