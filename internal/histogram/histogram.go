// Package histogram counts values by size: latencies, bytes.
//
// It knows nothing of metrics: a Histogram is a row of counts under fixed bounds and
// the sum of what was observed. Callers are the rooms that measure; httpapi shows
// their snapshots.
//
//	seconds := histogram.New(.001, .01, .1)
//	seconds.Observe(took.Seconds())
package histogram

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"sync/atomic"
)

// Histogram counts observations; New makes one.
//
// Concurrency: all methods from any goroutine. Cost: Observe takes a binary search
// and two atomic writes, no allocation.
type Histogram struct {
	bounds []float64       // ascending, never written after New
	counts []atomic.Uint64 // per bucket, not cumulative; the last is above all bounds
	sum    atomic.Uint64   // a float64's bits
}

// New makes a histogram with these upper bounds, which must ascend; a value equal to
// a bound is below it.
func New(bounds ...float64) *Histogram {
	for i, b := range bounds {
		if math.IsNaN(b) || math.IsInf(b, 0) || i > 0 && b <= bounds[i-1] {
			panic(fmt.Sprintf("bug: histogram bounds %v: want finite ones that ascend", bounds))
		}
	}
	return &Histogram{bounds: slices.Clone(bounds), counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts one value.
func (h *Histogram) Observe(v float64) {
	h.counts[sort.SearchFloat64s(h.bounds, v)].Add(1)
	for {
		old := h.sum.Load()
		if h.sum.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// Snapshot is what a histogram has counted so far, in the form that Prometheus shows.
type Snapshot struct {
	Buckets map[float64]uint64 // observations up to and with each bound; the largest ones only count in Count
	Count   uint64
	Sum     float64
}

// Snapshot gives the counts. Count is never less than a bucket's; Sum may be of
// a few observations more or less.
// Ownership: the caller's.
func (h *Histogram) Snapshot() Snapshot {
	s := Snapshot{Buckets: make(map[float64]uint64, len(h.bounds)), Sum: math.Float64frombits(h.sum.Load())}
	for i := range h.counts {
		s.Count += h.counts[i].Load()
		if i < len(h.bounds) {
			s.Buckets[h.bounds[i]] = s.Count
		}
	}
	return s
}
