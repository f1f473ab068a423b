package registry

import (
	"cmp"
	"slices"

	"github.com/kvctrl/kvctrl/registry/index"
)

// What WorkerInfo.SyncState may say.
const (
	SyncNone       = "none"
	SyncWanted     = "wanted"
	SyncUnrepaired = "unrepaired" // owes one and has sent no heartbeat: it cannot be asked
	SyncSyncing    = "syncing"
	SyncCompleted  = "completed"
)

// Holders returns who holds a chunk, in order of registration, then of first use of
// the location. It is for people and tests; Search is the fast way.
func (r *Registry) Holders(k Key) []StreamRef {
	var streams []*stream
	r.probe(k, r.idx.Holders(index.Key(k)), func(st *stream) {
		if !slices.Contains(streams, st) {
			streams = append(streams, st)
		}
	})
	slices.SortFunc(streams, func(a, b *stream) int {
		return cmp.Or(
			cmp.Compare(a.worker.instance.number, b.worker.instance.number),
			cmp.Compare(a.worker.number, b.worker.number),
			cmp.Compare(a.number, b.number),
		)
	})
	out := make([]StreamRef, len(streams))
	for i, st := range streams {
		out[i] = st.ref()
	}
	return out
}

func (st *stream) ref() StreamRef { return StreamRef{WorkerRef: st.worker.ref, Location: st.location} }

// Worker returns one worker.
func (r *Registry) Worker(ref WorkerRef) (WorkerInfo, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if w := r.workers[ref]; w != nil {
		return w.info(), true
	}
	return WorkerInfo{}, false
}

// Workers returns the workers of an instance, or of all when instance is "": by
// instance, then in order of registration.
func (r *Registry) Workers(instance string) []WorkerInfo {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []WorkerInfo
	for _, inst := range r.instances {
		if instance != "" && inst.id != instance {
			continue
		}
		for _, w := range inst.workers {
			out = append(out, w.info())
		}
	}
	return out
}

// Instances returns all instances in order of registration.
func (r *Registry) Instances() []InstanceInfo {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]InstanceInfo, len(r.instances))
	for i, inst := range r.instances {
		out[i].Instance = inst.id
		for _, w := range inst.workers {
			info := w.info()
			out[i].Workers = append(out[i].Workers, info)
			out[i].Keys += info.Keys
		}
	}
	return out
}

// InstanceByIP returns the instance, the first registered of several, that has a
// worker at an address.
func (r *Registry) InstanceByIP(ip string) (string, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, inst := range r.instances {
		for _, w := range inst.workers {
			if w.ip == ip {
				return inst.id, true
			}
		}
	}
	return "", false
}

func (w *worker) info() WorkerInfo {
	info := WorkerInfo{
		WorkerRef:     w.ref,
		IP:            w.ip,
		Port:          w.port,
		PeerInitURL:   copied(w.peer.Load()),
		Registered:    w.registered,
		LastHeartbeat: w.lastHeartbeat,
		LastHeard:     w.lastHeard,
		Beats:         w.beats,
		Liveness:      Alive,
		Stores:        w.stores(),
		SyncState:     w.syncState(),
		SyncFailures:  w.syncFailures,
		SyncFailed:    w.syncFailed,
	}
	if w.suspect.Load() {
		info.Liveness = Suspect
	}
	for _, st := range w.streams {
		info.Keys += st.holder.Count()
		info.Locations = append(info.Locations, LocationInfo{
			Location: st.location,
			Keys:     st.holder.Count(),
			Gaps:     st.gaps,
			Lossy:    st.lossy.Load(),
			Numbered: st.sequence.begun && !st.sequence.unnumbered,
			NextSeq:  st.sequence.next,
		})
	}
	return info
}

func copied(s *string) *string {
	if s == nil {
		return nil
	}
	c := *s
	return &c
}

func (w *worker) syncState() string {
	switch {
	case w.syncing():
		return SyncSyncing
	case w.wanted != "" && !w.beats:
		return SyncUnrepaired
	case w.wanted != "":
		return SyncWanted
	case slices.ContainsFunc(w.streams, func(st *stream) bool { return st.synced }):
		return SyncCompleted
	}
	return SyncNone
}

// Totals returns the registry's counts. Keys under way in a full sync do not count
// before it is complete.
func (r *Registry) Totals() Totals {
	r.mu.RLock()
	defer r.mu.RUnlock()
	t := Totals{
		Instances:    len(r.instances),
		Workers:      len(r.workers),
		DeadSlots:    r.idx.DeadEntries(),
		IndexBytes:   r.idx.Bytes(),
		Chunks:       r.idx.Len(),
		Gaps:         r.gaps,
		Late:         r.late,
		SyncProgress: r.syncProgress(),
		OpenEvents:   r.events.open,
		AwaitedMoves: r.events.awaitedMoves(),
		Events:       len(r.events.byID),
		Sessions:     len(r.sessions),
	}
	for _, w := range r.workers {
		switch w.syncState() {
		case SyncSyncing:
			t.SyncingWorkers++
		case SyncUnrepaired:
			t.UnrepairedWorkers++
			t.WantedWorkers++
		case SyncWanted:
			t.WantedWorkers++
		case SyncCompleted:
			t.SyncedWorkers++
		}
		if w.suspect.Load() {
			t.SuspectWorkers++
		}
		for _, st := range w.streams {
			t.Keys += st.holder.Count()
			if st.lossy.Load() {
				t.LossyStreams++
			}
			if st.sync != nil {
				t.MissingBatches += st.sync.batches.missing()
			}
		}
	}
	return t
}
