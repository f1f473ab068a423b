package cluster

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// watchedStore stands between raft's log cache and the log store. It times every
// call, and makes a failed or hanging disk the end of this node (I6): raft would go
// on electing a leader that cannot write.
//
// It must be below the cache, which hides the store's errors behind a text.
//
// Concurrency: as the store under it; raft calls from several goroutines.
type watchedStore struct {
	store logStore
	path  string
	limit time.Duration
	hook  func(call string, took time.Duration, err error)
	fatal func(error)

	// begin is called when the first entry is written, before raft hears of it; nil:
	// nobody wants to know.
	begin func() error
	begun atomic.Bool

	// armed is false while Open reads the log: its errors are then the answer to
	// Open's caller. Afterwards nobody but OnFatal can be told.
	armed atomic.Bool

	replayed uint64 // last index that Open has read; of Open's goroutine

	bytes atomic.Uint64 // of entries, written since open or read back by Open
	calls atomic.Uint64
	fails atomic.Uint64
	nanos atomic.Int64 // in calls that write
}

// IsMonotonic shows raft what the store says of itself.
func (w *watchedStore) IsMonotonic() bool {
	m, ok := w.store.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// call runs one call to the store. A call that hangs is not given up: raft would
// write the same index again beside it.
func (w *watchedStore) call(name string, f func() error) error {
	start := time.Now()
	hang := watchHang(w.limit, func() {
		w.fatal(fmt.Errorf("%w: %s on %s has not returned for %v: the disk under it hangs; look at the kernel's log, replace the disk or remount it, and start this replica again",
			ErrStore, name, w.path, w.limit))
	})
	err := guard(f)
	hang.stop()
	took := time.Since(start)
	w.calls.Add(1)
	failed := err != nil && !notFound(err)
	if w.hook != nil {
		var said error
		if failed {
			said = err
		}
		w.hook(name, took, said)
	}
	if failed {
		w.fails.Add(1)
		if w.armed.Load() {
			w.fatal(fmt.Errorf("%w: %s on %s: %w; free or replace the disk under it and start this replica again",
				ErrStore, name, w.path, err))
		}
	}
	return err
}

// hangLooks is how often a call that does not return is looked at within its limit.
const hangLooks = 8

// hangWatch tells when a call has not returned while this process ran for the limit. Time
// alone does not count: a process that is stopped, or a machine that is, finds a call as
// old as the pause when it goes on, and the disk is well. So it takes that many looks, one
// after the other, each an eighth of the limit after the one before; a pause is at most one.
type hangWatch struct {
	every time.Duration
	tell  func()

	mu    sync.Mutex
	timer *time.Timer // nil: the call has returned
	looks int         // so far
}

func watchHang(limit time.Duration, tell func()) *hangWatch {
	h := &hangWatch{every: limit / hangLooks, tell: tell}
	h.mu.Lock()
	h.timer = time.AfterFunc(h.every, h.look)
	h.mu.Unlock()
	return h
}

// look is the timer's.
func (h *hangWatch) look() {
	if h.hangs() {
		h.tell()
	}
}

func (h *hangWatch) hangs() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer == nil {
		return false
	}
	if h.looks++; h.looks < hangLooks {
		h.timer.Reset(h.every)
	}
	return h.looks == hangLooks
}

func (h *hangWatch) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer.Stop()
	h.timer = nil
}

// callOrEnd is for the calls whose error raft answers with a panic. OnFatal has
// been told; this goroutine of raft's ends here (deferred calls run, futures get
// their answers), so that the process ends with our message and not with a trace.
func (w *watchedStore) callOrEnd(name string, f func() error) error {
	err := w.call(name, f)
	if err != nil && !notFound(err) && w.armed.Load() {
		runtime.Goexit()
	}
	return err
}

func (w *watchedStore) FirstIndex() (i uint64, err error) {
	err = w.call("first index", func() error { i, err = w.store.FirstIndex(); return err })
	return i, err
}

func (w *watchedStore) LastIndex() (i uint64, err error) {
	err = w.call("last index", func() error { i, err = w.store.LastIndex(); return err })
	return i, err
}

func (w *watchedStore) GetLog(index uint64, l *raft.Log) error {
	err := w.callOrEnd("read", func() error { return w.store.GetLog(index, l) })
	if err == nil && !w.armed.Load() {
		w.countReplay(l)
	}
	return err
}

// countReplay counts the entries that NewRaft reads: the last one, and then all
// above the snapshot in order.
func (w *watchedStore) countReplay(l *raft.Log) {
	if l.Index <= w.replayed {
		w.bytes.Store(0)
	}
	w.replayed = l.Index
	w.bytes.Add(entryBytes(l))
}

func (w *watchedStore) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

func (w *watchedStore) StoreLogs(logs []*raft.Log) error {
	start := time.Now()
	err := w.call("append", func() error {
		if err := w.store.StoreLogs(logs); err != nil {
			return err
		}
		return w.noteEntries()
	})
	w.nanos.Add(int64(time.Since(start)))
	if err == nil {
		var sum uint64
		for _, l := range logs {
			sum += entryBytes(l)
		}
		w.bytes.Add(sum)
	}
	return err
}

// noteEntries notes, once, that there are entries: from then on an empty log is a
// loss. (A crash before that: the entries are found at the next start.) raft appends from
// one goroutine.
func (w *watchedStore) noteEntries() error {
	if w.begin == nil || w.begun.Load() {
		return nil
	}
	err := w.begin()
	w.begun.Store(err == nil)
	return err
}

// deleteStep is how many entries one call deletes. raft's main loop waits for the
// store meanwhile: 6000 entries of 64 KB in one go are 75 to 95 ms.
const deleteStep = 256

// DeleteRange cuts the deletion of a prefix into steps. A suffix goes in one: a
// crash between two steps would leave a hole. A monotonic store only notes the
// new beginning, so that steps would cost and not help.
func (w *watchedStore) DeleteRange(lo, hi uint64) error {
	if !w.IsMonotonic() {
		first, err := w.FirstIndex()
		if err != nil {
			return err
		}
		if lo <= first {
			lo = max(lo, first)
			for hi >= lo && hi-lo >= deleteStep {
				if err := w.call("delete", func() error { return w.store.DeleteRange(lo, lo+deleteStep-1) }); err != nil {
					return err
				}
				lo += deleteStep
			}
		}
	}
	if lo > hi {
		return nil
	}
	return w.call("delete", func() error { return w.store.DeleteRange(lo, hi) })
}

func (w *watchedStore) Set(key, val []byte) error {
	return w.callOrEnd("write vote", func() error { return w.store.Set(key, val) })
}

func (w *watchedStore) Get(key []byte) (val []byte, err error) {
	err = w.call("read vote", func() error { val, err = w.store.Get(key); return err })
	return val, err
}

func (w *watchedStore) SetUint64(key []byte, val uint64) error {
	return w.callOrEnd("write term", func() error { return w.store.SetUint64(key, val) })
}

func (w *watchedStore) GetUint64(key []byte) (val uint64, err error) {
	err = w.call("read term", func() error { val, err = w.store.GetUint64(key); return err })
	return val, err
}

func (w *watchedStore) Close() error {
	if err := guard(w.store.Close); err != nil {
		return fmt.Errorf("close log %s: %w", w.path, err)
	}
	return nil
}

func entryBytes(l *raft.Log) uint64 { return uint64(len(l.Data) + len(l.Extensions)) }
