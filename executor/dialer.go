package executor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	zmq "github.com/pebbe/zmq4"
)

// Dialer is how bytes reach a worker. LMCache's in-process plane answers on a ZMQ REP
// socket; its next generation is commanded over HTTP, behind the same interface.
type Dialer interface {
	// Ask sends one request to a worker and waits for its reply until ctx ends.
	//
	// At most once: it never sends twice, and a request that has not left when Ask
	// returns never leaves later.
	// Errors: errUnreachable proves that the worker did not get the request; any
	// other error leaves that open.
	// Concurrency: may be called from any number of goroutines.
	Ask(ctx context.Context, addr string, request []byte) ([]byte, error)
}

// errUnreachable is returned by Dialer.Ask, with the reason, when there was no
// connection to send on.
var errUnreachable = errors.New("no connection")

func unreachable(cause error) error { return fmt.Errorf("%w: %w", errUnreachable, cause) }

const (
	// connectWait bounds the wait for a connection. A worker that is alive but busy
	// still accepts one: its socket is served by libzmq's own thread.
	connectWait = 5 * time.Second
	// maxReply bounds a worker's answer, which is a few numbers or an error text.
	maxReply = 1 << 20
	// checkEvery is how often a waiting Ask looks at its context: libzmq cannot wait
	// for both. An answer itself is seen at once.
	checkEvery = 50 * time.Millisecond
)

// zmqDialer speaks REQ to a worker's REP, with a socket per request. LMCache keeps
// one REQ for a worker's life, and one lost answer wedges it for good; its unsent
// requests are delivered to whoever appears at that address later. A fresh socket
// that queues nothing without a connection (IMMEDIATE) and drops what is unsent when
// it closes (LINGER 0) has neither fault, and costs a local connection, about 0.2 ms.
//
// libzmq is told an address only after a plain connection to it was made and dropped.
// libzmq looks names up in the one thread that serves all sockets, tries a refused
// address until we give up, never says why, and takes port 70000 for 4464.
type zmqDialer struct {
	// sockets bounds the connections at a time: a libzmq context holds 1 023 sockets,
	// and each that waits holds an OS thread.
	sockets chan struct{}
}

func newZMQDialer() *zmqDialer { return &zmqDialer{sockets: make(chan struct{}, 512)} }

// Ask implements Dialer.
func (d *zmqDialer) Ask(ctx context.Context, addr string, request []byte) (reply []byte, err error) {
	select {
	case d.sockets <- struct{}{}:
		defer func() { <-d.sockets }()
	case <-ctx.Done():
		return nil, unreachable(fmt.Errorf("%d other requests were under way all the time", cap(d.sockets)))
	}
	connecting, cancel := context.WithTimeout(ctx, connectWait)
	defer cancel()
	endpoint, err := probe(connecting, addr)
	if err != nil {
		return nil, unreachable(err)
	}
	s, err := zmq.NewSocket(zmq.REQ)
	if err != nil {
		return nil, unreachable(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := configure(s); err != nil {
		return nil, unreachable(err)
	}
	if err := s.Connect(endpoint); err != nil {
		return nil, unreachable(fmt.Errorf("connect %s: %w", endpoint, err))
	}
	if err := poll(connecting, func() error { _, err := s.SendBytes(request, 0); return err }); err != nil {
		return nil, unreachable(fmt.Errorf("it takes connections and does not speak ZeroMQ: %w", err))
	}
	var parts [][]byte
	err = poll(ctx, func() (err error) { parts, err = s.RecvMessageBytes(0); return err })
	if err != nil {
		return nil, err
	}
	return parts[0], nil // LMCache's answers are one part; further ones mean nothing
}

// probe makes sure that something listens at host:port, and returns where, for libzmq.
func probe(ctx context.Context, addr string) (endpoint string, err error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if host == "" { // net takes it for this machine
		return "", errors.New("the address has no host")
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return "tcp://" + conn.RemoteAddr().String(), nil
}

func configure(s *zmq.Socket) error {
	return errors.Join(
		s.SetLinger(0),
		s.SetImmediate(true),
		s.SetSndtimeo(checkEvery),
		s.SetRcvtimeo(checkEvery),
		s.SetMaxmsgsize(maxReply),
		s.SetIpv6(true),
	)
}

// poll repeats a socket call that gives up after checkEvery until it is done or ctx
// ends. The deadline is read off the clock: in a process that was stopped, its timer has
// not run yet.
func poll(ctx context.Context, call func() error) error {
	deadline, limited := ctx.Deadline()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if limited && !time.Now().Before(deadline) {
			return context.DeadlineExceeded
		}
		err := call()
		switch zmq.AsErrno(err) {
		case zmq.Errno(0):
			return err
		case zmq.Errno(syscall.EAGAIN), zmq.Errno(syscall.EINTR):
			continue
		}
		return err
	}
}
