package registry

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func evict(reg *Registry, ref WorkerRef, location string, keys []Key) {
	o := Ops{Stream: StreamRef{ref, location}, Keys: keys, Evict: make(Bitmap, len(keys)/8+1)}
	for i := range keys {
		o.Evict[i/8] |= 1 << (i % 8)
	}
	reg.ApplyOps(o)
}

func TestHints_WasEvicted(t *testing.T) {
	reg := New(Options{})
	a, b := WorkerRef{"a", 0}, WorkerRef{"b", 0}
	for _, ref := range []WorkerRef{a, b} {
		reg.Register(Registration{WorkerRef: ref})
		admit(reg, ref, CPULocation, keyRange(1, 10))
	}
	evict(reg, a, CPULocation, keyRange(1, 5))
	if reg.WasEvicted(1) {
		t.Error("b holds 1, and it is called evicted")
	}
	evict(reg, b, CPULocation, keyRange(1, 3))
	for _, k := range keyRange(1, 12) {
		if got, want := reg.WasEvicted(k), k <= 3; got != want {
			t.Errorf("WasEvicted(%d) is %v, want %v", k, got, want)
		}
	}
	reg.Register(Registration{WorkerRef: a, At: 2 * second}) // its keys go, unevicted
	reg.Sweep(1 << 20)
	if reg.WasEvicted(9) {
		t.Error("9 was dropped with a process, and is called evicted")
	}
	if digest := reg.Digest(); reload(t, reg, Options{}).Digest() != digest {
		t.Error("hints are in the digest")
	}
}

func TestHints_FirstKeys(t *testing.T) {
	reg := New(Options{})
	a := WorkerRef{"a", 0}
	want := func(when string, before, now []Key) {
		t.Helper()
		gotBefore, gotNow := reg.FirstKeys(a)
		if !slices.Equal(gotBefore, before) || !slices.Equal(gotNow, now) {
			t.Errorf("%s: %v, then %v; want %v, then %v", when, gotBefore, gotNow, before, now)
		}
	}
	want("unknown", nil, nil)
	reg.Register(Registration{WorkerRef: a, At: 1 * second})
	evict(reg, a, CPULocation, keyRange(90, 99))
	admit(reg, a, "disk", keyRange(1, 20))
	admit(reg, a, CPULocation, keyRange(21, 60))
	want("the first of many", nil, keyRange(1, 32))

	reg.Register(Registration{WorkerRef: a, At: 100 * second})
	want("a new process", keyRange(1, 32), nil)
	reg.Register(Registration{WorkerRef: a, At: 200 * second})
	want("a new process after one that stored nothing", keyRange(1, 32), nil)
	admit(reg, a, CPULocation, keyRange(101, 103))
	reg.Register(Registration{WorkerRef: a, At: 201 * second, ByHeartbeat: true})
	want("a heartbeat", keyRange(1, 32), keyRange(101, 103))

	reg.Deregister(a, 300*second)
	want("gone", keyRange(101, 103), nil)
	reg.Register(Registration{WorkerRef: a, At: 400 * second, ByHeartbeat: true})
	want("back, the same process", nil, keyRange(101, 103))
	st := StreamRef{a, CPULocation}
	reg.SyncStart(SyncStart{Stream: st, SyncID: "s", BatchCount: 1, At: 400 * second})
	reg.SyncBatch(SyncBatch{Stream: st, SyncID: "s", Keys: keyRange(7, 9)})
	want("what a sync announces", nil, append(keyRange(101, 103), keyRange(7, 9)...))

	reg.Deregister(a, 500*second)
	reg.Register(Registration{WorkerRef: a, At: 600 * second})
	want("back, another process", append(keyRange(101, 103), keyRange(7, 9)...), nil)
}

func TestHints_Departed(t *testing.T) {
	reg := New(Options{})
	a, b := WorkerRef{"a", 0}, WorkerRef{"b", 1}
	reg.Register(Registration{WorkerRef: a, At: 1 * second})
	reg.Register(Registration{WorkerRef: b, At: 1 * second})
	admit(reg, a, CPULocation, keyRange(1, 3))
	admit(reg, a, "disk", keyRange(1, 2))
	if got := reg.Departed(); len(got) != 0 {
		t.Errorf("departed before anybody went: %v", got)
	}
	reg.Lease(Lease{At: 400 * second, Expired: []WorkerRef{a, {"unknown", 0}}})
	reg.Deregister(b, 500*second)
	reg.Deregister(b, 501*second) // nobody
	want := []Departed{{b, 500 * second, DepartedDeregistered, 0}, {a, 400 * second, DepartedExpired, 5}}
	if diff := cmp.Diff(want, reg.Departed()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for i := range maxDeparted {
		ref := WorkerRef{fmt.Sprint(i), 0}
		reg.Register(Registration{WorkerRef: ref, At: 600 * second})
		reg.Deregister(ref, 601*second)
	}
	got := reg.Departed()
	if len(got) != maxDeparted || got[0].Instance != fmt.Sprint(maxDeparted-1) || got[maxDeparted-1].Instance != "0" {
		t.Errorf("%d departed, from %v to %v", len(got), got[0], got[len(got)-1])
	}
	if got := reload(t, reg, Options{}).Departed(); len(got) != 0 {
		t.Errorf("%d departed after a restore, want none: they are no state", len(got))
	}
}

func TestHints_SampleKeys(t *testing.T) {
	reg := New(Options{Shards: 4})
	for i, id := range []string{"a", "b"} {
		for rank := range int64(2) {
			ref := WorkerRef{id, rank}
			reg.Register(Registration{WorkerRef: ref})
			admit(reg, ref, CPULocation, keyRange(1+100*i, 150+100*i))
		}
	}
	sorted := func(keys []Key) []Key { slices.Sort(keys); return keys }
	if got := sorted(reg.SampleKeys("a", 1000)); !slices.Equal(got, keyRange(1, 150)) {
		t.Errorf("of a: %v", got)
	}
	if got := reg.SampleKeys("b", 10); len(got) != 10 || slices.Min(got) < 101 || slices.Max(got) > 250 {
		t.Errorf("of b, 10: %v", got)
	}
	st := StreamRef{WorkerRef{"a", 1}, CPULocation}
	reg.SyncStart(SyncStart{Stream: st, SyncID: "s", BatchCount: 2})
	reg.SyncBatch(SyncBatch{Stream: st, SyncID: "s", Keys: keyRange(900, 910)})
	reg.Deregister(WorkerRef{"b", 0}, 0)
	reg.Deregister(WorkerRef{"b", 1}, 0)
	if got := sorted(reg.SampleKeys("a", 1000)); !slices.Equal(got, keyRange(1, 150)) {
		t.Errorf("in the midst of a sync: %v", got)
	}
	for _, nobody := range []string{"b", "unknown"} {
		if got := reg.SampleKeys(nobody, 10); len(got) != 0 {
			t.Errorf("of %s: %v", nobody, got)
		}
	}
	if got := reg.SampleKeys("a", 0); len(got) != 0 {
		t.Errorf("none asked for: %v", got)
	}
}

func BenchmarkHints(b *testing.B) {
	reg := fleet(10, 1, 1<<17)
	b.Run("WasEvicted", func(b *testing.B) {
		for b.Loop() {
			reg.WasEvicted(5)
		}
	})
	b.Run("SampleKeys/all of it scanned", func(b *testing.B) {
		reg.Register(Registration{WorkerRef: WorkerRef{"none", 0}})
		for b.Loop() {
			reg.SampleKeys("none", 10)
		}
	})
}
