package httpapi

import (
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
	"github.com/kvctrl/kvctrl/registry"
)

// TestMiss_OnEmptyAnswersOnly: a hit has no reason.
func TestMiss_OnEmptyAnswersOnly(t *testing.T) {
	r := newRig(t)
	r.register("a", 0)
	r.admit("a", 0, "L", chain(t, "builtin@0", counting(0, 300))...)
	w := r.post("/lookup", lookupBody(counting(0, 300), ""))
	if v, there := w.Header()[headerMiss]; there || layout(t, w) == "{}" {
		t.Errorf("%q with %s", v, w.Body)
	}
}

// TestMiss_LooksOnceASecond: what is wrong with the fleet is looked at once a second,
// and with an instance that is asked for each time.
func TestMiss_LooksOnceASecond(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	r := newRig(t, func(o *Options) { o.Now = func() time.Time { return now } })
	r.register("a", 0)
	prompt := counting(0, 256)
	sync := func(instance string) {
		r.state.Registry().SyncStart(registry.SyncStart{Stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: instance}, Location: "LocalCPUBackend"}, SyncID: "s", BatchCount: 1, At: day})
	}
	for _, c := range []struct {
		after      time.Duration
		sync       bool
		fleet, one string
	}{{0, false, whyNotStored, whyNotStored}, {0, true, whyNotStored, whySyncing}, {fleetAge - 1, false, whyNotStored, whySyncing}, {1, false, whySyncing, whySyncing}} {
		now = now.Add(c.after)
		if c.sync {
			sync("a")
		}
		if got := r.miss(prompt, ""); got != c.fleet {
			t.Errorf("fleet %s, want %s", got, c.fleet)
		}
		if got := r.miss(prompt, "a"); got != c.one {
			t.Errorf("instance %s, want %s", got, c.one)
		}
	}
}

// BenchmarkMiss is what a miss pays for its reason, beside a lookup without one: the
// look at a fleet of a thousand workers once a second is in it.
func BenchmarkMiss(b *testing.B) {
	r := newRig(b)
	for i := range 1000 {
		r.register(string(rune('a'+i%26))+string(rune('a'+i/26)), 0)
	}
	reg := r.state.Registry()
	p := promptkeys.Prompt{Tokens: counting(0, 2048)}
	found := r.s.opts.Finder.Find(reg, p)
	if len(found.Hits) > 0 {
		b.Fatalf("%+v", found)
	}
	b.Run("code", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if r.s.misses.code(reg, p, found.First, r.s.opts.Now()) == "" {
				b.Fatal("no reason")
			}
		}
	})
	b.Run("look", func(b *testing.B) {
		for b.Loop() {
			if r.s.misses.whyAnywhere(reg, r.s.opts.Now()) != "" {
				b.Fatal("a reason")
			}
		}
	})
}
