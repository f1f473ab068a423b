package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// watchTick is how often log bytes are looked at. At 100 MB/s of log, more than
	// one disk writes twice, the byte trigger is late by 100 MB.
	watchTick = time.Second
	// spaceTick is how often free disk space is looked at.
	spaceTick = 5 * time.Second
)

// watch takes a snapshot when the log has grown by SnapshotBytes since the last
// one (raft itself only counts entries), and ends the node when the disk is nearly
// full, while it still can be ended in order. Owner: Node, until stopping.
func (n *Node) watch() {
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	var space, again time.Time
	var keep trailingWatch
	for {
		select {
		case <-n.stopping:
			return
		case <-tick.C:
		}
		now := time.Now()
		if n.parts.freeBytes != nil && now.Sub(space) >= spaceTick {
			space = now
			if err := checkSpace(n.opts.MinFreeBytes, n.opts.DataDir, n.parts.freeBytes); errors.Is(err, ErrDiskSpace) {
				n.fail(err)
			}
		}
		n.marks.note(n.raft.LastIndex(), n.store.bytes.Load())
		n.keepTrailing(&keep)
		if n.bytesSinceSnapshot() < n.opts.SnapshotBytes || now.Before(again) {
			continue
		}
		if err := n.takeSnapshot(n.life); err != nil && n.life.Err() == nil {
			n.log.Warn("snapshot for the sake of log bytes failed", "error", err)
			again = now.Add(n.opts.SnapshotInterval)
		}
	}
}

// checkSpace returns ErrDiskSpace when less than floor is free.
func checkSpace(floor int64, path string, freeBytes func() (int64, error)) error {
	if floor < 0 {
		return nil
	}
	free, err := freeBytes()
	if err != nil {
		return dirError(path, "%w", err)
	}
	if free < floor {
		return fmt.Errorf("%w under %q: %d bytes are free, the floor is %d; free some and start this replica again", ErrDiskSpace, path, free, floor)
	}
	return nil
}

func (n *Node) bytesSinceSnapshot() int64 {
	return int64(n.store.bytes.Load() - n.marks.at(n.snapshotIndex()))
}

// byteMarks remembers how many bytes of log there were at which index, roughly, so
// that the bytes since a snapshot are known when it is done. One goroutine notes,
// any asks.
type byteMarks struct {
	mu    sync.Mutex
	marks []byteMark
}

type byteMark struct{ index, bytes uint64 }

// maxByteMarks bounds the memory. Beyond it every other mark goes: coarser, still
// right.
const maxByteMarks = 256

func (b *byteMarks) note(index, bytes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := len(b.marks); k > 0 && b.marks[k-1].index >= index {
		return
	}
	if len(b.marks) == maxByteMarks {
		for i := range maxByteMarks / 2 {
			b.marks[i] = b.marks[2*i]
		}
		b.marks = b.marks[:maxByteMarks/2]
	}
	b.marks = append(b.marks, byteMark{index, bytes})
}

// since returns the bytes and the number of entries from the last mark that is not
// above index to the newest one.
func (b *byteMarks) since(index uint64) (bytes, entries uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := len(b.marks)
	if k == 0 {
		return 0, 0
	}
	from := b.marks[0]
	for _, m := range b.marks {
		if m.index > index {
			break
		}
		from = m
	}
	return b.marks[k-1].bytes - from.bytes, b.marks[k-1].index - from.index
}

// at returns the bytes at the last mark that is not above index, and forgets those
// before it. Bytes counted before the first mark are of entries above the snapshot
// that the node started from.
func (b *byteMarks) at(index uint64) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.marks) > 1 && b.marks[1].index <= index {
		b.marks = b.marks[1:]
	}
	if len(b.marks) == 0 || b.marks[0].index > index {
		return 0
	}
	return b.marks[0].bytes
}

// Snapshot takes a snapshot of the state now and lets the log behind it go. That
// there is nothing new to take is no error.
func (n *Node) Snapshot(ctx context.Context) error {
	if err := n.enter(); err != nil {
		return err
	}
	defer n.calls.leave()
	return n.takeSnapshot(ctx)
}

func (n *Node) takeSnapshot(ctx context.Context) error {
	start := time.Now()
	err := n.await(ctx, func() error { return n.raft.Snapshot().Error() })
	// While a configuration change is on its way to the state machine raft takes
	// none and says so, as a text; that lasts a few milliseconds.
	for range 10 {
		if err == nil || !strings.HasPrefix(err.Error(), "cannot take snapshot now") {
			break
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
		err = n.await(ctx, func() error { return n.raft.Snapshot().Error() })
	}
	switch {
	case errors.Is(err, raft.ErrNothingNewToSnapshot):
		return nil
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrStopped
	case err != nil:
		return fmt.Errorf("snapshot: %w", err)
	}
	n.log.Info("snapshot taken", "index", n.snapshotIndex(), "took", time.Since(start))
	return nil
}
