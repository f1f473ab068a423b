package fsm

import (
	"bytes"
	"io"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/registry"
)

// benchOps is a worker batch of 10 000 operations as a busy replica would send it:
// 8 streams, runs of 250, one eviction for three admits.
func benchOps(b *Batch, first int, keys []registry.Key) {
	evict := make(registry.Bitmap, 32)
	for i := 0; i < 250; i += 4 {
		evict[i/8] |= 1 << (i % 8)
	}
	for run := range 40 {
		s := streamA
		s.Worker = int64(run % 8)
		b.Ops(registry.Ops{Stream: s, Keys: keys[250*run : 250*run+250], Evict: evict, Numbered: true,
			First: int64(first/8 + run/8*250), At: sampleAt})
	}
}

func perOperation(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/operation")
}

func BenchmarkBatch_Encode10k(b *testing.B) {
	b.ReportAllocs()
	keys := manyKeys(1, 10_000)
	batch := NewBatch(sampleSession)
	var size int
	for b.Loop() {
		batch.Reset()
		benchOps(batch, 0, keys)
		size = len(batch.Encode(1, sampleAt))
	}
	perOperation(b, 10_000)
	b.ReportMetric(float64(size)/10_000, "bytes/operation")
}

func BenchmarkDecode10k(b *testing.B) {
	batch := NewBatch(sampleSession)
	benchOps(batch, 0, manyKeys(1, 10_000))
	entry := batch.Encode(1, sampleAt)
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if Check(entry) != nil {
				b.Fatal()
			}
		}
		perOperation(b, 10_000)
	})
	b.Run("read", func(b *testing.B) { // what the FSM does, without the registry
		b.ReportAllocs()
		var d decoder
		for b.Loop() {
			env, c, r := open(entry)
			if r != nil {
				b.Fatal(r)
			}
			value, r := d.value(env, c)
			if r != nil {
				b.Fatal(r)
			}
			body := value.(cursor)
			for range d.openBatch(&body).records {
				d.next(&body, true)
			}
		}
		perOperation(b, 10_000)
	})
}

// BenchmarkFSM_Apply10k applies entries of 10 000 operations over an index of half
// a million keys.
func BenchmarkFSM_Apply10k(b *testing.B) {
	b.ReportAllocs()
	f := New(Options{})
	batch := NewBatch(sampleSession)
	for w := range int64(8) {
		batch.Register(registry.Registration{WorkerRef: registry.WorkerRef{Instance: workerA.Instance, Worker: w}, At: sampleAt})
	}
	f.Apply(command(1, batch.Encode(1, sampleAt)))
	// 50 entries that come around again, under new numbers
	pool := manyKeys(2, 500_000)
	number := uint64(1)
	apply := func() {
		n := int(number)
		batch.Reset()
		benchOps(batch, 10_000*n, pool[10_000*(n%50):])
		number++
		log := []*raft.Log{command(number, batch.Encode(number, sampleAt))}
		b.StartTimer()
		f.ApplyBatch(log)
		b.StopTimer()
	}
	for range 50 {
		apply()
	}
	b.ResetTimer()
	for range b.N {
		apply()
	}
	perOperation(b, 10_000)
	if f.failure != nil {
		b.Fatal(f.failure)
	}
}

// million gives an FSM with a million keys, of 8 streams.
func million(b *testing.B) *FSM {
	b.Helper()
	f := New(Options{})
	batch := NewBatch(sampleSession)
	pool := manyKeys(3, 1_000_000)
	for w := range int64(8) {
		batch.Register(registry.Registration{WorkerRef: registry.WorkerRef{Instance: workerA.Instance, Worker: w}, At: sampleAt})
	}
	for i := range 50 {
		s := streamA
		s.Worker = int64(i % 8)
		batch.Ops(registry.Ops{Stream: s, Keys: pool[20_000*i : 20_000*i+20_000], At: sampleAt})
		f.Apply(command(uint64(i)+1, batch.Encode(uint64(i)+1, sampleAt)))
		batch.Reset()
	}
	if f.failure != nil || f.Registry().Totals().Keys != 1_000_000 {
		b.Fatal(f.failure, f.Registry().Totals().Keys)
	}
	return f
}

func BenchmarkSnapshot_1MKeys(b *testing.B) {
	f := million(b)
	var out sink
	b.Run("take", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			snap, err := f.Snapshot()
			if err != nil {
				b.Fatal(err)
			}
			snap.Release()
		}
	})
	b.Run("persist", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			snap, err := f.Snapshot()
			if err != nil {
				b.Fatal(err)
			}
			out.Reset()
			if err := snap.Persist(&out); err != nil {
				b.Fatal(err)
			}
			snap.Release()
		}
		b.ReportMetric(float64(out.Len())/1e6, "bytes/key")
	})
	b.Run("restore", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := New(Options{}).Restore(io.NopCloser(bytes.NewReader(out.Bytes()))); err != nil {
				b.Fatal(err)
			}
		}
	})
}
