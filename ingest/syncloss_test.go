package ingest

import (
	"testing"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// TestSync_WhatIsLostIsRepaired: an engine has lost events; whatever of its full sync is
// lost too, the worker's own three rounds make it good, the engine is let go, and what is
// known of it is what it holds. Its old keys are visible all the time.
func TestSync_WhatIsLostIsRepaired(t *testing.T) {
	first := func(parts ...string) func(string, int, int) bool {
		return func(part string, _, round int) bool {
			for _, p := range parts {
				if p == part {
					return round == 0
				}
			}
			return false
		}
	}
	for name, tt := range map[string]struct {
		drop  func(part string, number, round int) bool
		polls int // at most
	}{
		"nothing":                 {nil, 1},
		"the start":               {first("start"), 1},
		"the start's answer":      {first("accepted"), 1},
		"one batch":               {func(part string, n, round int) bool { return part == "batch" && n == 1 && round == 0 }, 2},
		"every other batch twice": {func(part string, n, round int) bool { return part == "batch" && n%2 == 0 && round < 2 }, 3},
		"all batches":             {first("batch"), 2},
		"the end":                 {first("end"), 1},
		"all batches and the end": {first("batch", "end"), 2},
		"the end every time":      {func(part string, n, _ int) bool { return part == "end" }, 1},
		"the end every time, and a batch": {func(part string, n, round int) bool {
			return part == "end" || part == "batch" && n == 0 && round == 0
		}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil)
			e := r.engines("i")[0]
			e.register()
			e.admit(1, 2, 3, 4, 5, 6, 7)
			e.operations(lmcache.Evict, true, 2, 3) // lost
			e.operations(lmcache.Admit, true, 20, 21)
			e.admit(22)
			e.taken()
			if !e.beat() {
				t.Fatal("after a gap the engine is not asked for a sync")
			}
			e.drop = tt.drop
			e.between = func() {
				if n := len(r.log.Registry().Holders(1)); n != 1 {
					t.Errorf("in mid-sync %d hold a key that was known before, want 1", n)
				}
			}
			if polls := e.sync(); polls < 1 || polls > tt.polls {
				t.Errorf("the engine was let go at question %d, want at most %d", polls, tt.polls)
			}
			e.holds("after the sync")
			info, _ := r.log.Registry().Worker(ref("i"))
			if info.SyncState != registry.SyncCompleted || info.Locations[0].Lossy {
				t.Errorf("state %s, lossy %v, want completed and sound", info.SyncState, info.Locations[0].Lossy)
			}
			if e.beat() {
				t.Error("asked again")
			}
		})
	}
}
