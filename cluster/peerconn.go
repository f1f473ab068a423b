package cluster

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/internal/seldom"
)

// peerConn is a connection that the port knows of until it closes.
type peerConn struct {
	net.Conn          // the raw one, or TLS over it
	raw      net.Conn // never waits for the other end to close
	port     *peerPort
	from     Identity  // who is at the other end; set by the hello
	state    connState // of port.mu

	// writeLimit is how long one Write may take, 0 = what the deadline says. Set before
	// the connection is used.
	writeLimit time.Duration

	once sync.Once
}

// connState says in which of the port's counts a connection is.
type connState uint8

const (
	connOther    connState = iota // dialled, or gone
	connPending                   // accepted, has not said who it is
	connAccepted                  // of a replica in a cluster
	connStranger                  // of one in none
)

// secure puts TLS over the connection and shakes hands.
func (c *peerConn) secure(ctx context.Context, over *tls.Conn) error {
	if err := over.HandshakeContext(ctx); err != nil {
		return err
	}
	c.Conn = over
	return nil
}

func (c *peerConn) Write(b []byte) (int, error) {
	if c.writeLimit > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.writeLimit)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// Close closes the connection and forgets it. TLS says goodbye, which takes some
// seconds at most.
func (c *peerConn) Close() (err error) { return c.close(c.Conn) }

// abort closes the connection without a word to the other end.
func (c *peerConn) abort() { _ = c.close(c.raw) }

func (c *peerConn) close(conn net.Conn) (err error) {
	c.once.Do(func() {
		err = conn.Close()
		c.port.forget(c)
	})
	return err
}

// handover gives connections to whom they are for. It is a net.Listener.
type handover struct {
	conns chan net.Conn
	done  <-chan struct{}
	addr  net.Addr
}

func newHandover(done <-chan struct{}, addr net.Addr) handover {
	return handover{conns: make(chan net.Conn), done: done, addr: addr}
}

// give returns when the connection is taken, or false when nobody will.
func (h handover) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		return false
	}
}

// Accept waits for the next connection.
func (h handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close does nothing: the port closes.
func (handover) Close() error { return nil }

// Addr is the port's.
func (h handover) Addr() net.Addr { return h.addr }

// maxComplaints bounds the kinds that are remembered.
const maxComplaints = 64

// complaints logs each kind of complaint at most once a minute; the counters have
// the rest.
type complaints struct {
	log    hclog.Logger
	limits seldom.Limiter
}

func newComplaints(log hclog.Logger) *complaints {
	return &complaints{log: log, limits: seldom.Limiter{Every: time.Minute, Max: maxComplaints}}
}

func (c *complaints) add(kind, msg string, pairs ...any) {
	if _, ok := c.limits.Due(kind, time.Now()); ok {
		c.log.Warn(msg, pairs...)
	}
}
