package cluster

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/internal/histogram"
)

// snapshotCounts counts the snapshots that this replica takes of its state, raft's own
// and those asked for. It stands at both ends of raft's way to one: the state machine,
// which gives and writes it, and the store, which makes room for it first.
type snapshotCounts struct {
	seconds  *histogram.Histogram
	failures atomic.Uint64
}

func newSnapshotCounts() *snapshotCounts {
	// An empty state takes a few fsyncs; hundreds of millions of keys a minute and more.
	return &snapshotCounts{seconds: histogram.New(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300)}
}

// countedMachine is the state machine with a count of its snapshots.
type countedMachine struct {
	StateMachine
	snapshots *snapshotCounts
}

// Snapshot gives the state machine's snapshot, which counts itself.
func (m *countedMachine) Snapshot() (raft.FSMSnapshot, error) {
	start := time.Now()
	s, err := m.StateMachine.Snapshot()
	if err != nil {
		m.snapshots.failures.Add(1)
		return nil, err
	}
	return &countedSnapshot{FSMSnapshot: s, counts: m.snapshots, start: start}, nil
}

// countedSnapshot is a snapshot that raft takes. One that is released without Persist
// was put off for a change of the configuration, found no room (countedStore), or the
// replica stops.
type countedSnapshot struct {
	raft.FSMSnapshot
	counts *snapshotCounts
	start  time.Time
}

func (s *countedSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.FSMSnapshot.Persist(sink); err != nil {
		s.counts.failures.Add(1)
		return err
	}
	s.counts.seconds.Observe(time.Since(s.start).Seconds())
	return nil
}

// countedStore counts the snapshots that could not be begun. Those that a leader sends
// begin here, too: a disk that does not take one is the same fault.
type countedStore struct {
	raft.SnapshotStore
	counts *snapshotCounts
}

func (s *countedStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration, configurationIndex uint64, transport raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, configuration, configurationIndex, transport)
	if err != nil {
		s.counts.failures.Add(1)
	}
	return sink, err
}
