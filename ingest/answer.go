package ingest

import (
	"errors"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// statusPatience is how long a sync's status waits for what the worker sent before it
// on PUSH. Without the log the local state answers; the worker asks again in 5 s.
const statusPatience = 2 * time.Second

// reply handles a message on the reply socket. The socket's goroutine.
func (s *Server) reply(m lmcache.Message, a ask) {
	switch m := m.(type) {
	case *lmcache.RegisterMsg:
		s.register(m, a)
	case *lmcache.HeartbeatMsg:
		s.beat(m, a)
	case *lmcache.BatchedP2PLookupMsg:
		s.lookup(m, a)
	case *lmcache.FullSyncStartMsg:
		s.syncStart(m, a)
	case *lmcache.FullSyncStatusMsg:
		s.syncStatus(m, a)
	default:
		s.refuse(m, a.from, a.r.name)
		a.now(&lmcache.ErrorMsg{Error: "Unknown message type: " + m.Type()})
	}
}

// heartbeatOnly handles a message on the heartbeat socket.
func (s *Server) heartbeatOnly(m lmcache.Message, a ask) {
	if m, ok := m.(*lmcache.HeartbeatMsg); ok {
		s.beat(m, a)
		return
	}
	s.refuse(m, a.from, a.r.name)
	a.now(&lmcache.ErrorMsg{Error: "Expected HeartbeatMsg, got " + m.Type()})
}

// register answers when the registration is applied, so that the events that follow
// find their worker. A worker that gets no answer within 30 s stays mute until its
// engine restarts, so it gets one in any case: the record stays in the queue, before the
// worker's events, and if that is lost too the first heartbeat registers the worker.
func (s *Server) register(m *lmcache.RegisterMsg, a ask) {
	reg := registration(m, micros(s.opts.Now()))
	s.note(reg.WorkerRef, reg.At, false)
	ret := &lmcache.RegisterRetMsg{}
	if port := s.ports.Heartbeat; port != 0 {
		url := heartbeatURL(s.opts.AdvertiseHost, s.opts.Host, s.ownIP, m.IP, port)
		ret.ExtraConfig = []lmcache.StringPair{{Key: "heartbeat_url", Value: url}}
	}
	logged := s.registered(reg)
	err := s.queue.add(asRegistration, 0, func(b *fsm.Batch) int { return b.Register(reg) }, func(o outcome) {
		logged(o)
		if why := o.Result.Register.Refused; why != "" {
			// The worker warns, and goes on without heartbeats.
			a.later(&lmcache.ErrorMsg{Error: "RegisterMsg: " + why})
			return
		}
		a.later(ret)
	})
	switch {
	case errors.Is(err, errTooLarge):
		s.refused(m, a.from, a.r.name, err)
		a.now(&lmcache.ErrorMsg{Error: "RegisterMsg: instance_id, ip or peer_init_url is too long"})
	case err != nil:
		s.refused(m, a.from, a.r.name, err)
		a.now(ret)
	default:
		a.await(s.opts.LogPatience, func() lmcache.Message { return ret })
	}
}

// registered logs a registration that was applied.
func (s *Server) registered(reg registry.Registration) func(outcome) {
	ref, ip, port := reg.WorkerRef, reg.IP, reg.Port
	return func(o outcome) {
		switch {
		case o.Err != nil || o.Duplicate:
		case o.Result.Register.Refused != "":
			s.complain(ref.Instance, "registration refused", "instance", ref.Instance, "worker", ref.Worker,
				"error", o.Result.Register.Refused)
		case o.Result.Register.Known:
			s.logger.Info("Registered instance-worker again: what it held is dropped",
				"instance", ref.Instance, "worker", ref.Worker, "ip", ip, "port", port)
		default:
			s.logger.Info("Registered instance-worker", "instance", ref.Instance, "worker", ref.Worker, "ip", ip, "port", port)
		}
	}
}

func (s *Server) deregistered(w registry.WorkerRef) func(outcome) {
	return func(o outcome) {
		if o.Result.Deregistered {
			s.logger.Info("Deregistered instance-worker", "instance", w.Instance, "worker", w.Worker)
		}
	}
}

// lookup answers which peer holds most of the hashes, from the local state.
func (s *Server) lookup(m *lmcache.BatchedP2PLookupMsg, a ask) {
	asker := worker(m.InstanceID, m.WorkerID)
	s.note(asker, micros(s.opts.Now()), false)
	layout := lmcache.P2PLayout{} // a miss
	if len(m.Hashes) > 0 {
		if hit, ok := s.opts.State.Registry().P2PLookup(asker, toKeys(nil, m.Hashes)); ok {
			layout = lmcache.P2PLayout{InstanceID: hit.Instance, Location: hit.Location,
				HitChunks: int64(hit.Chunks), PeerInitURL: hit.PeerInitURL}
		}
	}
	a.now(&lmcache.BatchedP2PLookupRetMsg{LayoutInfo: []lmcache.P2PLayout{layout}})
}

func (s *Server) syncStart(m *lmcache.FullSyncStartMsg, a ask) {
	w := worker(m.InstanceID, m.WorkerID)
	start := registry.SyncStart{Stream: registry.StreamRef{WorkerRef: w, Location: m.Location},
		SyncID: m.SyncID, TotalKeys: m.TotalKeys, BatchCount: m.BatchCount, At: micros(s.opts.Now())}
	s.note(w, start.At, false)
	answer := func(accepted bool, reason string) lmcache.Message {
		ret := &lmcache.FullSyncStartRetMsg{SyncID: start.SyncID, Accepted: accepted}
		if !accepted {
			ret.ErrorMsg = &reason
		}
		return ret
	}
	err := s.queue.add(asRequest, 0, func(b *fsm.Batch) int { return b.SyncStart(start) }, func(o outcome) {
		switch {
		case o.Err != nil:
			a.later(answer(false, "Failed to start sync: "+o.Err.Error()))
		case o.Duplicate:
			// The first attempt was applied and its answer lost. Only an unknown worker is
			// refused, so that is what to look for.
			_, known := s.opts.State.Registry().Worker(w)
			a.later(answer(known, "Failed to start sync: worker not found"))
		default:
			r := o.Result.SyncStart
			a.later(answer(r.Accepted, "Failed to start sync: "+r.Reason))
		}
	})
	if err != nil {
		s.refused(m, a.from, a.r.name, err)
		a.now(answer(false, "Failed to start sync: "+err.Error()))
		return
	}
	a.await(s.opts.LogPatience, func() lmcache.Message {
		return answer(false, "Failed to start sync: the replicated log did not take it within "+s.opts.LogPatience.String())
	})
}

// syncStatus answers from the local state, once that has what is in the queue: the
// worker asks after it has sent its batches and the end, and frozen is what it stays
// until it hears that they are in.
//
// So its question says the end as well. If that alone is missing it was lost, and would
// be for good: a worker sends its end again only with batches that are named as missing.
func (s *Server) syncStatus(m *lmcache.FullSyncStatusMsg, a ask) {
	w := worker(m.InstanceID, m.WorkerID)
	at := micros(s.opts.Now())
	s.note(w, at, false)
	answer := func() lmcache.Message {
		st := s.opts.State.Registry().SyncStatus(w, m.SyncID, micros(s.opts.Now()))
		return &lmcache.FullSyncStatusRetMsg{SyncID: m.SyncID, IsComplete: st.Complete, GlobalProgress: st.Progress,
			CanExitFreeze: st.CanExitFreeze, MissingBatches: st.MissingBatches}
	}
	a.await(statusPatience, answer)
	s.queue.barrier(func(outcome) {
		if end, awaited := s.opts.State.Registry().SyncAwaitsEnd(w, m.SyncID); awaited {
			end.At = at
			err := s.queue.add(asRequest, 0, func(b *fsm.Batch) int { return b.SyncEnd(end) }, func(outcome) { a.later(answer()) })
			if err == nil {
				return
			}
		}
		a.later(answer())
	})
}
