package registry

import "slices"

// A worker speaks to one replica at a time. When it moves to another, what the first
// one still had in its queue or its sockets may reach the log behind what the second
// one took: late. Applied on top it would bring back what has been evicted since. It
// can be told: each number is given once, so what is late was passed over before, and
// it comes from another batcher than the one that the stream has moved on with.

const (
	// lateGrace is how far the clocks of two replicas may be apart when the order of two
	// things that they took is told by time. It decides only where numbers do not.
	lateGrace = second

	// latePatience is for how long numbers that were passed over are waited for. What a
	// replica took while it could not reach the others is stamped before the hole that it
	// left; what it reads after a pause it reads within seconds, once. Who goes on for
	// longer is not late but alive: what made the hole was not of this process.
	latePatience = 10 * second

	// maxHoles bounds what is remembered of a stream. Each move to another replica makes
	// one hole at most.
	maxHoles = 8
)

// hole is a range of numbers that were passed over: from <= n < to.
type hole struct {
	from, to int64
	until    Micros // what was taken later is not late, once it has been extended
	extended bool   // something late has been taken after until, and moved it
}

func (h *hole) has(n int64) bool { return h.from <= n && n < h.to }

// jump notes that the numbers go on with first instead of next. Back is a process that
// has begun anew: what was missing of the one before will not be waited for.
func (q *sequence) jump(first int64, at Micros) {
	if first <= q.next {
		q.holes = nil
		return
	}
	if len(q.holes) == maxHoles {
		q.holes = slices.Delete(q.holes, 0, 1)
	}
	q.holes = append(q.holes, hole{from: q.next, to: first, until: at + latePatience})
}

// late returns how many operations at the beginning of a run come too late. The run does
// not follow the last one and is of another session. Doubtful says that they may not be
// late after all: they were taken no earlier than what passed them over.
func (q *sequence) late(o Ops, b birth) (n int, doubtful bool) {
	length := uint64(len(o.Keys))
	if o.At+lateGrace < b.at { // of the process before
		if o.First < q.next { // a run is judged as if it had been cut anywhere
			return int(min(length, distance(o.First, q.next))), false
		}
		return int(length), false
	}
	i := slices.IndexFunc(q.holes, func(h hole) bool { return h.has(o.First) })
	if i < 0 {
		return 0, false
	}
	h := &q.holes[i]
	if o.At > h.until {
		if h.extended {
			return 0, false
		}
		h.until, h.extended = o.At+latePatience, true
	}
	doubtful = h.extended || o.At >= h.until-latePatience
	n = int(min(length, distance(o.First, h.to)))
	q.fill(i, o.First, o.First+int64(n))
	return n, doubtful
}

// distance is to - from, for from <= to, which may be more than a signed number holds.
func distance(from, to int64) uint64 { return uint64(to) - uint64(from) }

// fill takes a range out of a hole: each number comes once.
func (q *sequence) fill(i int, from, to int64) {
	h := q.holes[i]
	var rest []hole
	if h.from < from {
		rest = append(rest, hole{h.from, from, h.until, h.extended})
	}
	if to < h.to {
		rest = append(rest, hole{to, h.to, h.until, h.extended})
	}
	q.holes = slices.Replace(q.holes, i, i+1, rest...)
	if over := len(q.holes) - maxHoles; over > 0 {
		q.holes = slices.Delete(q.holes, 0, over)
	}
	if len(q.holes) == 0 {
		q.holes = nil
	}
}

// after returns the run without its first n operations.
func (o Ops) after(n int) Ops {
	var evict Bitmap
	for i := n; i < len(o.Keys) && i>>3 < len(o.Evict); i++ {
		if o.Evict.Has(i) {
			if evict == nil {
				evict = make(Bitmap, (len(o.Keys)-n+7)/8)
			}
			evict[(i-n)>>3] |= 1 << ((i - n) & 7)
		}
	}
	o.First += int64(n)
	o.Keys, o.Evict = o.Keys[n:], evict
	return o
}
