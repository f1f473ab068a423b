package registry

import (
	"fmt"

	"github.com/kvctrl/kvctrl/registry/index"
)

func (l *Loader) loadFleet(st *State, numbers *numberSet) error {
	r := l.reg
	for _, inst := range st.Instances {
		what := fmt.Sprintf("instance %q", inst.ID)
		if r.byID[inst.ID] != nil {
			return damaged("%s appears twice", what)
		}
		if n := len(r.instances); n > 0 && r.instances[n-1].number >= inst.Number {
			return damaged("%s is out of order", what)
		}
		if err := numbers.take(what, inst.Number); err != nil {
			return err
		}
		r.newInstance(inst.ID, inst.Number)
	}
	for i := range st.Workers {
		if err := l.loadWorker(&st.Workers[i], numbers); err != nil {
			return err
		}
	}
	for _, inst := range r.instances {
		if len(inst.workers) == 0 {
			return damaged("instance %q has no workers", inst.id)
		}
	}
	for n, h := range l.holders {
		if h == nil {
			return damaged("holder %d of %d belongs to no stream", n, len(l.holders))
		}
	}
	return nil
}

func (l *Loader) loadWorker(ws *WorkerState, numbers *numberSet) error {
	r := l.reg
	what := fmt.Sprintf("worker %q/%d", ws.Instance, ws.Worker)
	inst := r.byID[ws.Instance]
	if inst == nil {
		return damaged("%s is of no instance", what)
	}
	if r.workers[ws.WorkerRef] != nil {
		return damaged("%s appears twice", what)
	}
	if n := len(inst.workers); n > 0 && inst.workers[n-1].number >= ws.Number {
		return damaged("%s is out of order", what)
	}
	if err := numbers.take(what, ws.Number); err != nil {
		return err
	}
	w := r.newWorker(inst, ws.Worker, ws.Number)
	w.ip, w.port = ws.IP, ws.Port
	w.setPeer(ws.PeerInitURL)
	w.registered, w.lastHeartbeat, w.lastHeard = ws.Registered, ws.LastHeartbeat, ws.LastHeard
	w.beats, w.adopted, w.wanted = ws.Beats, ws.Adopted, ws.Wanted
	w.syncFailures, w.syncFailed = ws.SyncFailures, ws.SyncFailed
	w.suspect.Store(ws.Suspect)
	for i := range ws.Streams {
		if err := l.loadStream(w, &ws.Streams[i], what, numbers); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loader) loadStream(w *worker, ss *StreamState, worker string, numbers *numberSet) error {
	what := fmt.Sprintf("stream %q of %s", ss.Location, worker)
	if w.stream(ss.Location) != nil {
		return damaged("%s appears twice", what)
	}
	if n := len(w.streams); n > 0 && w.streams[n-1].number >= ss.Number {
		return damaged("%s is out of order", what)
	}
	if err := numbers.take(what, ss.Number); err != nil {
		return err
	}
	st := l.reg.newStream(w, ss.Location, ss.Number)
	st.stores, st.gaps = ss.Stores, ss.Gaps
	st.lossy.Store(ss.Lossy)
	st.lastSync, st.synced, st.syncedAt = ss.LastSync, ss.Synced, ss.SyncedAt
	q := ss.Sequence
	st.sequence = sequence{begun: q.Begun, unnumbered: q.Unnumbered, loneZero: q.LoneZero, counted: q.Counted, next: q.Next, writer: q.Writer}
	if len(q.Holes) > maxHoles {
		return damaged("%s has %d holes in its numbers, the most are %d", what, len(q.Holes), maxHoles)
	}
	for i, h := range q.Holes {
		if h.From >= h.To || i > 0 && h.From < q.Holes[i-1].To {
			return damaged("%s has a hole in its numbers from %d to %d: none, or out of order", what, h.From, h.To)
		}
		st.sequence.holes = append(st.sequence.holes, hole{from: h.From, to: h.To, until: h.Until, extended: h.Extended})
	}
	if err := l.claim(ss.Holder, st.holder, what); err != nil {
		return err
	}
	if ss.Holder.Count > 0 && !ss.Stores {
		return damaged("%s holds keys and has never stored any", what)
	}
	if ss.Sync == nil {
		return nil
	}
	return l.loadSync(st, ss.Sync, what)
}

func (l *Loader) loadSync(st *stream, ys *SyncState, what string) error {
	if ys.BatchCount < 0 || ys.BatchCount > MaxSyncBatches {
		return damaged("sync of %s has %d batches, the most are %d", what, ys.BatchCount, MaxSyncBatches)
	}
	y := &fullSync{
		id:        ys.ID,
		started:   ys.Started,
		totalKeys: ys.TotalKeys,
		batches:   batchSet{count: ys.BatchCount},
		shadow:    l.reg.idx.NewHolder(st),
		ended:     ys.Ended,
		tainted:   ys.Tainted,
	}
	l.reg.idx.Hide(y.shadow)
	for i, id := range ys.Received {
		y.batches.add(id)
		if y.batches.received != int64(i+1) {
			return damaged("sync of %s has batch %d of %d twice or beyond its count", what, id, ys.BatchCount)
		}
	}
	if y.ended && y.batches.missing() == 0 {
		return damaged("sync of %s has all it waits for", what)
	}
	for _, k := range ys.Evicted {
		if y.evicted == nil {
			y.evicted = make(map[Key]struct{}, len(ys.Evicted))
		}
		y.evicted[k] = struct{}{}
	}
	if len(y.evicted) != len(ys.Evicted) {
		return damaged("sync of %s has an evicted key twice", what)
	}
	st.sync = y
	return l.claim(ys.Shadow, y.shadow, "sync of "+what)
}

// claim gives a holder its number.
func (l *Loader) claim(hs HolderState, h *index.Holder[*stream], what string) error {
	if int(hs.Holder) >= len(l.holders) {
		return damaged("%s has holder %d of %d", what, hs.Holder, len(l.holders))
	}
	if l.holders[hs.Holder] != nil {
		return damaged("%s has holder %d, which is another's", what, hs.Holder)
	}
	l.holders[hs.Holder], l.want[hs.Holder] = h, hs
	return nil
}

func (l *Loader) loadEvents(st *State, numbers *numberSet) error {
	log := &l.reg.events
	byNumber := make(map[uint64]*eventEntry)
	for i := range st.Events {
		e := &eventEntry{number: st.Events[i].Number, Event: st.Events[i].Event}
		e.Event = e.clone()
		what := fmt.Sprintf("event %q", e.ID)
		if log.byID[e.ID] != nil {
			return damaged("%s appears twice", what)
		}
		if !e.State.known() {
			return damaged("%s is in state %q", what, e.State)
		}
		if err := numbers.take(what, e.number); err != nil {
			return err
		}
		if n := len(log.created); n > 0 && log.created[n-1].number >= e.number {
			return damaged("%s is out of order", what)
		}
		switch {
		case !e.Confirmed.known():
			return damaged("%s is confirmed as %q", what, e.Confirmed)
		case (e.Confirmed == MoveAwaited) != (e.Confirm != nil && len(e.Confirm.Ranks) > 0), e.Confirmed != "" && !e.State.Final():
			return damaged("%s is %s and to be confirmed as %q", what, e.State, e.Confirmed)
		}
		log.add(e)
		if e.State.Final() {
			byNumber[e.number] = e
		}
	}
	for _, n := range st.Finished {
		e := byNumber[n]
		if e == nil {
			return damaged("event number %d is listed as finished and is not, or is listed twice", n)
		}
		delete(byNumber, n)
		log.finished = append(log.finished, e)
		if e.Confirmed == MoveAwaited {
			log.awaited = append(log.awaited, e)
		}
	}
	for n, e := range byNumber {
		return damaged("event %q, number %d, is finished and not listed so", e.ID, n)
	}
	return nil
}
