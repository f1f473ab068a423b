package simworker

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/lmcache"
)

// maxParts is how many messages LMCache's worker puts into one ZeroMQ message.
const maxParts = 50

// sender owns the PUSH socket: it turns operations into numbered batches and sends
// them, and all other messages, in order.
//
// Numbers count per location from 0 for the sender's life, and are given when a batch
// is made, as LMCache does.
type sender struct {
	instance string
	rank     int64
	batchOps int
	delay    time.Duration
	max      int
	sock     *zmq.Socket

	mu      sync.Mutex
	queue   []queued
	ops     int       // operations in queue
	idle    sync.Cond // on mu: queue is empty and everything was handed to the socket, or closed
	sending bool
	closed  bool
	lose    int // so many of the next messages are not sent
	sent    SentStats

	wake chan struct{} // capacity 1
	next map[string]int64
}

// queued is an operation, or a message if that is set.
type queued struct {
	location string
	op       lmcache.KVOp
	message  lmcache.Message
}

// SentStats count what a worker has sent on PUSH.
type SentStats struct {
	Messages, Operations, Lost uint64
}

func newSender(o Options, sock *zmq.Socket) *sender {
	s := &sender{instance: o.Instance, rank: o.Rank, batchOps: o.BatchOps, delay: o.BatchDelay, max: o.MaxQueued,
		sock: sock, wake: make(chan struct{}, 1), next: make(map[string]int64)}
	s.idle.L = &s.mu
	return s
}

// operation queues one event. It never blocks.
func (s *sender) operation(location string, kind lmcache.OpKind, key lmcache.Key) {
	s.enqueue(queued{location: location, op: lmcache.KVOp{Kind: kind, Key: key}}, 1)
}

// message queues a message behind all that is queued.
func (s *sender) message(m lmcache.Message) { s.enqueue(queued{message: m}, 0) }

func (s *sender) enqueue(q queued, ops int) {
	s.mu.Lock()
	if !s.closed {
		s.queue = append(s.queue, q)
		s.ops += ops
	}
	kick := len(s.queue) == 1 || s.ops >= s.batchOps || q.message != nil
	s.mu.Unlock()
	if kick {
		s.kick()
	}
}

func (s *sender) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// room waits until fewer than max operations are queued.
func (s *sender) room() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.ops >= s.max && !s.closed {
		s.idle.Wait()
	}
}

// flush waits until everything queued has been handed to the socket, or the sender has
// ended, or for at most limit.
func (s *sender) flush(limit time.Duration) bool {
	expired := false
	timer := time.AfterFunc(limit, func() {
		s.mu.Lock()
		expired = true
		s.mu.Unlock()
		s.idle.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for (len(s.queue) > 0 || s.sending) && !s.closed && !expired {
		s.idle.Wait()
	}
	return len(s.queue) == 0 && !s.sending
}

// run is owned by the Worker and ends with ctx. It blocks on its channels only.
func (s *sender) run(ctx context.Context) error {
	defer s.close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		if !s.full() { // wait for more, but not long
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(s.delay):
			}
		}
		for {
			parts, more := s.take()
			if !more {
				break
			}
			if err := s.send(ctx, parts); err != nil {
				return err
			}
		}
	}
}

func (s *sender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.sending = true, false
	s.idle.Broadcast()
}

// full reports whether what is queued should leave now.
func (s *sender) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ops >= s.batchOps
}

// take removes the next messages from the queue, encoded. Operations of a location
// share a batch of up to batchOps; a message closes the batches before it. more is
// false when there was nothing to take; what is lost on the way was.
func (s *sender) take() (parts [][]byte, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	more = len(s.queue) > 0
	open := make(map[string]*lmcache.BatchedKVOperationMsg)
	var order []*lmcache.BatchedKVOperationMsg
	flush := func() {
		for _, b := range order {
			parts = append(parts, lmcache.AppendWith(nil, b, lmcache.Options{SignedKeys: true}))
			s.sent.Operations += uint64(len(b.Operations))
		}
		clear(open)
		order = order[:0]
	}
	n := 0
	for ; n < len(s.queue) && len(parts)+len(order) < maxParts; n++ {
		q := s.queue[n]
		if q.message != nil {
			flush()
			parts = append(parts, lmcache.AppendWith(nil, q.message, lmcache.Options{SignedKeys: true}))
			continue
		}
		b := open[q.location]
		if b == nil {
			b = &lmcache.BatchedKVOperationMsg{InstanceID: s.instance, WorkerID: s.rank, Location: q.location}
			open[q.location] = b
			order = append(order, b)
		}
		q.op.Seq = s.next[q.location]
		s.next[q.location]++
		b.Operations = append(b.Operations, q.op)
		s.ops--
		if len(b.Operations) >= s.batchOps {
			delete(open, q.location)
		}
	}
	flush()
	s.queue = append(s.queue[:0], s.queue[n:]...)
	for s.lose > 0 && len(parts) > 0 {
		parts = parts[1:]
		s.lose--
		s.sent.Lost++
	}
	s.sent.Messages += uint64(len(parts))
	s.sending = more
	s.idle.Broadcast()
	return parts, more
}

// send hands one ZeroMQ message to the socket, whose queue may be full for as long as
// the controller is away.
func (s *sender) send(ctx context.Context, parts [][]byte) error {
	for i := 0; i < len(parts); {
		flags := zmq.DONTWAIT
		if i < len(parts)-1 {
			flags |= zmq.SNDMORE
		}
		_, err := s.sock.SendBytes(parts[i], flags)
		switch zmq.AsErrno(err) {
		case 0:
			if err != nil {
				return fmt.Errorf("push: %w", err)
			}
			i++
		case zmq.Errno(syscall.EAGAIN), zmq.Errno(syscall.EINTR):
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(2 * time.Millisecond):
			}
		default:
			return fmt.Errorf("push: %w", err)
		}
	}
	return nil
}

// loseNext lets the next n messages vanish, as a broken connection does.
func (s *sender) loseNext(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose += n
}

func (s *sender) stats() SentStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}
