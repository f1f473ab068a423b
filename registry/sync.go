package registry

import (
	"fmt"
	"math/bits"

	"github.com/kvctrl/kvctrl/registry/index"
)

// fullSync is a worker's announcement of all it holds in one location. What it has
// announced so far is in a hidden holder beside the stream's own.
type fullSync struct {
	id        string
	started   Micros
	totalKeys int64
	batches   batchSet
	shadow    *index.Holder[*stream]
	ended     bool // End is in; batches are missing
	tainted   bool // events were lost since the start: the stream stays lossy

	// evicted are the keys whose last operation since the start was an evict: a
	// batch that names one was taken before. Bounded by Options.MaxSyncEvicts.
	evicted map[Key]struct{}
}

// SyncStart opens a full sync of one stream. One of another id that runs there already
// ends without effect: its worker gave up.
//
// A start that is said again, because its answer was late or lost, changes nothing: its
// worker has listed its keys once, and what happened since the first start counts. One
// that comes late, of a sync that its worker has given up, is refused.
func (r *Registry) SyncStart(s SyncStart) SyncStartResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(s.At)

	w := r.workers[s.Stream.WorkerRef]
	if w == nil {
		return SyncStartResult{Reason: fmt.Sprintf("worker %q/%d is not registered", s.Stream.Instance, s.Stream.Worker)}
	}
	if s.BatchCount < 0 || s.BatchCount > MaxSyncBatches {
		return SyncStartResult{Reason: fmt.Sprintf("batch count is %d: it must be from 0 to %d", s.BatchCount, MaxSyncBatches)}
	}
	if w.after(s.At) {
		return SyncStartResult{Reason: fmt.Sprintf("worker %q/%d has registered since", s.Stream.Instance, s.Stream.Worker)}
	}
	if st := w.stream(s.Stream.Location); st != nil {
		if res, said := st.startAgain(s); said {
			return res
		}
	}
	st, refused := r.openStream(w, s.Stream.Location)
	if st == nil {
		return SyncStartResult{Reason: refused}
	}
	if r.endSync(st) {
		r.syncs.replaced.Add(1)
	}
	r.syncs.started.Add(1)
	st.sync = &fullSync{
		id:        s.SyncID,
		started:   s.At,
		totalKeys: s.TotalKeys,
		batches:   batchSet{count: s.BatchCount},
		shadow:    r.idx.NewHolder(st),
	}
	r.idx.Hide(st.sync.shadow)
	r.markStoring(st, s.TotalKeys > 0)
	w.wanted = ""
	return SyncStartResult{Accepted: true}
}

// startAgain answers the start of a sync that has begun before, or should have. It
// reports whether this is one.
func (st *stream) startAgain(s SyncStart) (res SyncStartResult, said bool) {
	switch y := st.sync; {
	case y != nil && y.id == s.SyncID:
		if y.batches.count != s.BatchCount { // which no worker does: what it lists is not to be trusted
			y.batches, y.ended, y.tainted = batchSet{count: s.BatchCount}, false, true
		}
		return SyncStartResult{Accepted: true}, true
	case y != nil && s.At+lateGrace < y.started:
		return SyncStartResult{Reason: fmt.Sprintf("sync %q has begun since", y.id)}, true
	case y != nil || st.syncedAt == 0: // another one begins, or the first
		return SyncStartResult{}, false
	case st.lastSync == s.SyncID && st.synced:
		return SyncStartResult{Accepted: true}, true // its status says that it is complete
	case st.lastSync == s.SyncID:
		return SyncStartResult{Reason: fmt.Sprintf("sync %q was given up: begin another one", s.SyncID)}, true
	case s.At+lateGrace < st.syncedAt:
		return SyncStartResult{Reason: fmt.Sprintf("sync %q has ended since", st.lastSync)}, true
	}
	return SyncStartResult{}, false
}

// SyncBatch takes a batch of a running full sync. A key that was evicted since the
// sync began stays out. A batch beyond the announced count adds its keys, as with
// LMCache, but fills no gap.
func (r *Registry) SyncBatch(b SyncBatch) SyncResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(b.At)

	st := r.syncOf(b.Stream, b.SyncID)
	if st == nil {
		return SyncResult{Ignored: true}
	}
	s := st.sync
	if !st.worker.firsts.full() {
		st.worker.firsts.add(b.Keys, nil)
	}
	if len(s.evicted) == 0 {
		index.Apply(r.idx, s.shadow, b.Keys, nil)
	} else {
		for _, k := range b.Keys {
			if _, gone := s.evicted[k]; !gone {
				r.idx.Admit(s.shadow, index.Key(k))
			}
		}
	}
	r.markStoring(st, len(b.Keys) > 0)
	s.batches.add(b.BatchID)
	return SyncResult{Complete: r.completeSync(st, b.At)}
}

// SyncEnd says that all batches have been sent. The sync completes now if they are
// all in, else with the last one that was missing.
func (r *Registry) SyncEnd(e SyncEnd) SyncResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(e.At)

	st := r.syncOf(e.Stream, e.SyncID)
	if st == nil {
		done := r.streamOf(e.Stream)
		if done != nil && done.synced && done.lastSync == e.SyncID {
			return SyncResult{Complete: true} // said again
		}
		return SyncResult{Ignored: true}
	}
	st.sync.ended = true
	return SyncResult{Complete: r.completeSync(st, e.At)}
}

// SyncAwaitsEnd returns the end of a worker's running sync when that is all that is
// missing of it: every batch that was announced is in, at least one.
func (r *Registry) SyncAwaitsEnd(ref WorkerRef, syncID string) (end SyncEnd, awaited bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	w := r.workers[ref]
	if w == nil {
		return SyncEnd{}, false
	}
	for _, st := range w.streams {
		if s := st.sync; s != nil && s.id == syncID && !s.ended && s.batches.count > 0 && s.batches.missing() == 0 {
			return SyncEnd{Stream: st.ref(), SyncID: s.id, TotalKeys: s.totalKeys}, true
		}
	}
	return SyncEnd{}, false
}

// completeSync puts the announced keys in the place of the known ones, if all are
// in. Readers see the new holder before the old one goes: for a moment both, which
// are one stream to them, and never neither.
func (r *Registry) completeSync(st *stream, at Micros) bool {
	s := st.sync
	if !s.ended || s.batches.missing() > 0 {
		return false
	}
	old := st.holder
	r.idx.Show(s.shadow)
	r.idx.Drop(old)
	st.holder = s.shadow
	st.sync = nil
	st.lastSync, st.synced, st.syncedAt = s.id, true, at
	st.worker.syncFailures, st.worker.syncFailed = 0, 0
	r.syncs.completed.Add(1)
	switch {
	case !s.tainted:
		st.lossy.Store(false)
	case st.location == CPULocation:
		st.worker.want(ReasonEventsLost)
	}
	return true
}

// endSync ends a running sync without effect: the keys known before stay, with all
// operations that came meanwhile. It reports whether there was one.
func (r *Registry) endSync(st *stream) bool {
	if st.sync == nil {
		return false
	}
	r.idx.Drop(st.sync.shadow)
	st.sync = nil
	return true
}

// failSync gives up a running sync; its worker shall try again, after a pause that
// grows with its failures (whoever asks it sees to that).
func (r *Registry) failSync(st *stream, at Micros) {
	st.lastSync, st.synced, st.syncedAt = st.sync.id, false, at
	r.endSync(st)
	r.syncs.failed.Add(1)
	st.worker.syncFailures++
	st.worker.syncFailed = at
	st.worker.want(ReasonSyncFailed)
}

// applySyncing applies a run to the side of a running sync.
func (r *Registry) applySyncing(st *stream, o Ops) {
	s := st.sync
	index.Apply(r.idx, s.shadow, o.Keys, o.Evict)
	for i, k := range o.Keys {
		if !o.Evict.Has(i) {
			delete(s.evicted, k)
			continue
		}
		if s.evicted == nil {
			s.evicted = make(map[Key]struct{})
		}
		s.evicted[k] = struct{}{}
	}
	if len(s.evicted) > r.opts.MaxSyncEvicts {
		r.failSync(st, o.At)
	}
}

// expireSyncs gives up the syncs that began more than timeout before at.
func (r *Registry) expireSyncs(at, timeout Micros) {
	for _, inst := range r.instances {
		for _, w := range inst.workers {
			for _, st := range w.streams {
				if st.sync == nil {
					continue
				}
				st.sync.started = notAhead(st.sync.started, at)
				if at-st.sync.started > timeout {
					r.failSync(st, at)
				}
			}
		}
	}
}

func (r *Registry) streamOf(ref StreamRef) *stream {
	if w := r.workers[ref.WorkerRef]; w != nil {
		return w.stream(ref.Location)
	}
	return nil
}

// syncOf finds the stream whose running sync has this id.
func (r *Registry) syncOf(ref StreamRef, id string) *stream {
	if st := r.streamOf(ref); st != nil && st.sync != nil && st.sync.id == id {
		return st
	}
	return nil
}

// batchSet is the set of batches received, out of count. Its memory follows what was
// received, not what was announced.
type batchSet struct {
	count    int64
	received int64
	words    map[int64]uint64 // id/64 -> bits
}

// add notes a batch; one beyond the announced count is none.
func (b *batchSet) add(id int64) {
	if id < 0 || id >= b.count {
		return
	}
	if b.words == nil {
		b.words = make(map[int64]uint64)
	}
	word, bit := id/64, uint64(1)<<(id%64)
	if b.words[word]&bit == 0 {
		b.words[word] |= bit
		b.received++
	}
}

func (b *batchSet) missing() int64 { return b.count - b.received }

// list returns the first limit missing ids, ascending.
func (b *batchSet) list(limit int) []int64 {
	limit = int(min(int64(limit), b.missing()))
	out := make([]int64, 0, limit)
	for word := int64(0); len(out) < limit; word++ {
		for free := ^b.words[word]; free != 0 && len(out) < limit; free &= free - 1 {
			out = append(out, word*64+int64(bits.TrailingZeros64(free)))
		}
	}
	return out
}

// ids returns the received ids, in no order.
func (b *batchSet) ids() []int64 {
	out := make([]int64, 0, b.received)
	for word, set := range b.words {
		for ; set != 0; set &= set - 1 {
			out = append(out, word*64+int64(bits.TrailingZeros64(set)))
		}
	}
	return out
}
