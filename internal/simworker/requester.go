package simworker

import (
	"context"
	"errors"
	"fmt"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/internal/zmqwake"
	"github.com/kvctrl/kvctrl/lmcache"
)

// errNoAnswer is what a question gets whose answer does not come in time.
var errNoAnswer = errors.New("no answer in time")

// requester owns a DEALER socket. Questions go one after the other; after a timeout
// the socket is replaced, so that the late answer cannot be taken for the next one's.
type requester struct {
	zctx    *zmq.Context
	url     string
	timeout time.Duration
	wake    *zmqwake.Waker
	asks    chan question
	done    chan struct{} // closed when run has returned
}

type question struct {
	m      lmcache.Message
	answer chan answered // capacity 1
}

type answered struct {
	m   lmcache.Message
	err error
}

func newRequester(zctx *zmq.Context, url string, timeout time.Duration) (*requester, error) {
	wake, err := zmqwake.New(zctx)
	if err != nil {
		return nil, err
	}
	return &requester{zctx: zctx, url: url, timeout: timeout, wake: wake,
		asks: make(chan question), done: make(chan struct{})}, nil
}

// ask sends m and waits for the answer. Any goroutine.
func (r *requester) ask(ctx context.Context, m lmcache.Message) (lmcache.Message, error) {
	q := question{m, make(chan answered, 1)}
	select {
	case r.asks <- q:
	case <-r.done:
		return nil, errors.New("the worker has ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case a := <-q.answer:
		return a.m, a.err
	case <-r.done:
		return nil, errors.New("the worker has ended")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run is owned by the Worker and ends with ctx. It blocks on its channel, and in a
// poll while an answer is awaited.
func (r *requester) run(ctx context.Context) error {
	defer r.wake.Close()
	defer close(r.done)
	stop := context.AfterFunc(ctx, r.wake.Wake)
	defer stop()
	var sock *zmq.Socket
	defer func() {
		if sock != nil {
			sock.Close()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case q := <-r.asks:
			if sock == nil {
				var err error
				if sock, err = dial(r.zctx, zmq.DEALER, r.url); err != nil {
					return err
				}
			}
			m, err := r.exchange(ctx, sock, q.m)
			if errors.Is(err, errNoAnswer) {
				sock.Close()
				sock = nil
			}
			q.answer <- answered{m, err}
		}
	}
}

func (r *requester) exchange(ctx context.Context, sock *zmq.Socket, m lmcache.Message) (lmcache.Message, error) {
	if _, err := sock.SendMessage("", lmcache.AppendWith(nil, m, lmcache.Options{SignedKeys: true})); err != nil {
		return nil, fmt.Errorf("ask %s: %w", r.url, err)
	}
	poller := zmq.NewPoller()
	poller.Add(sock, zmq.POLLIN)
	poller.Add(r.wake.Socket(), zmq.POLLIN)
	until := time.Now().Add(r.timeout)
	for {
		wait := time.Until(until)
		if wait <= 0 {
			return nil, fmt.Errorf("ask %s for an answer to %s: %w", r.url, m.Type(), errNoAnswer)
		}
		if _, err := poller.Poll(wait); err != nil && !again(err) {
			return nil, fmt.Errorf("ask %s: %w", r.url, err)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		r.wake.Drain()
		frames, err := sock.RecvMessageBytes(zmq.DONTWAIT)
		if again(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", r.url, err)
		}
		return lmcache.Decode(frames[len(frames)-1]) // LMCache's worker reads the last frame
	}
}
