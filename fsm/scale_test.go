//go:build linux

package fsm

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/kvctrl/kvctrl/registry"
)

// These benchmarks measure what a cluster of three feels of snapshots: how long entries
// wait for one that is taken, how long a replica takes to install one, and with how much
// memory, while it goes on answering. DESIGN.md has the figures.

const fleetWorkers = 1000

// fleet is a state of so many workers, with their keys, and 10 000 finished events.
type fleet struct {
	*FSM
	batch  *Batch
	index  uint64
	number uint64
	sent   [fleetWorkers]int64 // by worker
}

func fleetStream(w int) registry.StreamRef {
	return registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: fmt.Sprintf("vllm-%d", w), Worker: 0}, Location: "LocalCPUBackend"}
}

func fleetKey(w int, i int64) registry.Key {
	return registry.Key((uint64(w)<<32 + uint64(i)) * 0x9e3779b97f4a7c15)
}

func newFleet(b *testing.B, keys int) *fleet {
	b.Helper()
	f := &fleet{FSM: New(Options{}), batch: NewBatch(sampleSession)}
	for w := range fleetWorkers {
		f.batch.Register(registry.Registration{WorkerRef: fleetStream(w).WorkerRef, At: sampleAt})
	}
	f.apply(f.sealed())
	for range keys / fleetWorkers / 100 {
		for w := 0; w < fleetWorkers; w += 100 {
			f.apply(f.admits(w, 100, 100))
		}
	}
	for i := range 10_000 {
		id := "Clear-" + strconv.Itoa(i)
		f.apply(EncodeCreateEvent(registry.EventCreate{ID: id, Kind: registry.CommandClear, At: sampleAt}))
		f.apply(EncodeFinishEvent(registry.EventFinish{ID: id, State: registry.EventDone, At: sampleAt,
			Workers: []registry.WorkerOutcome{{WorkerRef: workerA, State: registry.EventDone}}}))
	}
	if t := f.Registry().Totals(); f.failure != nil || t.Keys != int64(keys) || t.Events != 10_000 {
		b.Fatal(f.failure, t.Keys, t.Events)
	}
	return f
}

// admits makes an entry in which so many workers, from the first on, admit so many keys.
func (f *fleet) admits(first, workers, each int) []byte {
	keys := make([]registry.Key, each)
	for w := first; w < first+workers; w++ {
		for i := range keys {
			keys[i] = fleetKey(w, f.sent[w]+int64(i))
		}
		f.batch.Ops(registry.Ops{Stream: fleetStream(w), Keys: keys, Numbered: true, First: f.sent[w], At: sampleAt})
		f.sent[w] += int64(each)
	}
	return f.sealed()
}

func (f *fleet) sealed() []byte {
	f.number++
	entry := f.batch.Encode(f.number, sampleAt)
	f.batch.Reset()
	return entry
}

func (f *fleet) apply(entry []byte) {
	f.index++
	f.ApplyBatch([]*raft.Log{command(f.index, entry)})
}

// pauses are how long entries took: by the clock, and of the processor alone. On a machine
// that others use too, the clock's longest are theirs.
type pauses struct{ wall, cpu []time.Duration }

// load applies entries of 1 000 operations until stop says so.
func (p *pauses) load(f *fleet, stop func(n int) bool) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for n := 0; !stop(n); n++ {
		entry := f.admits(n*10%fleetWorkers, 10, 100)
		begin, cpu := time.Now(), threadTime()
		f.apply(entry)
		p.wall, p.cpu = append(p.wall, time.Since(begin)), append(p.cpu, threadTime()-cpu)
	}
}

// threadTime is the processor time of this thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

func (p *pauses) report(b *testing.B, when string) {
	slices.Sort(p.wall)
	slices.Sort(p.cpu)
	b.ReportMetric(ms(p.wall[len(p.wall)/2]), "ms-entry-"+when)
	b.ReportMetric(ms(p.wall[len(p.wall)-1]), "ms-entry-"+when+"-max")
	b.ReportMetric(ms(p.cpu[len(p.cpu)-1]), "ms-cpu-"+when+"-max")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkFSM_SnapshotPause: entries of 1 000 operations, one after the other, before
// and while a snapshot is taken and persisted.
func BenchmarkFSM_SnapshotPause(b *testing.B) {
	for _, keys := range []int{4_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("%dM keys", keys/1_000_000), func(b *testing.B) {
			if testing.Short() {
				b.Skip("millions of keys: not in -short")
			}
			f := newFleet(b, keys)
			var takes []time.Duration
			var calm, busy pauses
			var persisting time.Duration
			for b.Loop() {
				calm.load(f, func(n int) bool { return n == 500 })
				begin := time.Now()
				snap, err := f.Snapshot()
				takes = append(takes, time.Since(begin))
				if err != nil {
					b.Fatal(err)
				}
				done := make(chan time.Duration, 1)
				go func() { // ended by Persist
					begin := time.Now()
					if err := snap.Persist(&discard{}); err != nil {
						b.Error(err)
					}
					snap.Release()
					done <- time.Since(begin)
				}()
				busy.load(f, func(int) bool {
					select {
					case persisting = <-done:
						return true
					default:
						return false
					}
				})
			}
			slices.Sort(takes)
			b.ReportMetric(ms(takes[len(takes)/2]), "ms-take")
			b.ReportMetric(ms(takes[len(takes)-1]), "ms-take-max")
			b.ReportMetric(ms(persisting), "ms-persist")
			calm.report(b, "before")
			busy.report(b, "during")
		})
	}
}

// discard is a sink that costs nothing.
type discard struct{}

func (*discard) Write(p []byte) (int, error) { return len(p), nil }
func (*discard) ID() string                  { return "discard" }
func (*discard) Close() error                { return nil }
func (*discard) Cancel() error               { return nil }

// BenchmarkFSM_RestoreUnderReaders: a replica that holds as much installs a snapshot,
// while two readers look up prompts of 100 chunks.
func BenchmarkFSM_RestoreUnderReaders(b *testing.B) {
	for _, keys := range []int{4_000_000, 10_000_000} {
		b.Run(fmt.Sprintf("%dM keys", keys/1_000_000), func(b *testing.B) {
			if testing.Short() {
				b.Skip("millions of keys: not in -short")
			}
			f := newFleet(b, keys)
			file := b.TempDir() + "/state.bin"
			saved := persist(b, f.FSM)
			if err := os.WriteFile(file, saved, 0o600); err != nil {
				b.Fatal(err)
			}
			saved = nil
			for b.Loop() {
				b.StopTimer()
				debug.FreeOSMemory()
				debug.FreeOSMemory()
				before, _ := resident(b)
				slowest, lookups, stop := f.readers(2)
				b.StartTimer()
				src, err := os.Open(file)
				if err == nil {
					err = f.Restore(src)
				}
				b.StopTimer()
				if err != nil {
					b.Fatal(err)
				}
				src.Close()
				stop()
				_, peak := resident(b)
				debug.FreeOSMemory()
				debug.FreeOSMemory() // the pools of searches hold on to a registry for one more collection
				after, _ := resident(b)
				b.ReportMetric(float64(before)/1e6, "MB-before")
				b.ReportMetric(float64(peak)/1e6, "MB-peak")
				b.ReportMetric(float64(after)/1e6, "MB-after")
				b.ReportMetric(ms(*slowest), "ms-lookup-max")
				b.ReportMetric(float64(*lookups), "lookups")
				b.StartTimer()
			}
		})
	}
}

// readers look up what the fleet holds until stopped.
func (f *fleet) readers(n int) (slowest *time.Duration, lookups *int, stop func()) {
	slowest, lookups = new(time.Duration), new(int)
	done := make(chan struct{})
	var group sync.WaitGroup
	var mu sync.Mutex
	for r := range n {
		group.Go(func() { // until done is closed
			for w := r; ; w = (w + n) % fleetWorkers {
				select {
				case <-done:
					return
				default:
				}
				begin := time.Now()
				s := f.Registry().NewSearch("")
				chunks := int64(0)
				for chunks < 100 && s.Next(fleetKey(w, chunks)) {
					chunks++
				}
				s.Close()
				took := time.Since(begin)
				if chunks != 100 {
					panic("a chunk of the fleet is not found")
				}
				mu.Lock()
				*slowest = max(*slowest, took)
				*lookups++
				mu.Unlock()
			}
		})
	}
	return slowest, lookups, func() { close(done); group.Wait() }
}

// resident gives the memory of this process now and at its highest since the last call.
func resident(b *testing.B) (now, peak uint64) {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(string(line), ":")
		kb, _ := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			now = kb << 10
		case "VmHWM":
			peak = kb << 10
		}
	}
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
	return now, peak
}
