package ingest

import (
	"slices"

	"github.com/kvctrl/kvctrl/registry"
)

// ops applies a run of operations one by one.
func (n *naive) ops(o registry.Ops, session registry.SessionID) {
	w := n.worker(o.Stream.WorkerRef)
	if w == nil || len(o.Keys) == 0 {
		return
	}
	s := n.stream(w, o.Stream.Location)
	if !o.Continues {
		s.counted = false
	}
	gap := false
	lose := func() {
		s.lossy = true
		if s.sync != nil {
			s.sync.lost = true
		} else if s.location == registry.CPULocation {
			w.want(registry.ReasonEventsLost)
		}
	}
	for i, key := range o.Keys {
		switch number := o.First + int64(i); {
		case !o.Numbered || s.unnumbered() && number == 0:
		case s.unnumbered(): // it counts after all
			s.numbers, s.writer = append(s.numbers, number), session
			lose()
			gap = true
		default:
			first := len(s.numbers) == 0
			next := int64(0) // where a process begins
			if !first {
				next = s.numbers[len(s.numbers)-1] + 1
			}
			zeros := len(s.numbers) == 1 && s.numbers[0] == 0 && number == 0
			if number != next && !zeros && !(first && w.adopted) {
				hole := s.missing[number]
				if session != s.writer && s.late(number, o.At, w.registered) {
					// Taken after what passed it over: perhaps of the process that lives.
					if o.At >= w.registered-second && (hole.extended || o.At >= hole.made) {
						lose()
					}
					n.late++
					n.count["operations late"]++
					continue
				}
				s.jump(next, number, o.At)
				lose()
				gap = gap || !first
			} else if !zeros && session != s.writer && o.At < w.registered-second {
				lose() // perhaps of the process before
				n.count["operations of the process before"]++
			}
			if first && number > 0 && (s.sync != nil || s.ended.id != "") {
				s.blind = true
				n.count["first numbers after a sync's start"]++
			}
			s.numbers, s.writer = append(s.numbers, number), session
		}
		s.operation(w, key, o.Evict.Has(i))
	}
	if gap && !s.counted {
		n.count["gaps"]++
		s.counted = true
		s.gaps++
		n.gaps++
	}
	if s.sync != nil {
		evicted := 0
		for _, gone := range s.sync.evicted {
			if gone {
				evicted++
			}
		}
		if evicted > n.maxEvicts {
			n.count["syncs given up, too many evicts"]++
			w.failSync(s, o.At)
		}
	}
}

// late reports whether a number was passed over before, and its batch overtaken.
func (s *naiveStream) late(number int64, at, registered registry.Micros) bool {
	if at < registered-second {
		return true
	}
	h := s.missing[number]
	if h == nil || at > h.until && h.extended {
		return false
	}
	if at > h.until {
		h.until, h.extended = at+10*second, true
	}
	delete(s.missing, number)
	return true
}

// jump notes that numbers go on elsewhere than with next.
func (s *naiveStream) jump(next, number int64, at registry.Micros) {
	if number < next {
		clear(s.missing)
	}
	hole := &naiveHole{made: at, until: at + 10*second}
	for i := next; i < number; i++ {
		s.missing[i] = hole
	}
}

func (s *naiveStream) unnumbered() bool {
	return len(s.numbers) > 1 && !slices.ContainsFunc(s.numbers, func(n int64) bool { return n != 0 })
}

func (s *naiveStream) operation(w *naiveWorker, key registry.Key, evict bool) {
	held := len(s.keys)
	sets := []map[registry.Key]bool{s.keys}
	delete(s.unsure, key)
	if s.sync != nil {
		delete(s.sync.unsure, key)
		sets = append(sets, s.sync.keys)
		s.sync.evicted[key] = evict
	}
	for _, keys := range sets {
		if evict {
			delete(keys, key)
		} else {
			keys[key] = true
			s.stored = true
		}
	}
	if s.lossy && held > 0 && len(s.keys) == 0 && s.sync == nil && s.location != registry.CPULocation {
		s.lossy, s.cleared = false, true
	}
}
