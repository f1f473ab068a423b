package fsm

import (
	"bytes"
	"io"
	"slices"
	"testing"
	"time"

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

// steady writes what workers with full caches send: each of 8 streams holds its
// share of the keys, admits new ones and evicts its oldest, turn by turn. So every
// operation changes the index, and the number of keys stays.
type steady struct {
	batch          *Batch
	number         uint64
	newest, oldest [8]int // by stream, counting its keys
	sent           [8]int // by stream, its operations
}

func steadyKey(stream, i int) registry.Key {
	return registry.Key(uint64(stream<<40+i) * 0x9e3779b97f4a7c15)
}

// entry gives the next 10 000 operations; while filling, nothing is evicted.
func (s *steady) entry(filling bool) *raft.Log {
	const run = 250
	s.batch.Reset()
	var keys [run]registry.Key
	evict := make(registry.Bitmap, (run+7)/8)
	for n := range 10_000 / run {
		w := n % 8
		for i := range keys {
			if !filling && i%2 == 1 {
				keys[i] = steadyKey(w, s.oldest[w])
				s.oldest[w]++
				evict[i/8] |= 1 << (i % 8)
			} else {
				keys[i] = steadyKey(w, s.newest[w])
				s.newest[w]++
			}
		}
		stream := streamA
		stream.Worker = int64(w)
		s.batch.Ops(registry.Ops{Stream: stream, Keys: keys[:], Evict: evict, Numbered: true, First: int64(s.sent[w]), At: sampleAt})
		s.sent[w] += run
	}
	s.number++
	return command(s.number, s.batch.Encode(s.number, sampleAt))
}

// BenchmarkFSM_Apply10k applies entries of 10 000 operations, each of which changes
// the index, over that many keys.
func BenchmarkFSM_Apply10k(b *testing.B) {
	for _, c := range []struct {
		name string
		keys int64
	}{{"500k keys", 500_000}, {"10M keys", 10_000_000}} {
		b.Run(c.name, func(b *testing.B) {
			if testing.Short() {
				b.Skip("millions of keys: not in -short")
			}
			b.ReportAllocs()
			f := New(Options{})
			s := steady{batch: NewBatch(sampleSession), number: 1}
			for w := range int64(8) {
				s.batch.Register(registry.Registration{WorkerRef: registry.WorkerRef{Instance: workerA.Instance, Worker: w}, At: sampleAt})
			}
			f.Apply(command(1, s.batch.Encode(1, sampleAt)))
			for range c.keys / 10_000 {
				f.Apply(s.entry(true))
			}
			var took []time.Duration
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				log := []*raft.Log{s.entry(false)}
				b.StartTimer()
				start := time.Now()
				f.ApplyBatch(log)
				took = append(took, time.Since(start))
			}
			b.StopTimer()
			perOperation(b, 10_000)
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/10_000, "median-ns/operation")
			if t := f.Registry().Totals(); f.failure != nil || t.Keys != c.keys || t.Gaps != 0 {
				b.Fatal(f.failure, t.Keys, t.Gaps)
			}
			if n := len(f.Registry().Holders(steadyKey(0, s.oldest[0]-1))) - len(f.Registry().Holders(steadyKey(0, s.newest[0]-1))); n != -1 {
				b.Fatal("the last entry did not change the index")
			}
		})
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
