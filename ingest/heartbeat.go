package ingest

import (
	"sync"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// beat answers a heartbeat on a ROUTER socket.
func (s *Server) beat(m *lmcache.HeartbeatMsg, a ask) {
	w := worker(m.InstanceID, m.WorkerID)
	nothing := func() lmcache.Message { return &lmcache.HeartbeatRetMsg{} }
	err := s.heartbeat(m, asRequest, func(registered bool) {
		if !registered {
			a.later(nothing())
			return
		}
		s.command(w, func(commands []lmcache.HeartbeatCommand) {
			a.later(&lmcache.HeartbeatRetMsg{Commands: commands})
		})
	})
	if err != nil {
		s.refused(m, a.from, a.r.name, err)
		a.now(nothing())
		return
	}
	a.await(s.opts.LogPatience, nothing)
}

// heartbeat notes a worker's life. A known one needs no more than that; an unknown one
// is registered; of one whose address has changed the new one goes into the log. tell,
// which may be nil, is called once, unless an error is returned: at once for a known
// worker, else from the batcher's when its registration is applied, or at
// once with false when an earlier one is still on its way.
//
// While a registration of a worker is on its way its further heartbeats do not make
// another: without a log, every second would add one.
func (s *Server) heartbeat(m *lmcache.HeartbeatMsg, as claim, tell func(registered bool)) error {
	if tell == nil {
		tell = func(bool) {}
	}
	reg := registration((*lmcache.RegisterMsg)(m), micros(s.opts.Now()))
	reg.ByHeartbeat = true
	s.note(reg.WorkerRef, reg.At, true)
	info, known := s.opts.State.Registry().Worker(reg.WorkerRef)
	if known && sameAddress(info, reg) {
		tell(true)
		return nil
	}
	if !s.flights.begin(reg.WorkerRef) {
		tell(known)
		return nil
	}
	err := s.queue.add(as, 0, func(b *fsm.Batch) int { return b.Register(reg) }, func(o outcome) {
		s.flights.end(reg.WorkerRef)
		switch why := o.Result.Register.Refused; {
		case known: // told already
		case o.Err != nil:
			tell(false)
		case why != "":
			s.complain(reg.Instance, "registration refused", "instance", reg.Instance, "worker", reg.Worker, "error", why)
			tell(false)
		default:
			if !o.Duplicate && !o.Result.Register.Known {
				s.logger.Info("Registered instance-worker by its heartbeat", "instance", reg.Instance, "worker", reg.Worker,
					"ip", reg.IP, "port", reg.Port)
			}
			tell(true)
		}
	})
	if err != nil {
		s.flights.end(reg.WorkerRef)
		return err
	}
	if known {
		tell(true)
	}
	return nil
}

// sameAddress reports that a heartbeat names the address that is known. One without a
// peer address is no news that there is none: it repeats the registration.
func sameAddress(w registry.WorkerInfo, r registry.Registration) bool {
	return w.IP == r.IP && w.Port == r.Port &&
		(r.PeerInitURL == nil || w.PeerInitURL != nil && *w.PeerInitURL == *r.PeerInitURL)
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
