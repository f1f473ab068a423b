package promptkeys

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/registry"
)

func TestStats(t *testing.T) {
	now := time.UnixMicro(at)
	reg, f := newFleet(t), newFinder(t, Options{ChunkSizes: []int{256, 64}, Now: func() time.Time { return now }})
	if s := f.Stats(reg.Registry); !s.Auto || len(s.Profiles) != 0 || s.Found != 0 || !slices.Equal(s.ChunkSizes, []int{256, 64}) {
		t.Errorf("before any lookup: %+v", s)
	}
	tokens := prompt(1, 512)
	if f.Find(reg.Registry, Prompt{Tokens: tokens}); f.HasFound() {
		t.Error("a miss counts as a find")
	}
	reg.store("b", "builtin@seed=0", 256, tokens, 0)
	reg.store("a", "builtin@seed=0", 256, tokens, 1)
	if f.Find(reg.Registry, Prompt{Tokens: tokens}); !f.HasFound() {
		t.Error("a find does not count")
	}
	now = now.Add(time.Second)
	reg.store("c", "builtin@0", 64, prompt(2, 64), 0)
	f.Find(reg.Registry, Prompt{Tokens: prompt(2, 64)})
	s := f.Stats(reg.Registry)
	if len(s.Profiles) != 2 || s.Found != 2 || s.ProbesHit != 2 {
		t.Fatalf("%+v", s)
	}
	x, y := s.Profiles[0], s.Profiles[1]
	if x.Profile != "builtin@0" || x.ChunkSize != 64 || x.LastHit != at+1_000_000 || x.Hits != 1 || !slices.Equal(x.Instances, []string{"c"}) {
		t.Errorf("first %+v", x)
	}
	if y.Profile != "builtin@seed=0" || y.ChunkSize != 256 || y.LastHit != at || !slices.Equal(y.Instances, []string{"a", "b"}) || y.Found != 2 || !y.InUse {
		t.Errorf("second %+v", y)
	}

	// An engine that comes back with another seed is known by what it does now.
	reg.Deregister(registry.WorkerRef{Instance: "b"}, at+2_000_000)
	reg.Deregister(registry.WorkerRef{Instance: "a"}, at+2_000_000)
	if s := f.Stats(reg.Registry); s.Profiles[1].Found != 0 || s.Profiles[1].Hits != 1 {
		t.Errorf("gone instances are still there: %+v", s.Profiles[1])
	}
	reg.store("b", "builtin@0", 64, prompt(2, 64), 0)
	f.Find(reg.Registry, Prompt{Tokens: prompt(2, 64)})
	if profile, size, ok := f.ProfileOf("b"); profile != "builtin@0" || size != 64 || !ok {
		t.Errorf("b is known under %s at %d, %t", profile, size, ok)
	}
}

// TestInstances_Bounded: what goes makes room, once a minute at most.
func TestInstances_Bounded(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{})
	c := f.candidates[0]
	var now int64 = at
	for i := range maxInstances + 10 {
		f.instances.note(reg.Registry, fmt.Sprintf("i%d", i), c, now)
	}
	// The first look, at the bound, found them all gone.
	if f.instances.n != 10 || f.instances.candidate("i0") != nil || f.instances.candidate(fmt.Sprintf("i%d", maxInstances)) != c {
		t.Errorf("%d are remembered, want 10", f.instances.n)
	}
	for i := range maxInstances {
		f.instances.note(reg.Registry, fmt.Sprintf("j%d", i), c, now)
	}
	if f.instances.n != maxInstances || f.instances.full.Load() != 10 {
		t.Errorf("%d are remembered, %d not, want %d and 10", f.instances.n, f.instances.full.Load(), maxInstances)
	}
	reg.store("kept", "builtin@0", 256, prompt(1, 256), 0)
	now += sweepEvery
	f.instances.note(reg.Registry, "kept", c, now)
	if f.instances.n != 1 || f.instances.candidate("kept") != c {
		t.Errorf("%d are remembered, want the one", f.instances.n)
	}
	if s := f.Stats(reg.Registry); s.Unremembered != 10 {
		t.Errorf("%d not remembered, want 10", s.Unremembered)
	}
}
