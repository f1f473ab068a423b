package fsm

import (
	"testing"

	"github.com/kvctrl/kvctrl/registry"
)

// A worker moves from one replica to another, whose batch is faster than the one that
// the first still has. That one comes late, comes again, and comes behind a snapshot: it
// is dropped once, and a duplicate ever after.
func TestFSM_LateBatch(t *testing.T) {
	first, second := registry.SessionID{1}, registry.SessionID{2}
	batch := func(session registry.SessionID, number uint64, records ...any) []byte {
		return encodeBatch(WorkerBatch{Session: session, Number: number, At: sampleAt, Records: records})
	}
	ops := func(from int64, evict registry.Bitmap, keys ...registry.Key) registry.Ops {
		return registry.Ops{Stream: streamA, First: from, Keys: keys, Evict: evict, Numbered: true, At: sampleAt}
	}
	held := batch(first, 2, ops(1, nil, 11, 12), ops(3, nil, 13))
	log := [][]byte{
		batch(first, 1, registry.Registration{WorkerRef: workerA, At: sampleAt}, ops(0, nil, 10)),
		batch(second, 1, ops(4, registry.Bitmap{1}, 11, 14)), // 11 is evicted
		held,
		held,
		batch(second, 2, ops(6, nil, 15)),
	}
	for restoreBefore := range len(log) + 1 {
		f, _ := newFSM(t)
		for i, entry := range log {
			if i == restoreBefore {
				b := persist(t, f)
				f, _ = newFSM(t)
				if err := restore(f, b); err != nil {
					t.Fatal(err)
				}
			}
			got := f.Apply(command(uint64(i+1), entry)).(BatchResult)
			switch i {
			case 1:
				if !got.Records[0].Ops.Gap {
					t.Errorf("the overtaking batch: %+v", got)
				}
			case 2:
				if got.Records[0].Ops.Late != 2 || got.Records[1].Ops.Late != 1 {
					t.Errorf("the late batch: %+v", got)
				}
			case 3:
				if !got.Duplicate {
					t.Errorf("the late batch again: %+v", got)
				}
			case 4:
				if got.Records[0].Ops != (registry.OpsResult{}) {
					t.Errorf("the batch that goes on: %+v", got)
				}
			}
		}
		reg := f.Registry()
		for key, holders := range map[registry.Key]int{10: 1, 11: 0, 12: 0, 13: 0, 14: 1, 15: 1} {
			if got := len(reg.Holders(key)); got != holders {
				t.Errorf("restored before entry %d: key %d has %d holders, want %d", restoreBefore, key, got, holders)
			}
		}
		w, _ := reg.Worker(workerA)
		if l := w.Locations[0]; !l.Lossy || l.Gaps != 1 || l.NextSeq != 7 || reg.Totals().Late != 3 {
			t.Errorf("restored before entry %d: %+v, %d late", restoreBefore, l, reg.Totals().Late)
		}
	}
}
