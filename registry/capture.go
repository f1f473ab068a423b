package registry

import (
	"cmp"
	"maps"
	"slices"

	"github.com/kvctrl/kvctrl/registry/index"
)

// capture writes the state down and returns the holders by number. The caller holds
// mu; the state is settled when it has let go of it.
func (r *Registry) capture() (State, []*index.Holder[*stream]) {
	c := capturer{}
	st := State{
		Time:       r.now,
		Term:       r.term,
		Leader:     r.leader,
		Gaps:       r.gaps,
		Late:       r.late,
		LastNumber: r.lastNumber,
		Members:    r.members.all(),
		Sessions:   r.sessionList(),
	}
	for _, inst := range r.instances {
		st.Instances = append(st.Instances, InstanceState{ID: inst.id, Number: inst.number})
	}
	st.Workers = make([]WorkerState, 0, len(r.workers))
	workers := slices.SortedFunc(maps.Values(r.workers), func(a, b *worker) int { return cmp.Compare(a.number, b.number) })
	for _, w := range workers {
		st.Workers = append(st.Workers, c.worker(w))
	}
	st.Events = make([]EventEntry, 0, len(r.events.byID))
	for _, e := range r.events.created {
		if !e.dropped {
			st.Events = append(st.Events, EventEntry{Number: e.number, Event: e.Event})
		}
	}
	for _, e := range r.events.finished[r.events.head:] {
		st.Finished = append(st.Finished, e.number)
	}
	st.Holders = uint32(len(c.holders))
	return st, c.holders
}

// settle puts the sets of running syncs in order. They are large (a quarter of a million
// evicted keys each) and their order takes most of the time, so nobody need wait for it.
func (s *State) settle() {
	for i := range s.Workers {
		for j := range s.Workers[i].Streams {
			if y := s.Workers[i].Streams[j].Sync; y != nil {
				slices.Sort(y.Received)
				slices.Sort(y.Evicted)
			}
		}
	}
}

type capturer struct{ holders []*index.Holder[*stream] }

func (c *capturer) worker(w *worker) WorkerState {
	s := WorkerState{
		WorkerRef:     w.ref,
		Number:        w.number,
		IP:            w.ip,
		Port:          w.port,
		PeerInitURL:   copied(w.peer.Load()),
		Registered:    w.registered,
		LastHeartbeat: w.lastHeartbeat,
		LastHeard:     w.lastHeard,
		Beats:         w.beats,
		Adopted:       w.adopted,
		Suspect:       w.suspect.Load(),
		Wanted:        w.wanted,
		SyncFailures:  w.syncFailures,
		SyncFailed:    w.syncFailed,
	}
	for _, st := range w.streams {
		s.Streams = append(s.Streams, c.stream(st))
	}
	return s
}

func (c *capturer) stream(st *stream) StreamState {
	q := st.sequence
	s := StreamState{
		Location: st.location,
		Number:   st.number,
		Holder:   c.holder(st.holder),
		Stores:   st.stores,
		Lossy:    st.lossy.Load(),
		Gaps:     st.gaps,
		Sequence: SequenceState{Begun: q.begun, Unnumbered: q.unnumbered, LoneZero: q.loneZero, Counted: q.counted, Next: q.next, Writer: q.writer},
		LastSync: st.lastSync,
		Synced:   st.synced,
		SyncedAt: st.syncedAt,
	}
	for _, h := range q.holes {
		s.Sequence.Holes = append(s.Sequence.Holes, HoleState{From: h.from, To: h.to, Until: h.until, Extended: h.extended})
	}
	if y := st.sync; y != nil {
		s.Sync = &SyncState{
			ID:         y.id,
			Started:    y.started,
			TotalKeys:  y.totalKeys,
			BatchCount: y.batches.count,
			Received:   y.batches.ids(),
			Ended:      y.ended,
			Tainted:    y.tainted,
			Shadow:     c.holder(y.shadow),
			Evicted:    slices.AppendSeq(make([]Key, 0, len(y.evicted)), maps.Keys(y.evicted)),
		}
	}
	return s
}

func (c *capturer) holder(h *index.Holder[*stream]) HolderState {
	c.holders = append(c.holders, h)
	return HolderState{Holder: uint32(len(c.holders) - 1), Count: h.Count(), Sum: h.Sum()}
}
