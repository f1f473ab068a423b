package index

import "testing"

// TestIndex_SweepBetweenDrops: a set that one step of the sweep has cleaned may have to
// be cleaned again of a holder dropped since.
func TestIndex_SweepBetweenDrops(t *testing.T) {
	x := New[int](Options{Shards: 1})
	a, b, c := x.NewHolder(0), x.NewHolder(1), x.NewHolder(2)
	for k := range Key(8) {
		x.Put(k, []*Holder[int]{a, b, c})
	}
	x.Drop(a)
	for x.DeadEntries() == 8 {
		x.Sweep(1)
	}
	x.Drop(b)
	for range 10 {
		x.Sweep(len(x.shards[0].table.Load().slots))
	}
	checkBooks(t, x)
	for k := range Key(8) {
		if got := x.Holders(k); len(got) != 1 || got[0] != c {
			t.Fatalf("key %d: %d holders after the sweep, want the living one", k, len(got))
		}
	}
}

// TestSetTable_FreedIDIsNoticed: a reader may be held up between reading a slot and
// asking for its set, for as long as it takes to free the set and use its id again.
func TestSetTable_FreedIDIsNoticed(t *testing.T) {
	x := New[int](Options{})
	x.sets.maxRetired = 0
	a, b := x.NewHolder(0), x.NewHolder(1)
	value := func(k Key) uint64 {
		_, val := x.shard(mix(k)).table.Load().find(k, mix(k)<<x.shardBits)
		return val
	}
	x.Admit(a, 1)
	old := value(1)
	x.Evict(a, 1)
	if x.sets.get(old) != nil {
		t.Fatal("the value of a freed set still finds one")
	}
	x.Admit(b, 2)
	if uint32(value(2)) != uint32(old) {
		t.Fatalf("set id %d, want %d again", uint32(value(2)), uint32(old))
	}
	if x.sets.get(old) != nil {
		t.Fatal("the value of a freed set finds the next set of that id")
	}
}

func TestIndex_GivesBackTables(t *testing.T) {
	empty := New[int](Options{}).Bytes()
	keys, all := make([]Key, 100_000), []byte(nil)
	for i := range keys {
		keys[i] = Key(i)
	}
	for range len(keys) / 8 {
		all = append(all, 0xff)
	}
	for name, end := range map[string]func(*Index[int], *Holder[int]){
		"evict": func(x *Index[int], h *Holder[int]) { Apply(x, h, keys, all) },
		"sweep": func(x *Index[int], h *Holder[int]) {
			x.Drop(h)
			for x.DeadEntries() > 0 {
				x.Sweep(1000)
			}
		},
	} {
		x := New[int](Options{})
		h := x.NewHolder(0)
		Apply(x, h, keys, nil)
		full := x.Bytes()
		end(x, h)
		if got := x.Bytes(); x.Len() != 0 || got-empty > (full-empty)/4 {
			t.Errorf("%s: %d keys, %d bytes, of %d when full and %d when new", name, x.Len(), got, full, empty)
		}
	}
}

// TestFrozen_UndoIsBounded: a freeze that is kept costs at most about the tables once
// more, however much is written meanwhile.
func TestFrozen_UndoIsBounded(t *testing.T) {
	x := New[int](Options{Shards: 1})
	h := x.NewHolder(0)
	x.Admit(h, 1)
	f := x.Freeze()
	defer f.Release()
	for range 1000 {
		x.Evict(h, 1)
		x.Admit(h, 1)
	}
	if n := len(f.shards[0].undo); n > minSlots {
		t.Errorf("%d overwritten values kept, want at most %d", n, minSlots)
	}
	seen := 0
	f.Range(0, func(Key, []*Holder[int]) { seen++ })
	if seen != 1 {
		t.Errorf("freeze: %d keys, want 1", seen)
	}
}

// TestIndex_LoadsWithoutGrowing: an index that is loaded shard by shard, as a freeze
// gives it, makes each table but the first once. It is beside the one it replaces.
func TestIndex_LoadsWithoutGrowing(t *testing.T) {
	const shards, keys = 32, 200_000
	from := New[int](Options{Shards: shards})
	h := from.NewHolder(0)
	for k := range Key(keys) {
		from.Admit(h, k)
	}
	f := from.Freeze()
	defer f.Release()
	to := New[int](Options{Shards: shards})
	loaded := []*Holder[int]{to.NewHolder(0)}
	made, tables := 0, map[*table]bool{}
	for i := range f.Shards() {
		f.Range(i, func(key Key, _ []*Holder[int]) {
			to.Put(key, loaded)
			if at := to.shards[i].table.Load(); !tables[at] {
				tables[at] = true
				made += len(at.slots)
			}
		})
	}
	checkBooks(t, to)
	if to.Len() != keys {
		t.Fatalf("%d keys, want %d", to.Len(), keys)
	}
	// at best 1/0.65 slots a key; 5 when every shard grows from nothing
	if perKey := float64(made) / keys; perKey > 2 {
		t.Errorf("%.1f slots made for each key", perKey)
	}
}
