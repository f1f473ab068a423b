package ingest

import (
	"sync"
	"time"

	"github.com/kvctrl/kvctrl/registry"
)

const (
	// slotTime is how long an asked worker has to start its sync. LMCache's workers wait
	// up to 5 s by themselves first, and a lost command is given again meanwhile.
	slotTime = 30 * time.Second

	// syncTime is what a full sync takes an engine at the least: LMCache waits 5 s before
	// it asks whether all is in. Slots are given evenly over it, with the default of 4 one
	// in 1.25 s, however many are free, so that the engines' lists of keys (2000 every 5 ms)
	// come one after the other. That keeps nobody waiting: no slot is free again sooner.
	syncTime = 5 * time.Second

	// fullTime is for how long nobody looks again after all slots were taken: a look goes
	// through all workers, and after a loss of state each of them asks at every heartbeat.
	fullTime = time.Second

	// termHold is for how long a new leader gives no slots: whom its predecessor has asked
	// it does not know before they start, and they do within 5 s of their last heartbeat.
	termHold = 10 * time.Second

	// A worker whose sync was given up, or that was asked and did not start one, is not
	// asked for firstPause, then twice as long each time, up to lastPause.
	firstPause = 30 * time.Second
	lastPause  = 10 * time.Minute

	// freeSyncs is how many full syncs a worker that loses events again and again is asked
	// for without a pause; then the same pauses begin. A link that drops one message in a
	// hundred would else keep its engine frozen half of the time. Who had no slot for
	// calmTime begins anew.
	freeSyncs = 5
	calmTime  = 2 * lastPause

	// sortEvery is between two looks for workers of which nothing need be remembered.
	sortEvery = 10 * time.Second
)

// pauseAfter is how long a worker is not asked after so many failures in a row.
func pauseAfter(failures int) time.Duration {
	if failures <= 0 {
		return 0
	}
	return min(firstPause<<min(failures-1, 10), lastPause)
}

// syncSlots decides which workers that owe a full sync are told so now: a syncing
// engine stores nothing for seconds, so only max of them sync at the same time. The
// leader's decide for all replicas.
//
// The count is what the registry says of all workers plus whom this leader has asked
// and who has not started. Whose syncs fail the registry knows, and so does every
// leader; who does not even start one is known to the leader that asked.
//
// Concurrency: any goroutine.
type syncSlots struct {
	max   int
	stats *counters

	mu     sync.Mutex
	asked  map[registry.WorkerRef]time.Time // asked in the last slotTime and not started: at most max
	past   map[registry.WorkerRef]askedFor  // who had a slot in the last calmTime, or owes a sync since
	next   time.Time                        // no slot before
	sorted time.Time                        // when past was last sorted
	term   uint64                           // in which this replica leads, or led last
}

// askedFor is what this leader remembers of a worker that it has asked.
type askedFor struct {
	last   time.Time // when its last slot ended
	starts int       // never calmTime apart
	vain   int       // slots in a row without a start
	until  time.Time // not asked before
}

// begin notes the term that this replica leads.
func (s *syncSlots) begin(term uint64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term != term {
		s.term, s.next = term, now.Add(termHold)
	}
}

// isFull reports whether a worker that is not asked yet need not try.
func (s *syncSlots) isFull(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.next)
}

// ask reports whether to tell w now, which owes a sync. syncing counts the workers that
// sync; wants reports whether a worker still owes a sync that has not begun.
func (s *syncSlots) ask(w registry.WorkerRef, owed registry.Owed, now time.Time, syncing func() int, wants func(registry.WorkerRef) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.asked[w]; ok && now.Sub(at) < slotTime {
		return true // the same answer again while the slot lasts: it may have been lost
	}
	failed := time.UnixMicro(int64(owed.FailedAt))
	if now.Before(s.next) || now.Before(s.past[w].until) || now.Before(failed.Add(pauseAfter(owed.Failures))) {
		return false
	}
	s.settle(now, wants)
	past := s.past[w]
	if now.Before(past.until) || past.vain > 0 && s.askedAgain() >= (s.max+1)/2 {
		return false
	}
	if syncing()+len(s.asked) >= s.max {
		s.next = now.Add(fullTime)
		return false
	}
	if s.asked == nil {
		s.asked, s.past = make(map[registry.WorkerRef]time.Time), make(map[registry.WorkerRef]askedFor)
	}
	if now.Sub(past.last) >= calmTime || owed.Failures > 0 { // the latter has pauses of its own
		past.starts = 0
		s.past[w] = past
	}
	s.asked[w] = now
	s.next = now.Add(syncTime / time.Duration(s.max))
	return true
}

// askedAgain counts those that have a slot and did not start a sync with an earlier one.
// They get half of the slots at most: workers that cannot sync (no CPU backend, and they do
// not say so) do not keep the others from it. Under mu.
func (s *syncSlots) askedAgain() (n int) {
	for w := range s.asked {
		if s.past[w].vain > 0 {
			n++
		}
	}
	return n
}

// look ends the slots of those that have started, or not in time. At least every second
// while this replica leads, so that who has started is known to have.
func (s *syncSlots) look(now time.Time, wants func(registry.WorkerRef) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle(now, wants)
}

// settle is look. Under mu.
func (s *syncSlots) settle(now time.Time, wants func(registry.WorkerRef) bool) {
	for w, at := range s.asked {
		past := s.past[w]
		switch {
		case !wants(w): // it has started, or is gone
			past.starts, past.vain = past.starts+1, 0
			past.until = now.Add(pauseAfter(past.starts - freeSyncs + 1))
		case now.Sub(at) >= slotTime:
			past.vain++
			past.until = at.Add(slotTime + pauseAfter(past.vain))
			s.stats.syncsInVain.Add(1)
		default:
			continue
		}
		past.last = now
		s.past[w] = past
		delete(s.asked, w)
	}
	if now.Sub(s.sorted) < sortEvery {
		return
	}
	s.sorted = now
	for w, past := range s.past {
		if now.Sub(past.last) >= calmTime && !wants(w) {
			delete(s.past, w)
		}
	}
}
