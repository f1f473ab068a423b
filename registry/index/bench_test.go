package index

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
)

const benchKeys = 10_000_000

// benchKey is the i-th key of a benchmark: spread like a chunk hash, and new for
// every i.
func benchKey(i int) Key { return mix(uint64(i) + 1) }

// benchIndex holds keys 0..n-1, in batches of 256 as engines send them, each batch by
// a rank's worth of holders out of a few.
func benchIndex(b testing.TB, n, holdersPerKey int) (*Index[int], []*Holder[int]) {
	if testing.Short() {
		b.Skip("ten million keys: not in -short")
	}
	x := New[int](Options{})
	holders := make([]*Holder[int], 64*holdersPerKey)
	for i := range holders {
		holders[i] = x.NewHolder(i)
	}
	var keys [256]Key
	for at := 0; at < n; at += len(keys) {
		for i := range keys {
			keys[i] = benchKey(at + i)
		}
		engine := at / len(keys) % 64
		for _, h := range holders[engine*holdersPerKey:][:holdersPerKey] {
			Apply(x, h, keys[:min(len(keys), n-at)], nil)
		}
	}
	return x, holders
}

// BenchmarkHolders probes ten million keys at random. "apart" makes each probe wait for
// the one before, so it pays the whole latency of memory; "floor" is one plain read of
// as much memory in the same way: what no index could undercut on the machine.
// "beside" leaves probes to overlap, as those of one lookup do. (A miss is always
// beside: the processor foresees the answer and goes on.)
func BenchmarkHolders(b *testing.B) {
	x, _ := benchIndex(b, benchKeys, 1)
	rng := rand.New(rand.NewPCG(1, 2))
	order := make([]Key, 1<<20)
	fill := func(from int) {
		for i := range order {
			order[i] = benchKey(rng.IntN(benchKeys) + from)
		}
	}
	apart := func(b *testing.B) {
		b.ReportAllocs()
		seen, at := 0, 0
		for b.Loop() {
			seen = len(x.Holders(order[at&(len(order)-1)]))
			at += 1 + seen&^1 // always 1, which the processor cannot know
		}
	}
	beside := func(b *testing.B) {
		b.ReportAllocs()
		seen, at := 0, 0
		for b.Loop() {
			for _, h := range x.Holders(order[at&(len(order)-1)]) {
				if h.Visible() {
					seen++
				}
			}
			at++
		}
	}
	fill(0)
	b.Run("hit-apart", apart)
	b.Run("hit-beside", beside)
	fill(2 * benchKeys)
	b.Run("miss", beside)
	b.Run("floor-apart", func(b *testing.B) {
		words := make([]uint64, x.Bytes()/8)
		for i := range words {
			words[i] = uint64(i) >> 63 // 0, in memory of its own
		}
		sum, at := uint64(0), 0
		for b.Loop() {
			sum += words[scale(order[at&(len(order)-1)]+sum, len(words))]
			at++
		}
	})
}

// BenchmarkApply is the steady state of full caches: batches of 10 000 operations on
// ten million keys, three in four admit a new key, one in four evicts an old one.
func BenchmarkApply(b *testing.B) {
	for _, mode := range []string{"plain", "frozen"} {
		b.Run(mode, func(b *testing.B) {
			x, holders := benchIndex(b, benchKeys, 1)
			const batch = 10_000
			keys, evict := make([]Key, batch), make([]byte, batch/8)
			fresh, old, took := benchKeys, make([]int, len(holders)), []time.Duration(nil)
			var f *Frozen[int]
			b.ReportAllocs()
			b.ResetTimer()
			for n := range b.N {
				b.StopTimer()
				engine := n % len(holders)
				clear(evict)
				for i := range keys {
					if i%4 == 3 {
						// An old key of this holder's: its batches of 256 come every 64th.
						keys[i] = benchKey((old[engine]/256*64+engine)*256 + old[engine]%256)
						old[engine]++
						evict[i/8] |= 1 << (i % 8)
					} else {
						keys[i] = benchKey(fresh)
						fresh++
					}
				}
				if mode == "frozen" && n%50 == 0 {
					if f != nil {
						f.Release()
					}
					f = x.Freeze()
				}
				b.StartTimer()
				start := time.Now()
				Apply(x, holders[engine], keys, evict)
				took = append(took, time.Since(start))
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/operation")
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/batch, "median-ns/operation")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs/batch")
		})
	}
}

// BenchmarkBytes is not about time: bytes a (key, holder) pair takes, by the index's
// own account and by the heap's growth.
func BenchmarkBytes(b *testing.B) {
	for _, c := range []struct {
		name       string
		keys, each int
		scattered  bool
	}{
		{"1-holder", benchKeys, 1, false},
		{"3-holders", benchKeys, 3, false},
		{"3-of-10000-at-random", 1_000_000, 3, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				before := heap()
				var x *Index[int]
				if c.scattered {
					x = scattered(b, c.keys, c.each)
				} else {
					x, _ = benchIndex(b, c.keys, c.each)
				}
				pairs := float64(c.keys * c.each)
				b.ReportMetric(float64(heap()-before)/pairs, "heap-B/pair")
				b.ReportMetric(float64(x.Bytes())/pairs, "B/pair")
				b.ReportMetric(float64(x.Bytes())/float64(c.keys), "B/key")
				runtime.KeepAlive(x)
			}
		})
	}
}

// scattered gives every key a set of holders of its own.
func scattered(b *testing.B, keys, each int) *Index[int] {
	if testing.Short() {
		b.Skip("a million sets: not in -short")
	}
	x := New[int](Options{})
	all := make([]*Holder[int], 10_000)
	for i := range all {
		all[i] = x.NewHolder(i)
	}
	rng := rand.New(rand.NewPCG(5, 5))
	for k := range keys {
		for range each {
			x.Admit(all[rng.IntN(len(all))], benchKey(k))
		}
	}
	return x
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkDrop drops a holder of a million keys, then sweeps it away: the first is
// the pause, the second is spread over log entries.
func BenchmarkDrop(b *testing.B) {
	const n = 1_000_000
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = benchKey(i)
	}
	if testing.Short() {
		b.Skip("a million keys: not in -short")
	}
	x := New[int](Options{})
	var drop, sweep, freeze time.Duration
	slots := 0
	for range b.N {
		h := x.NewHolder(0)
		Apply(x, h, keys, nil)
		start := time.Now()
		f := x.Freeze()
		freeze += time.Since(start)
		f.Release()
		start = time.Now()
		x.Drop(h)
		drop += time.Since(start)
		start = time.Now()
		for x.DeadEntries() > 0 {
			x.Sweep(1024)
			slots += 1024
		}
		sweep += time.Since(start)
	}
	b.ReportMetric(float64(drop.Nanoseconds())/float64(b.N), "ns/drop")
	b.ReportMetric(float64(freeze.Nanoseconds())/float64(b.N), "ns/freeze")
	b.ReportMetric(float64(sweep.Nanoseconds())/float64(slots), "ns/swept-slot")
}

// BenchmarkWideSet is one key that 16 000 holders have, while they come and go: each
// change copies the set.
func BenchmarkWideSet(b *testing.B) {
	x := New[int](Options{})
	all := make([]*Holder[int], 16_000)
	for i := range all {
		all[i] = x.NewHolder(i)
		x.Admit(all[i], 1)
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		h := all[n/2*7919%len(all)]
		if n%2 == 0 {
			x.Evict(h, 1)
		} else {
			x.Admit(h, 1)
		}
	}
}

// BenchmarkScattered is the worst case of interning: a third holder comes to and goes
// from keys of which each has its own set.
func BenchmarkScattered(b *testing.B) {
	x := scattered(b, 1_000_000, 2)
	h := x.NewHolder(-1)
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; b.Loop(); n++ {
		if k := benchKey(n / 2 * 7919 % 1_000_000); n%2 == 0 {
			x.Admit(h, k)
		} else {
			x.Evict(h, k)
		}
	}
}
