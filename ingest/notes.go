package ingest

import (
	"cmp"
	"slices"
	"sync"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// maxNotes bounds the memory for who was heard between two leases, here and as other
// replicas say: twice as many as can be registered. Names are the senders' own; whom the registry does not know is
// left out of the lease.
const maxNotes = 1 << 17

// note notes a sign of life. Any goroutine.
//
// A name that no worker can register under is not kept, however long. At the bound the
// strangers go, so that invented names cannot make the workers look silent.
func (s *Server) note(w registry.WorkerRef, at registry.Micros, heartbeat bool) {
	t := times{any: at}
	if heartbeat {
		t.heartbeat = at
	}
	s.noted(w, t)
}

func (s *Server) noted(w registry.WorkerRef, t times) {
	if len(w.Instance) > fsm.MaxName || s.notes.note(w, t) {
		return
	}
	s.notes.put(s.onlyRegistered(s.notes.take()))
	s.notes.note(w, t)
}

// onlyRegistered drops those who are not registered.
func (s *Server) onlyRegistered(heard []registry.Heard) []registry.Heard {
	reg := s.opts.State.Registry()
	return slices.DeleteFunc(heard, func(h registry.Heard) bool {
		_, known := reg.Worker(h.WorkerRef)
		return !known
	})
}

// notes remembers who was heard of since the last lease. Any message is life; a
// heartbeat is noted apart because LMCache shows its time.
//
// Concurrency: any goroutine.
type notes struct {
	mu    sync.Mutex
	heard map[registry.WorkerRef]times
}

type times struct{ any, heartbeat registry.Micros }

// note reports whether there was room.
func (n *notes) note(w registry.WorkerRef, t times) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.merge(w, t)
}

// merge keeps the later times. Under mu.
func (n *notes) merge(w registry.WorkerRef, t times) bool {
	old, known := n.heard[w]
	if !known && len(n.heard) >= maxNotes {
		return false
	}
	if n.heard == nil {
		n.heard = make(map[registry.WorkerRef]times)
	}
	n.heard[w] = times{max(old.any, t.any), max(old.heartbeat, t.heartbeat)}
	return true
}

// take hands over all notes, sorted.
func (n *notes) take() []registry.Heard {
	n.mu.Lock()
	heard := n.heard
	n.heard = nil
	n.mu.Unlock()
	out := make([]registry.Heard, 0, len(heard))
	for w, t := range heard {
		out = append(out, registry.Heard{WorkerRef: w, Any: t.any, Heartbeat: t.heartbeat})
	}
	slices.SortFunc(out, func(a, b registry.Heard) int { return compareWorkers(a.WorkerRef, b.WorkerRef) })
	return out
}

// put takes notes back that did not get into a lease, or to the leader.
func (n *notes) put(heard []registry.Heard) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range heard {
		n.merge(h.WorkerRef, times{h.Any, h.Heartbeat})
	}
}

func compareWorkers(a, b registry.WorkerRef) int {
	return cmp.Or(cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.Worker, b.Worker))
}
