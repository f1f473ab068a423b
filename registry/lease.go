package registry

// expiryGrace spares a worker that the leader gave up without knowing that it had
// just registered anew: that entry came between the leader's look and its lease. It
// is the shortest worker timeout there is, so it spares nobody else.
const expiryGrace = second

// Lease takes the leader's word on liveness: signs of life first, then who is
// suspect by them, then syncs that have taken too long, then who is given up, then moves
// that wait to be confirmed.
func (r *Registry) Lease(l Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(l.At)

	for _, h := range l.Heard {
		if w := r.workers[h.WorkerRef]; w != nil {
			w.hear(h.Any, h.Heartbeat)
		}
	}
	r.judgeLiveness(l.At, or(l.SuspectAfter, DefaultSuspectAfter))
	if timeout := or(l.SyncTimeout, DefaultSyncTimeout); timeout > 0 {
		r.expireSyncs(l.At, timeout)
	}
	for _, ref := range l.Expired {
		if w := r.workers[ref]; w != nil && l.At-w.lastHeard > expiryGrace {
			r.deregister(ref, l.At, DepartedExpired)
		}
	}
	r.confirmMoves(l.At)
	r.forgetSessions()
}

// judgeLiveness marks the workers that have been silent for too long. A worker that
// never sent a heartbeat may be silent for as long as it likes: LMCache's workers
// send none by default, and nothing else when there is nothing to say.
func (r *Registry) judgeLiveness(at, silence Micros) {
	for _, inst := range r.instances {
		for _, w := range inst.workers {
			w.lastHeard, w.lastHeartbeat = notAhead(w.lastHeard, at), notAhead(w.lastHeartbeat, at)
			w.registered, w.syncFailed = notAhead(w.registered, at), notAhead(w.syncFailed, at)
			for _, st := range w.streams {
				st.syncedAt = notAhead(st.syncedAt, at)
			}
			w.suspect.Store(silence > 0 && w.beats && at-w.lastHeard > silence)
		}
	}
}

// notAhead takes a time for the lease's own when it is ahead of that by more than a
// lease is under way. A clock was wrong, and what it said would hold until the right
// ones get there.
func notAhead(t, at Micros) Micros {
	if t-at > expiryGrace {
		return at
	}
	return t
}

func or(v, def Micros) Micros {
	if v == 0 {
		return def
	}
	return v
}
