package registry

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// CPULocation is the backend that LMCache's full sync announces, and from which
// its peers are served.
const CPULocation = "LocalCPUBackend"

// Why a worker owes a full sync, in the words that its heartbeat is answered with.
const (
	ReasonReRegistered = "worker_re_registered" // known by a heartbeat alone: what it holds is unknown
	ReasonEventsLost   = "events_lost"          // a gap in the events of its CPU cache
	ReasonSyncFailed   = "sync_failed_retry"    // its last full sync was given up
)

// instance is an engine: one or more workers (ranks). What readers without the
// lock use is immutable or atomic.
type instance struct {
	id     string
	number uint64
	slot   uint32

	workers []*worker // by number; guarded by Registry.mu

	// storing are the workers that hold chunks of their own, by number. The writer
	// publishes a new slice at every change; a published one is never written.
	storing atomic.Pointer[[]*worker]
}

// worker is one rank.
type worker struct {
	ref      WorkerRef
	instance *instance
	number   uint64
	slot     uint32

	peer    atomic.Pointer[string] // published by the writer; nil without P2P
	suspect atomic.Bool            // published by the writer

	// Guarded by Registry.mu.
	ip            string
	port          int64
	registered    Micros
	lastHeartbeat Micros
	lastHeard     Micros
	beats         bool   // has sent a heartbeat since it was registered
	adopted       bool   // registered by a heartbeat: it may hold what we never heard of
	wanted        string // reason of the full sync it owes; "" for none
	syncFailures  int    // full syncs given up since the last that completed
	syncFailed    Micros // when the last of them was
	streams       []*stream
	firsts        firstKeys
}

// begin starts a worker's life: at its registration it knows nothing of the past.
func (w *worker) begin(at Micros) {
	w.registered, w.lastHeartbeat, w.lastHeard = at, at, at
	w.beats, w.adopted, w.wanted = false, false, ""
	w.syncFailures, w.syncFailed = 0, 0
	w.suspect.Store(false)
}

// after reports whether the worker was registered after the given time, beyond what the
// clocks of two replicas may be apart.
func (w *worker) after(at Micros) bool { return at+lateGrace < w.registered }

// registrationPatience is how long a worker waits for the answer to its registration
// (LMCache's own 30 s): what comes again, comes again within that.
const registrationPatience = 30 * second

// repeats reports whether a registration is the known one once more: from the same
// address, soon after it, and its worker has said nothing in between. Should it be
// another process after all, there is nothing of the first one to drop.
func (w *worker) repeats(g Registration) bool {
	url := w.peer.Load()
	return !g.ByHeartbeat && !w.adopted && len(w.streams) == 0 && g.At-w.registered <= registrationPatience &&
		w.ip == g.IP && w.port == g.Port && (url == nil) == (g.PeerInitURL == nil) && (url == nil || *url == *g.PeerInitURL)
}

// hear notes signs of life; heartbeat is 0 when none of them was one.
func (w *worker) hear(any, heartbeat Micros) {
	if heartbeat > 0 {
		w.beats = true
		w.lastHeartbeat = max(w.lastHeartbeat, heartbeat)
	}
	w.lastHeard = max(w.lastHeard, any, heartbeat)
}

func (w *worker) setPeer(url *string) {
	if url == nil {
		w.peer.Store(nil)
		return
	}
	s := *url
	w.peer.Store(&s)
}

func (w *worker) stream(location string) *stream {
	for _, st := range w.streams {
		if st.location == location {
			return st
		}
	}
	return nil
}

func (w *worker) syncing() bool {
	return slices.ContainsFunc(w.streams, func(st *stream) bool { return st.sync != nil })
}

// stores reports whether the worker holds, or has held, chunks of its own. A rank
// that never stored anything (all but rank 0 of an MLA model) has no say in what
// its instance holds.
func (w *worker) stores() bool {
	return slices.ContainsFunc(w.streams, func(st *stream) bool { return st.stores })
}

// remove takes out a worker whose streams have ended: it stores nothing any more.
func (inst *instance) remove(w *worker) {
	i := slices.Index(inst.workers, w)
	inst.workers = slices.Delete(inst.workers, i, i+1)
}

// publishStoring makes the set of storing workers known to readers.
func (inst *instance) publishStoring() {
	storing := make([]*worker, 0, len(inst.workers))
	for _, w := range inst.workers {
		if w.stores() {
			storing = append(storing, w)
		}
	}
	if !slices.Equal(storing, *inst.storing.Load()) {
		inst.storing.Store(&storing)
	}
}

func byInstanceNumber(inst *instance, number uint64) int { return cmp.Compare(inst.number, number) }

// slots hands out small numbers, each to one owner at a time, so that a search can
// keep its notes in arrays. They mean nothing beyond this process: no digest and no
// snapshot knows them.
type slots struct {
	next     uint32
	released []uint32
}

func (s *slots) take() uint32 {
	if n := len(s.released); n > 0 {
		slot := s.released[n-1]
		s.released = s.released[:n-1]
		return slot
	}
	s.next++
	return s.next - 1
}

func (s *slots) free(slot uint32) { s.released = append(s.released, slot) }
