package index

import (
	"slices"
	"sync"
	"testing"
)

func TestIndex_Evicted(t *testing.T) {
	x := New[int](Options{Shards: 4})
	a, b := x.NewHolder(1), x.NewHolder(2)
	want := func(what string, key Key, evicted bool) {
		t.Helper()
		if got := x.Evicted(key); got != evicted {
			t.Errorf("%s: Evicted(%d) is %v, want %v", what, key, got, evicted)
		}
	}
	Apply(x, a, []Key{1, 2, 3, 4}, nil)
	Apply(x, b, []Key{2}, nil)
	want("held", 1, false)
	Apply(x, a, []Key{1, 2, 9}, []byte{0b111})
	want("by its only holder", 1, true)
	want("by one of two", 2, false)
	want("by nobody: it was not held", 9, false)
	x.Evict(b, 2)
	want("by the last of two", 2, true)
	x.Drop(a)
	x.Sweep(1 << 20)
	want("by a drop", 3, false)
	Apply(x, b, []Key{1}, nil)
	want("admitted again", 1, false)
	x.Drop(b)
	x.Sweep(1 << 20)
	want("admitted again, and then dropped", 1, false)
}

// What is evicted and admitted again within one run is held, and what is admitted and
// evicted is not, also where the run empties a shard, which is then rebuilt without the
// slots of what went.
func TestIndex_EvictedInOneRun(t *testing.T) {
	const n = 10_000 // two rebuilds
	x := New[int](Options{Shards: 1})
	h := x.NewHolder(1)
	held := make([]Key, n)
	for i := range held {
		held[i] = Key(i)
	}
	Apply(x, h, held, nil)
	back := held[n-100:] // among them some that are not noted yet, with and without a slot
	Apply(x, h, slices.Concat(held, back), slices.Repeat([]byte{0xff}, n/8))
	for _, k := range back {
		if x.Evicted(k) {
			t.Fatalf("key %d is held again, and called evicted", k)
		}
	}
	Apply(x, h, back[:1], []byte{1})
	if !x.Evicted(back[0]) {
		t.Error("the last one that went is not known")
	}
}

// More evicts than are noted at a time, and than there are places: the latest are known.
func TestIndex_EvictedMany(t *testing.T) {
	const n = 3 * evictedSlots
	x := New[int](Options{Shards: 4})
	h := x.NewHolder(1)
	keys := make([]Key, n)
	for i := range keys {
		keys[i] = Key(i)
	}
	Apply(x, h, keys, nil)
	Apply(x, h, keys, slices.Repeat([]byte{0xff}, n/8))
	known := func(keys []Key) (n int) {
		for _, k := range keys {
			if x.Evicted(k) {
				n++
			}
		}
		return n
	}
	// The chance that none of the later ones fell on its place.
	if got := known(keys[n-1000:]); got < 980 {
		t.Errorf("%d of the last 1 000 are known, want nearly all", got)
	}
	if got := known(keys[n-evictedSlots:]); got < evictedSlots*60/100 {
		t.Errorf("%d of the last %d are known, want some 63 %%", got, evictedSlots)
	}
	if got := known(keys[:evictedSlots]); got > evictedSlots*12/100 {
		t.Errorf("%d of the first %d are known, want few: nothing is forgotten", got, evictedSlots)
	}
}

func TestIndex_EvictedBesideTheWriter(t *testing.T) {
	x := New[int](Options{Shards: 4})
	h := x.NewHolder(1)
	done := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() { // ends when done is closed
		for {
			select {
			case <-done:
				return
			default:
				x.Evicted(1)
				x.Sample(1<<10, func(Key, []*Holder[int]) bool { return true })
			}
		}
	})
	for range 200 {
		for k := range Key(300) {
			x.Admit(h, k)
			x.Evict(h, k)
		}
	}
	close(done)
	readers.Wait()
	if !x.Evicted(1) {
		t.Error("evicted, and not known")
	}
}

func TestIndex_Sample(t *testing.T) {
	x := New[int](Options{Shards: 4})
	a, b := x.NewHolder(1), x.NewHolder(2)
	for k := range Key(1000) {
		x.Admit(a, k)
	}
	for k := range Key(500) {
		x.Admit(b, k)
		x.Evict(a, k)
	}
	x.Evict(b, 7)
	seen := make(map[Key]int)
	x.Sample(1<<20, func(k Key, holders []*Holder[int]) bool {
		if len(holders) != 1 {
			t.Fatalf("key %d has %d holders", k, len(holders))
		}
		seen[k] = holders[0].V
		return true
	})
	if len(seen) != 999 || seen[6] != 2 || seen[600] != 1 {
		t.Errorf("%d keys seen, 6 at %d, 600 at %d; want all 999 but 7", len(seen), seen[6], seen[600])
	}
	visits := 0
	x.Sample(1<<20, func(Key, []*Holder[int]) bool { visits++; return visits < 10 })
	if visits != 10 {
		t.Errorf("%d visits after the tenth said no", visits)
	}
	visits = 0
	x.Sample(64, func(Key, []*Holder[int]) bool { visits++; return true })
	if visits == 0 || visits > 64 {
		t.Errorf("%d visits in 64 slots", visits)
	}
}
