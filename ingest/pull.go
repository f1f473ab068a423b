package ingest

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/internal/zmqwake"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// puller owns one PULL socket. Every part of a message is a complete message of its
// own; a bad one does not touch the others (I5). When the queue is full it does not
// read, and libzmq's queue and then the worker's own hold what follows.
type puller struct {
	s     *Server
	sock  *zmq.Socket
	wake  *zmqwake.Waker
	name  string
	ended atomic.Bool

	runs runs
	keys []registry.Key
}

// run is owned by Server.Serve and ends after stop. It blocks in the poll and, at the
// queue's bound, in the batcher.
func (p *puller) run() error {
	poller := zmq.NewPoller()
	poller.Add(p.sock, zmq.POLLIN)
	poller.Add(p.wake.Socket(), zmq.POLLIN)
	for !p.ended.Load() {
		if _, err := poller.Poll(-1); err != nil && !interrupted(err) {
			return fmt.Errorf("poll %s: %w", p.name, err)
		}
		p.wake.Drain()
		for !p.ended.Load() {
			more, err := p.take()
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
	}
	// What had arrived when the stop came would be lost with the socket. Bounded, since
	// workers go on sending.
	for range maxRest {
		if more, err := p.take(); err != nil || !more {
			return err
		}
	}
	return nil
}

// maxRest is how many messages are still taken at a stop: libzmq's own queue of a few
// busy workers.
const maxRest = 4096

// take handles one message, if one has arrived.
func (p *puller) take() (more bool, err error) {
	parts, from, err := receive(p.sock)
	if interrupted(err) {
		p.s.stats.pull.more.Store(false)
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("receive on %s: %w", p.name, err)
	}
	p.s.stats.pull.more.Store(true) // until an attempt to receive finds nothing
	p.s.stats.pull.active.Add(1)
	for _, part := range parts {
		p.s.stats.pull.messages.Add(1)
		p.part(part, from)
	}
	p.s.stats.pull.active.Add(-1)
	return true, nil
}

// stop makes run return. Any goroutine.
func (p *puller) stop() {
	p.ended.Store(true)
	p.wake.Wake()
}

// part handles one message.
func (p *puller) part(frame []byte, from string) {
	s := p.s
	m, err := lmcache.Decode(frame)
	if err != nil {
		s.bad(lmcache.ReasonOf(err), from, p.name, err)
		return
	}
	at := micros(s.opts.Now())
	switch m := m.(type) {
	case *lmcache.BatchedKVOperationMsg:
		w := worker(m.InstanceID, m.WorkerID)
		s.note(w, at, false)
		s.countOps(m.Operations)
		err = p.runs.cut(registry.StreamRef{WorkerRef: w, Location: m.Location}, m.Operations, at, p.ops)
	case *lmcache.KVAdmitMsg:
		err = p.single(worker(m.InstanceID, m.WorkerID), m.Location, m.Key, lmcache.Admit, at)
	case *lmcache.KVEvictMsg:
		err = p.single(worker(m.InstanceID, m.WorkerID), m.Location, m.Key, lmcache.Evict, at)
	case *lmcache.FullSyncBatchMsg:
		w := worker(m.InstanceID, m.WorkerID)
		s.note(w, at, false)
		err = p.syncBatch(registry.SyncBatch{Stream: registry.StreamRef{WorkerRef: w, Location: m.Location},
			SyncID: m.SyncID, BatchID: m.BatchID, At: at}, m.Keys)
	case *lmcache.FullSyncEndMsg:
		w := worker(m.InstanceID, m.WorkerID)
		s.note(w, at, false)
		end := registry.SyncEnd{Stream: registry.StreamRef{WorkerRef: w, Location: m.Location},
			SyncID: m.SyncID, TotalKeys: m.ActualTotalKeys, At: at}
		err = s.queue.add(asEvent, 0, func(b *fsm.Batch) int { return b.SyncEnd(end) }, nil)
	case *lmcache.DeRegisterMsg:
		w := worker(m.InstanceID, m.WorkerID)
		err = s.queue.add(asEvent, 0, func(b *fsm.Batch) int { return b.Deregister(w, at) }, s.deregistered(w))
	case *lmcache.RegisterMsg: // of LMCache up to 0.3.11: there is no answer
		reg := registration(m, at)
		s.note(reg.WorkerRef, at, false)
		err = s.queue.add(asEvent, 0, func(b *fsm.Batch) int { return b.Register(reg) }, s.registered(reg))
	case *lmcache.HeartbeatMsg: // the same
		err = s.heartbeat(m, asEvent, nil)
	default:
		s.refuse(m, from, p.name)
		return
	}
	if err != nil {
		s.refused(m, from, p.name, err)
	}
}

func (p *puller) ops(o registry.Ops) error {
	return p.s.queue.add(asEvent, len(o.Keys), func(b *fsm.Batch) int { return b.Ops(o) }, nil)
}

// syncBatch takes one batch of a full sync, in several records if it is large. Only
// the last carries the batch's number: the registry adds the keys of a batch that was
// not announced and waits for it on, so a batch of which a part was given up is missing.
func (p *puller) syncBatch(b registry.SyncBatch, keys []lmcache.Key) error {
	for id := b.BatchID; ; keys = keys[maxSyncRun:] {
		last := len(keys) <= maxSyncRun
		b.BatchID = notAnnounced
		if last {
			b.BatchID = id
		}
		p.keys = toKeys(p.keys[:0], keys[:min(len(keys), maxSyncRun)])
		b.Keys = p.keys
		err := p.s.queue.add(asEvent, 0, func(e *fsm.Batch) int { return e.SyncBatch(b) }, nil)
		if err != nil || last {
			return err
		}
	}
}

// single takes an event of LMCache up to 0.3.10: one operation without a number.
func (p *puller) single(w registry.WorkerRef, location string, key lmcache.Key, kind lmcache.OpKind, at registry.Micros) error {
	ops := []lmcache.KVOp{{Kind: kind, Key: key}}
	p.s.note(w, at, false)
	p.s.countOps(ops)
	o := p.runs.run(registry.StreamRef{WorkerRef: w, Location: location}, ops, false, at)
	o.Numbered = false
	return p.ops(o)
}

func (s *Server) countOps(ops []lmcache.KVOp) {
	admits := 0
	for i := range ops {
		if ops[i].Kind == lmcache.Admit {
			admits++
		}
	}
	s.stats.admits.Add(uint64(admits))
	s.stats.evicts.Add(uint64(len(ops) - admits))
}

// bad counts a frame that is no message, and complains about its sender.
func (s *Server) bad(reason lmcache.Reason, from, socket string, err error) {
	if n := s.stats.bad[reason]; n != nil {
		n.Add(1)
	}
	s.complain(from, "bad frame", "socket", socket, "reason", string(reason), "error", err)
}

// refuse counts a message that this socket does not take.
func (s *Server) refuse(m lmcache.Message, from, socket string) {
	why := RefusedWrongSocket
	if lmcache.IsOrchestrator(m) {
		// LMCache executes these here: whoever reached the port could clear caches.
		why = RefusedOrchestrator
	}
	s.stats.refused[why].Add(1)
	s.complain(from, "message refused", "socket", socket, "type", m.Type(), "reason", string(why))
}

// refused counts a message that could not go towards the log.
func (s *Server) refused(m lmcache.Message, from, socket string, err error) {
	switch {
	case errors.Is(err, errTooLarge):
		s.bad(reasonTooLong, from, socket, fmt.Errorf("%s: a name longer than %d bytes, or more keys than a log entry of %d bytes holds: %w",
			m.Type(), fsm.MaxName, fsm.MaxEntry, err))
	case errors.Is(err, errQueueFull):
		s.stats.refused[RefusedQueueFull].Add(1)
		s.complain(from, "message refused", "socket", socket, "type", m.Type(), "reason", string(RefusedQueueFull))
	default:
		s.stats.refused[RefusedShuttingDown].Add(1)
	}
}

const (
	// complaintPause is between two lines about one sender; maxSenders are remembered.
	complaintPause = time.Minute
	maxSenders     = 1024
)

func (s *Server) complain(from, msg string, args ...any) {
	if suppressed, ok := s.complaints.Due(from, s.opts.Now()); ok {
		s.logger.Warn(msg, append(args, "peer", from, "suppressed", suppressed)...)
	}
}

func worker(instance string, id lmcache.WorkerID) registry.WorkerRef {
	return registry.WorkerRef{Instance: instance, Worker: id}
}

func registration(m *lmcache.RegisterMsg, at registry.Micros) registry.Registration {
	return registry.Registration{WorkerRef: worker(m.InstanceID, m.WorkerID),
		IP: m.IP, Port: m.Port, PeerInitURL: m.PeerInitURL, At: at}
}
