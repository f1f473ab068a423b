package registry

// stragglerPatience is how long a worker waits for its own data before the threshold
// may let it out of its freeze: LMCache's worker sends missing batches again at its
// first three polls, 5 s apart, and stops repairing when it is let out.
const stragglerPatience = 30 * second

// SyncWanted reports whether a worker owes a full sync, and why. A worker that is in
// one owes none.
func (r *Registry) SyncWanted(ref WorkerRef) (owed Owed, wanted bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	w := r.workers[ref]
	if w == nil || w.wanted == "" || w.syncing() {
		return Owed{}, false
	}
	return Owed{Reason: w.wanted, Failures: w.syncFailures, FailedAt: w.syncFailed}, true
}

// SyncStatus returns how a worker's full sync stands at a time. It may leave its freeze
// when its own data is complete, or, later, when enough of those that sync with it are
// (Options.SyncThreshold). So may one that owes a full sync and is in none: the one it asks
// for was given up, and nothing of it is to come. An unknown worker or sync is not complete.
func (r *Registry) SyncStatus(ref WorkerRef, syncID string, now Micros) SyncStatus {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s := SyncStatus{Progress: r.syncProgress()}
	w := r.workers[ref]
	if w == nil {
		return s
	}
	for _, st := range w.streams {
		switch {
		case st.sync != nil && st.sync.id == syncID:
			s.MissingBatches = st.sync.batches.list(MaxMissingListed)
			s.Complete = false
			s.CanExitFreeze = s.Progress >= r.opts.SyncThreshold && now-st.sync.started > stragglerPatience
			return s
		case st.synced && st.lastSync == syncID:
			s.Complete, s.CanExitFreeze = true, true
		}
	}
	if w.wanted != "" && !w.syncing() {
		s.CanExitFreeze = true
	}
	return s
}

// syncProgress looks at the present wave of full syncs: the workers in one, and those
// that have completed one since the oldest of these began. It returns the share of the
// latter, which is 1 when nobody syncs, and 0 without workers.
func (r *Registry) syncProgress() float64 {
	if len(r.workers) == 0 {
		return 0
	}
	syncing := 0
	var oldest Micros
	for _, w := range r.workers {
		if began, ok := w.syncBegan(); ok {
			if syncing == 0 || began < oldest {
				oldest = began
			}
			syncing++
		}
	}
	if syncing == 0 {
		return 1
	}
	completed := 0
	for _, w := range r.workers {
		if w.completedSince(oldest) {
			completed++
		}
	}
	return float64(completed) / float64(completed+syncing)
}

// syncBegan returns when the oldest running sync of a worker began, if one runs.
func (w *worker) syncBegan() (began Micros, syncing bool) {
	for _, st := range w.streams {
		if st.sync != nil && (!syncing || st.sync.started < began) {
			began, syncing = st.sync.started, true
		}
	}
	return began, syncing
}

// completedSince reports whether a worker has completed a sync at or after the given
// time, and is in none.
func (w *worker) completedSince(at Micros) bool {
	completed := false
	for _, st := range w.streams {
		if st.sync != nil {
			return false
		}
		completed = completed || st.synced && st.syncedAt >= at
	}
	return completed
}
