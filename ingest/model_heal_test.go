package ingest

import (
	"slices"
	"time"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// The promise: when the ways are mended, and the syncs that are owed have run, what the
// index says is what the engines hold.

// proofKey is stored and dropped by each stream at the end: without a further operation
// the loss of the last ones shows to nobody.
const proofKey = lmcache.Key(77)

// healTime is how long the registry may take until nobody owes a sync, on the engines'
// clocks. Workers that fail are asked again with pauses.
const healTime = 3 * time.Hour

// heal mends everything and checks the promise.
func (m *model) heal() {
	m.t.Logf("# everything is mended")
	if m.leader == nil {
		m.elect(m.front)
	}
	for _, r := range m.replicas {
		r.cut = false
	}
	for _, entry := range m.late {
		m.commit(entry)
	}
	m.late = nil
	m.calm()
	m.mended = m.now
	m.prove()
	for until := m.now.Add(healTime); ; {
		if !m.owed() {
			m.prove()
			if !m.owed() {
				break
			}
		}
		if m.now.After(until) {
			workers, _ := m.naive.infos()
			m.fatalf("after %v of good weather workers still owe a sync: %+v", healTime, workers)
		}
		m.now = m.now.Add(5 * time.Second)
		for _, e := range m.engines {
			if !e.gone {
				e.beat()
			}
		}
		for _, r := range m.replicas {
			m.heard(r)
		}
		m.leader.lease()
		m.calm()
	}
	m.compare()
	for _, r := range m.replicas {
		r.catchUp(uint64(len(m.log)))
	}
	for _, e := range m.engines {
		if !e.gone && e.speaks {
			e.verify()
		}
	}
}

// prove lets every stream say something.
func (m *model) prove() {
	for _, e := range m.engines {
		for _, l := range []string{modelCPU, modelDisk} {
			if !e.gone && e.speaks {
				e.operation(l, proofKey, lmcache.Admit)
				e.operation(l, proofKey, lmcache.Evict)
			}
		}
	}
	m.calm()
}

// calm delivers all that was said, and what is said because of it.
func (m *model) calm() {
	for busy := true; busy; {
		busy = false
		for _, e := range m.engines {
			if e.gone {
				continue
			}
			e.flush()
			for _, d := range []*modelDealer{&e.asks, &e.beats} {
				if d.question == nil || d.sent {
					continue
				}
				busy = true
				if to := m.replicas[e.process%len(m.replicas)]; d == &e.asks {
					e.put(d, to, to.reply)
				} else {
					e.put(d, to, to.beat)
				}
			}
			if s := e.sync; s != nil && e.asks.question == nil && (s.stage != syncPolling || m.now.Sub(s.polled) >= 5*time.Second) {
				busy = true
				e.stepSync()
			}
		}
		for _, p := range m.pipes {
			for len(p.frames) > 0 {
				busy = true
				m.now = m.now.Add(modelStep)
				p.deliver()
			}
		}
		for _, r := range m.replicas {
			for r.flying != nil || len(r.s.queue.sealed) > 0 || r.s.queue.records.Records() > 0 {
				busy = true
				r.propose(modelApplied)
			}
			r.catchUp(uint64(len(m.log)))
		}
		m.settle()
	}
}

// owed reports whether a worker that can be asked owes a sync, or is in one.
func (m *model) owed() bool {
	for _, e := range m.engines {
		if e.gone || !e.speaks || !e.beating {
			continue
		}
		info, known := m.leader.Registry().Worker(e.ref)
		if !known || e.sync != nil || slices.Contains([]string{registry.SyncWanted, registry.SyncUnrepaired, registry.SyncSyncing}, info.SyncState) {
			return true
		}
	}
	return false
}
