package index

import "sync/atomic"

// Sample visits the keys of about so many slots, an equal part of each shard, and their
// holders, hidden and dead ones among them, until visit says no. What is written beside
// it may be seen or not. Any goroutine; no lock. Cost: a nanosecond or two a slot,
// visits aside.
func (x *Index[V]) Sample(slots int, visit func(key Key, holders []*Holder[V]) bool) {
	part := max(1, slots/len(x.shards))
	for i := range x.shards {
		s := x.shards[i].table.Load().slots
		for j := range s[:min(part, len(s))] {
			val := atomic.LoadUint64(&s[j].val) // before the key (I1)
			if val == 0 || val == emptySet {
				continue
			}
			if set := x.sets.get(val); set != nil && !visit(s[j].key, set.holders) {
				return
			}
		}
	}
}
