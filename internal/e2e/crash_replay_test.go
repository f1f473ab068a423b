package e2e

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// offlineLog is the log and the snapshots of a stopped replica, read without any of
// the replica's own code for opening them.
type offlineLog struct {
	dir         string
	store       *raftboltdb.BoltStore
	first, last uint64
	snapshots   []*raft.SnapshotMeta // newest first
	files       *raft.FileSnapshotStore
}

// openOffline opens the data directory of a replica that has ended. The test's cleanup
// closes it.
func openOffline(t *testing.T, dir string) *offlineLog {
	t.Helper()
	l := &offlineLog{dir: dir}
	var err error
	l.store, err = raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(dir, "log.db"), BoltOptions: &bbolt.Options{ReadOnly: true, Timeout: 5 * time.Second},
	})
	if err != nil {
		t.Fatalf("open the log of %s: %v", dir, err)
	}
	if l.first, err = l.store.FirstIndex(); err == nil {
		l.last, err = l.store.LastIndex()
	}
	if err == nil {
		l.files, err = raft.NewFileSnapshotStoreWithLogger(dir, 2, hclog.NewNullLogger())
	}
	if err == nil {
		l.snapshots, err = l.files.List()
	}
	if err != nil {
		t.Fatalf("read the log of %s: %v", dir, err)
	}
	return l
}

// close lets the replica have its log again.
func (l *offlineLog) close(t *testing.T) {
	t.Helper()
	if err := l.store.Close(); err != nil {
		t.Fatal(err)
	}
}

// entries calls f with every entry from index from on that raft gives to a state
// machine.
func (l *offlineLog) entries(t *testing.T, from, to uint64, f func(*raft.Log)) {
	t.Helper()
	for i := max(from, l.first); i <= min(to, l.last); i++ {
		entry := new(raft.Log)
		if err := l.store.GetLog(i, entry); err != nil {
			t.Fatalf("read entry %d of %d to %d: %v", i, l.first, l.last, err)
		}
		if entry.Type == raft.LogCommand || entry.Type == raft.LogConfiguration {
			f(entry)
		}
	}
}

// replay applies the log up to an index to a new state machine: from the newest
// snapshot that is not above it, or from the first entry. batch says how many entries
// the state machine gets at a time.
func (l *offlineLog) replay(t *testing.T, to uint64, useSnapshot bool, batch func() int) *registry.Registry {
	t.Helper()
	machine := fsm.New(fsm.Options{OnFatal: func(err error) { t.Errorf("replay of %s: %v", l.dir, err) }})
	next := uint64(1)
	for _, meta := range l.snapshots {
		if !useSnapshot || meta.Index > to {
			continue
		}
		_, source, err := l.files.Open(meta.ID)
		if err != nil {
			t.Fatalf("open snapshot %s: %v", meta.ID, err)
		}
		if err := machine.Restore(source); err != nil {
			t.Fatalf("restore snapshot %s: %v", meta.ID, err)
		}
		source.Close()
		next = meta.Index + 1
		break
	}
	if l.first > next {
		t.Fatalf("the log begins at %d, a replay needs it from %d on", l.first, next)
	}
	if l.last < to {
		t.Fatalf("the log ends at %d, index %d was answered", l.last, to)
	}
	var pending []*raft.Log
	flush := func() {
		if len(pending) > 0 {
			machine.ApplyBatch(pending)
			pending = nil
		}
	}
	size := batch()
	l.entries(t, next, to, func(entry *raft.Log) {
		pending = append(pending, entry)
		if len(pending) >= size {
			flush()
			size = batch()
		}
	})
	flush()
	return machine.Registry()
}

// sameAsReplays compares a replica's digest with those of replays: by the snapshot, by
// the whole log while it is all there, and with entries applied in batches of other
// sizes. It returns one replay's state.
func (l *offlineLog) sameAsReplays(t *testing.T, want stateDigest, rng *rand.Rand) *registry.Registry {
	t.Helper()
	single := func() int { return 1 }
	random := func() int { return 1 + rng.IntN(64) }
	type way struct {
		name     string
		snapshot bool
		batch    func() int
	}
	ways := []way{{"snapshot and log, one by one", true, single}, {"snapshot and log, in batches", true, random}}
	if l.first <= 1 {
		ways = append(ways, way{"whole log, one by one", false, single}, way{"whole log, in batches", false, random})
	}
	var state *registry.Registry
	for _, w := range ways {
		state = l.replay(t, want.Index, w.snapshot, w.batch)
		if got := state.Digest().String(); got != want.Digest {
			t.Errorf("%s: digest at index %d is %s, the replica said %s", w.name, want.Index, got, want.Digest)
		}
	}
	return state
}

// loggedOps counts the operations of each worker in entries above from, and their
// worker batches that came twice only once.
func (l *offlineLog) loggedOps(t *testing.T, from uint64) map[string]uint64 {
	t.Helper()
	if l.first > from+1 {
		t.Fatalf("the log begins at %d, want it from %d on", l.first, from+1)
	}
	ops := map[string]uint64{}
	done := map[registry.SessionID]uint64{}
	l.entries(t, from+1, l.last, func(entry *raft.Log) {
		if entry.Type != raft.LogCommand {
			return
		}
		e, err := fsm.Decode(entry.Data)
		if err != nil {
			t.Fatalf("entry %d: %v", entry.Index, err)
		}
		b, ok := e.Value.(fsm.WorkerBatch)
		if !ok || b.Number <= done[b.Session] {
			return
		}
		done[b.Session] = b.Number
		for _, record := range b.Records {
			if o, ok := record.(registry.Ops); ok {
				ops[fmt.Sprintf("%s/%d", o.Stream.Instance, o.Stream.Worker)] += uint64(len(o.Keys))
			}
		}
	})
	return ops
}
