package ingest

import (
	"sync"
	"time"

	"github.com/kvctrl/kvctrl/registry"
)

// slotTime is how long an asked worker has to start its sync. LMCache's workers wait
// up to 5 s by themselves first, and a lost command is given again meanwhile.
const slotTime = 30 * time.Second

// fullTime is for how long nobody looks again after all slots were taken: a look goes
// through all workers, and after a loss of state each of them asks at every heartbeat.
const fullTime = time.Second

// termHold is for how long a new leader gives no slots: whom its predecessor has asked
// it does not know before they start, and they do within 5 s of their last heartbeat.
const termHold = 10 * time.Second

// syncSlots decides which workers that owe a full sync are told so now: a syncing
// engine stores nothing for seconds, so only max of them sync at the same time. The
// leader's decide for all replicas.
//
// The count is what the registry says of all workers plus whom this leader has asked
// and who has not started.
//
// Concurrency: any goroutine.
type syncSlots struct {
	max int

	mu    sync.Mutex
	asked map[registry.WorkerRef]time.Time
	full  time.Time // until then
	term  uint64    // in which this replica leads, or led last
}

// begin notes the term that this replica leads.
func (s *syncSlots) begin(term uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term != term {
		s.term, s.full = term, now.Add(termHold)
	}
}

// isFull reports whether a worker that is not asked yet need not try.
func (s *syncSlots) isFull(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.full)
}

// ask reports whether to tell w now. syncing counts the workers that sync; wants
// reports whether a worker still owes a sync that has not begun.
func (s *syncSlots) ask(w registry.WorkerRef, now time.Time, syncing func() int, wants func(registry.WorkerRef) bool) bool {
	s.mu.Lock()
	if _, ok := s.asked[w]; !ok && now.Before(s.full) {
		s.mu.Unlock()
		return false
	}
	candidates := make([]registry.WorkerRef, 0, len(s.asked))
	for other := range s.asked {
		candidates = append(candidates, other)
	}
	s.mu.Unlock()
	taken := syncing()
	var started []registry.WorkerRef
	for _, other := range candidates {
		if !wants(other) {
			started = append(started, other)
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range started {
		delete(s.asked, other)
	}
	for other, at := range s.asked {
		switch age := now.Sub(at); {
		case age >= 2*slotTime:
			delete(s.asked, other)
		case age < slotTime:
			taken++
		}
	}
	if at, ok := s.asked[w]; ok {
		// The same answer again while the slot lasts; then a pause as long, so that a
		// worker that cannot sync does not keep the slot from those that can.
		return now.Sub(at) < slotTime
	}
	if taken >= s.max {
		s.full = now.Add(fullTime)
		return false
	}
	if s.asked == nil {
		s.asked = make(map[registry.WorkerRef]time.Time)
	}
	s.asked[w] = now
	return true
}
