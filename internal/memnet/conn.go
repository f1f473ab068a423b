package memnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Window is how many bytes are under way in one direction of a connection, from the
// writer's hand to the reader's; then the writer waits.
const Window = 256 << 10

// conn is one end of a connection. Its fields are of net.mu.
type conn struct {
	net           *Network
	local, remote address
	peer          *conn
	in, out       *pipe

	closed    bool // by its owner
	broken    bool // by the network
	readBy    time.Time
	writeBy   time.Time
	changed   chan struct{} // closed when who waits should look again; nil while nobody does
	nextWrite chan struct{} // the right to write, so that writes do not mix
}

var _ net.Conn = (*conn)(nil)

// connect makes both ends. It needs mu.
func (n *Network) connect(from, to address) (a, b *conn) {
	out, in := n.link(from.host, to.host), n.link(to.host, from.host)
	there, back := &pipe{net: n, way: out, back: in}, &pipe{net: n, way: in, back: out}
	a = &conn{net: n, local: from, remote: to, in: back, out: there, nextWrite: make(chan struct{}, 1)}
	b = &conn{net: n, local: to, remote: from, in: there, out: back, nextWrite: make(chan struct{}, 1)}
	a.peer, b.peer = b, a
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	return a, b
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) between(a, b string) bool {
	return c.local.host == a && c.remote.host == b || c.local.host == b && c.remote.host == a
}

// Read waits for bytes.
func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		c.net.mu.Lock()
		now := time.Now()
		err := c.usable(now, c.readBy)
		if err == nil {
			var k int
			if k, err = c.in.read(b, now); k > 0 {
				c.peer.wake() // there is room
				c.net.mu.Unlock()
				return k, nil
			}
		}
		changed, until := c.changes(), earlier(c.readBy, c.in.arrival())
		c.net.mu.Unlock()
		if err == io.EOF {
			return 0, err
		}
		if err != nil {
			return 0, c.opError("read", err)
		}
		wait(changed, now, until)
	}
}

// Write hands b over, and waits while the window is full.
func (c *conn) Write(b []byte) (done int, err error) {
	if err := c.beginWrite(); err != nil {
		return 0, c.opError("write", err)
	}
	defer func() { <-c.nextWrite }()
	for {
		c.net.mu.Lock()
		now := time.Now()
		if err = c.usable(now, c.writeBy); err == nil {
			err = c.reachable()
		}
		if err == nil {
			if k := c.out.write(b[done:], now); k > 0 {
				done += k
				c.peer.wake()
			}
		}
		changed, until := c.changes(), c.writeBy
		c.net.mu.Unlock()
		if err != nil {
			return done, c.opError("write", err)
		}
		if done == len(b) {
			return done, nil
		}
		wait(changed, now, until)
	}
}

// beginWrite waits for other writes to end.
func (c *conn) beginWrite() error {
	for {
		c.net.mu.Lock()
		now := time.Now()
		err := c.usable(now, c.writeBy)
		changed, until := c.changes(), c.writeBy
		c.net.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case c.nextWrite <- struct{}{}:
			return nil
		default:
		}
		timer, over := after(now, until)
		select {
		case c.nextWrite <- struct{}{}:
			stop(timer)
			return nil
		case <-changed:
		case <-over:
		}
		stop(timer)
	}
}

// usable says why nothing can be done. It needs mu.
func (c *conn) usable(now, by time.Time) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case !by.IsZero() && !now.Before(by):
		return os.ErrDeadlineExceeded
	case c.broken:
		return syscall.ECONNRESET
	}
	return nil
}

// reachable is an error when the other end has closed and the word of it can come
// back. It needs mu.
func (c *conn) reachable() error {
	if c.peer.closed && !c.out.way.cut && !c.out.back.cut {
		return syscall.EPIPE
	}
	return nil
}

func (c *conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "memnet", Source: c.local, Addr: c.remote, Err: err}
}

// Close ends this end. What was written still arrives, and then the end of it.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.opError("close", net.ErrClosed)
	}
	c.closed = true
	if !c.broken {
		c.out.end(time.Now())
		delete(c.net.conns, c)
		c.peer.wake()
	}
	c.in.drop()
	c.wake()
	return nil
}

// breakOff makes this end fail from now on. It needs mu.
func (c *conn) breakOff() {
	if c.broken || c.closed {
		return
	}
	c.broken = true
	c.in.drop()
	delete(c.net.conns, c)
	c.wake()
}

func (c *conn) SetDeadline(t time.Time) error      { return c.setDeadline(&c.readBy, &c.writeBy, t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.setDeadline(&c.readBy, nil, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(nil, &c.writeBy, t) }

func (c *conn) setDeadline(read, write *time.Time, t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.opError("set", net.ErrClosed)
	}
	if read != nil {
		*read = t
	}
	if write != nil {
		*write = t
	}
	c.wake()
	return nil
}

// changes needs mu.
func (c *conn) changes() <-chan struct{} {
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.changed
}

// wake needs mu.
func (c *conn) wake() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// wait returns when changed closes or until is reached; a zero until never is.
func wait(changed <-chan struct{}, now, until time.Time) {
	timer, over := after(now, until)
	select {
	case <-changed:
	case <-over:
	}
	stop(timer)
}

func after(now, until time.Time) (*time.Timer, <-chan time.Time) {
	if until.IsZero() {
		return nil, nil
	}
	timer := time.NewTimer(until.Sub(now))
	return timer, timer.C
}

func stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}

// earlier gives the earlier one of two times, of which a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
