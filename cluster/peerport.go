package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// The first byte of a connection to the peer port says what it carries.
const (
	streamRaft byte = 'R'
	streamHTTP byte = 'H'
)

const (
	// helloTimeout is how long the two ends of a connection may take for all that
	// comes before its use: TLS, first byte, hello and answer.
	helloTimeout = 5 * time.Second
	// maxPending bounds the accepted connections that have not said who they are. The
	// oldest makes room for the next: a replica says it within a round trip or two, so
	// those that hold out are nobody's. All connections of four replicas may come at
	// once, when a network is whole again.
	maxPending = 256
	// maxPeerConns bounds the accepted connections of replicas. Each other replica has
	// up to half a dozen for raft and those of the two pools (peercall.go).
	maxPeerConns = 256
	// maxStrangers bounds those among them of nodes that are in no cluster.
	maxStrangers = 32
)

// peerPort is the one port between replicas. It tells raft's connections from those
// of requests by their first byte, and lets neither through before both ends have
// said who they are.
//
// It listens from the beginning, because its address is part of what a node says of
// itself, and takes connections from start on. It is raft's stream layer.
//
// What comes in under raft's byte from a replica of this cluster is trusted: raft's
// decoders have no limits, and some bytes make them panic. Without TLS anybody can
// say such a hello: then the port must be reachable for replicas only.
type peerPort struct {
	peerPortConfig
	listener net.Listener
	addr     net.Addr // what others dial

	started chan struct{} // closed by start; hooks is set before
	hooks   peerHooks
	toRaft  handover
	toHTTP  handover

	life context.Context // ends with Close; dials obey it
	stop context.CancelFunc
	wg   sync.WaitGroup // the accept loop and connections that have not said what they are

	refused      atomic.Uint64 // accepted connections that were closed before their use
	dialsRefused atomic.Uint64 // dials that the other end refused
	warned       *complaints

	mu        sync.Mutex
	closed    bool
	conns     map[*peerConn]struct{} // all, accepted and dialled
	pending   []*peerConn            // accepted, without a hello yet, oldest first
	accepted  int                    // with one
	strangers int                    // of those, of nodes in no cluster
}

type peerPortConfig struct {
	network   Network
	listen    string
	advertise string   // "" = what it is bound to
	tls       *peerTLS // nil = none
	log       hclog.Logger
}

// peerHooks are what the port asks its node.
type peerHooks struct {
	self   func() Identity
	admit  func(kind byte, h hello) *helloRefused
	wanted func(addr string) string // the node id that raft expects at an address, "" = unknown
}

var _ raft.StreamLayer = (*peerPort)(nil)

// peerAddr is an advertised address: a name stays a name, so that each dial
// resolves it anew.
type peerAddr string

func (peerAddr) Network() string  { return "tcp" }
func (a peerAddr) String() string { return string(a) }

func listenPeers(ctx context.Context, c peerPortConfig) (*peerPort, error) {
	l, err := c.network.Listen(ctx, c.listen)
	if err != nil {
		return nil, fmt.Errorf("peer port: %w; choose another with --peer-addr, or stop who uses it", err)
	}
	c.log = c.log.Named("peer")
	p := &peerPort{
		peerPortConfig: c,
		listener:       l,
		addr:           l.Addr(),
		started:        make(chan struct{}),
		conns:          map[*peerConn]struct{}{},
	}
	p.life, p.stop = context.WithCancel(context.Background())
	if c.advertise != "" {
		p.addr = peerAddr(c.advertise)
	}
	p.toRaft, p.toHTTP = newHandover(p.life.Done(), p.addr), newHandover(p.life.Done(), p.addr)
	p.warned = newComplaints(c.log)
	if c.tls == nil {
		if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil {
			if ip := net.ParseIP(host); ip != nil && !ip.IsLoopback() {
				p.log.Warn("the peer port trusts whoever reaches it: keep it on a private network, or give --peer-tls-cert, --peer-tls-key and --peer-tls-ca", "address", l.Addr().String())
			}
		}
	}
	return p, nil
}

// start begins to take connections.
func (p *peerPort) start(h peerHooks) {
	p.hooks = h
	close(p.started)
	p.wg.Add(1)
	go p.accept()
}

// accept runs until the listener closes. Owner: peerPort; Close waits for it.
func (p *peerPort) accept() {
	defer p.wg.Done()
	var pause time.Duration
	for {
		raw, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || p.life.Err() != nil {
				return
			}
			// Out of file descriptors, most likely: others may give some back.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			p.warned.add("accept", "cannot accept a connection", "error", err)
			select {
			case <-time.After(pause):
				continue
			case <-p.life.Done():
				return
			}
		}
		pause = 0
		c, evicted, err := p.trackAccepted(raw)
		if err != nil { // closing
			raw.Close()
			continue
		}
		if evicted != nil {
			evicted.abort()
			p.warned.add("pending", "too many connections that do not say who they are, the oldest is closed; is something else pointed at the peer port?",
				"peer", evicted.RemoteAddr().String(), "limit", maxPending)
		}
		p.wg.Add(1)
		go p.receive(c)
	}
}

// receive brings an accepted connection to whom it is for. It ends within
// helloTimeout, or when whom it is for takes it, or at Close.
func (p *peerPort) receive(c *peerConn) {
	defer p.wg.Done()
	kind, err := p.welcome(c)
	if err != nil {
		p.refused.Add(1)
		var said *helloRefused
		if errors.As(err, &said) {
			p.warned.add("refused "+said.Code, "connection to the peer port refused", "peer", c.RemoteAddr().String(), "reason", said.Words)
		} else if !errors.Is(err, io.EOF) { // a port scan or a health check says nothing
			p.warned.add("hello", "connection to the peer port closed before it said who it is; is something else pointed at it?",
				"peer", c.RemoteAddr().String(), "error", err)
		}
		c.abort()
		return
	}
	to := p.toRaft
	if kind == streamHTTP {
		to = p.toHTTP
	}
	if !to.give(c) {
		c.abort()
	}
}

// welcome hears who dials and for what, and answers.
func (p *peerPort) welcome(c *peerConn) (kind byte, err error) {
	if err := c.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return 0, err
	}
	if p.tls != nil {
		if err := c.secure(p.life, tls.Server(c.raw, p.tls.server())); err != nil {
			return 0, fmt.Errorf("TLS: %w", err)
		}
	}
	var first [1]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		return 0, err
	}
	kind = first[0]
	if kind != streamRaft && kind != streamHTTP {
		return 0, fmt.Errorf("unknown first byte %#02x", kind)
	}
	frame, err := readHelloFrame(c)
	if err != nil && !errors.Is(err, errHelloSize) {
		return 0, err
	}
	var h hello
	said := refuse(helloMalformed, "%v", err)
	if err == nil {
		if h, said = parseHello(frame); said == nil {
			said = p.hooks.admit(kind, h)
		}
	}
	c.from = Identity{NodeID: h.NodeID, PeerAddr: h.PeerAddr, ClusterID: h.ClusterID}
	if said == nil && !p.promote(c) {
		said = refuse(helloFull, "too many connections are open, the limit is %d", maxPeerConns)
	}
	self := p.hooks.self()
	answer := welcome{NodeID: self.NodeID, ClusterID: self.ClusterID}
	if said != nil {
		answer.Code, answer.Words = said.Code, said.Words
		said.welcome = answer
	}
	if _, err := c.Write(answer.frame()); err != nil {
		return 0, err
	}
	if said != nil {
		return 0, said
	}
	return kind, c.SetDeadline(time.Time{})
}

// dial opens a connection for kind to a replica, whoever it is when wanted is "".
// An error means that nothing of the caller's was sent.
func (p *peerPort) dial(ctx context.Context, kind byte, addr, wanted string) (*peerConn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, helloTimeout, fmt.Errorf("no answer within %v: %w", helloTimeout, context.DeadlineExceeded))
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	select {
	case <-p.started:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	raw, err := p.network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c, err := p.trackDialled(raw)
	if err != nil {
		raw.Close()
		return nil, err
	}
	// The deadline is ctx's; its end in another way closes the connection.
	unhook := context.AfterFunc(ctx, c.abort)
	err = p.introduce(ctx, c, kind, addr, wanted)
	if !unhook() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.abort()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return c, nil
}

// introduce says who we are and hears who is there.
func (p *peerPort) introduce(ctx context.Context, c *peerConn, kind byte, addr, wanted string) error {
	if p.tls != nil {
		if err := c.secure(ctx, tls.Client(c.raw, p.tls.client(addr))); err != nil {
			p.warned.add("tls "+addr, "TLS with another replica failed", "peer", addr, "error", err)
			return fmt.Errorf("TLS: %w", err)
		}
	}
	self := p.hooks.self()
	h := hello{ClusterID: self.ClusterID, NodeID: self.NodeID, PeerAddr: self.PeerAddr, Wanted: wanted}
	if _, err := c.Write(append([]byte{kind}, h.frame()...)); err != nil {
		return err
	}
	frame, err := readHelloFrame(c)
	if err != nil {
		return fmt.Errorf("hello was not answered: %w", err)
	}
	w, err := parseWelcome(frame)
	if err != nil {
		return err
	}
	c.from = Identity{NodeID: w.NodeID, PeerAddr: addr, ClusterID: w.ClusterID}
	if w.Code != "" {
		p.dialsRefused.Add(1)
		p.warned.add(addr+w.Code, "another replica refused a connection", "peer", addr, "reason", w.Words)
		return &helloRefused{w}
	}
	return nil
}

// Accept gives raft its next connection.
func (p *peerPort) Accept() (net.Conn, error) { return p.toRaft.Accept() }

// Dial opens a raft connection to another replica.
func (p *peerPort) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(p.life, timeout)
	defer cancel()
	select {
	case <-p.started:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c, err := p.dial(ctx, streamRaft, string(addr), p.hooks.wanted(string(addr)))
	if err != nil {
		return nil, err // not a nil *peerConn
	}
	return c, nil
}

// Addr is the address that other replicas dial.
func (p *peerPort) Addr() net.Addr { return p.addr }

// Close stops listening, closes every connection and waits for the port's
// goroutines. It may be called more than once.
func (p *peerPort) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.wg.Wait()
		return nil
	}
	p.closed = true
	conns := make([]*peerConn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()

	p.stop()
	err := p.listener.Close()
	for _, c := range conns {
		c.abort()
	}
	p.wg.Wait()
	return err
}

// trackAccepted takes note of a new connection, and says which one has to go for it.
func (p *peerPort) trackAccepted(raw net.Conn) (c, evicted *peerConn, err error) {
	c = &peerConn{Conn: raw, raw: raw, port: p, state: connPending}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil, net.ErrClosed
	}
	if len(p.pending) >= maxPending {
		evicted = p.pending[0]
		p.pending = slices.Delete(p.pending, 0, 1)
		evicted.state = connOther
	}
	p.pending = append(p.pending, c)
	p.conns[c] = struct{}{}
	return c, evicted, nil
}

func (p *peerPort) trackDialled(raw net.Conn) (*peerConn, error) {
	c := &peerConn{Conn: raw, raw: raw, port: p, state: connOther}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	p.conns[c] = struct{}{}
	return c, nil
}

// promote makes a pending connection one of a replica, if there is room.
func (p *peerPort) promote(c *peerConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	stranger := c.from.ClusterID == ""
	if c.state != connPending || p.accepted >= maxPeerConns || stranger && p.strangers >= maxStrangers {
		return false
	}
	p.pending = slices.DeleteFunc(p.pending, func(o *peerConn) bool { return o == c })
	c.state = connAccepted
	p.accepted++
	if stranger {
		c.state = connStranger
		p.strangers++
	}
	return true
}

func (p *peerPort) forget(c *peerConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	switch c.state {
	case connPending:
		p.pending = slices.DeleteFunc(p.pending, func(o *peerConn) bool { return o == c })
	case connStranger:
		p.strangers--
		p.accepted--
	case connAccepted:
		p.accepted--
	}
	c.state = connOther
}
