package index

// Sweep looks at up to slots slots, going round the index from where the last call
// ended, and takes dead holders out of them. It does nothing when nothing is dead.
//
// Determinism: it never changes what readers see, nor any count but DeadEntries, Len
// and Bytes. Cost: a few nanoseconds a slot; a table that the sweep has emptied is
// rebuilt smaller once it has been gone through. Writer only.
func (x *Index[V]) Sweep(slots int) {
	if x.dead == 0 || slots <= 0 {
		return
	}
	for slots > 0 && x.dead > 0 {
		s := &x.shards[x.sweepAt.shard]
		from := x.sweepAt.slot
		n := len(s.table.Load().slots)
		to := min(n, from+slots)
		x.sweepSlots(s, from, to)
		slots -= max(1, to-from) // the table may have shrunk below the mark
		x.sweepAt.slot = to
		if to >= n {
			x.sweepAt.slot = 0
			x.sweepAt.shard = (x.sweepAt.shard + 1) % len(x.shards)
			x.shrink(s)
		}
	}
	x.publish()
}

func (x *Index[V]) sweepSlots(s *shard, from, to int) {
	for i := from; i < to && x.dead > 0; i++ {
		t := s.table.Load() // put may have replaced it: the next round sees what moved
		if i >= len(t.slots) {
			return
		}
		key, val := t.slots[i].key, t.slots[i].val
		if val == 0 || val == emptySet {
			continue
		}
		m := x.sets.of(uint32(val))
		if m.cleanAt == x.drops {
			continue
		}
		next := x.step(stepClean, val, nil)
		x.sets.of(uint32(next)).cleanAt = x.drops
		if next == val {
			continue
		}
		x.dead -= int64(len(x.sets.get(val).holders) - len(x.sets.get(next).holders))
		x.put(s, t, i, key, val, next)
	}
}
