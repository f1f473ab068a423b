package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Snapshots count with the time that they take, whoever wanted them.
func TestSnapshots_AskedForAndRaftsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOptions(t, "")
		o.SnapshotThreshold, o.TrailingLogs, o.SnapshotInterval = 16, 64, time.Second
		o.FSM = &ledger{persist: func() { <-time.After(3 * time.Second) }}
		n := mustStart(t, o, newMemory(t, 1).parts(1))
		await(t, "ready", n.Ready)
		mustPropose(t, n, "x:1")
		if err := n.Snapshot(context.Background()); err != nil {
			t.Fatal(err)
		}
		if c := n.Counters(); c.SnapshotSeconds.Count != 1 || c.SnapshotSeconds.Sum != 3 || c.SnapshotSeconds.Buckets[2.5] != 0 || c.SnapshotSeconds.Buckets[5] != 1 || c.SnapshotFailures != 0 {
			t.Errorf("after one of 3 s: %+v", c)
		}
		for range 16 {
			mustPropose(t, n, "x:2")
		}
		<-time.After(10 * time.Second)
		if c := n.Counters(); c.SnapshotSeconds.Count != 2 || c.SnapshotSeconds.Sum != 6 || c.SnapshotFailures != 0 {
			t.Errorf("after raft's own: %+v", c)
		}
		mustClose(t, n)
		<-time.After(time.Minute)
	})
}

var errNoRoom = errors.New("no room")

// brokenSnapshots is a store that cannot begin snapshots, or cannot take their bytes.
type brokenSnapshots struct {
	raft.SnapshotStore
	create bool
}

func (s brokenSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	if s.create {
		return nil, errNoRoom
	}
	sink, err := s.SnapshotStore.Create(version, index, term, conf, confIndex, t)
	return brokenSink{sink}, err
}

type brokenSink struct{ raft.SnapshotSink }

func (brokenSink) Write([]byte) (int, error) { return 0, errNoRoom }

// stoppedLedger gives no snapshots.
type stoppedLedger struct{ ledger }

func (*stoppedLedger) Snapshot() (raft.FSMSnapshot, error) { return nil, errNoRoom }

func TestSnapshots_Failures(t *testing.T) {
	for _, tt := range []struct {
		name string
		fsm  StateMachine
		wrap func(raft.SnapshotStore) raft.SnapshotStore
	}{
		{"the state gives none", &stoppedLedger{}, func(s raft.SnapshotStore) raft.SnapshotStore { return s }},
		{"it cannot be begun", &ledger{}, func(s raft.SnapshotStore) raft.SnapshotStore { return brokenSnapshots{s, true} }},
		{"it cannot be written", &ledger{}, func(s raft.SnapshotStore) raft.SnapshotStore { return brokenSnapshots{s, false} }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := testOptions(t, "")
				o.FSM = tt.fsm
				p := newMemory(t, 1).parts(1)
				p.snapshots = tt.wrap(p.snapshots)
				n := mustStart(t, o, p)
				await(t, "ready", n.Ready)
				mustPropose(t, n, "x:1")
				if err := n.Snapshot(context.Background()); err == nil || !strings.Contains(err.Error(), errNoRoom.Error()) {
					t.Fatalf("error %v, want %v", err, errNoRoom)
				}
				if c := n.Counters(); c.SnapshotFailures != 1 || c.SnapshotSeconds.Count != 0 {
					t.Errorf("%+v, want one failure and none taken", c)
				}
				mustClose(t, n)
				<-time.After(time.Minute)
			})
		})
	}
}

// raft begins a snapshot and lets it go when the configuration is changing: it comes
// again, nothing has failed.
func TestSnapshots_PutOff(t *testing.T) {
	m := &countedMachine{StateMachine: &ledger{}, snapshots: newSnapshotCounts()}
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	s.Release()
	if m.snapshots.failures.Load() != 0 || m.snapshots.seconds.Snapshot().Count != 0 {
		t.Errorf("%d failures, %+v taken", m.snapshots.failures.Load(), m.snapshots.seconds.Snapshot())
	}
}
