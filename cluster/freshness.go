package cluster

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// freshTick is how often the mark is set. It is the coarseness of the staleness of
// an idle leader of several.
const freshTick = 50 * time.Millisecond

// freshness bounds the age of the state by one clock: it notes the time and the
// commit index, and once the state has applied that index it is no older than the
// note.
type freshness struct {
	mu    sync.Mutex
	asOf  time.Time // everything committed before is applied; zero: nothing known
	mark  time.Time // zero: none pending
	index uint64
	asked time.Time // when paused was asked
}

// note takes what is committed and applied now.
func (f *freshness) note(now time.Time, committed, applied uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.mark.IsZero() && applied >= f.index {
		f.asOf, f.mark = f.mark, time.Time{}
	}
	if f.mark.IsZero() {
		if applied >= committed {
			f.asOf = now
		} else {
			f.mark, f.index = now, committed
		}
	}
}

// paused reports whether more than limit has passed since it was last asked. After
// a pause of the process another may lead long since, and raft has not looked yet:
// a note made then would be a guess.
func (f *freshness) paused(now time.Time, limit time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	gap := now.Sub(f.asked)
	f.asked = now
	return gap > limit
}

// forget drops a pending mark, for when leadership ends. What is known stays true.
func (f *freshness) forget() {
	f.mu.Lock()
	f.mark = time.Time{}
	f.mu.Unlock()
}

func (f *freshness) since() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asOf
}

// keepFresh sets the mark while this node leads. Owner: Node, until stopping.
func (n *Node) keepFresh() {
	tick := time.NewTicker(freshTick)
	defer tick.Stop()
	for {
		select {
		case <-n.stopping:
			return
		case <-tick.C:
		}
		now := time.Now()
		paused := n.fresh.paused(now, n.times.lease/2)
		if s, _ := n.view.get(); s.leading && !paused {
			n.fresh.note(now, n.raft.CommitIndex(), n.machine.Applied())
		}
	}
}

// staleness is an upper bound of the state's age.
func (n *Node) staleness() time.Duration {
	only, one := soleVoter(n.configuration())
	alone := one && only.ID == raft.ServerID(n.id)
	if s, _ := n.view.get(); alone && s.leading {
		// Nobody else can commit: what is committed is known here and now.
		n.fresh.note(time.Now(), n.raft.CommitIndex(), n.machine.Applied())
	}
	asOf := n.fresh.since()
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
