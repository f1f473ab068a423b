package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// The first byte of a connection to the peer port says what it carries.
const streamRaft byte = 'R'

const (
	// firstByteTimeout is how long a new connection may take to say what it is.
	firstByteTimeout = 5 * time.Second
	// maxPeerConns bounds the connections of the peer port, both ways. A replica
	// needs about a dozen; the rest is someone else's.
	maxPeerConns = 256
)

// peerPort is the one port between replicas. It is raft's stream layer, and hands
// each accepted connection to whom its first byte names; raft is the only one so
// far.
//
// What comes in under raft's byte is trusted: raft's decoders have no limits, and
// some bytes make them panic. The port must be reachable for replicas only.
type peerPort struct {
	listener  net.Listener
	advertise net.Addr
	log       hclog.Logger

	raftConns chan net.Conn
	done      chan struct{}
	wg        sync.WaitGroup // the accept loop and connections that have not said what they are

	refused atomic.Uint64 // connections closed for their first byte, or for there being too many
	warned  atomic.Int64  // unix second of the last complaint

	mu     sync.Mutex
	closed bool
	conns  map[*peerConn]struct{} // accepted and dialled
}

var _ raft.StreamLayer = (*peerPort)(nil)

// peerAddr is an advertised address: a name stays a name, so that each dial
// resolves it anew.
type peerAddr string

func (peerAddr) Network() string  { return "tcp" }
func (a peerAddr) String() string { return string(a) }

func listenPeers(ctx context.Context, addr, advertise string, log hclog.Logger) (*peerPort, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("peer port: %w; choose another with --peer-addr, or stop who uses it", err)
	}
	p := &peerPort{
		listener:  l,
		advertise: l.Addr(),
		log:       log.Named("peer"),
		raftConns: make(chan net.Conn),
		done:      make(chan struct{}),
		conns:     map[*peerConn]struct{}{},
	}
	if advertise != "" {
		p.advertise = peerAddr(advertise)
	}
	if host, _, err := net.SplitHostPort(l.Addr().String()); err == nil {
		if ip := net.ParseIP(host); ip != nil && !ip.IsLoopback() {
			p.log.Warn("the peer port trusts whoever reaches it: keep it on a private network", "address", l.Addr().String())
		}
	}
	p.wg.Add(1)
	go p.accept()
	return p, nil
}

// accept runs until the listener closes. Owner: peerPort; Close waits for it.
func (p *peerPort) accept() {
	defer p.wg.Done()
	var pause time.Duration
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, most likely: others may give some back.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			p.complain("cannot accept a connection", "error", err)
			select {
			case <-time.After(pause):
				continue
			case <-p.done:
				return
			}
		}
		pause = 0
		c, err := p.track(conn)
		if err != nil {
			p.refused.Add(1)
			p.complain("connection refused", "peer", conn.RemoteAddr().String(), "error", err)
			conn.Close()
			continue
		}
		p.wg.Add(1)
		go p.route(c)
	}
}

// route reads a connection's first byte and hands it on. It ends within
// firstByteTimeout, or when whom it is for takes it, or at Close.
func (p *peerPort) route(c *peerConn) {
	defer p.wg.Done()
	var first [1]byte
	err := c.SetReadDeadline(time.Now().Add(firstByteTimeout))
	if err == nil {
		_, err = io.ReadFull(c, first[:])
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	switch {
	case err != nil:
	case first[0] == streamRaft:
		select {
		case p.raftConns <- c:
			return
		case <-p.done:
		}
	default:
		p.refused.Add(1)
		p.complain("connection with an unknown first byte closed; is something else pointed at the peer port?",
			"peer", c.RemoteAddr().String(), "byte", fmt.Sprintf("%#02x", first[0]))
	}
	c.Close()
}

// complain logs at most once a minute; the counter has the rest.
func (p *peerPort) complain(msg string, pairs ...any) {
	now, last := time.Now().Unix(), p.warned.Load()
	if now-last >= 60 && p.warned.CompareAndSwap(last, now) {
		p.log.Warn(msg, append(pairs, "refused", p.refused.Load())...)
	}
}

// Accept gives raft its next connection.
func (p *peerPort) Accept() (net.Conn, error) {
	select {
	case c := <-p.raftConns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Dial opens a raft connection to another replica.
func (p *peerPort) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	deadline := time.Now().Add(timeout)
	conn, err := net.DialTimeout("tcp", string(addr), timeout)
	if err != nil {
		return nil, err
	}
	c, err := p.track(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	err = c.SetWriteDeadline(deadline)
	if err == nil {
		_, err = c.Write([]byte{streamRaft})
	}
	if err == nil {
		err = c.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Addr is the address that other replicas dial.
func (p *peerPort) Addr() net.Addr { return p.advertise }

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

	close(p.done)
	err := p.listener.Close()
	for _, c := range conns {
		c.Close()
	}
	p.wg.Wait()
	return err
}

// peerConn is a connection that the port knows of until it closes.
type peerConn struct {
	net.Conn
	port *peerPort
	once sync.Once
}

func (p *peerPort) track(conn net.Conn) (*peerConn, error) {
	c := &peerConn{Conn: conn, port: p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	if len(p.conns) >= maxPeerConns {
		return nil, fmt.Errorf("%d connections are open, the limit", len(p.conns))
	}
	p.conns[c] = struct{}{}
	return c, nil
}

// Close closes the connection and forgets it.
func (c *peerConn) Close() (err error) {
	c.once.Do(func() {
		err = c.Conn.Close()
		c.port.mu.Lock()
		delete(c.port.conns, c)
		c.port.mu.Unlock()
	})
	return err
}
