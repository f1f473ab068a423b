package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const pathCommit = "/cluster/commit"

const (
	// freshTick is how often the mark is set: by the leader from its own commit index,
	// by a follower from what the leader answers. It is the coarseness of the staleness.
	freshTick = 50 * time.Millisecond
	// freshTimeout bounds a follower's question. Another leader ends it sooner.
	freshTimeout = time.Second
)

// freshness bounds the age of the state by one clock: it notes the time and the
// commit index, and once the state has applied that index it is no older than the
// note.
type freshness struct {
	mu     sync.Mutex
	asOf   time.Time // everything committed before is applied; zero: nothing known
	mark   time.Time // zero: none pending
	index  uint64
	asked  time.Time // when paused was asked
	steady time.Time // when it was asked last and said no
	// What the leader of a term said first to this follower. Having applied it, it has
	// caught up.
	term, target uint64
}

// note takes what is committed and applied now.
func (f *freshness) note(now time.Time, committed, applied uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle(applied)
	if f.mark.IsZero() {
		if applied >= committed {
			f.asOf = now
		} else {
			f.mark, f.index = now, committed
		}
	}
}

// settle makes the pending mark good when it is. It needs mu.
func (f *freshness) settle(applied uint64) {
	if !f.mark.IsZero() && applied >= f.index {
		f.asOf, f.mark = f.mark, time.Time{}
	}
}

// heard takes the leader's word of what is committed.
func (f *freshness) heard(term, committed uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if term != f.term {
		f.term, f.target = term, committed
	}
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

// paused reports whether more than limit has passed since it was last asked. After
// a pause of the process another may lead long since, and raft has not looked yet:
// a note made then would be a guess.
func (f *freshness) paused(now time.Time, limit time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	gap := now.Sub(f.asked)
	f.asked = now
	if gap > limit {
		return true
	}
	f.steady = now
	return false
}

// isSteady reports whether the process has run without a pause of limit until now.
// Right after a pause it is the first to be told, or paused was and has said so.
func (f *freshness) isSteady(now time.Time, limit time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return now.Sub(f.steady) <= limit
}

// forget drops a pending mark, for when leadership ends. What is known stays true.
func (f *freshness) forget() {
	f.mu.Lock()
	f.mark = time.Time{}
	f.mu.Unlock()
}

// since gives the time as of which the state that has applied so much has everything.
func (f *freshness) since(applied uint64) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settle(applied)
	return f.asOf
}

// keepFresh sets the mark: while this node leads, from what it knows, and while it
// follows, from what the leader says. Owner: Node, until stopping.
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
		case <-changed:
			continue // whoever leads now is asked at once
		}
		now := time.Now()
		paused := n.fresh.paused(now, n.times.lease/2)
		if n.IsLeader() && !paused {
			n.fresh.note(now, n.raft.CommitIndex(), n.machine.Applied())
		}
	}
}

// commitQuestion asks the leader what is committed, and tells it how far who asks is.
type commitQuestion struct {
	Applied uint64 `json:"applied"`
	Nodes   bool   `json:"nodes"` // how far all are is wanted, too
}

// commitAnswer is what the leader says of the log.
type commitAnswer struct {
	Term   uint64         `json:"term"`
	Commit uint64         `json:"commit"`
	Nodes  []nodeProgress `json:"nodes,omitempty"`
}

// askCommit sets the mark by the leader's commit index. The mark is of before the
// question: whatever was committed by then the leader has counted, or a leader before
// it whose lease has not run out (see staleness).
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
	q := commitQuestion{Applied: n.machine.Applied(), Nodes: n.progress.due(begin)}
	var a commitAnswer
	if err := n.ask(ctx, to, pathCommit, q, &a); err != nil {
		if ctx.Err() == nil && !errors.Is(err, ErrNotLeader) {
			n.log.Debug("the leader does not say what is committed", "node", to.ID, "peer", to.Addr, "error", err)
		}
		return // it will show as staleness
	}
	n.fresh.heard(a.Term, a.Commit)
	n.fresh.note(begin, a.Commit, n.machine.Applied())
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
	term, leads := n.leads()
	switch {
	case !leads:
		return nil, n.notLeading()
	case !n.fresh.isSteady(time.Now(), n.times.lease/2):
		return nil, fmt.Errorf("%w: this replica was held up for a moment, and another may lead", ErrBusy)
	}
	now := time.Now()
	if _, ok := serverOf(n.configuration(), from.NodeID); ok {
		n.progress.note(from.NodeID, q.Applied, now)
	}
	a := commitAnswer{Term: term, Commit: n.raft.CommitIndex()}
	if q.Nodes {
		a.Nodes = append(n.progress.list(now), nodeProgress{NodeID: n.id, Applied: n.machine.Applied()})
	}
	return json.Marshal(a)
}

// staleness is an upper bound of the state's age.
func (n *Node) staleness() time.Duration {
	only, one := soleVoter(n.configuration())
	alone := one && only.ID == raft.ServerID(n.id)
	if alone && n.IsLeader() {
		// Nobody else can commit: what is committed is known here and now.
		n.fresh.note(time.Now(), n.raft.CommitIndex(), n.machine.Applied())
	}
	asOf := n.fresh.since(n.machine.Applied())
	if asOf.IsZero() {
		return StalenessUnknown
	}
	age := time.Since(asOf)
	if !alone {
		age += n.times.lease // so long may another lead before this node knows
	} else if age < time.Millisecond {
		age = 0 // the note was made in this very call
	}
	return max(age, 0)
}
