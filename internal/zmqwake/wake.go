// Package zmqwake wakes a goroutine that waits in a ZeroMQ poll.
//
// A ZeroMQ socket belongs to one goroutine, which usually sleeps in a poll over it.
// Nothing on the Go side (a channel, a context) can end that sleep; only another
// socket in the same poll can. A Waker is that other socket: Wake may be called from
// any goroutine, and makes Socket readable.
//
// Callers: ingest, internal/simworker. Goroutines: one per Waker, which owns the
// sending end; Close waits for it.
package zmqwake

import (
	"fmt"
	"sync"
	"sync/atomic"

	zmq "github.com/pebbe/zmq4"
)

// Waker is an in-process pair of sockets with a level: any number of calls of Wake
// between two calls of Drain are one wake-up.
type Waker struct {
	recv *zmq.Socket
	wake chan struct{} // capacity 1: the level
	stop chan struct{}
	once sync.Once
	done sync.WaitGroup
}

// numbers keeps the endpoints of one process apart; contexts may be shared.
var numbers atomic.Uint64

// New makes a Waker whose sockets live in zctx. Close must be called before zctx is
// terminated.
func New(zctx *zmq.Context) (*Waker, error) {
	endpoint := fmt.Sprintf("inproc://wake-%d", numbers.Add(1))
	recv, err := zctx.NewSocket(zmq.PAIR)
	if err != nil {
		return nil, fmt.Errorf("wake-up socket: %w", err)
	}
	send, err := zctx.NewSocket(zmq.PAIR)
	if err != nil {
		recv.Close()
		return nil, fmt.Errorf("wake-up socket: %w", err)
	}
	err = recv.Bind(endpoint)
	if err == nil {
		err = send.Connect(endpoint)
	}
	if err != nil {
		recv.Close()
		send.Close()
		return nil, fmt.Errorf("wake-up socket %s: %w", endpoint, err)
	}
	w := &Waker{recv: recv, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	w.done.Add(1)
	go w.pump(send)
	return w, nil
}

// pump is owned by the Waker and ends with Close. It blocks on nothing but its
// channels: when the pair is full the poller has wake-ups enough.
func (w *Waker) pump(send *zmq.Socket) {
	defer w.done.Done()
	defer send.Close()
	for {
		select {
		case <-w.stop:
			return
		case <-w.wake:
			_, _ = send.SendBytes(nil, zmq.DONTWAIT)
		}
	}
}

// Wake makes Socket readable. Any goroutine; never blocks; after Close it does
// nothing.
func (w *Waker) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Socket is the receiving end, for the poller only.
func (w *Waker) Socket() *zmq.Socket { return w.recv }

// Drain takes the wake-ups off Socket. The poller only.
func (w *Waker) Drain() {
	for {
		if _, err := w.recv.RecvBytes(zmq.DONTWAIT); err != nil {
			return
		}
	}
}

// Close ends the pump, waits for it, and closes Socket: call it when the poller has
// ended.
func (w *Waker) Close() {
	w.once.Do(func() { close(w.stop) })
	w.done.Wait()
	w.recv.Close()
}
