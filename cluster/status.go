package cluster

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/internal/histogram"
)

// Status is the node as operators see it. The JSON names are those of
// GET /admin/status.
type Status struct {
	NodeID            string       `json:"node_id"`
	Role              string       `json:"role"` // leader, follower, candidate, stopped
	Term              uint64       `json:"term"`
	Leader            Leader       `json:"leader"`
	CommitIndex       uint64       `json:"commit_index"`
	AppliedIndex      uint64       `json:"applied_index"`
	LastSnapshotIndex uint64       `json:"last_snapshot_index"`
	LogBytes          int64        `json:"log_bytes"` // on disk
	Nodes             []NodeStatus `json:"nodes"`
}

// NodeStatus is one replica as this one sees it. Only the leader hears from the others;
// a follower has it from the leader, up to a second ago. What is not known is nil.
type NodeStatus struct {
	NodeID        string  `json:"node_id"`
	PeerAddr      string  `json:"peer_addr"`
	URL           string  `json:"url"`
	Voter         bool    `json:"voter"`
	Role          string  `json:"role,omitempty"` // leader or follower, when it is known
	Reachable     *bool   `json:"reachable"`
	LastContactMS *int64  `json:"last_contact_ms"`
	AppliedIndex  *uint64 `json:"applied_index"`
}

// Role is leader, follower, candidate or stopped.
func (n *Node) Role() string {
	if n.closing.Load() {
		return "stopped"
	}
	switch n.raft.State() {
	case raft.Leader:
		return "leader"
	case raft.Candidate:
		return "candidate"
	case raft.Shutdown:
		return "stopped"
	}
	return "follower"
}

// Status gives the node's present state. It looks at the disk, a few stats, and asks
// nobody.
func (n *Node) Status() Status {
	s := Status{
		NodeID:            n.id,
		Role:              n.Role(),
		Term:              n.raft.CurrentTerm(),
		CommitIndex:       n.raft.CommitIndex(),
		AppliedIndex:      n.machine.Applied(),
		LastSnapshotIndex: n.snapshotIndex(),
	}
	s.Leader, _ = n.Leader()
	if n.parts.logBytes != nil {
		s.LogBytes = n.parts.logBytes()
	}
	leading, now := n.IsLeader(), time.Now()
	for _, server := range n.configuration().Servers {
		id := string(server.ID)
		node := NodeStatus{NodeID: id, PeerAddr: string(server.Address), URL: n.urlOf(id), Voter: server.Suffrage == raft.Voter}
		switch {
		case id == s.Leader.NodeID:
			node.Role = "leader"
		case id == n.id:
			node.Role = s.Role
		case s.Leader.NodeID != "":
			node.Role = "follower"
		}
		switch {
		case id == n.id:
			node.Reachable, node.LastContactMS, node.AppliedIndex = ptr(true), ptr(int64(0)), ptr(s.AppliedIndex)
		case leading:
			last, silent := n.peers.lastContact(server.ID)
			node.Reachable = ptr(!silent)
			if silent {
				node.LastContactMS = ptr(now.Sub(last).Milliseconds())
			}
			n.describe(&node, true, now)
		case s.Leader.NodeID != "":
			n.describe(&node, false, now)
			if last := n.raft.LastContact(); id == s.Leader.NodeID && !last.IsZero() {
				node.Reachable, node.LastContactMS = ptr(true), ptr(now.Sub(last).Milliseconds())
			}
		}
		s.Nodes = append(s.Nodes, node)
	}
	return s
}

func ptr[T any](v T) *T { return &v }

// readyLag is how old a follower's state may become before it counts as fallen behind
// again. It is far above what load does (tens of milliseconds), so that a replica does
// not come and go.
const readyLag = 5 * time.Second

// Ready returns nil when this replica has a leader and has caught up with it: its state
// has all that was committed when the leader of this term was first heard, and has not
// fallen far behind since. Otherwise it says what is missing.
func (n *Node) Ready() error {
	if err := n.failed(); err != nil {
		return err
	}
	if n.closing.Load() {
		return ErrStopped
	}
	if err := n.notFormed(); err != nil {
		return err
	}
	s, _ := n.view.get()
	if s.leading {
		return nil
	}
	if s.leader == "" {
		return ErrNoLeader
	}
	term, applied := n.raft.CurrentTerm(), n.machine.Applied()
	if s.leader == n.id {
		return fmt.Errorf("this replica leads since a moment ago and term %d has not begun", term)
	}
	switch target, ok := n.fresh.caughtUp(term, applied); {
	case target == 0:
		return fmt.Errorf("catching up with leader %q: applied index %d, it has not said yet what is committed in term %d", s.leader, applied, term)
	case !ok:
		return fmt.Errorf("catching up with leader %q: applied index %d of %d", s.leader, applied, target)
	}
	if old := time.Since(n.fresh.since(applied)); old > readyLag {
		return fmt.Errorf("catching up with leader %q: applied index %d is the state of %v ago, or it has not been heard since", s.leader, applied, old.Round(time.Millisecond))
	}
	return nil
}

// snapshotIndex is the index of the newest snapshot.
func (n *Node) snapshotIndex() uint64 { return n.raftStat("last_snapshot_index") }

// raftStat is one of the numbers that raft tells as a text only.
func (n *Node) raftStat(name string) uint64 {
	v, err := strconv.ParseUint(n.raft.Stats()[name], 10, 64)
	if err != nil {
		panic(fmt.Sprintf("bug: raft says %s is %q", name, n.raft.Stats()[name]))
	}
	return v
}

// Counters are numbers since the start, for metrics.
type Counters struct {
	Applied, Refused, Unknown uint64             // proposals by outcome
	CommitSeconds             histogram.Snapshot // from proposal to applied, of the applied ones
	Forwarded                 Forwarded
	InFlight                  int // proposals that wait, of Options.MaxInFlight
	StoreCalls, StoreFailures uint64
	StoreTime                 time.Duration // in appends, summed
	LogBytesSinceSnapshot     int64
	SnapshotSeconds           histogram.Snapshot // of those taken, raft's own and those asked for
	SnapshotFailures          uint64             // begun and not written
	PeerConnectionsRefused    uint64             // accepted on the peer port and closed before their use
	PeerDialsRefused          uint64             // that other replicas refused this one
	PeerRequests, PeerBusy    uint64             // of other replicas, and those refused for there being too many
}

// Forwarded counts what Submit has proposed at other replicas, by attempt.
type Forwarded struct {
	Applied, Refused, Unknown uint64
	Seconds                   histogram.Snapshot // of the applied ones
}

type counters struct {
	byOutcome [3]atomic.Uint64
	seconds   *histogram.Histogram // of the applied ones
}

// newCounters has bounds from an fsync of a fast disk to clients that wait for an
// election.
func newCounters() *counters {
	return &counters{seconds: histogram.New(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10)}
}

func (c *counters) count(kind outcome, took time.Duration) {
	c.byOutcome[kind].Add(1)
	if kind == outcomeApplied {
		c.seconds.Observe(took.Seconds())
	}
}

// Counters gives the node's numbers.
func (n *Node) Counters() Counters {
	c := Counters{
		Applied:       n.proposals.byOutcome[outcomeApplied].Load(),
		Refused:       n.proposals.byOutcome[outcomeRefused].Load(),
		Unknown:       n.proposals.byOutcome[outcomeUnknown].Load(),
		CommitSeconds: n.proposals.seconds.Snapshot(),
		Forwarded: Forwarded{
			Applied: n.forwards.byOutcome[outcomeApplied].Load(),
			Refused: n.forwards.byOutcome[outcomeRefused].Load(),
			Unknown: n.forwards.byOutcome[outcomeUnknown].Load(),
			Seconds: n.forwards.seconds.Snapshot(),
		},
		InFlight:               len(n.slots),
		StoreCalls:             n.store.calls.Load(),
		StoreFailures:          n.store.fails.Load(),
		StoreTime:              time.Duration(n.store.nanos.Load()),
		LogBytesSinceSnapshot:  n.bytesSinceSnapshot(),
		SnapshotSeconds:        n.machine.snapshots.seconds.Snapshot(),
		SnapshotFailures:       n.machine.snapshots.failures.Load(),
		PeerConnectionsRefused: n.parts.port.refused.Load(),
		PeerDialsRefused:       n.parts.port.dialsRefused.Load(),
		PeerRequests:           n.server.requests.Load(), PeerBusy: n.server.busy.Load(),
	}
	return c
}
