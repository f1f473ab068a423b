package ingest

import (
	"cmp"
	"slices"

	"github.com/kvctrl/kvctrl/registry"
)

// This file holds what the naive model answers, and its commands.

func (i *naiveInstance) storing() (out []*naiveWorker) {
	for _, w := range i.workers {
		if slices.ContainsFunc(w.streams, func(s *naiveStream) bool { return s.stored }) {
			out = append(out, w)
		}
	}
	return out
}

// prefix counts the first keys that has says yes to.
func prefix(keys []registry.Key, has func(registry.Key) bool) int {
	if i := slices.IndexFunc(keys, func(k registry.Key) bool { return !has(k) }); i >= 0 {
		return i
	}
	return len(keys)
}

func (n *naive) holders(k registry.Key) []registry.StreamRef {
	out := []registry.StreamRef{}
	for _, i := range n.instances {
		for _, w := range i.workers {
			for _, s := range w.streams {
				if s.keys[k] {
					out = append(out, registry.StreamRef{WorkerRef: w.ref, Location: s.location})
				}
			}
		}
	}
	return out
}

func (n *naive) lookup(keys []registry.Key) []registry.Hit {
	hits := []registry.Hit{}
	for _, i := range n.instances {
		storing := i.storing()
		in := func(location string) func(registry.Key) bool { // "" for any
			return func(k registry.Key) bool {
				for _, w := range storing {
					if !slices.ContainsFunc(w.streams, func(s *naiveStream) bool {
						return s.keys[k] && (location == "" || s.location == location)
					}) {
						return false
					}
				}
				return len(storing) > 0
			}
		}
		hit := registry.Hit{Instance: i.id, Chunks: prefix(keys, in(""))}
		if hit.Chunks == 0 {
			continue
		}
		hit.Suspect = slices.ContainsFunc(storing, func(w *naiveWorker) bool { return w.suspect })
		var first []*naiveStream // those with the first chunk
		for _, w := range i.workers {
			for _, s := range w.streams {
				if s.keys[keys[0]] {
					first = append(first, s)
				}
			}
		}
		slices.SortFunc(first, func(a, b *naiveStream) int { return cmp.Compare(a.order, b.order) })
		var best []int
		for _, s := range first {
			score := []int{prefix(keys, in(s.location)), 1}
			if slices.ContainsFunc(first, func(o *naiveStream) bool { return o.location == s.location && o.lossy }) {
				score[1] = 0
			}
			if slices.Compare(score, best) > 0 {
				best, hit.Location = score, s.location
			}
		}
		for _, w := range storing {
			for _, k := range keys[:hit.Chunks] {
				if !slices.ContainsFunc(w.streams, func(s *naiveStream) bool { return s.keys[k] && !s.lossy }) {
					hit.Lossy = true
				}
			}
		}
		hits = append(hits, hit)
	}
	slices.SortStableFunc(hits, func(a, b registry.Hit) int {
		return cmp.Or(compareBools(a.Suspect, b.Suspect), compareBools(a.Lossy, b.Lossy), cmp.Compare(b.Chunks, a.Chunks))
	})
	return hits
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func (n *naive) p2p(asker registry.WorkerRef, keys []registry.Key) (best registry.P2PHit, found bool) {
	var score []int
	for _, i := range n.instances {
		for _, w := range i.workers {
			for _, s := range w.streams {
				chunks := prefix(keys, func(k registry.Key) bool { return s.keys[k] })
				if i.id == asker.Instance || w.peer == nil || *w.peer == "" || chunks == 0 || w.suspect {
					continue
				}
				mine := []int{0, 0, 0, chunks}
				if w.ref.Worker == asker.Worker {
					mine[0] = 1
				}
				if s.location == registry.CPULocation {
					mine[1] = 1
				}
				if !s.lossy {
					mine[2] = 1
				}
				if slices.Compare(mine, score) > 0 {
					best, score, found = registry.P2PHit{Instance: i.id, Location: s.location, Chunks: chunks, PeerInitURL: *w.peer}, mine, true
				}
			}
		}
	}
	return best, found
}

// Commands.

func (n *naive) event(id string) *registry.Event {
	for _, e := range n.events {
		if e.ID == id {
			return e
		}
	}
	return nil
}

func (n *naive) createEvent(c registry.EventCreate) {
	n.now = max(n.now, c.At)
	if n.event(c.ID) == nil && c.Term >= n.term {
		n.events = append(n.events, &registry.Event{ID: c.ID, Kind: c.Kind, State: registry.EventPending, Source: c.Source, Dest: c.Dest,
			Fingerprint: c.Fingerprint, Tokens: c.Tokens, Term: c.Term, Created: c.At})
	}
}

func (n *naive) runEvent(r registry.EventRun) {
	n.now = max(n.now, r.At)
	if e := n.event(r.ID); e != nil && e.State == registry.EventPending && e.Term == r.Term {
		e.State = registry.EventRunning
		for _, w := range r.Workers {
			e.Workers = append(e.Workers, registry.WorkerOutcome{WorkerRef: w, State: registry.EventRunning})
		}
	}
}

func (n *naive) finishEvent(f registry.EventFinish) {
	n.now = max(n.now, f.At)
	if e := n.event(f.ID); e != nil && !e.State.Final() && e.Term == f.Term {
		e.State, e.NumTokens, e.Cause, e.Detail, e.Finished = f.State, f.NumTokens, f.Cause, f.Detail, max(f.At, e.Created)
		if f.Workers != nil {
			e.Workers = f.Workers
		}
		if f.Confirm != nil {
			e.Confirmed, e.Confirm = registry.MoveAwaited, f.Confirm
			n.confirm(e, f.At)
		}
	}
}

// confirm looks whether the destination of an awaited move holds what it is to hold.
func (n *naive) confirm(e *registry.Event, at registry.Micros) {
	arrived := true
	for _, rank := range e.Confirm.Ranks {
		w := n.worker(registry.WorkerRef{Instance: e.Dest.Instance, Worker: rank})
		arrived = arrived && w != nil && slices.ContainsFunc(w.streams, func(s *naiveStream) bool {
			return s.keys[e.Confirm.Key] && (e.Dest.Location == "" || e.Dest.Location == s.location)
		})
	}
	switch {
	case arrived:
		n.count["moves confirmed"]++
		e.Confirmed, e.Confirm = registry.MoveConfirmed, nil
	case at-e.Finished > 30*second:
		n.count["moves unconfirmed"]++
		e.Confirmed, e.Confirm = registry.MoveUnconfirmed, nil
	}
}

func (n *naive) beginTerm(t registry.TermBegin) {
	n.now = max(n.now, t.At)
	if t.Term <= n.term {
		return
	}
	n.term = t.Term
	for _, e := range n.events {
		if e.State.Final() {
			continue
		}
		e.State, e.Cause, e.Finished = registry.EventInterrupted, string(registry.EventInterrupted), max(t.At, e.Created)
		for i := range e.Workers {
			if e.Workers[i].State == registry.EventRunning {
				e.Workers[i].State = registry.EventInterrupted
			}
		}
	}
}

// infos are the workers as people see them, and their counts.
func (n *naive) infos() (out []registry.WorkerInfo, t registry.Totals) {
	t = registry.Totals{Instances: len(n.instances), Gaps: n.gaps, Late: n.late, Events: len(n.events)}
	for _, i := range n.instances {
		for _, w := range i.workers {
			info := registry.WorkerInfo{WorkerRef: w.ref, IP: w.ip, Port: w.port, PeerInitURL: w.peer, Registered: w.registered,
				LastHeartbeat: w.beat, LastHeard: w.heard, Beats: w.beats, Liveness: registry.Alive, SyncState: registry.SyncNone,
				SyncFailures: w.failures, SyncFailed: w.failed, Stores: slices.ContainsFunc(w.streams, func(s *naiveStream) bool { return s.stored })}
			if w.suspect {
				info.Liveness = registry.Suspect
				t.SuspectWorkers++
			}
			switch {
			case w.syncing():
				info.SyncState = registry.SyncSyncing
			case w.wanted != "" && !w.beats:
				info.SyncState = registry.SyncUnrepaired
				t.UnrepairedWorkers++
			case w.wanted != "":
				info.SyncState = registry.SyncWanted
			case slices.ContainsFunc(w.streams, func(s *naiveStream) bool { return s.synced }):
				info.SyncState = registry.SyncCompleted
			}
			for _, s := range w.streams {
				l := registry.LocationInfo{Location: s.location, Keys: int64(len(s.keys)), Gaps: s.gaps, Lossy: s.lossy, Numbered: len(s.numbers) > 0 && !s.unnumbered()}
				if l.Numbered {
					l.NextSeq = s.numbers[len(s.numbers)-1] + 1
				}
				info.Keys += l.Keys
				info.Locations = append(info.Locations, l)
				if s.lossy {
					t.LossyStreams++
				}
			}
			t.Keys += info.Keys
			t.Workers++
			out = append(out, info)
		}
	}
	for _, e := range n.events {
		if !e.State.Final() {
			t.OpenEvents++
		}
		if e.Confirmed == registry.MoveAwaited {
			t.AwaitedMoves++
		}
	}
	return out, t
}
