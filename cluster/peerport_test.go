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

	"github.com/kvctrl/kvctrl/internal/memnet"
)

// testPort is a peer port without a node.
type testPort struct {
	*peerPort
	cluster *clusterIdentity
}

// startPort starts one of a node in a cluster, "" for none yet.
func startPort(t testing.TB, c peerPortConfig, id, cluster string) testPort {
	t.Helper()
	if c.log == nil {
		c.log = hclog.NewNullLogger()
	}
	if c.network == nil {
		c.network, c.listen = tcpNetwork{}, "127.0.0.1:0"
	}
	p, err := listenPeers(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	k := &clusterIdentity{node: id, id: cluster}
	p.start(peerHooks{
		self:   func() Identity { return Identity{NodeID: id, PeerAddr: p.Addr().String(), ClusterID: k.current()} },
		admit:  k.admit,
		wanted: func(string) string { return "" },
	})
	return testPort{p, k}
}

func (p testPort) addr() raft.ServerAddress { return raft.ServerAddress(p.Addr().String()) }

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

func (p *peerPort) count() (all, pending, accepted, strangers int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns), len(p.pending), p.accepted, p.strangers
}

func TestPeerPort_RaftConnections(t *testing.T) {
	p, q := startPort(t, peerPortConfig{}, "n1", "c"), startPort(t, peerPortConfig{}, "n2", "c")
	out, err := q.Dial(p.addr(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := p.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if from := in.(*peerConn).from; from != (Identity{NodeID: "n2", PeerAddr: q.Addr().String(), ClusterID: "c"}) {
		t.Errorf("from %+v", from)
	}
	if _, err := io.WriteString(out, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(in).ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("raft reads %q, %v: what comes before belongs to the port", line, err)
	}

	// Close ends those that raft has, those that wait for it, and the silent.
	waiting, err := q.Dial(p.addr(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	silent := mustDial(t, p.peerPort)
	await(t, "connections", isTrue("not accepted", func() bool { all, _, _, _ := p.count(); return all == 3 }))
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, "waiting", waiting)
	wantClosed(t, "silent", silent)
	wantClosed(t, "raft's", out)
	if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after Close: %v", err)
	}
	if _, err := p.Dial(q.addr(), 10*time.Second); err == nil {
		t.Error("dial after Close")
	}
	if err := p.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if all, pending, accepted, _ := p.count(); all+pending+accepted != 0 {
		t.Errorf("%d connections, %d pending, %d accepted are still counted", all, pending, accepted)
	}
}

// A hello that is not right is refused in words, and counted.
func TestPeerPort_Hello(t *testing.T) {
	const raftOf, httpOf = streamRaft, streamHTTP
	good := hello{ClusterID: "c", NodeID: "n2", PeerAddr: "n2:9400"}
	with := func(f func(*hello)) []byte { h := good; f(&h); return h.frame() }
	for _, c := range []struct {
		name    string
		kind    byte
		own     string // cluster of who is dialled
		prepare func(*clusterIdentity)
		frame   []byte
		code    string // "" = let in
		words   string
	}{
		{name: "raft, our cluster", kind: raftOf, own: "c", frame: good.frame()},
		{name: "requests, our cluster", kind: httpOf, own: "c", frame: with(func(h *hello) { h.Wanted = "n1" })},
		{name: "another cluster", kind: raftOf, own: "other", frame: good.frame(), code: helloWrongCluster, words: `in cluster "other", not "c"`},
		{name: "another cluster, requests", kind: httpOf, own: "other", frame: good.frame(), code: helloWrongCluster},
		{name: "another node", kind: raftOf, own: "c", frame: with(func(h *hello) { h.Wanted = "n3" }), code: helloWrongNode, words: `this is node "n1", not "n3"`},
		{name: "another node, requests", kind: httpOf, own: "c", frame: with(func(h *hello) { h.Wanted = "n3" }), code: helloWrongNode},
		{name: "the same node", kind: raftOf, own: "c", frame: with(func(h *hello) { h.NodeID = "n1" }), code: helloSameNode},
		{name: "raft without a cluster", kind: raftOf, own: "c", frame: with(func(h *hello) { h.ClusterID = "" }), code: helloNoCluster},
		{name: "requests without a cluster", kind: httpOf, own: "c", frame: with(func(h *hello) { h.ClusterID = "" })},
		{name: "requests, both without a cluster", kind: httpOf, frame: with(func(h *hello) { h.ClusterID = "" })},
		{name: "requests for a node without a cluster", kind: httpOf, frame: good.frame()},
		{name: "raft, nothing agreed", kind: raftOf, frame: with(func(h *hello) { h.Wanted = "n1" }), code: helloNotExpected},
		{name: "raft, this cluster agreed", kind: raftOf, frame: good.frame(), prepare: func(k *clusterIdentity) { k.agree("c") }},
		{name: "raft, another cluster agreed", kind: raftOf, frame: with(func(h *hello) { h.Wanted = "n1" }), code: helloNotExpected,
			prepare: func(k *clusterIdentity) { k.agree("other") }},
		{name: "raft, agreement taken back", kind: raftOf, frame: good.frame(), code: helloNotExpected,
			prepare: func(k *clusterIdentity) { k.agree("c"); k.agree("") }},
		{name: "raft, the id cannot be kept", kind: raftOf, frame: good.frame(), code: helloNotExpected, words: errDisk.Error(),
			prepare: func(k *clusterIdentity) { k.agree("c"); k.keep = func(string) error { return errDisk } }},
		{name: "no node id", kind: httpOf, own: "c", frame: with(func(h *hello) { h.NodeID = "" }), code: helloMalformed},
		{name: "bad cluster id", kind: httpOf, own: "c", frame: with(func(h *hello) { h.ClusterID = "a b" }), code: helloMalformed},
		{name: "bad wanted id", kind: httpOf, own: "c", frame: with(func(h *hello) { h.Wanted = "\n" }), code: helloMalformed},
		{name: "no address", kind: httpOf, own: "c", frame: with(func(h *hello) { h.PeerAddr = "" }), code: helloMalformed},
		{name: "endless address", kind: httpOf, own: "c", frame: with(func(h *hello) { h.PeerAddr = strings.Repeat("x", maxPeerAddr+1) }), code: helloMalformed},
		{name: "another version", kind: httpOf, own: "c", frame: []byte{0, 1, 9}, code: helloVersionOther, words: "version 9 there and 1 here"},
		{name: "no length", kind: httpOf, own: "c", frame: []byte{0, 0}, code: helloMalformed},
		{name: "oversize", kind: raftOf, own: "c", frame: []byte{4, 1}, code: helloMalformed, words: "more than 1024"},
		{name: "cut short", kind: raftOf, own: "c", frame: []byte{0, 4, 1, 0, 9, 'x'}, code: helloMalformed},
		{name: "a field too few", kind: raftOf, own: "c", frame: appendHelloFrame("c", "n2", "n2:9400"), code: helloMalformed},
		{name: "a field of a later version", kind: raftOf, own: "c", frame: appendHelloFrame("c", "n2", "n2:9400", "", "more")},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPort(t, peerPortConfig{}, "n1", c.own)
			kept := ""
			p.cluster.keep = func(id string) error { kept = id; return nil }
			if c.prepare != nil {
				c.prepare(p.cluster)
			}
			conn := mustDial(t, p.peerPort)
			if _, err := conn.Write(append([]byte{c.kind}, c.frame...)); err != nil {
				t.Fatal(err)
			}
			frame, err := readHelloFrame(conn)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			w, err := parseWelcome(frame)
			if err != nil {
				t.Fatal(err)
			}
			if w.Code != c.code || !strings.Contains(w.Words, c.words) || w.NodeID != "n1" || w.Code != "" && w.Words == "" {
				t.Errorf("answer %+v, want code %q and %q", w, c.code, c.words)
			}
			if c.code != "" {
				wantClosed(t, "refused", conn)
				if p.refused.Load() != 1 {
					t.Errorf("%d refused, want 1", p.refused.Load())
				}
				if got := p.cluster.current(); got != c.own {
					t.Errorf("in cluster %q after a refusal", got)
				}
				return
			}
			l := p.toHTTP
			if c.kind == streamRaft {
				l = p.toRaft
				if c.own == "" && (kept != "c" || w.ClusterID != "c") {
					t.Errorf("cluster id %q kept and %q answered, want it kept before raft is let in", kept, w.ClusterID)
				}
			} else if p.cluster.current() != c.own {
				t.Error("a request's hello changed the cluster")
			}
			in, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			in.Close()
			if all, pending, accepted, strangers := p.count(); all+pending+accepted+strangers != 0 {
				t.Errorf("after its close: %d, %d, %d, %d", all, pending, accepted, strangers)
			}
		})
	}
}

// What is no replica at all is closed and counted.
func TestPeerPort_Strangers(t *testing.T) {
	p := startPort(t, peerPortConfig{}, "n1", "c")
	for i, bytes := range []string{"GET / HTTP/1.1\r\n\r\n", "HEAD / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00", "\x00\x00\x00\x00", strings.Repeat("\xff", 5000), "R\xff\xff"} {
		c := mustDial(t, p.peerPort)
		if _, err := io.WriteString(c, bytes); err != nil {
			t.Fatal(err)
		}
		await(t, "refused", isTrue("not counted", func() bool { return p.refused.Load() == uint64(i+1) }))
		_, _ = io.Copy(io.Discard, c) // ends: closed by the port
	}
	if all, pending, accepted, strangers := p.count(); all+pending+accepted+strangers != 0 {
		t.Errorf("left over: %d, %d, %d, %d", all, pending, accepted, strangers)
	}
}

// Who says nothing, or says it by the byte, is out after helloTimeout; and does not
// keep replicas out meanwhile.
func TestPeerPort_Slow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := memnet.New(1)
		p := startPort(t, peerPortConfig{network: net.Host("a"), listen: "a:1"}, "n1", "c")
		q := startPort(t, peerPortConfig{network: net.Host("b"), listen: "b:1"}, "n2", "c")
		stranger := net.Host("x")
		begin := time.Now()
		var ended []time.Duration
		done := make(chan time.Duration, 3*maxPending)
		for i := range 3 * maxPending {
			c, err := stranger.Dial(context.Background(), "a:1")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				if i%2 == 0 {
					_, _ = c.Read(make([]byte, 1)) // says nothing
				}
				for _, b := range append([]byte{streamHTTP}, hello{ClusterID: "c", NodeID: "n9", PeerAddr: "x:1"}.frame()...) {
					if _, err := c.Write([]byte{b}); err != nil {
						break
					}
					<-time.After(time.Second)
				}
				done <- time.Since(begin)
				c.Close()
			}()
		}
		synctest.Wait()
		if _, pending, _, _ := p.count(); pending != maxPending {
			t.Errorf("%d pending, want the limit %d", pending, maxPending)
		}
		for range 10 {
			c, err := q.Dial("a:1", time.Second)
			if err != nil {
				t.Fatalf("a replica is kept out: %v", err)
			}
			c.Close()
		}
		for range 3 * maxPending {
			ended = append(ended, <-done)
		}
		for _, d := range ended {
			if d > helloTimeout+2*time.Second {
				t.Errorf("one held out for %v", d)
			}
		}
		if got := p.refused.Load(); got != 3*maxPending {
			t.Errorf("%d refused, want %d", got, 3*maxPending)
		}
		p.Close()
		q.Close()
	})
}

// The connections of replicas are bounded, those of nodes without a cluster tighter;
// one that goes makes room.
func TestPeerPort_TooMany(t *testing.T) {
	p := startPort(t, peerPortConfig{}, "n1", "c")
	for _, c := range []struct {
		cluster string
		limit   int
	}{{"", maxStrangers}, {"c", maxPeerConns - maxStrangers}} {
		q := startPort(t, peerPortConfig{}, "n2", c.cluster)
		dial := func() (net.Conn, error) {
			conn, err := q.dial(ctxFor(t, 10*time.Second), streamHTTP, p.Addr().String(), "n1")
			if err == nil {
				go func() {
					if c, err := p.toHTTP.Accept(); err == nil {
						_, _ = io.Copy(io.Discard, c)
						c.Close()
					}
				}()
			}
			return conn, err
		}
		var last net.Conn
		for range c.limit {
			conn, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			last = conn
		}
		var refused *helloRefused
		if _, err := dial(); !errors.As(err, &refused) || refused.Code != helloFull {
			t.Fatalf("one too many of cluster %q: %v, want a refusal", c.cluster, err)
		}
		if q.dialsRefused.Load() != 1 {
			t.Errorf("%d refusals counted by the dialer, want 1", q.dialsRefused.Load())
		}
		last.Close()
		await(t, "room", func() error { _, err := dial(); return err })
	}
}

func TestPeerPort_Advertise(t *testing.T) {
	p := startPort(t, peerPortConfig{network: tcpNetwork{}, listen: "127.0.0.1:0", advertise: "replica-0.example:9400"}, "n1", "c")
	if got := p.Addr().String(); got != "replica-0.example:9400" {
		t.Errorf("address %q: a name must stay a name", got)
	}
}

// Regression for hashicorp/raft #695: a heartbeat must reach the consumer (raft's
// main loop) and never the fast path. InmemTransport has no fast path, so this
// needs the real one.
func TestRaftTransport_HeartbeatsTakeTheMainLoop(t *testing.T) {
	a := newRaftTransport(startPort(t, peerPortConfig{}, "n1", "c").peerPort, hclog.NewNullLogger())
	b := newRaftTransport(startPort(t, peerPortConfig{}, "n2", "c").peerPort, hclog.NewNullLogger())
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

func TestComplaints(t *testing.T) {
	var log strings.Builder
	c := newComplaints(hclog.New(&hclog.LoggerOptions{Output: &log}))
	for range 100 {
		c.add("a", "strange")
	}
	c.add("b", "odd")
	if n, m := strings.Count(log.String(), "strange"), strings.Count(log.String(), "odd"); n != 1 || m != 1 {
		t.Errorf("%d and %d lines, want 1 of each within a minute", n, m)
	}
}
