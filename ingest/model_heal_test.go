package ingest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
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

// verify compares what the index says of an engine with what it holds.
func (e *modelEngine) verify() {
	m := e.m
	reg := m.leader.Registry()
	info, known := reg.Worker(e.ref)
	if !known {
		if e.beating {
			m.fatalf("%v lives and is not known", e.ref)
		}
		return // its replica was killed before its registration was in the log, or it has expired
	}
	if m.naive.worker(e.ref).process != e.port {
		return // its registration was lost with its replica, and it has a predecessor's name
	}
	unsure := func(k lmcache.Key) bool {
		return slices.ContainsFunc(m.naive.worker(e.ref).streams, func(s *naiveStream) bool { return s.blind || s.unsure[registry.Key(k)] })
	}
	for _, location := range []string{modelCPU, modelDisk} {
		lossy := false
		for _, l := range info.Locations {
			lossy = lossy || l.Location == location && l.Lossy
		}
		switch {
		case lossy && location == modelCPU && e.beating:
			m.fatalf("%v: the CPU cache is still lossy, sync %s", e.ref, info.SyncState)
		case lossy, e.haunted && e.lostFirst[location]:
			continue
		}
		for _, k := range append(slices.Clone(modelKeys), proofKey) {
			if location == modelCPU && unsure(k) {
				m.naive.count["keys not looked at"]++
				continue
			}
			says := slices.Contains(reg.Holders(registry.Key(k)), registry.StreamRef{WorkerRef: e.ref, Location: location})
			if holds := e.holds[location][k]; says != holds && (says || !m.naive.cleared(e.ref, location)) {
				m.fatalf("%v %s, process %d: key %d is held: %v, the index says %v, and that nothing was lost", e.ref, location, e.process, k, holds, says)
			}
		}
	}
}

// tell writes an entry down in the words of the scenario files.
func (m *model) tell(index uint64, value any) {
	batch, ok := value.(fsm.WorkerBatch)
	if !ok {
		m.t.Logf("%d: %T %+v", index, value, value)
		return
	}
	for _, r := range batch.Records {
		line := ""
		switch r := r.(type) {
		case registry.Registration:
			verb := "register"
			if r.ByHeartbeat {
				verb = "heartbeat"
			}
			line = fmt.Sprintf("%s %s ago=%s", verb, storyName(r.WorkerRef), m.ago(r.At))
		case fsm.Deregistration:
			line = fmt.Sprintf("deregister %s ago=%s", storyName(r.WorkerRef), m.ago(r.At))
		case registry.Ops:
			var ops strings.Builder
			for i, k := range r.Keys {
				fmt.Fprintf(&ops, " %c%d", "+-"[map[bool]int{true: 1}[r.Evict.Has(i)]], k)
			}
			line = fmt.Sprintf("ops %s %s seq=%d ago=%s%s", storyName(r.Stream.WorkerRef), r.Stream.Location, r.First, m.ago(r.At), ops.String())
		case registry.SyncStart:
			line = fmt.Sprintf("sync-start %s %s id=%s batches=%d ago=%s", storyName(r.Stream.WorkerRef), r.Stream.Location, r.SyncID, r.BatchCount, m.ago(r.At))
		case registry.SyncBatch:
			line = fmt.Sprintf("sync-batch %s %s id=%s batch=%d %v", storyName(r.Stream.WorkerRef), r.Stream.Location, r.SyncID, r.BatchID, r.Keys)
		case registry.SyncEnd:
			line = fmt.Sprintf("sync-end %s %s id=%s", storyName(r.Stream.WorkerRef), r.Stream.Location, r.SyncID)
		}
		m.t.Logf("%d: by %x.%d: %s", index, batch.Session[:2], batch.Number, line)
	}
}

func storyName(w registry.WorkerRef) string { return fmt.Sprintf("%s/%d", w.Instance, w.Worker) }

func (m *model) ago(at registry.Micros) string {
	return (time.Duration(micros(m.now)-at) * time.Microsecond).String()
}
