package index

import (
	"slices"
	"sync/atomic"
)

// group is how many keys Apply looks ahead: the loads of a group's slots wait for
// memory side by side instead of one after the other.
const group = 32

// Apply admits and evicts keys in order: keys[i] is evicted when bit i%8 of
// evict[i/8] is set, else admitted; beyond the end of evict it is admitted. It
// returns how many keys came and went. Neither slice is kept. Writer only.
//
// It is a function so that keys may be of the caller's own key type.
func Apply[K ~uint64, V any](x *Index[V], h *Holder[V], keys []K, evict []byte) (admitted, evicted int) {
	if h.died.Load() != 0 {
		return 0, 0
	}
	var hashes [group]uint64
	var sum uint64
	for at := 0; at < len(keys); at += group {
		part := keys[at:min(at+group, len(keys))]
		for i, key := range part {
			hashes[i] = mix(Key(key))
		}
		x.touch(hashes[:len(part)])
		for i, key := range part {
			if n := at + i; n>>3 < len(evict) && evict[n>>3]&(1<<(n&7)) != 0 {
				if x.evict(h, Key(key), hashes[i]) {
					sum -= KeySum(Key(key))
					evicted++
				}
			} else if x.admit(h, Key(key), hashes[i]) {
				sum += KeySum(Key(key))
				admitted++
			}
		}
	}
	h.tally(int64(admitted-evicted), sum)
	x.publish()
	return admitted, evicted
}

// touch reads the slot where each hash's probe begins, so that it is in the cache
// when it is needed.
func (x *Index[V]) touch(hashes []uint64) (seen uint64) {
	for _, hash := range hashes {
		s := x.shard(hash).table.Load().slots
		seen |= atomic.LoadUint64(&s[scale(hash<<x.shardBits, len(s))].val)
	}
	return seen
}

// Put admits a key for several holders at once, whatever their order, and returns how
// many did not hold it before. Loading a key of n holders takes one set instead of
// n. Dropped holders are passed over. The slice is not kept. Writer only.
//
// Who loads an index shard by shard, as a freeze gives it, pays for the growth of the
// first: the others will be as large, and are made so at once.
func (x *Index[V]) Put(key Key, holders []*Holder[V]) int {
	hash := mix(key)
	s := x.shard(hash)
	t := s.table.Load()
	i, old := t.find(key, hash<<x.shardBits)
	from := orEmpty(old)
	set := x.sets.get(from).holders
	setHash := x.sets.of(uint32(from)).hash
	x.scratch = append(x.scratch[:0], set...)
	for _, h := range holders {
		if h.died.Load() == 0 {
			x.scratch = append(x.scratch, h)
		}
	}
	slices.SortFunc(x.scratch, func(a, b *Holder[V]) int { return bySeq(a, b.seq) })
	x.scratch = slices.Compact(x.scratch)
	added := len(x.scratch) - len(set)
	if added == 0 {
		clear(x.scratch)
		return 0
	}
	// Both are sorted, and what is in the old set is in the new one.
	sum, rest := KeySum(key), set
	for _, h := range x.scratch {
		if len(rest) > 0 && rest[0] == h {
			rest = rest[1:]
			continue
		}
		setHash += h.mix
		h.tally(1, sum)
	}
	// A seventh less: full to 61 to 70 %, as tables are on average (slotsFor).
	if room := x.loaded * 6 / 7; old == 0 && s.used >= t.limit && s.live < room {
		x.bytes += s.rebuild(x.shardBits, room)
		t = s.table.Load()
		i, _ = t.find(key, hash<<x.shardBits)
	}
	x.put(s, t, i, key, old, x.internScratch(setHash))
	x.loaded = max(x.loaded, s.live)
	x.publish()
	return added
}
