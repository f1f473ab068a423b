package ingest

import (
	"cmp"
	"slices"
	"sync"

	"github.com/kvctrl/kvctrl/registry"
)

// maxNotes bounds the memory for who was heard between two leases. Names are the
// senders' own; whom the registry does not know is left out of the lease.
const maxNotes = 1 << 17

// notes remembers who was heard of since the last lease. Any message is life; a
// heartbeat is noted apart because LMCache shows its time.
//
// Concurrency: any goroutine.
type notes struct {
	mu    sync.Mutex
	heard map[registry.WorkerRef]times
}

type times struct{ any, heartbeat registry.Micros }

func (n *notes) note(w registry.WorkerRef, at registry.Micros, heartbeat bool) {
	t := times{any: at}
	if heartbeat {
		t.heartbeat = at
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.merge(w, t)
}

// merge keeps the later times. Under mu.
func (n *notes) merge(w registry.WorkerRef, t times) {
	old, known := n.heard[w]
	if !known && len(n.heard) >= maxNotes {
		return
	}
	if n.heard == nil {
		n.heard = make(map[registry.WorkerRef]times)
	}
	n.heard[w] = times{max(old.any, t.any), max(old.heartbeat, t.heartbeat)}
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

// put takes notes back that did not get into a lease.
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
