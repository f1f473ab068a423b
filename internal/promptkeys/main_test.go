package promptkeys

import (
	"bytes"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

const at = 1_700_000_000_000_000

// fleet is a registry that simulated engines fill.
type fleet struct {
	t testing.TB
	*registry.Registry
}

func newFleet(t testing.TB) fleet {
	return fleet{t, registry.New(registry.Options{Shards: 4})}
}

// store lets an engine hold the first chunks of a prompt (all when 0), keyed as its
// profile does.
func (f fleet) store(instance, profile string, size int, tokens []int64, chunks int) {
	f.t.Helper()
	f.apply(instance, profile, size, tokens, chunks, false)
}

// evict takes them away again.
func (f fleet) evict(instance, profile string, size int, tokens []int64, chunks int) {
	f.t.Helper()
	f.apply(instance, profile, size, tokens, chunks, true)
}

func (f fleet) apply(instance, profile string, size int, tokens []int64, chunks int, evict bool) {
	f.t.Helper()
	p, err := lmcache.ParseProfile(profile)
	if err != nil {
		f.t.Fatal(err)
	}
	if !f.Registered(instance) {
		f.Register(registry.Registration{WorkerRef: registry.WorkerRef{Instance: instance}, IP: "127.0.0.1", Port: 1, At: at})
	}
	o := registry.Ops{Stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: instance}, Location: "L"}, At: at}
	for _, k := range p.Chain(tokens, size, false) {
		if chunks == 0 || len(o.Keys) < chunks {
			o.Keys = append(o.Keys, registry.Key(k))
		}
	}
	if evict {
		o.Evict = bytes.Repeat([]byte{0xff}, (len(o.Keys)+7)/8)
	}
	if res := f.ApplyOps(o); res.Unknown || res.Refused != "" || len(o.Keys) == 0 {
		f.t.Fatalf("%s stores %d keys: %+v", instance, len(o.Keys), res)
	}
}

// lose lets an engine's events have a gap.
func (f fleet) lose(instance string) {
	f.t.Helper()
	ref := registry.WorkerRef{Instance: instance}
	for _, seq := range []int64{1, 7} {
		f.ApplyOps(registry.Ops{Stream: registry.StreamRef{WorkerRef: ref, Location: "L"}, At: at, First: seq, Numbered: true, Keys: []registry.Key{registry.Key(seq)}})
	}
	if w, ok := f.Worker(ref); !ok || !w.Locations[0].Lossy {
		f.t.Fatalf("%s has not lost anything: %+v", instance, w)
	}
}

func newFinder(t testing.TB, o Options) *Finder {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return time.UnixMicro(at) }
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// prompt gives n tokens, others for each first.
func prompt(first, n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(first*100_000 + i)
	}
	return out
}

// inUse are the names of the profiles in use, the last that has hit first.
func inUse(f *Finder, reg *registry.Registry) []string {
	var names []string
	for _, p := range f.Stats(reg).Profiles {
		if p.InUse {
			names = append(names, p.Profile)
		}
	}
	return names
}
