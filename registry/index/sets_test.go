package index

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// TestIndex_EveryKeyItsOwnSet is the worst case of interning: hardly two keys have the
// same holders. Sets come and go by the ten thousand under a reader, who must only
// ever see a key's own holders.
func TestIndex_EveryKeyItsOwnSet(t *testing.T) {
	const keys, holders, each = 6000, 500, 3
	x := New[int](Options{Shards: 4})
	all := make([]*Holder[int], holders)
	for i := range all {
		all[i] = x.NewHolder(i)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	plan := make([][each]int, keys)
	for k := range plan {
		for i := range plan[k] {
			plan[k][i] = rng.IntN(holders)
		}
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	// Owner: the test. Ends when done is set; blocks on nothing.
	wg.Go(func() {
		for k := 0; !done.Load(); k = (k + 1) % keys {
			for _, h := range x.Holders(Key(k)) {
				if p := plan[k]; h.V != p[0] && h.V != p[1] && h.V != p[2] {
					t.Errorf("key %d: holder %d, want one of %v", k, h.V, p)
					return
				}
			}
		}
	})
	for range 2 {
		for i := range each {
			for k := range plan {
				x.Admit(all[plan[k][i]], Key(k))
			}
		}
		checkBooks(t, x)
		full := x.Bytes()
		for i := range each {
			for k := range plan {
				x.Evict(all[plan[k][i]], Key(k))
			}
		}
		checkBooks(t, x)
		if x.Len() != 0 || len(x.sets.byHash) > maxRetired || x.Bytes() > full {
			t.Errorf("emptied: %d keys, %d sets, %d bytes after %d", x.Len(), len(x.sets.byHash), x.Bytes(), full)
		}
		if most := uint32(keys + maxRetired + 2); x.sets.next > most {
			t.Errorf("%d set ids for %d keys, want at most %d: ids are not used again", x.sets.next, keys, most)
		}
	}
	done.Store(true)
	wg.Wait()
}

// TestIndex_RetiredSetsAreFew: big sets must not pile up in the queue of unused ones.
func TestIndex_RetiredSetsAreFew(t *testing.T) {
	x := New[int](Options{})
	for i := range 2000 {
		x.Admit(x.NewHolder(i), 1)
	}
	held := 0
	for _, id := range x.sets.retired[x.sets.retiredHead:] {
		held += x.sets.size(id, x.sets.of(id))
	}
	if held != x.sets.retiredHolders || held > maxRetiredHolders {
		t.Fatalf("unused sets have %d holders, counted %d, want at most %d", held, x.sets.retiredHolders, maxRetiredHolders)
	}
	checkBooks(t, x)
}

// TestIndex_ShardsGrowApart: no log entry should have to wait for many rebuilds.
func TestIndex_ShardsGrowApart(t *testing.T) {
	x := New[int](Options{Shards: 64})
	h := x.NewHolder(0)
	const keys, batch = 400_000, 1000
	list := make([]Key, batch)
	worst := 0
	for at := 0; at < keys; at += batch {
		for i := range list {
			list[i] = Key(at + i)
		}
		var before [64]*table
		for i := range before {
			before[i] = x.shards[i].table.Load()
		}
		Apply(x, h, list, nil)
		rebuilt := 0
		for i := range before {
			if x.shards[i].table.Load() != before[i] {
				rebuilt++
			}
		}
		if at > keys/4 {
			worst = max(worst, rebuilt)
		}
	}
	if worst > 8 || worst == 0 {
		t.Fatalf("%d of 64 shards rebuilt in one batch of %d on top of 100 000 keys, want at most 8", worst, batch)
	}
}
