package index

import (
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is what the index must be: who holds what, and the holders by number.
type model struct {
	keys    map[Key]map[*Holder[int]]bool
	holders []*Holder[int] // every one made, dropped ones too
	dead    map[*Holder[int]]bool
}

// holds returns the key's living holders in order of NewHolder.
func (m *model) holds(k Key) []*Holder[int] {
	var l []*Holder[int]
	for _, h := range m.holders {
		if m.keys[k][h] && !m.dead[h] {
			l = append(l, h)
		}
	}
	return l
}

func (m *model) living() map[Key][]*Holder[int] {
	all := make(map[Key][]*Holder[int])
	for k := range m.keys {
		if l := m.holds(k); len(l) > 0 {
			all[k] = l
		}
	}
	return all
}

// check compares everything a reader can ask.
func (m *model) check(t *rapid.T, x *Index[int], keys []Key) {
	counts, sums := make(map[*Holder[int]]int64), make(map[*Holder[int]]uint64)
	for _, k := range keys {
		var got []*Holder[int]
		for _, h := range x.Holders(k) {
			if h.Visible() {
				got = append(got, h)
			} else if !m.keys[k][h] {
				t.Fatalf("key %d: dead holder %d never held it", k, h.V)
			}
		}
		want := m.holds(k)
		if !slices.Equal(got, want) {
			t.Fatalf("key %d: got %d holders, want %d", k, len(got), len(want))
		}
		for _, h := range want {
			counts[h]++
			sums[h] += KeySum(k)
		}
	}
	for _, h := range m.holders {
		if h.Count() != counts[h] || h.Sum() != sums[h] {
			t.Fatalf("holder %d: count %d, sum %x, want %d, %x", h.V, h.Count(), h.Sum(), counts[h], sums[h])
		}
	}
	checkBooks(t, x)
}

// checkBooks checks the writer's own accounts against the tables.
func checkBooks(t rapid.TB, x *Index[int]) {
	t.Helper()
	refs := make(map[uint32]uint32)
	var dead, live int64
	for i := range x.shards {
		s := &x.shards[i]
		used, alive := 0, 0
		for _, e := range s.table.Load().slots {
			if e.val == 0 {
				continue
			}
			used++
			if e.val == emptySet {
				continue
			}
			alive++
			set := x.sets.get(e.val)
			if set == nil {
				t.Fatalf("key %d: its set has been freed", e.key)
			}
			refs[uint32(e.val)]++
			for _, h := range set.holders {
				if h.State() == Dead {
					dead++
				}
			}
		}
		if s.used != used || s.live != alive || used > s.table.Load().limit {
			t.Fatalf("shard %d: used %d, live %d, want %d, %d, limit %d", i, s.used, s.live, used, alive, s.table.Load().limit)
		}
		live += int64(alive)
	}
	if x.DeadEntries() != dead || x.Len() != live {
		t.Fatalf("dead entries %d, len %d, want %d, %d", x.DeadEntries(), x.Len(), dead, live)
	}
	free := make(map[uint32]bool)
	for _, id := range x.sets.free {
		free[id] = true
	}
	seen, hashes := make(map[string]bool), make(map[uint64]bool)
	var bytes int64
	for id := uint32(1); id < x.sets.next; id++ {
		meta := x.sets.of(id)
		set := x.sets.get(uint64(meta.gen)<<32 | uint64(id))
		if set == nil {
			if refs[id] != 0 || !free[id] {
				t.Fatalf("set %d: gone, with %d slots", id, refs[id])
			}
			continue
		}
		if meta.refs&^queuedBit != refs[id] {
			t.Fatalf("set %d: %d references, want %d", id, meta.refs&^queuedBit, refs[id])
		}
		var name []byte
		for _, h := range set.holders {
			name = binary.AppendUvarint(name, h.seq)
		}
		if seen[string(name)] {
			t.Fatalf("set %d: there are two of it", id)
		}
		seen[string(name)], hashes[meta.hash] = true, true
		bytes += setBytes(len(set.holders))
	}
	if len(x.sets.byHash) != len(hashes) {
		t.Fatalf("%d hashes of sets, %d interned", len(hashes), len(x.sets.byHash))
	}
	bytes += int64(len(x.sets.meta))*segmentSets*32 + int64(len(*x.sets.dir.Load()))*8
	if x.sets.bytes != bytes {
		t.Fatalf("sets take %d bytes, want %d", x.sets.bytes, bytes)
	}
	bytes += int64(len(x.shards))*64 + int64(len(x.memo))*24 + evictedBytes
	for i := range x.shards {
		bytes += int64(len(x.shards[i].table.Load().slots)) * slotBytes
	}
	if x.Bytes() != bytes {
		t.Fatalf("%d bytes, want %d", x.Bytes(), bytes)
	}
}

// promise is a freeze and what it must show for as long as it lasts.
type promise struct {
	frozen *Frozen[int]
	want   map[Key][]*Holder[int]
}

func (p promise) check(t *rapid.T) {
	got := make(map[Key][]*Holder[int])
	for i := range p.frozen.Shards() {
		p.frozen.Range(i, func(k Key, holders []*Holder[int]) {
			if got[k] != nil {
				t.Fatalf("freeze: key %d comes twice", k)
			}
			got[k] = slices.Clone(holders)
		})
	}
	if !maps.EqualFunc(got, p.want, func(a, b []*Holder[int]) bool { return slices.Equal(a, b) }) {
		t.Fatalf("freeze: %d keys that differ from the %d at the time", len(got), len(p.want))
	}
}

func TestIndex_AgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := New[int](Options{Shards: rapid.SampledFrom([]int{1, 2, 8}).Draw(t, "shards")})
		x.sets.maxRetired = rapid.SampledFrom([]int{0, 1, 7, maxRetired}).Draw(t, "retired")
		m := &model{keys: make(map[Key]map[*Holder[int]]bool), dead: make(map[*Holder[int]]bool)}
		span := rapid.SampledFrom([]int{8, 100, 600}).Draw(t, "span")
		keys := make([]Key, span)
		stride := rapid.SampledFrom([]Key{1, 1 << 32, 1<<63 + 1}).Draw(t, "stride")
		for i := range keys {
			keys[i] = Key(i) * stride
			m.keys[keys[i]] = make(map[*Holder[int]]bool)
		}
		anyKey := rapid.Custom(func(t *rapid.T) Key { return keys[rapid.IntRange(0, span-1).Draw(t, "key")] })
		weak := rapid.Bool().Draw(t, "weak") // different sets of equal hash
		newHolder := func() {
			h := x.NewHolder(len(m.holders))
			if weak {
				h.mix &= 1
			}
			m.holders = append(m.holders, h)
		}
		newHolder()
		anyHolder := func(t *rapid.T) *Holder[int] {
			return m.holders[rapid.IntRange(0, len(m.holders)-1).Draw(t, "holder")]
		}
		set := func(h *Holder[int], k Key, held bool) (changed bool) {
			if m.dead[h] || m.keys[k][h] == held {
				return false
			}
			if held {
				m.keys[k][h] = true
			} else {
				delete(m.keys[k], h)
			}
			return true
		}
		var freezes []promise
		t.Repeat(map[string]func(*rapid.T){
			"holder": func(t *rapid.T) { newHolder() },
			"admit": func(t *rapid.T) {
				h, k := anyHolder(t), anyKey.Draw(t, "k")
				if got, want := x.Admit(h, k), set(h, k, true); got != want {
					t.Fatalf("admit: %v, want %v", got, want)
				}
			},
			"evict": func(t *rapid.T) {
				h, k := anyHolder(t), anyKey.Draw(t, "k")
				if got, want := x.Evict(h, k), set(h, k, false); got != want {
					t.Fatalf("evict: %v, want %v", got, want)
				}
			},
			"apply": func(t *rapid.T) {
				h := anyHolder(t)
				batch := rapid.SliceOfN(anyKey, 0, 200).Draw(t, "batch")
				bits := rapid.SliceOfN(rapid.Byte(), 0, len(batch)/8+1).Draw(t, "bits")
				var in, out int
				for i, k := range batch {
					evict := i/8 < len(bits) && bits[i/8]>>(i%8)&1 == 1
					if changed := set(h, k, !evict); changed && evict {
						out++
					} else if changed {
						in++
					}
				}
				before := h.Count()
				gotIn, gotOut := Apply(x, h, batch, bits)
				if gotIn != in || gotOut != out || h.Count() != before+int64(in-out) {
					t.Fatalf("apply: %d in, %d out, count %d, want %d, %d, %d", gotIn, gotOut, h.Count(), in, out, before+int64(in-out))
				}
			},
			"put": func(t *rapid.T) {
				k := anyKey.Draw(t, "k")
				var l []*Holder[int]
				want := 0
				for range rapid.IntRange(0, 12).Draw(t, "n") {
					h := anyHolder(t)
					l = append(l, h)
					if set(h, k, true) {
						want++
					}
				}
				if got := x.Put(k, l); got != want {
					t.Fatalf("put: %d, want %d", got, want)
				}
			},
			"drop": func(t *rapid.T) {
				h := anyHolder(t)
				x.Drop(h)
				m.dead[h] = true
				newHolder()
			},
			"sweep": func(t *rapid.T) { x.Sweep(rapid.IntRange(0, 300).Draw(t, "slots")) },
			"sweep all": func(t *rapid.T) {
				for i := 0; x.DeadEntries() > 0; i++ {
					if i > 100 {
						t.Fatalf("%d dead entries do not go", x.DeadEntries())
					}
					x.Sweep(1 << 16)
				}
			},
			"freeze": func(t *rapid.T) {
				if len(freezes) < 3 {
					freezes = append(freezes, promise{x.Freeze(), m.living()})
				}
			},
			"thaw": func(t *rapid.T) {
				if n := len(freezes); n > 0 {
					i := rapid.IntRange(0, n-1).Draw(t, "freeze")
					freezes[i].check(t)
					freezes[i].frozen.Release()
					freezes[i].frozen.Release()
					freezes = slices.Delete(freezes, i, i+1)
				}
			},
			"": func(t *rapid.T) {
				m.check(t, x, keys)
				for _, p := range freezes {
					p.check(t)
				}
			},
		})
	})
}
