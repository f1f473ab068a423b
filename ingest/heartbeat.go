package ingest

import (
	"sync"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// beat answers a heartbeat on a ROUTER socket.
func (s *Server) beat(m *lmcache.HeartbeatMsg, a ask) {
	answer := func(c *lmcache.HeartbeatCommand) lmcache.Message {
		ret := &lmcache.HeartbeatRetMsg{}
		if c != nil {
			ret.Commands = []lmcache.HeartbeatCommand{*c}
		}
		return ret
	}
	err := s.heartbeat(m, true, func(c *lmcache.HeartbeatCommand) { a.later(answer(c)) })
	if err != nil {
		s.refused(m, a.from, a.r.name, err)
		a.now(answer(nil))
		return
	}
	a.await(s.opts.LogPatience, func() lmcache.Message { return answer(nil) })
}

// heartbeat notes a worker's life. A known one is answered at once, from memory; an
// unknown one when its registration is applied; one whose address has changed at once,
// while the change is on its way into the log. answer is called once, from here or
// from the batcher's goroutine, unless an error is returned.
//
// While a registration of a worker is on its way its further heartbeats do not make
// another: without a log, every second would add one.
func (s *Server) heartbeat(m *lmcache.HeartbeatMsg, urgent bool, answer func(*lmcache.HeartbeatCommand)) error {
	reg := registration((*lmcache.RegisterMsg)(m), micros(s.opts.Now()))
	reg.ByHeartbeat = true
	s.notes.note(reg.WorkerRef, reg.At, true)
	info, known := s.opts.State.Registry().Worker(reg.WorkerRef)
	if known && sameAddress(info, reg) {
		answer(s.command(reg.WorkerRef))
		return nil
	}
	if !s.flights.begin(reg.WorkerRef) {
		answer(nil)
		return nil
	}
	err := s.queue.add(urgent, 0, func(b *fsm.Batch) int { return b.Register(reg) }, func(o outcome) {
		s.flights.end(reg.WorkerRef)
		if known {
			return // answered already
		}
		if o.Err != nil {
			answer(nil)
			return
		}
		if why := o.Result.Register.Refused; why != "" {
			s.complain(reg.Instance, "registration refused", "instance", reg.Instance, "worker", reg.Worker, "error", why)
		} else if !o.Duplicate && !o.Result.Register.Known {
			s.logger.Info("Registered instance-worker by its heartbeat", "instance", reg.Instance, "worker", reg.Worker,
				"ip", reg.IP, "port", reg.Port)
		}
		answer(s.command(reg.WorkerRef))
	})
	if err != nil {
		s.flights.end(reg.WorkerRef)
		return err
	}
	if known {
		answer(s.command(reg.WorkerRef))
	}
	return nil
}

// command is what to tell a worker: to sync, if it owes that and there is a slot.
func (s *Server) command(w registry.WorkerRef) *lmcache.HeartbeatCommand {
	reg := s.opts.State.Registry()
	reason, wanted := reg.SyncWanted(w)
	if !wanted {
		return nil
	}
	wants := func(w registry.WorkerRef) bool {
		_, wanted := reg.SyncWanted(w)
		return wanted
	}
	if !s.slots.ask(w, s.opts.Now(), reg.Totals().SyncingWorkers, wants) {
		return nil
	}
	s.stats.syncs.Add(1)
	return &lmcache.HeartbeatCommand{CommandType: "full_sync", Reason: &reason}
}

func sameAddress(w registry.WorkerInfo, r registry.Registration) bool {
	return w.IP == r.IP && w.Port == r.Port &&
		(w.PeerInitURL == nil) == (r.PeerInitURL == nil) &&
		(r.PeerInitURL == nil || *w.PeerInitURL == *r.PeerInitURL)
}

// flights are the workers whose registration by heartbeat is on its way.
// Concurrency: any goroutine.
type flights struct {
	mu  sync.Mutex
	set map[registry.WorkerRef]struct{}
}

// begin reports whether there was none.
func (f *flights) begin(w registry.WorkerRef) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.set[w]; ok {
		return false
	}
	if f.set == nil {
		f.set = make(map[registry.WorkerRef]struct{})
	}
	f.set[w] = struct{}{}
	return true
}

func (f *flights) end(w registry.WorkerRef) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.set, w)
}
