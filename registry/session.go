package registry

import (
	"bytes"
	"cmp"
	"slices"
)

// session is what is remembered of one run of a replica's batcher.
type session struct {
	last uint64 // number of its last batch
	seen Micros
}

// AcceptBatch reports whether the batch of this number is new, and remembers it. A
// batch that is not was applied before and must not be applied again.
func (r *Registry) AcceptBatch(id SessionID, number uint64, at Micros) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(at)

	s, known := r.sessions[id]
	if known && number <= s.last {
		return false
	}
	if !known && len(r.sessions) >= r.opts.MaxSessions {
		r.forgetSessions()
		if len(r.sessions) >= r.opts.MaxSessions {
			delete(r.sessions, r.sessionList()[0].ID)
		}
	}
	r.sessions[id] = session{last: number, seen: r.now}
	return true
}

// forgetSessions drops the sessions that have been silent for too long. Their
// batchers are gone, or will not repeat a batch of that age.
func (r *Registry) forgetSessions() {
	for id, s := range r.sessions {
		if r.now-s.seen > r.opts.SessionMaxAge {
			delete(r.sessions, id)
		}
	}
}

// sessionList returns the sessions, the longest silent first.
func (r *Registry) sessionList() []SessionState {
	out := make([]SessionState, 0, len(r.sessions))
	for id, s := range r.sessions {
		out = append(out, SessionState{ID: id, Last: s.last, Seen: s.seen})
	}
	slices.SortFunc(out, func(a, b SessionState) int {
		return cmp.Or(cmp.Compare(a.Seen, b.Seen), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return out
}
