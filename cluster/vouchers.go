package cluster

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// vouchers say until when nobody else can have led. A leader that stood still does not
// know by itself that another leads since; raft's lease runs out when its loop gets to
// it, and until then this node passes for the leader.
//
// Each answer to a follower's question carries a stamp of the leader's clock. The next
// question brings it back with the follower's term, read after the stamp had come: at
// the moment of the stamp, at least, the follower was in no later term and had voted in
// none. With a majority of such voters there was no later leader then, and all that was
// committed by then the leader of the term has counted. One clock is read, and no
// message is needed that is not sent anyhow.
//
// It rests on raft: the term rises, on disk, before a vote is given, and a pre-vote gives
// nothing. Members change one at a time, each change committed before the next, so that
// the first who is elected in a later term needs a majority of the members that the
// leader has or of their neighbours: one of those that vouch.
//
// Any goroutine.
type vouchers struct {
	mu     sync.Mutex
	zero   time.Time // of the stamps
	term   uint64
	stamps map[string]time.Time // by node id: the latest that came back in term
}

// stamp makes the stamp of now, which is above 0.
func (v *vouchers) stamp(now time.Time) int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.zero.IsZero() {
		v.zero = now.Add(-1)
	}
	return int64(now.Sub(v.zero))
}

// back takes a stamp that a node of a term brings back. A leader of that term has made
// it in this process, for nobody leads a term twice.
func (v *vouchers) back(term uint64, node string, stamp int64, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.zero.IsZero() || stamp <= 0 || stamp > int64(now.Sub(v.zero)) {
		return // none of ours
	}
	if term != v.term {
		v.term, v.stamps = term, map[string]time.Time{}
	}
	if at := v.zero.Add(time.Duration(stamp)); at.After(v.stamps[node]) {
		v.stamps[node] = at
	}
}

// until gives the latest time, up to now, at which a majority of the voters, of whom self
// is there at now, was in no later term. A question may be held up for long between its now
// and this, while stamps of others come back: what was committed meanwhile it has not seen.
func (v *vouchers) until(now time.Time, term uint64, self string, c raft.Configuration) (time.Time, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var times []time.Time
	for _, s := range c.Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		var at time.Time
		if string(s.ID) == self {
			at = now
		} else if term == v.term {
			at = v.stamps[string(s.ID)]
		}
		times = append(times, at)
	}
	if len(times) == 0 {
		return time.Time{}, false
	}
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
	at := times[len(times)/2]
	if at.After(now) {
		at = now
	}
	return at, !at.IsZero()
}
