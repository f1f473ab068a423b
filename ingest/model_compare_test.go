package ingest

import (
	"fmt"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kvctrl/kvctrl/registry"
)

// compare compares the front's registry with the naive model.
func (m *model) compare() {
	m.t.Helper()
	m.front = pickFront(m)
	reg := m.front.Registry()
	diff := func(what string, want, got any, opts ...cmp.Option) {
		m.t.Helper()
		if d := cmp.Diff(want, got, opts...); d != "" {
			m.fatalf("%s: -naive +registry\n%s", what, d)
		}
	}
	for _, k := range modelKeys {
		diff(fmt.Sprintf("holders of %d", k), m.naive.holders(registry.Key(k)), reg.Holders(registry.Key(k)))
	}
	for _, keys := range [][]registry.Key{{1, 2, 3, 4}, {3, 3, 1}, {6, 5}, {2}} {
		hits := []registry.Hit{}
		s := reg.NewSearch("")
		for _, k := range keys {
			if !s.Next(k) {
				break
			}
		}
		for _, h := range s.Hits() {
			h.Order = 0 // a number of the registry's own: it shows in the order of hits
			hits = append(hits, h)
		}
		s.Close()
		diff(fmt.Sprintf("lookup of %v", keys), m.naive.lookup(keys), hits)
		for _, asker := range []registry.WorkerRef{{Instance: "x", Worker: 1}, {Instance: "b"}} {
			want, _ := m.naive.p2p(asker, keys)
			got, _ := reg.P2PLookup(asker, keys)
			diff(fmt.Sprintf("peer lookup of %v by %v", keys, asker), want, got)
		}
	}
	workers, totals := m.naive.infos()
	infos := reg.Workers("")
	for _, w := range infos {
		for i := range w.Locations {
			if l := &w.Locations[i]; !l.Numbered {
				l.NextSeq = 0
			}
		}
	}
	diff("workers", workers, infos, cmpopts.EquateEmpty())
	got := reg.Totals()
	diff("totals", totals, registry.Totals{Instances: got.Instances, Workers: got.Workers, Keys: got.Keys, Gaps: got.Gaps, Late: got.Late,
		SuspectWorkers: got.SuspectWorkers, UnrepairedWorkers: got.UnrepairedWorkers, LossyStreams: got.LossyStreams, OpenEvents: got.OpenEvents,
		AwaitedMoves: got.AwaitedMoves, Events: got.Events})
	for _, e := range m.naive.events {
		got, _ := reg.Event(e.ID)
		diff("event", *e, got, cmpopts.IgnoreFields(registry.Event{}, "Detail"))
	}
	for _, e := range m.engines {
		if !e.gone && e.speaks {
			e.truth(reg, modelCPU)
			e.truth(reg, modelDisk)
		}
	}
}

// pickFront is a replica that has applied the whole log.
func pickFront(m *model) *modelReplica {
	for _, r := range m.replicas {
		if r.fsm.Applied() == uint64(len(m.log)) {
			return r
		}
	}
	m.front.catchUp(uint64(len(m.log)))
	return m.front
}
