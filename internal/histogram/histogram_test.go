package histogram

import (
	"math"
	"reflect"
	"sync"
	"testing"
)

func TestHistogram_Snapshot(t *testing.T) {
	for _, tt := range []struct {
		name   string
		bounds []float64
		values []float64
		want   Snapshot
	}{
		{"nothing observed", []float64{1, 2}, nil, Snapshot{Buckets: map[float64]uint64{1: 0, 2: 0}}},
		{"a bound is in its bucket", []float64{1, 2}, []float64{1, 2}, Snapshot{map[float64]uint64{1: 1, 2: 2}, 2, 3}},
		{"buckets are cumulative", []float64{1, 2, 4}, []float64{.5, 1.5, 1.75, 3}, Snapshot{map[float64]uint64{1: 1, 2: 3, 4: 4}, 4, 6.75}},
		{"below and above all bounds", []float64{1, 2}, []float64{-1, 0, 2.5, 1e9}, Snapshot{map[float64]uint64{1: 2, 2: 2}, 4, 1e9 + 1.5}},
		{"no bounds", nil, []float64{7}, Snapshot{map[float64]uint64{}, 1, 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := New(tt.bounds...)
			for _, v := range tt.values {
				h.Observe(v)
			}
			if got := h.Snapshot(); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// No observation is lost, and a snapshot taken meanwhile is a histogram.
func TestHistogram_Concurrent(t *testing.T) {
	h := New(1, 2, 3)
	const writers, each = 8, 2000
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range each {
				h.Observe(float64(w % 4))
			}
		})
	}
	for range 200 {
		if s := h.Snapshot(); s.Buckets[1] > s.Buckets[2] || s.Buckets[2] > s.Buckets[3] || s.Buckets[3] > s.Count {
			t.Fatalf("%+v", s)
		}
	}
	wg.Wait()
	want := Snapshot{map[float64]uint64{1: writers / 2 * each, 2: writers * 3 / 4 * each, 3: writers * each}, writers * each, writers / 4 * each * (0 + 1 + 2 + 3)}
	if got := h.Snapshot(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestNew_KeepsItsBounds(t *testing.T) {
	bounds := []float64{1, 2}
	h := New(bounds...)
	bounds[0] = 5
	h.Observe(1.5)
	if got := h.Snapshot().Buckets; !reflect.DeepEqual(got, map[float64]uint64{1: 0, 2: 1}) {
		t.Errorf("%v", got)
	}
}

func TestNew_RefusesBounds(t *testing.T) {
	for _, bounds := range [][]float64{{2, 1}, {1, 1}, {math.NaN()}, {1, math.Inf(1)}, {math.Inf(-1), 1}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("bounds %v are taken", bounds)
				}
			}()
			New(bounds...)
		}()
	}
}

func TestObserve_DoesNotAllocate(t *testing.T) {
	h := New(.001, .01, .1, 1)
	if n := testing.AllocsPerRun(100, func() { h.Observe(.05) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
