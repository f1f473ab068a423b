package ingest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// runBatcher runs a batcher on log until the test ends.
func runBatcher(t testing.TB, log *memLog, change func(*Options)) *batcher {
	o := Options{Log: log, State: log, Session: session()}.withDefaults()
	if change != nil {
		change(&o)
	}
	q := newBatcher(o, newCounters())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		q.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return q
}

func register(b *fsm.Batch) int {
	return b.Register(registry.Registration{WorkerRef: ref("i"), IP: "10.0.0.1", Port: 1, At: 1})
}

// op is operation number seq of one stream: admit key seq.
func op(seq int64) func(*fsm.Batch) int { return opOf("L", seq) }

func opOf(location string, seq int64) func(*fsm.Batch) int {
	return func(b *fsm.Batch) int {
		return b.Ops(registry.Ops{Stream: registry.StreamRef{WorkerRef: ref("i"), Location: location},
			Keys: []registry.Key{registry.Key(seq + 1)}, First: seq, Numbered: true, At: 1})
	}
}

// await adds a record and waits for its outcome.
func await(t testing.TB, q *batcher, put func(*fsm.Batch) int) outcome {
	t.Helper()
	told := make(chan outcome, 1)
	if err := q.add(asEvent, 1, put, func(o outcome) { told <- o }); err != nil {
		t.Fatal(err)
	}
	select {
	case o := <-told:
		return o
	case <-time.After(patience):
		t.Fatal("no outcome")
		return outcome{}
	}
}

func TestBatcher_ProposesAtOnceWhenIdle(t *testing.T) {
	log := newMemLog()
	q := runBatcher(t, log, nil)
	if o := await(t, q, register); o.Err != nil || o.Result.Register.Known {
		t.Fatalf("outcome %+v, want a new registration", o)
	}
	if o := await(t, q, register); o.Err != nil || !o.Result.Register.Known {
		t.Fatalf("outcome %+v, want a known registration", o)
	}
	if n := log.applied(); n != 2 {
		t.Errorf("%d entries, want one for each record that found the batcher idle", n)
	}
}

func TestBatcher_CollectsWhileTheLogWorks(t *testing.T) {
	log := newMemLog()
	log.waiting = make(chan struct{})
	resume := log.pause()
	q := runBatcher(t, log, nil)
	must(t, q.add(asEvent, 0, register, nil))
	<-log.waiting // the first batch is on its way
	for seq := range int64(100) {
		must(t, q.add(asEvent, 1, op(seq), nil))
	}
	told := make(chan outcome, 1)
	q.barrier(func(o outcome) { told <- o })
	resume()
	if o := <-told; o.Err != nil {
		t.Fatal(o.Err)
	}
	if n := log.applied(); n != 2 {
		t.Errorf("%d entries, want 2: the first record, and all that came meanwhile", n)
	}
	info, _ := log.Registry().Worker(ref("i"))
	if info.Keys != 100 || info.Locations[0].Gaps != 0 {
		t.Errorf("%d keys, %d gaps, want 100 and 0", info.Keys, info.Locations[0].Gaps)
	}
}

func TestBatcher_FlushOnSize(t *testing.T) {
	log := newMemLog()
	log.waiting = make(chan struct{}, 100)
	resume := log.pause()
	const limit = 4 << 10
	q := runBatcher(t, log, func(o *Options) { o.MaxBatch = limit })
	must(t, q.add(asEvent, 0, register, nil))
	<-log.waiting
	for i := range int64(50) {
		must(t, q.add(asEvent, 100, func(b *fsm.Batch) int {
			return b.Ops(registry.Ops{Stream: registry.StreamRef{WorkerRef: ref("i"), Location: "L"},
				Keys: make([]registry.Key, 100), First: 100 * i, Numbered: true, At: 1})
		}, nil))
	}
	resume()
	eventually(t, "queue is empty", func() bool { n, _ := q.figures(); return n == 0 })
	log.mu.Lock()
	defer log.mu.Unlock()
	if len(log.entries) < 10 {
		t.Errorf("%d entries for 40 KB, want about ten", len(log.entries))
	}
	for i, e := range log.entries {
		if len(e) > limit+1000 {
			t.Errorf("entry %d has %d bytes, want at most one record above %d", i, len(e), limit)
		}
	}
}

func TestBatcher_WaitsAtTheBound(t *testing.T) {
	log := newMemLog()
	log.waiting = make(chan struct{}, 100)
	resume := log.pause()
	q := runBatcher(t, log, func(o *Options) { o.MaxBatch, o.MaxQueue = 4<<10, 16<<10 })
	must(t, q.add(asEvent, 0, register, nil))
	<-log.waiting

	var taken atomic.Int64
	var adding sync.WaitGroup
	adding.Go(func() {
		for seq := range int64(2000) {
			if err := q.add(asEvent, 1, op(seq), nil); err != nil {
				t.Errorf("add %d: %v", seq, err)
				return
			}
			taken.Add(1)
		}
	})
	eventually(t, "add waits", func() bool { return q.stats.blocked.Load() > 0 })
	if n, outstanding := q.figures(); n < 16<<10 || n > 17<<10 || outstanding != 1 {
		t.Errorf("%d bytes queued, %d outstanding, want about %d and 1", n, outstanding, 16<<10)
	}
	if taken.Load() == 2000 {
		t.Error("everything was taken beyond the bound")
	}
	var err error
	for i := 0; i < 1000 && err == nil; i++ { // requests have a reserve
		err = q.add(asRequest, 0, register, nil)
		if err != nil && i == 0 {
			t.Error("no reserve for requests")
		}
	}
	if !errors.Is(err, errQueueFull) {
		t.Errorf("beyond the reserve: %v, want %v", err, errQueueFull)
	}
	resume()
	adding.Wait()
	eventually(t, "queue is empty", func() bool { n, _ := q.figures(); return n == 0 })
}

// TestBatcher_CountsWhatItKeeps: a registration of a few bytes in the log keeps a
// function and a message for its answer. A barrier keeps the same, and never waits
// beyond the bound.
func TestBatcher_CountsWhatItKeeps(t *testing.T) {
	const bound, most = 64 << 10, (64<<10 + 4<<10) / waiterBytes
	for name, fill := range map[string]func(*batcher) int{
		"registrations": func(q *batcher) (kept int) {
			for q.add(asRequest, 0, register, func(outcome) {}) == nil {
				kept++
			}
			return kept
		},
		"barriers": func(q *batcher) int {
			var told atomic.Int64
			for range 2 * most {
				q.barrier(func(outcome) { told.Add(1) })
			}
			return 2*most - int(told.Load())
		},
	} {
		t.Run(name, func(t *testing.T) {
			log := newMemLog()
			log.waiting = make(chan struct{}, 100)
			resume := log.pause()
			q := runBatcher(t, log, func(o *Options) { o.MaxBatch, o.MaxQueue = 4<<10, bound })
			must(t, q.add(asRequest, 0, register, nil))
			<-log.waiting
			if kept := fill(q); kept == 0 || kept > most {
				t.Errorf("%d wait in a queue of %d bytes, want 1 to %d", kept, bound, most)
			}
			if n, _ := q.figures(); n < bound || n > waiterBytes*(most+2) {
				t.Errorf("%d bytes counted, want about %d", n, waiterBytes*most)
			}
			resume()
			eventually(t, "queue is empty", func() bool { n, _ := q.figures(); return n == 0 })
		})
	}
}

func TestBatcher_GivesUpWhatCanNeverBeApplied(t *testing.T) {
	for i, never := range []error{cluster.ErrTooLarge, cluster.ErrInvalid} {
		log := newMemLog()
		q := runBatcher(t, log, nil)
		await(t, q, register)
		log.fail(func([]byte) (bool, error) { return false, never })
		if o := await(t, q, op(0)); !errors.Is(o.Err, never) {
			t.Fatalf("%d: outcome %v, want %v", i, o.Err, never)
		}
		log.fail(nil)
		if o := await(t, q, op(1)); o.Err != nil {
			t.Fatal(o.Err)
		}
		if got := q.stats.lostOps.Load(); got != 1 {
			t.Errorf("%d operations counted as lost, want 1", got)
		}
	}
}

func TestBatcher_RefusesWhatNoEntryHolds(t *testing.T) {
	q := runBatcher(t, newMemLog(), nil)
	name := strings.Repeat("x", fsm.MaxName+1)
	if err := q.add(asEvent, 1, opOf(name, 0), nil); !errors.Is(err, errTooLarge) {
		t.Fatalf("a name of %d bytes: %v, want %v", len(name), err, errTooLarge)
	}
	if o := await(t, q, register); o.Err != nil {
		t.Fatal(o.Err)
	}
}

func TestBatcher_SameBytesUntilTheFateIsKnown(t *testing.T) {
	for _, tt := range []struct {
		name      string
		apply     bool
		err       error
		duplicate bool
	}{
		{"no leader", false, cluster.ErrNoLeader, false},
		{"not leader", false, &cluster.NotLeaderError{}, false},
		{"unknown, was not applied", false, cluster.ErrUnknownOutcome, false},
		{"unknown, was applied", true, cluster.ErrUnknownOutcome, true},
		{"some other error", false, errors.New("disk on fire"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := newMemLog()
			q := runBatcher(t, log, nil)
			await(t, q, register)
			var tries [][]byte
			log.fail(func(e []byte) (bool, error) {
				tries = append(tries, e)
				if len(tries) < 4 {
					return tt.apply, tt.err
				}
				return true, nil
			})
			o := await(t, q, op(0))
			if o.Err != nil || o.Duplicate != tt.duplicate {
				t.Fatalf("outcome %+v, want no error and duplicate %v", o, tt.duplicate)
			}
			for i, e := range tries {
				if string(e) != string(tries[0]) {
					t.Fatalf("attempt %d proposed other bytes than the first", i+1)
				}
			}
			info, _ := log.Registry().Worker(ref("i"))
			if info.Keys != 1 || info.Locations[0].NextSeq != 1 || info.Locations[0].Gaps != 0 {
				t.Errorf("stream %+v, want one key, applied once", info.Locations[0])
			}
		})
	}
}

func TestBatcher_CloseDrains_CancelGivesUp(t *testing.T) {
	log := newMemLog()
	log.waiting = make(chan struct{}, 1)
	resume := log.pause()
	o := Options{Log: log, State: log, Session: session()}.withDefaults()
	q := newBatcher(o, newCounters())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan struct{})
	go func() { defer close(ended); q.run(ctx) }()
	must(t, q.add(asEvent, 0, register, nil))
	<-log.waiting
	must(t, q.add(asEvent, 1, op(0), nil))
	q.close()
	if err := q.add(asEvent, 1, op(1), nil); !errors.Is(err, errClosed) {
		t.Errorf("add after close: %v, want %v", err, errClosed)
	}
	resume()
	<-ended
	if info, _ := log.Registry().Worker(ref("i")); info.Keys != 1 {
		t.Errorf("%d keys after draining, want 1", info.Keys)
	}

	q = newBatcher(o, newCounters())
	log.pause()
	told := make(chan outcome, 2)
	must(t, q.add(asEvent, 1, op(1), func(o outcome) { told <- o }))
	ctx, cancel = context.WithCancel(context.Background())
	ended = make(chan struct{})
	go func() { defer close(ended); q.run(ctx) }()
	<-log.waiting
	must(t, q.add(asEvent, 1, op(2), func(o outcome) { told <- o }))
	cancel()
	<-ended
	for range 2 {
		if o := <-told; o.Err == nil {
			t.Error("a record that was given up has no error")
		}
	}
}

// TestBatcher_ExactlyOnceInOrder: whatever the log does with the attempts, every
// operation of every stream is applied once and in order. The registry itself is the
// judge: a repeat or a swap is a gap in its books.
func TestBatcher_ExactlyOnceInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := newMemLog()
		faults := rapid.SliceOfN(rapid.IntRange(0, 9), 0, 60).Draw(t, "faults")
		attempt := 0
		log.fault = func([]byte) (bool, error) {
			if attempt++; attempt > len(faults) {
				return true, nil
			}
			switch faults[attempt-1] {
			case 0:
				return false, cluster.ErrNoLeader
			case 1:
				return false, cluster.ErrUnknownOutcome
			case 2:
				return true, cluster.ErrUnknownOutcome
			default:
				return true, nil
			}
		}
		o := Options{Log: log, State: log, Session: session(), MaxBatch: 4 << 10, MaxQueue: 16 << 10}.withDefaults()
		q := newBatcher(o, newCounters())
		ended := make(chan struct{})
		go func() { defer close(ended); q.run(context.Background()) }()

		if err := q.add(asEvent, 0, register, nil); err != nil {
			t.Fatal(err)
		}
		per := rapid.IntRange(1, 150).Draw(t, "operations")
		var told atomic.Int64
		var adding sync.WaitGroup
		for stream := range 3 {
			adding.Go(func() {
				for seq := range int64(per) {
					as := asEvent // waits for room
					if seq%3 == 0 {
						as = asRegistration // has room
					}
					if err := q.add(as, 1, opOf(fmt.Sprint(stream), seq), func(outcome) { told.Add(1) }); err != nil {
						t.Errorf("stream %d operation %d: %v", stream, seq, err)
					}
				}
			})
		}
		adding.Wait()
		q.close()
		<-ended
		info, _ := log.Registry().Worker(ref("i"))
		if told.Load() != int64(3*per) || len(info.Locations) != 3 {
			t.Fatalf("%d outcomes of %d, %d streams of 3", told.Load(), 3*per, len(info.Locations))
		}
		for _, l := range info.Locations {
			if l.Gaps != 0 || l.NextSeq != int64(per) || l.Keys != int64(per) {
				t.Fatalf("stream %+v, want %d operations without a gap", l, per)
			}
		}
		if n, _ := q.figures(); n != 0 {
			t.Fatalf("%d bytes are left in the queue", n)
		}
	})
}
