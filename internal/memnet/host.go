package memnet

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"
)

const (
	// firstEphemeral is the first port given to who asks for any.
	firstEphemeral = 40000
	// backlog is how many connections wait for Accept; the next dial waits.
	backlog = 64
	// dialTimeout ends a dial whose context does not, as TCP gives up on its SYN.
	dialTimeout = 2 * time.Minute
)

var errDialTimeout = errors.New("nobody answered")

// Host is one host of a network: it listens and dials.
type Host struct {
	net  *Network
	name string

	// of net.mu
	ports map[int]*listener
	next  int
	down  bool
	lives int // how often it went down
}

// Listen opens a port of this host. Port 0 is any free one. ctx is not used: nothing
// here waits.
func (h *Host) Listen(_ context.Context, addr string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "memnet", Err: err}
	}
	a, err := parse(addr, h.name)
	if err != nil {
		return fail(err)
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	switch {
	case a.host != h.name:
		return fail(syscall.EADDRNOTAVAIL)
	case h.down:
		return fail(syscall.ENETDOWN)
	}
	if a.port == 0 {
		a.port = h.ephemeral()
	}
	if h.ports[a.port] != nil {
		return fail(syscall.EADDRINUSE)
	}
	l := &listener{host: h, addr: a, queue: make(chan *conn, backlog), done: make(chan struct{})}
	h.ports[a.port] = l
	h.net.wakeDials()
	return l, nil
}

// Dial connects to a port of any host. It takes one round trip of the two links, and
// waits while one of them is cut, the target's backlog is full, and ctx lasts.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "memnet", Err: err}
	}
	to, err := parse(addr, h.name)
	if err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errDialTimeout)
	defer cancel()
	h.net.mu.Lock()
	life := h.lives
	h.net.mu.Unlock()
	arrived := false // the round trip is over
	for {
		c, trip, changed, err := h.dialNow(life, to, arrived)
		if err != nil {
			return fail(err)
		}
		if c != nil {
			return c, nil
		}
		var timer *time.Timer
		var over <-chan time.Time
		if changed == nil {
			timer = time.NewTimer(trip)
			over = timer.C
		}
		select {
		case <-over:
			arrived = true
		case <-changed:
			arrived = false // sent again
		case <-ctx.Done():
			if timer != nil {
				timer.Stop()
			}
			return fail(ctx.Err())
		}
	}
}

// dialNow connects when nothing is in the way and this host has not been down since. Else it says how long the round trip
// takes, or gives a channel that closes when it is worth trying anew.
func (h *Host) dialNow(life int, to address, arrived bool) (c *conn, trip time.Duration, changed <-chan struct{}, err error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if h.down || h.lives != life {
		return nil, 0, nil, syscall.ENETDOWN
	}
	out, in := n.link(h.name, to.host), n.link(to.host, h.name)
	if out.cut || in.cut {
		return nil, 0, n.changes(), nil
	}
	if !arrived {
		if trip = n.transit(out) + n.transit(in); trip > 0 {
			return nil, trip, nil, nil
		}
	}
	target := n.hosts[to.host]
	if target == nil || target.down || target.ports[to.port] == nil {
		return nil, 0, nil, syscall.ECONNREFUSED
	}
	l := target.ports[to.port]
	if len(l.queue) == cap(l.queue) {
		return nil, 0, n.changes(), nil
	}
	ours, theirs := n.connect(address{h.name, h.ephemeral()}, to)
	l.queue <- theirs // there is room, and only holders of mu send
	return ours, 0, nil, nil
}

// Down ends whatever runs on this host, as kill -9 does: listeners close, and every
// connection breaks. The other end learns it unless the way there is cut; then when
// it is healed.
func (h *Host) Down() {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	h.down = true
	h.lives++
	for _, l := range h.ports {
		l.close()
	}
	for _, c := range n.ordered() {
		if c.local.host != h.name || c.broken {
			continue
		}
		c.breakOff()
		if peer := c.peer; peer.broken || peer.closed {
			continue
		} else if peer.in.way.cut {
			peer.in.resetHeld = true
		} else {
			peer.breakOff()
		}
	}
	n.wakeDials()
}

// Up lets the host listen and dial again.
func (h *Host) Up() {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.down = false
}

// ephemeral gives a port that nobody uses yet. It needs mu.
func (h *Host) ephemeral() int {
	h.next++
	if h.next > 65535 {
		h.next = firstEphemeral
	}
	for h.ports[h.next] != nil {
		h.next++
	}
	return h.next
}

// listener is an open port.
type listener struct {
	host  *Host
	addr  address
	queue chan *conn    // sent to with mu held
	done  chan struct{} // closed with mu held
	over  bool          // of mu
}

func (l *listener) Addr() net.Addr { return l.addr }

// Accept waits for the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done: // before what is still queued
		return nil, l.closedError()
	default:
	}
	select {
	case c := <-l.queue:
		l.host.net.mu.Lock()
		l.host.net.wakeDials()
		l.host.net.mu.Unlock()
		return c, nil
	case <-l.done:
		return nil, l.closedError()
	}
}

func (l *listener) closedError() error {
	return &net.OpError{Op: "accept", Net: "memnet", Addr: l.addr, Err: net.ErrClosed}
}

// Close closes the port. Connections that nobody has accepted break; those that
// were accepted stay.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.over {
		return l.closedError()
	}
	l.close()
	l.host.net.wakeDials()
	return nil
}

// close needs mu.
func (l *listener) close() {
	if l.over {
		return
	}
	l.over = true
	close(l.done)
	delete(l.host.ports, l.addr.port)
	for {
		select {
		case c := <-l.queue:
			c.breakOff()
			if c.peer.in.way.cut {
				c.peer.in.resetHeld = true
			} else {
				c.peer.breakOff()
			}
		default:
			return
		}
	}
}
