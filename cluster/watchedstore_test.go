package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
)

var errDisk = errors.New("no space left on device")

// A store that fails or hangs ends the node, once, with the file and what to do.
func TestStore_FaultIsFatal(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(release chan struct{}) func(call string) error
		call  string // named in the message
		text  string
	}{
		{"append fails", func(chan struct{}) func(string) error {
			return func(call string) error {
				if call == "StoreLogs" {
					return errDisk
				}
				return nil
			}
		}, "append", errDisk.Error()},
		{"append hangs", func(release chan struct{}) func(string) error {
			return func(call string) error {
				if call == "StoreLogs" {
					<-release
				}
				return nil
			}
		}, "append", "has not returned for 10s"},
		{"append panics", func(chan struct{}) func(string) error {
			return func(call string) error {
				if call == "StoreLogs" {
					panic("freelist: page 7 already freed")
				}
				return nil
			}
		}, "append", "page 7 already freed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t, "")
				told := make(fatals, 10)
				o.OnFatal = told.tell
				p := newMemory(t, 1).parts(1)
				n := mustStart(t, o, p)
				await(t, "ready", n.Ready)
				mustPropose(t, n, "x:1")

				release := make(chan struct{})
				p.store.(*memStore).break_(c.fault(release))
				short, cancel := context.WithTimeout(context.Background(), 15*time.Second)
				defer cancel()
				begin := time.Now()
				_, err := n.Propose(short, []byte("x:2"))
				if !errors.Is(err, ErrUnknownOutcome) {
					t.Errorf("propose: %v, want ErrUnknownOutcome", err)
				}
				if took := time.Since(begin); took > 11*time.Second {
					t.Errorf("propose was answered after %v: it waited on although OnFatal had been told", took)
				}
				fatal := <-told
				for _, want := range []string{"memory", c.call, c.text, "start this replica again"} {
					if !errors.Is(fatal, ErrStore) || !strings.Contains(fatal.Error(), want) {
						t.Errorf("OnFatal was told %q, want ErrStore with %q", fatal, want)
					}
				}
				if err := n.Ready(); !errors.Is(err, ErrStopped) || !errors.Is(err, ErrStore) {
					t.Errorf("ready: %v, want ErrStopped and ErrStore", err)
				}
				if _, err := n.Propose(short, []byte("x:3")); !errors.Is(err, ErrStore) {
					t.Errorf("propose after: %v", err)
				}
				if f, err := n.Read(short, Read{}); err != nil || f.Index == 0 {
					t.Errorf("stale read after: %+v, %v: the state in memory is sound", f, err)
				}
				// OnFatal's receiver closes the node; a hanging disk does not hold it.
				begin = time.Now()
				err = n.Close(context.Background())
				if hangs := strings.Contains(c.name, "hangs"); hangs == (err == nil) || time.Since(begin) > 10*time.Second {
					t.Errorf("close: %v after %v", err, time.Since(begin))
				}
				close(release)
				<-time.After(time.Minute)
				if len(told) > 0 {
					t.Errorf("OnFatal was told again: %v", <-told)
				}
			})
		})
	}
}

// When the vote cannot be written, raft panics on a goroutine of its own; that must
// not be how an operator learns of it.
func TestStore_VoteCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, nil)
		leader := c.mustLead()
		told := make(fatals, 10)
		tell := told.tell
		c.onFatal.Store(&tell)
		for i := range c.nodes {
			c.stores[i].break_(func(call string) error {
				if call == "SetUint64" {
					return errDisk
				}
				return nil
			})
		}
		c.memory.cut(leader) // the others must vote
		if fatal := <-told; !errors.Is(fatal, ErrStore) || !strings.Contains(fatal.Error(), "write term") {
			t.Errorf("OnFatal was told %v", fatal)
		}
		c.stop()
	})
}

// watched gives a store above f with an OnFatal that counts.
func watched(f *memStore, told *atomic.Int32) *watchedStore {
	w := &watchedStore{store: f, path: "memory", limit: time.Minute, fatal: func(error) { told.Add(1) }}
	w.armed.Store(true)
	return w
}

func TestWatchedStore_EndsGoroutineThatRaftWouldPanicOn(t *testing.T) {
	f := &memStore{InmemStore: raft.NewInmemStore()}
	var told atomic.Int32
	w := watched(f, &told)
	f.break_(func(string) error { return errDisk })
	for name, call := range map[string]func() error{
		"read an entry": func() error { return w.GetLog(1, new(raft.Log)) },
		"write a term":  func() error { return w.SetUint64([]byte("CurrentTerm"), 1) },
	} {
		returned, deferred := make(chan struct{}, 1), make(chan struct{})
		go func() {
			defer close(deferred)
			_ = call()
			returned <- struct{}{}
		}()
		<-deferred
		if len(returned) > 0 {
			t.Errorf("%s: came back, raft would panic now", name)
		}
	}
	if told.Load() != 2 {
		t.Errorf("told %d times, want 2", told.Load())
	}
	// While Open reads, its caller gets the error.
	w.armed.Store(false)
	if err := w.GetLog(1, new(raft.Log)); !errors.Is(err, errDisk) || told.Load() != 2 {
		t.Errorf("while opening: %v, told %d times", err, told.Load())
	}
}

// That something is not there is an answer.
func TestWatchedStore_NotFoundIsNoFailure(t *testing.T) {
	var told atomic.Int32
	w := watched(&memStore{InmemStore: raft.NewInmemStore()}, &told)
	if err := w.GetLog(7, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("missing entry: %v", err)
	}
	if _, err := w.Get([]byte("k")); err == nil || err.Error() != "not found" { // the text that raft compares
		t.Errorf("missing key: %v", err)
	}
	for _, err := range []error{raft.ErrLogNotFound, raftboltdb.ErrKeyNotFound, wal.ErrNotFound} {
		if !notFound(err) {
			t.Errorf("%v counts as a failure", err)
		}
	}
	if told.Load() != 0 || w.fails.Load() != 0 {
		t.Errorf("told %d times, %d failures", told.Load(), w.fails.Load())
	}
}

// stepStore notes deletions.
type stepStore struct {
	*memStore
	monotonic bool
	deleted   [][2]uint64
}

func (s *stepStore) IsMonotonic() bool { return s.monotonic }

func (s *stepStore) DeleteRange(lo, hi uint64) error {
	s.deleted = append(s.deleted, [2]uint64{lo, hi})
	return s.memStore.DeleteRange(lo, hi)
}

func TestWatchedStore_DeletesPrefixInSteps(t *testing.T) {
	for _, c := range []struct {
		name      string
		monotonic bool
		lo, hi    uint64
		want      [][2]uint64
	}{
		{"prefix", false, 1, 600, [][2]uint64{{1, 256}, {257, 512}, {513, 600}}},
		{"prefix, one step", false, 1, 256, [][2]uint64{{1, 256}}},
		{"suffix", false, 400, 1000, [][2]uint64{{400, 1000}}},
		{"monotonic", true, 1, 600, [][2]uint64{{1, 600}}},
		{"all", false, 1, 1000, [][2]uint64{{1, 256}, {257, 512}, {513, 768}, {769, 1000}}},
	} {
		s := &stepStore{memStore: &memStore{InmemStore: raft.NewInmemStore()}, monotonic: c.monotonic}
		for i := uint64(1); i <= 1000; i++ {
			if err := s.StoreLogs([]*raft.Log{{Index: i}}); err != nil {
				t.Fatal(err)
			}
		}
		w := &watchedStore{store: s, limit: time.Minute}
		if err := w.DeleteRange(c.lo, c.hi); err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(s.deleted) != fmt.Sprint(c.want) {
			t.Errorf("%s: deleted %v, want %v", c.name, s.deleted, c.want)
		}
		if w.IsMonotonic() != c.monotonic {
			t.Errorf("%s: IsMonotonic is %v", c.name, w.IsMonotonic())
		}
	}
}

// Through the cache raft asks the outermost store whether gaps are allowed.
func TestWatchedStore_MonotonicShowsThrough(t *testing.T) {
	for store, want := range map[string]bool{LogStoreBolt: false, LogStoreWAL: true} {
		o := testOptions(t, t.TempDir())
		o.LogStore = store
		n := mustOpen(t, o)
		cache, err := raft.NewLogCache(8, n.store)
		if err != nil {
			t.Fatal(err)
		}
		if got := cache.IsMonotonic(); got != want {
			t.Errorf("%s: monotonic %v, want %v", store, got, want)
		}
		mustClose(t, n)
	}
}

// That there is a log is noted when the first entry is in it, once, and before raft
// hears that it is.
func TestWatchedStore_NotesTheFirstEntry(t *testing.T) {
	s := &memStore{InmemStore: raft.NewInmemStore()}
	noted := 0
	w := &watchedStore{store: s, limit: time.Minute, begin: func() error {
		noted++
		if last, err := s.LastIndex(); err != nil || last == 0 {
			t.Errorf("noted with last index %d, %v", last, err)
		}
		if noted == 1 {
			return errDisk
		}
		return nil
	}}
	for i, want := range []error{errDisk, nil, nil} {
		if err := w.StoreLog(&raft.Log{Index: uint64(i + 1)}); !errors.Is(err, want) {
			t.Errorf("entry %d: %v, want %v", i+1, err, want)
		}
	}
	if noted != 2 {
		t.Errorf("noted %d times, want 2: until it is", noted)
	}
	s.break_(func(string) error { return errDisk })
	noted, w = 1, &watchedStore{store: s, limit: time.Minute, begin: w.begin}
	if err := w.StoreLog(&raft.Log{Index: 4}); !errors.Is(err, errDisk) || noted != 1 {
		t.Errorf("an entry that is not written: %v, noted %d times", err, noted-1)
	}
}

// A call that is as old as the limit because the process stood still does not hang: that
// takes looks, not time.
func TestWatchedStore_PauseIsNoHang(t *testing.T) {
	told := 0
	h := watchHang(time.Hour, func() { told++ })
	for i := range hangLooks {
		if told != 0 {
			t.Fatalf("told after %d looks, want %d", i, hangLooks)
		}
		h.look()
	}
	if told != 1 {
		t.Errorf("told %d times after %d looks, want once", told, hangLooks)
	}
	h.stop()
	h.look() // a timer that fired as the call returned
	if told != 1 {
		t.Error("told of a call that has returned")
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		hangs := make(chan time.Duration)
		h := watchHang(10*time.Second, func() { hangs <- time.Since(began) })
		if after := <-hangs; after != 10*time.Second {
			t.Errorf("told after %v, want 10s", after)
		}
		h.stop()
	})
}
