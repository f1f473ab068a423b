package cluster

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func mustListen(t *testing.T) *peerPort {
	t.Helper()
	p, err := listenPeers(context.Background(), "127.0.0.1:0", "", hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func mustDial(t *testing.T, p *peerPort) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func wantClosed(t *testing.T, what string, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%s: read gives %v, want a closed connection", what, err)
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Errorf("%s: still open", what)
	}
}

func TestPeerPort_FirstByte(t *testing.T) {
	p := mustListen(t)
	web := mustDial(t, p)
	if _, err := io.WriteString(web, "GET / HTTP/1.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, "a web browser", web)
	if p.refused.Load() != 1 {
		t.Errorf("%d refused, want 1", p.refused.Load())
	}

	out, err := p.Dial(raft.ServerAddress(p.Addr().String()), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := p.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(out, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(in).ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("raft reads %q, %v: the first byte belongs to the port", line, err)
	}

	// Close ends those that raft has, those that wait for it, and the silent.
	waiting, silent := mustDial(t, p), mustDial(t, p)
	if _, err := waiting.Write([]byte{streamRaft}); err != nil {
		t.Fatal(err)
	}
	await(t, "connections", isTrue("not accepted", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.conns) == 4 }))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, "waiting", waiting)
	wantClosed(t, "silent", silent)
	wantClosed(t, "raft's", out)
	if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after Close: %v", err)
	}
	if _, err := p.Dial(raft.ServerAddress(p.Addr().String()), time.Second); err == nil {
		t.Error("dial after Close")
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestPeerPort_TooMany(t *testing.T) {
	p := mustListen(t)
	var conns []net.Conn
	for range maxPeerConns {
		conns = append(conns, mustDial(t, p))
	}
	await(t, "connections", isTrue("not accepted", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.conns) == maxPeerConns }))
	wantClosed(t, "one too many", mustDial(t, p))
	// One that goes makes room.
	if err := conns[0].Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "room", func() error {
		c, err := p.Dial(raft.ServerAddress(p.Addr().String()), time.Second)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// A connection that never says what it is does not stay.
func TestPeerPort_SilentConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &peerPort{log: hclog.NewNullLogger(), done: make(chan struct{}), conns: map[*peerConn]struct{}{}}
		near, far := net.Pipe()
		c, err := p.track(near)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		p.wg.Add(1)
		p.route(c)
		if took := time.Since(begin); took != firstByteTimeout {
			t.Errorf("closed after %v, want %v", took, firstByteTimeout)
		}
		if _, err := far.Write([]byte{streamRaft}); err == nil || len(p.conns) != 0 {
			t.Errorf("write to it: %v, %d connections known", err, len(p.conns))
		}
	})
}

func TestPeerPort_Advertise(t *testing.T) {
	p, err := listenPeers(context.Background(), "127.0.0.1:0", "replica-0.example:9400", hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := p.Addr().String(); got != "replica-0.example:9400" {
		t.Errorf("address %q: a name must stay a name", got)
	}
}

// Regression for hashicorp/raft #695: a heartbeat must reach the consumer (raft's
// main loop) and never the fast path. InmemTransport has no fast path, so this
// needs the real one.
func TestRaftTransport_HeartbeatsTakeTheMainLoop(t *testing.T) {
	a, b := newRaftTransport(mustListen(t), hclog.NewNullLogger()), newRaftTransport(mustListen(t), hclog.NewNullLogger())
	defer a.close()
	defer b.close()
	var tr raft.Transport = b
	tr.SetHeartbeatHandler(func(raft.RPC) { t.Error("a heartbeat took the fast path") })

	answered := make(chan error, 1)
	go func() {
		select {
		case rpc := <-b.Consumer():
			req, ok := rpc.Command.(*raft.AppendEntriesRequest)
			if !ok || req.Term != 3 {
				rpc.Respond(nil, errors.New("not the heartbeat"))
				return
			}
			rpc.Respond(&raft.AppendEntriesResponse{Term: 3, Success: true}, nil)
		case <-time.After(20 * time.Second):
		}
	}()
	go func() {
		var resp raft.AppendEntriesResponse
		// As raft's heartbeat goroutine builds it: term and leader, nothing else.
		err := a.AppendEntries("b", b.LocalAddr(), &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a"), Addr: []byte(a.LocalAddr())}, Term: 3,
		}, &resp)
		if err == nil && !resp.Success {
			err = errors.New("no success")
		}
		answered <- err
	}()
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if _, ok := tr.(raft.WithPreVote); !ok {
		t.Error("pre-vote is hidden from raft")
	}
}

func TestPeerPort_Complaints(t *testing.T) {
	var log strings.Builder
	p := &peerPort{log: hclog.New(&hclog.LoggerOptions{Output: &log})}
	for range 100 {
		p.complain("strange")
	}
	if n := strings.Count(log.String(), "strange"); n != 1 {
		t.Errorf("%d lines of 100 complaints within a second, want 1", n)
	}
}
