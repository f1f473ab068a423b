package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const pathCommit = "/cluster/commit"

const (
	// freshTick is how often a follower asks the leader what is committed. It is the
	// coarseness of the staleness.
	freshTick = 50 * time.Millisecond
	// freshTimeout bounds a follower's question. Another leader ends it sooner.
	freshTimeout = time.Second
)

// freshness bounds the age of the state by one clock: it notes a time and what was
// committed by then, and once the state has applied that it is no older than the note.
type freshness struct {
	mu    sync.Mutex
	asOf  time.Time // everything committed before is applied; zero: nothing known
	mark  time.Time // zero: none pending
	index uint64
	// What the leader of a term said first to this follower, having applied which it has
	// caught up; and the stamp that it said last.
	term, target uint64
	stamp        int64
}

// note takes what was committed at a time, or later, and what is applied now.
func (f *freshness) note(at time.Time, committed, applied uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle(applied)
	if f.mark.IsZero() {
		f.mark, f.index = at, committed
		f.settle(applied)
	}
}

// settle makes the pending mark good when it is. It needs mu.
func (f *freshness) settle(applied uint64) {
	if f.mark.IsZero() || applied < f.index {
		return
	}
	if f.mark.After(f.asOf) {
		f.asOf = f.mark
	}
	f.mark = time.Time{}
}

// heard takes the leader's word of what is committed, and its stamp.
func (f *freshness) heard(term, committed uint64, stamp int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if term != f.term {
		f.term, f.target = term, committed
	}
	f.stamp = stamp
}

// stampOf is the last stamp of the leader of a term, or 0.
func (f *freshness) stampOf(term uint64) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.term != term {
		return 0
	}
	return f.stamp
}

// caughtUp says whether the state has what the leader of the term had when it was
// first heard; target is that, or 0 when it was not heard yet.
func (f *freshness) caughtUp(term, applied uint64) (target uint64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.term != term {
		return 0, false
	}
	return f.target, applied >= f.target
}

// since gives the time as of which the state that has applied so much has everything.
func (f *freshness) since(applied uint64) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle(applied)
	return f.asOf
}

// keepFresh asks the leader what is committed, while this node follows one. Owner: Node,
// until stopping.
func (n *Node) keepFresh() {
	tick := time.NewTicker(freshTick)
	defer tick.Stop()
	for {
		s, changed := n.view.get()
		if s.leader != "" && s.leader != n.id {
			n.askCommit()
		}
		select {
		case <-n.stopping:
			return
		case <-tick.C:
		case <-changed: // whoever leads now is asked at once
		}
	}
}

// commitQuestion asks the leader what is committed, and tells it how far who asks is.
type commitQuestion struct {
	Applied uint64 `json:"applied"`
	Nodes   bool   `json:"nodes"` // how far all are is wanted, too
	// Term is that of who asks, read after Stamp had come: see vouchers. Stamp is 0 when
	// the leader of Term has not answered yet.
	Term  uint64 `json:"term"`
	Stamp int64  `json:"stamp"`
}

// commitAnswer is what the leader says of the log.
type commitAnswer struct {
	Term   uint64 `json:"term"`
	Commit uint64 `json:"commit"`
	// Stamp comes back with the next question.
	Stamp int64 `json:"stamp"`
	// AgeNS is how long ago nobody else led for sure: what was committed by then is at or
	// below Commit. Absent: the leader cannot tell yet.
	AgeNS *int64         `json:"age_ns,omitempty"`
	Nodes []nodeProgress `json:"nodes,omitempty"`
}

// askCommit sets the mark by the leader's commit index, to the time before the question
// less the age of the leader's certainty.
func (n *Node) askCommit() {
	ctx, cancel := context.WithTimeout(n.life, freshTimeout)
	defer cancel()
	to, err := n.leaderTarget()
	if err != nil {
		return
	}
	ctx, release := n.whileLeading(ctx, to)
	defer release()
	begin := time.Now()
	term := n.raft.CurrentTerm()
	q := commitQuestion{Applied: n.machine.Applied(), Nodes: n.progress.due(begin), Term: term, Stamp: n.fresh.stampOf(term)}
	var a commitAnswer
	if err := n.ask(ctx, to, pathCommit, q, &a); err != nil {
		if ctx.Err() == nil && !errors.Is(err, ErrNotLeader) {
			n.log.Debug("the leader does not say what is committed", "node", to.ID, "peer", to.Addr, "error", err)
		}
		return // it will show as staleness
	}
	n.fresh.heard(a.Term, a.Commit, a.Stamp)
	if a.AgeNS != nil {
		n.fresh.note(begin.Add(-time.Duration(*a.AgeNS)), a.Commit, n.machine.Applied())
	}
	if q.Nodes {
		n.progress.replace(a.Nodes, time.Now())
	}
}

// serveCommit says what is committed, to a follower.
func (n *Node) serveCommit(_ context.Context, from Identity, body []byte) ([]byte, error) {
	var q commitQuestion
	if err := unmarshal(body, &q); err != nil {
		return nil, err
	}
	now := time.Now() // before all that is looked at: nothing is said of later
	term, leads := n.leads()
	if !leads {
		return nil, n.notLeading()
	}
	members := n.configuration()
	if _, ok := serverOf(members, from.NodeID); ok {
		n.progress.note(from.NodeID, q.Applied, now)
		if q.Term == term {
			n.vouched.back(term, from.NodeID, q.Stamp, now)
		}
	}
	a := commitAnswer{Term: term, Commit: n.raft.CommitIndex(), Stamp: n.vouched.stamp(now)}
	if at, ok := n.vouched.until(now, term, n.id, members); ok {
		n.fresh.note(at, a.Commit, n.machine.Applied())
		age := int64(now.Sub(at))
		a.AgeNS = &age
	}
	if q.Nodes {
		a.Nodes = append(n.progress.list(now), nodeProgress{NodeID: n.id, Applied: n.machine.Applied()})
	}
	return json.Marshal(a)
}

// staleness is an upper bound of the state's age.
func (n *Node) staleness() time.Duration {
	now := time.Now()
	only, one := soleVoter(n.configuration())
	alone := one && only.ID == raft.ServerID(n.id)
	if alone && n.IsLeader() {
		// Nobody else can commit: what is committed is known here and now.
		n.fresh.note(now, n.raft.CommitIndex(), n.machine.Applied())
	}
	asOf := n.fresh.since(n.machine.Applied())
	if asOf.IsZero() {
		return StalenessUnknown
	}
	if alone && !asOf.Before(now) {
		return 0 // the note was made in this very call
	}
	return max(time.Since(asOf), 0)
}
