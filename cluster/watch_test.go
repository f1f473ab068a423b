package cluster

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Large entries bring a snapshot long before their number does.
func TestWatch_SnapshotByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t, "")
		o.SnapshotBytes = 1 << 20
		n := mustStart(t, o, newMemory(t, 1).parts(1))
		await(t, "ready", n.Ready)
		line := "x:" + strings.Repeat("v", 100<<10)
		for range 9 {
			mustPropose(t, n, line)
		}
		<-time.After(10 * time.Second)
		if s := n.Status(); s.LastSnapshotIndex != 0 {
			t.Errorf("snapshot at %d below the limit", s.LastSnapshotIndex)
		}
		for range 3 {
			mustPropose(t, n, line)
		}
		<-time.After(3 * time.Second)
		first := n.Status().LastSnapshotIndex
		if first == 0 || n.Counters().LogBytesSinceSnapshot > 200<<10 {
			t.Fatalf("snapshot at %d, %d bytes since", first, n.Counters().LogBytesSinceSnapshot)
		}
		<-time.After(time.Minute)
		if s := n.Status(); s.LastSnapshotIndex != first {
			t.Errorf("another snapshot at %d with nothing new", s.LastSnapshotIndex)
		}
		mustClose(t, n)
		<-time.After(time.Minute)
	})
}

// A snapshot that takes long does not hold up the rest of Close: raft is told to stop,
// and only then is it waited for.
func TestClose_WhileWatchTakesSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, told := make(chan struct{}), make(chan struct{})
		o := testOptions(t, "")
		o.SnapshotBytes = 1 << 20
		o.FSM = &ledger{persist: func() {
			close(begun)
			<-told
		}}
		n := mustStart(t, o, newMemory(t, 1).parts(1))
		await(t, "ready", n.Ready)
		line := "x:" + strings.Repeat("v", 100<<10)
		for range 11 {
			mustPropose(t, n, line)
		}
		<-begun
		go func() { // ends in Close
			<-n.gone
			close(told)
		}()
		start := time.Now()
		mustClose(t, n)
		if took := time.Since(start); took > time.Second {
			t.Errorf("Close took %v", took)
		}
		<-time.After(time.Minute)
	})
}

// What the log held before a restart counts, too: it is what the next restart reads.
func TestWatch_BytesOfEarlierRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t, "")
		m := newMemory(t, 1)
		p := m.parts(1)
		n := mustStart(t, o, p)
		await(t, "ready", n.Ready)
		mustPropose(t, n, "x:"+strings.Repeat("v", 100<<10))
		mustClose(t, n)
		o.FSM = &ledger{}
		again := newMemory(t, 1).parts(1)
		again.store, again.snapshots = p.store, p.snapshots
		n = mustStart(t, o, again)
		if got := n.Counters().LogBytesSinceSnapshot; got < 100<<10 || got > 110<<10 {
			t.Errorf("%d bytes since the snapshot, want what the log holds", got)
		}
		mustClose(t, n)
		<-time.After(time.Minute)
	})
}

func TestByteMarks(t *testing.T) {
	var b byteMarks
	if got := b.at(10); got != 0 {
		t.Errorf("without marks %d", got)
	}
	for i := uint64(1); i <= 3*maxByteMarks; i++ {
		b.note(i*10, i*1000)
		b.note(i*10, i*1000+1) // no new entry, no new mark
	}
	if len(b.marks) > maxByteMarks {
		t.Fatalf("%d marks", len(b.marks))
	}
	// Thinned out, a mark says at most too little, so that a snapshot comes early.
	if got := b.at(6005); got > 600_000 || got < 590_000 {
		t.Errorf("bytes at index 6005: %d", got)
	}
	if got := b.at(7680); got != 768_000 || len(b.marks) != 1 {
		t.Errorf("bytes at the last index: %d with %d marks", got, len(b.marks))
	}
}

func TestDiskSpace_FloorAtStart(t *testing.T) {
	o := testOptions(t, t.TempDir())
	o.MinFreeBytes = 1 << 60
	_, err := Open(context.Background(), o)
	if !errors.Is(err, ErrDiskSpace) || !strings.Contains(err.Error(), "floor") {
		t.Fatalf("got %v, want ErrDiskSpace", err)
	}
	o.MinFreeBytes = 1
	mustClose(t, mustOpen(t, o))
}

// The node steps aside while its disk still has room to do it in order.
func TestDiskSpace_WatchedFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(fatals, 10)
		o := testOptions(t, "data")
		o.OnFatal, o.MinFreeBytes = told.tell, 1000
		var free atomic.Int64
		free.Store(2000)
		p := newMemory(t, 1).parts(1)
		p.freeBytes = func() (int64, error) { return free.Load(), nil }
		n := mustStart(t, o, p)
		await(t, "ready", n.Ready)
		<-time.After(time.Minute)
		if len(told) != 0 {
			t.Fatalf("told %v with room left", <-told)
		}
		free.Store(999)
		err := <-told
		if !errors.Is(err, ErrDiskSpace) || !strings.Contains(err.Error(), "999 bytes are free, the floor is 1000") {
			t.Errorf("told %v", err)
		}
		if err := n.Ready(); !errors.Is(err, ErrDiskSpace) {
			t.Errorf("ready: %v", err)
		}
		mustClose(t, n)
		<-time.After(time.Minute)
	})
}
