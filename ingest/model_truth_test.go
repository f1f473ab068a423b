package ingest

import (
	"slices"

	"github.com/kvctrl/kvctrl/registry"
)

// verify compares what the index says of an engine with what it holds, when all is
// mended.
func (e *modelEngine) verify() {
	info, known := e.m.leader.Registry().Worker(e.ref)
	if !known {
		if e.beating {
			e.m.fatalf("%v lives and is not known", e.ref)
		}
		return // its replica was killed before its registration was in the log, or it has expired
	}
	for _, l := range info.Locations {
		if l.Location == modelCPU && l.Lossy && e.beating && e.m.naive.worker(e.ref).process == e.port {
			e.m.fatalf("%v: the CPU cache is still lossy, sync %s", e.ref, info.SyncState)
		}
	}
	for _, location := range []string{modelCPU, modelDisk} {
		e.truth(e.m.leader.Registry(), location)
	}
}

// truth looks at a location that is said to have lost nothing: then the index says what
// the engine holds, whatever goes on. It may be behind, as long as the last word of the
// engine is not in the log.
func (e *modelEngine) truth(reg *registry.Registry, location string) {
	w := e.m.naive.worker(e.ref)
	if w == nil || w.process != e.port { // its registration was lost with its replica, and it has a predecessor's name
		return
	}
	i := slices.IndexFunc(w.streams, func(s *naiveStream) bool { return s.location == location })
	if i < 0 || w.streams[i].lossy || w.streams[i].unnumbered() {
		return
	}
	s := w.streams[i]
	if last := len(s.numbers) - 1; len(e.queue[location]) > 0 || last < 0 || s.numbers[last] != e.next[location]-1 {
		return
	}
	if e.haunted && (e.lostFirst[location] || e.m.mended.IsZero()) || s.blind {
		e.m.naive.count["streams not looked at"]++
		return
	}
	e.m.naive.count["streams compared"]++
	for _, k := range append(slices.Clone(modelKeys), proofKey) {
		if s.unsure[registry.Key(k)] {
			e.m.naive.count["keys not looked at"]++
			continue
		}
		says := slices.Contains(reg.Holders(registry.Key(k)), registry.StreamRef{WorkerRef: e.ref, Location: location})
		if holds := e.holds[location][k]; says != holds && (says || !s.cleared) {
			e.m.fatalf("%v %s, process %d: key %d is held: %v, the index says %v, and that nothing was lost", e.ref, location, e.process, k, holds, says)
		}
	}
}
