package httpapi

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
	"github.com/kvctrl/kvctrl/registry"
)

// headerMiss is one code of a diagnosis, on an answer of /lookup that is empty.
const headerMiss = "X-Kvctrl-Miss"

const (
	// fleetAge is how long a look at the fleet serves the misses that follow it.
	fleetAge = time.Second
	// recently is how long a worker that was given up is a likely reason for a miss.
	recently = 10 * time.Minute
)

// misses names the likeliest reason of a miss by what is at hand: it hashes nothing and
// tries no profile. /diagnose knows more.
//
// Concurrency: any goroutine.
type misses struct {
	finder  *promptkeys.Finder
	fleet   atomic.Pointer[fleetLook] // of all instances
	looking atomic.Bool               // somebody is about to replace it
}

// fleetLook is what a look at the fleet, or at one instance, has seen.
type fleetLook struct {
	at  time.Time
	why string // "" when nothing is wrong
}

// code is the likeliest reason of a miss.
//
// Cost: a third of a microsecond, and once a second that of counting the fleet, for one
// of the lookups of that moment; for a prompt of one instance that of listing it.
func (m *misses) code(reg *registry.Registry, p promptkeys.Prompt, first registry.Key, now time.Time) string {
	if len(p.Tokens) < m.finder.SmallestChunk() {
		return whyShort
	}
	look := m.look(reg, p.Instance, now)
	if look.why != whyNoWorkers && reg.WasEvicted(first) && !reg.Held(first) {
		return whyEvicted
	}
	return cmp.Or(look.why, whyNotStored)
}

// look is at the instance, or at all with one of the last second.
func (m *misses) look(reg *registry.Registry, instance string, now time.Time) *fleetLook {
	if instance != "" {
		return &fleetLook{why: m.whyAt(reg, instance)}
	}
	old := m.fleet.Load()
	if old != nil && now.Sub(old.at) < fleetAge || !m.looking.CompareAndSwap(false, true) && old != nil {
		return old
	}
	look := &fleetLook{at: now, why: m.whyAnywhere(reg, now)}
	m.fleet.Store(look)
	m.looking.Store(false)
	return look
}

// whyAnywhere is what is wrong with the fleet, the likeliest reason first.
func (m *misses) whyAnywhere(reg *registry.Registry, now time.Time) string {
	t := reg.Totals()
	switch {
	case expired(reg, now):
		return whyExpired
	case t.Workers == 0:
		return whyNoWorkers
	case t.SyncingWorkers+t.WantedWorkers-t.UnrepairedWorkers > 0:
		return whySyncing
	case t.UnrepairedWorkers > 0:
		return whyUnrepaired
	case t.LossyStreams > 0:
		return whyLossy
	case t.Keys > 0 && !m.finder.HasFound():
		return whyNeverFound
	}
	return ""
}

// expired reports whether a worker that held something was given up lately, and is not
// back.
func expired(reg *registry.Registry, now time.Time) bool {
	since := registry.Micros(now.Add(-recently).UnixMicro())
	return slices.ContainsFunc(reg.Departed(), func(d registry.Departed) bool {
		if d.Why != registry.DepartedExpired || d.Keys == 0 || d.At < since {
			return false
		}
		_, back := reg.Worker(d.WorkerRef)
		return !back
	})
}

// whyAt is what is wrong with one instance.
func (m *misses) whyAt(reg *registry.Registry, instance string) string {
	x := explainer{e: &evidence{workers: reg.Workers(instance)}}
	if len(x.e.workers) == 0 {
		return whyNoWorkers
	}
	x.unsettled("")
	if len(x.reasons) > 0 {
		return x.reasons[0].Code
	}
	return ""
}
