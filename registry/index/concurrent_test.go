package index

import (
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// window is what a key's holders were and will be, for readers to judge by: version
// is odd while the writer is at the key.
type window struct {
	version       atomic.Uint64
	before, after atomic.Uint64 // holders by bit
}

// TestIndex_ReadersBesideWriter: whoever reads a key that is at rest sees exactly its
// holders, and of a key that changes once meanwhile either what was or what is. The
// writer makes sets die and their ids return at once, tables be rebuilt all the time,
// holders end, and freezes come and go.
func TestIndex_ReadersBesideWriter(t *testing.T) {
	const keys, holders, readers = 400, 10, 3
	ops := 120_000
	if testing.Short() {
		ops = 20_000
	}
	x := New[uint64](Options{Shards: 2})
	x.sets.maxRetired = 0
	var current [holders]*Holder[uint64]
	for i := range current {
		current[i] = x.NewHolder(uint64(i))
	}
	windows := make([]window, keys)
	var drops window // version only: a drop is at every key at once
	var done atomic.Bool
	var stale, exact atomic.Int64

	var wg sync.WaitGroup
	for r := range readers {
		// Owner: the test. Ends when done is set; blocks on nothing.
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 1))
			for !done.Load() {
				k := rng.IntN(keys)
				w := &windows[k]
				d, v := drops.version.Load(), w.version.Load()
				before, after := w.before.Load(), w.after.Load()
				if w.version.Load() != v {
					continue
				}
				var got uint64
				for _, h := range x.Holders(Key(k)) {
					if h.Visible() {
						got |= 1 << h.V
					}
				}
				if drops.version.Load() != d || d&1 == 1 || w.version.Load() != v {
					stale.Add(1)
					continue
				}
				if v&1 == 0 && got != after || got != before && got != after {
					t.Errorf("key %d: read holders %b, was %b, is %b", k, got, before, after)
					return
				}
				exact.Add(1)
			}
		})
	}
	rng := rand.New(rand.NewPCG(7, 7))
	var freeze *Frozen[uint64]
	for n := range ops {
		k, h := rng.IntN(keys), rng.IntN(holders)
		w := &windows[k]
		held := w.after.Load()
		next := held ^ 1<<h
		w.version.Add(1)
		w.before.Store(held)
		w.after.Store(next)
		if next&(1<<h) != 0 {
			x.Admit(current[h], Key(k))
		} else {
			x.Evict(current[h], Key(k))
		}
		w.before.Store(next)
		w.version.Add(1)
		switch {
		case n%1000 == 0:
			drops.version.Add(1)
			x.Drop(current[h])
			current[h] = x.NewHolder(uint64(h))
			for i := range windows {
				windows[i].before.Store(windows[i].after.Load() &^ (1 << h))
				windows[i].after.Store(windows[i].before.Load())
			}
			drops.version.Add(1)
		case n%1500 == 0:
			freeze = x.Freeze()
			// Owner: the test. Ends when the freeze is read; blocks on its shards.
			want := 0
			for i := range windows {
				want += bits.OnesCount64(windows[i].after.Load())
			}
			f := freeze
			wg.Go(func() {
				defer f.Release()
				got := 0
				for i := range f.Shards() {
					f.Range(i, func(_ Key, l []*Holder[uint64]) { got += len(l) })
				}
				if got != want {
					t.Errorf("freeze: %d entries, want %d", got, want)
				}
			})
		case n%97 == 0:
			x.Sweep(64)
		case n%5 == 0:
			s := &x.shards[n/5%2]
			x.rebuild(s)
		}
	}
	done.Store(true)
	wg.Wait()
	if freeze == nil || exact.Load() < int64(ops/100) {
		t.Fatalf("%d reads judged, %d given up: the test has seen too little", exact.Load(), stale.Load())
	}
	t.Logf("%d reads judged, %d given up", exact.Load(), stale.Load())
}

// TestIndex_ReadsAllocateNothing also holds for keys of many holders and for misses.
func TestIndex_ReadsAllocateNothing(t *testing.T) {
	x := New[int](Options{})
	l := make([]*Holder[int], 50)
	for i := range l {
		l[i] = x.NewHolder(i)
	}
	for k := range Key(1000) {
		x.Put(k, l[:k%50])
	}
	var k Key
	seen := 0
	if n := testing.AllocsPerRun(2000, func() {
		k = (k + 1) % 1100
		for _, h := range x.Holders(k) {
			if h.Visible() {
				seen++
			}
		}
	}); n != 0 || seen == 0 {
		t.Fatalf("%v allocations a read, %d holders seen; want 0 and some", n, seen)
	}
}
