package registry

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// fleet makes instances of so many ranks that all hold the same prompt of so many
// chunks, keys 1 to chunks, in their CPU cache.
func fleet(instances, ranks, chunks int) *Registry {
	reg := New(Options{})
	peer := "h:1"
	for i := range instances {
		for rank := range ranks {
			ref := WorkerRef{fmt.Sprintf("instance-%04d", i), int64(rank)}
			reg.Register(Registration{WorkerRef: ref, PeerInitURL: &peer})
			admit(reg, ref, CPULocation, keyRange(1, chunks))
		}
	}
	return reg
}

// BenchmarkLookup measures a whole lookup: search, hits and all. "shared" is a prompt
// that all instances hold, "own" one that four hold and that ends at different
// chunks, "miss" one that nobody holds.
func BenchmarkLookup(b *testing.B) {
	for _, instances := range []int{10, 1000} {
		reg := fleet(instances, 1, 128)
		for i := range 4 {
			admit(reg, WorkerRef{fmt.Sprintf("instance-%04d", i), 0}, CPULocation, keyRange(1001, 1128-i*8))
		}
		for _, chunks := range []int{8, 128} {
			for _, c := range []struct {
				name string
				from int
			}{{"shared", 1}, {"own", 1001}, {"miss", 5001}} {
				keys := keyRange(c.from, c.from+chunks-1)
				b.Run(fmt.Sprintf("instances=%d/chunks=%d/%s", instances, chunks, c.name), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						lookup(reg, "", keys)
					}
				})
			}
		}
	}
}

// BenchmarkLookup_Ragged is the worst case: every chunk has other holders than the
// one before.
func BenchmarkLookup_Ragged(b *testing.B) {
	reg := fleet(1000, 1, 128)
	for k := range 128 {
		reg.ApplyOps(Ops{Stream: StreamRef{WorkerRef{fmt.Sprintf("instance-%04d", k), 0}, CPULocation}, Keys: keyRange(k+1, k+1), Evict: Bitmap{1}})
	}
	keys := keyRange(1, 128)
	b.ReportAllocs()
	for b.Loop() {
		lookup(reg, "", keys)
	}
}

func BenchmarkP2PLookup(b *testing.B) {
	for _, instances := range []int{10, 1000} {
		reg := fleet(instances, 1, 128)
		keys := keyRange(1, 128)
		b.Run(fmt.Sprintf("instances=%d/chunks=128", instances), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				reg.P2PLookup(WorkerRef{"instance-0000", 0}, keys)
			}
		})
	}
}

// BenchmarkApplyOps measures a run of 10 000 operations, two admits to an evict, on
// an index of a million keys of 16 workers.
func BenchmarkApplyOps(b *testing.B) {
	const run, population = 10_000, 1 << 20
	reg := New(Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	refs := make([]WorkerRef, 16)
	for i := range refs {
		refs[i] = WorkerRef{fmt.Sprint("i", i), 0}
		reg.Register(Registration{WorkerRef: refs[i]})
		keys := make([]Key, population/len(refs))
		for j := range keys {
			keys[j] = Key(rng.Uint64N(population))
		}
		admit(reg, refs[i], CPULocation, keys)
	}
	o := Ops{Keys: make([]Key, run), Evict: make(Bitmap, run/8)}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		b.StopTimer()
		o.Stream = StreamRef{refs[n%len(refs)], CPULocation}
		for i := range o.Keys {
			o.Keys[i] = Key(rng.Uint64N(population))
		}
		for i := range o.Evict {
			o.Evict[i] = byte(rng.Uint32() & rng.Uint32())
		}
		b.StartTimer()
		reg.ApplyOps(o)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/run, "ns/operation")
}

// BenchmarkDigest and BenchmarkSnapshot are at 2 000 workers and 10 000 finished
// events.
func benchmarkState() *Registry {
	reg := fleet(1000, 2, 16)
	for i := range 10_000 {
		id := fmt.Sprint("Move", i)
		reg.CreateEvent(EventCreate{ID: id, Kind: CommandMove})
		if err := reg.FinishEvent(EventFinish{ID: id, State: EventDone, Workers: make([]WorkerOutcome, 2)}); err != nil {
			panic(err)
		}
	}
	return reg
}

func BenchmarkDigest(b *testing.B) {
	reg := benchmarkState()
	for b.Loop() {
		reg.Digest()
	}
}

func BenchmarkSnapshot(b *testing.B) {
	reg := benchmarkState()
	for b.Loop() {
		reg.Snapshot().Release()
	}
}

// BenchmarkSnapshot_Syncs is in the midst of four full syncs during which 240 000 keys
// each were evicted.
func BenchmarkSnapshot_Syncs(b *testing.B) {
	reg := New(Options{})
	rng := rand.New(rand.NewPCG(1, 2))
	evict := make(Bitmap, 60_000/8)
	for i := range evict {
		evict[i] = 0xff
	}
	for i := range 4 {
		st := StreamRef{WorkerRef{fmt.Sprint("i", i), 0}, CPULocation}
		reg.Register(Registration{WorkerRef: st.WorkerRef})
		reg.SyncStart(SyncStart{Stream: st, SyncID: "s", BatchCount: 1})
		for range 4 {
			keys := make([]Key, 60_000)
			for j := range keys {
				keys[j] = Key(rng.Uint64())
			}
			reg.ApplyOps(Ops{Stream: st, Keys: keys, Evict: evict})
		}
	}
	for b.Loop() {
		reg.Snapshot().Release()
	}
}
