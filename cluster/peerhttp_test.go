package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// testPeer is a port with server and client, without a node.
type testPeer struct {
	testPort
	*Node // only its handlePeer and callPeer
}

func startPeer(t testing.TB, id, cluster string, paths func(*Node), rooms map[string]http.Handler) testPeer {
	t.Helper()
	port := startPort(t, peerPortConfig{}, id, cluster)
	n := &Node{id: id, client: newPeerClient(port.peerPort), server: newPeerServer(port.peerPort, hclog.NewNullLogger(), rooms)}
	n.server.own, n.server.enter, n.server.leave = port.cluster.current, func() error { return nil }, func() {}
	if paths != nil {
		paths(n)
	}
	n.server.start()
	t.Cleanup(func() {
		port.Close()
		n.client.forget()
		if err := n.server.close(ctxFor(t, 10*time.Second)); err != nil {
			t.Error(err)
		}
	})
	return testPeer{port, n}
}

func (p testPeer) target() peerTarget { return peerTarget{p.Node.id, p.peerPort.Addr().String()} }

func TestPeerCall_AnswersAndSentinels(t *testing.T) {
	leader := Leader{NodeID: "n7", URL: "http://n7:9000"}
	fails := map[string]error{
		"/x/not-leader":  &NotLeaderError{leader},
		"/x/no-leader":   fmt.Errorf("held for 1s: %w", ErrNoLeader),
		"/x/unknown":     unknown(ErrNoLeader),
		"/x/stopped":     ErrStopped,
		"/x/quorum":      fmt.Errorf("remove node %q: %w", "n2", ErrQuorum),
		"/x/unreachable": ErrUnreachable,
		"/x/deadline":    context.DeadlineExceeded,
		"/x/other":       errors.New("something else"),
	}
	p := startPeer(t, "n1", "c", func(n *Node) {
		n.handlePeer("/x/echo", func(_ context.Context, from Identity, body []byte) ([]byte, error) {
			return fmt.Appendf(nil, "%s of %s says %s", from.NodeID, from.ClusterID, body), nil
		})
		for path, err := range fails {
			n.handlePeer(path, func(context.Context, Identity, []byte) ([]byte, error) { return nil, err })
		}
		n.handlePeerSized("/x/large", 1<<20, func(_ context.Context, _ Identity, body []byte) ([]byte, error) { return body, nil })
	}, nil)
	q := startPeer(t, "n2", "c", nil, nil)
	ctx := ctxFor(t, 20*time.Second)

	if b, err := q.callPeer(ctx, p.target(), "/x/echo", []byte("hello")); err != nil || string(b) != "n2 of c says hello" {
		t.Errorf("echo: %q, %v", b, err)
	}
	large := bytes.Repeat([]byte("v"), 1<<20)
	if b, err := q.callPeer(ctx, p.target(), "/x/large", large); err != nil || !bytes.Equal(b, large) {
		t.Errorf("large: %d bytes, %v", len(b), err)
	}
	for _, c := range []struct {
		path, code string
		body       []byte
		is, not    error
	}{
		{path: "/x/not-leader", code: "not_leader", is: ErrNotLeader},
		{path: "/x/no-leader", code: "no_leader", is: ErrNoLeader},
		{path: "/x/unknown", code: "unknown_outcome", is: ErrUnknownOutcome, not: ErrNoLeader},
		{path: "/x/stopped", code: codeStopping, not: ErrStopped},
		{path: "/x/quorum", code: "quorum", is: ErrQuorum},
		{path: "/x/unreachable", code: "unreachable", is: ErrUnreachable},
		{path: "/x/deadline", code: codeDeadline},
		{path: "/x/other", code: codeError},
		{path: "/x/none", code: codeNoPath},
		{path: "/x/echo", body: make([]byte, maxPeerBody+1), code: codeBodyLimit},
		{path: "/x/large", body: append(large, 'v'), code: codeBodyLimit},
	} {
		_, err := q.callPeer(ctx, p.target(), c.path, c.body)
		var e *PeerError
		if !errors.As(err, &e) || e.Code != c.code || e.Status == http.StatusOK {
			t.Errorf("%s: %v, want code %q", c.path, err, c.code)
			continue
		}
		if c.is != nil && !errors.Is(err, c.is) || c.not != nil && errors.Is(err, c.not) {
			t.Errorf("%s: %v, want %v and not %v", c.path, err, c.is, c.not)
		}
		if want := fails[c.path]; want != nil && e.Detail != want.Error() {
			t.Errorf("%s: %q, want the words %q", c.path, e.Detail, want)
		}
	}
	_, err := q.callPeer(ctx, p.target(), "/x/not-leader", nil)
	var other *NotLeaderError
	if !errors.As(err, &other) || other.Leader != leader {
		t.Errorf("%v: want the leader named", err)
	}
	// A third replica's answer goes on as it is.
	if status, b := encodePeerError(fmt.Errorf("asked: %w", decodePeerError(418, []byte(`{"code":"tea","detail":"pot"}`)))); status != 418 || b.Code != "tea" {
		t.Errorf("handed on: %d %+v", status, b)
	}
	if e := decodePeerError(502, []byte("<html>")); e.Status != 502 || !strings.Contains(e.Detail, "<html>") || e.Unwrap() != nil {
		t.Errorf("an answer of somebody else: %+v", e)
	}
}

// What cannot be reached, or is somebody else, has not been told anything.
func TestPeerCall_Unreachable(t *testing.T) {
	p, q := startPeer(t, "n1", "c", nil, nil), startPeer(t, "n2", "c", nil, nil)
	other := startPeer(t, "n3", "other", nil, nil)
	gone := startPeer(t, "n4", "c", nil, nil)
	gone.peerPort.Close()
	for _, c := range []struct {
		name string
		to   peerTarget
		code string
	}{
		{"gone", gone.target(), ""},
		{"another node at the address", peerTarget{"n9", p.target().Addr}, helloWrongNode},
		{"another cluster", other.target(), helloWrongCluster},
		{"no address", peerTarget{"n1", "nonsense"}, ""},
	} {
		_, err := q.callPeer(ctxFor(t, 10*time.Second), c.to, "/x", nil)
		var refused *helloRefused
		if !errors.Is(err, ErrUnreachable) || c.code != "" && (!errors.As(err, &refused) || refused.Code != c.code) {
			t.Errorf("%s: %v, want ErrUnreachable and code %q", c.name, err, c.code)
		}
	}
	// A wanted node and whoever is there do not share connections.
	if _, err := q.callPeer(ctxFor(t, 10*time.Second), peerTarget{"", p.target().Addr}, "/x", nil); err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("whoever is there: %v, want that it has no such path", err)
	}
}

// Who is in no cluster may ask who is there and to be let in, and nothing else; so
// may who talks to somebody in none.
func TestPeerCall_OpenPaths(t *testing.T) {
	paths := func(n *Node) {
		for _, path := range []string{pathJoin, pathFound + "agree", "/cluster/found", "/cluster/secret"} {
			n.handlePeer(path, func(context.Context, Identity, []byte) ([]byte, error) { return []byte(path), nil })
		}
	}
	rooms := map[string]http.Handler{"/rest/": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s reached its handler", r.URL.Path)
	})}
	in, out, out2 := startPeer(t, "n1", "c", paths, rooms), startPeer(t, "n2", "", paths, rooms), startPeer(t, "n3", "", paths, rooms)
	for _, c := range []struct {
		name     string
		from, to testPeer
	}{{"none to some", out, in}, {"some to none", in, out}, {"none to none", out, out2}} {
		for path, open := range map[string]bool{pathJoin: true, pathFound + "agree": true, "/cluster/found": false, "/cluster/secret": false, "/rest/pin": false} {
			b, err := c.from.callPeer(ctxFor(t, 10*time.Second), c.to.target(), path, nil)
			var e *PeerError
			if open && (err != nil || string(b) != path) || !open && (!errors.As(err, &e) || e.Code != codeCluster) {
				t.Errorf("%s, %s: %q, %v", c.name, path, b, err)
			}
		}
	}
	// It is in the cluster now: what it is on, it says on its next connection.
	if err := out.testPort.cluster.adopt("c"); err != nil {
		t.Fatal(err)
	}
	out.client.forget()
	if _, err := out.callPeer(ctxFor(t, 10*time.Second), in.target(), "/cluster/secret", nil); err != nil {
		t.Errorf("after it came in: %v", err)
	}
	if err := out.testPort.cluster.adopt("other"); err == nil || out.testPort.cluster.current() != "c" {
		t.Errorf("a node changed its cluster: %v", err)
	}
}

func TestPeerHandlers(t *testing.T) {
	answer := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			from, ok := PeerIdentity(r.Context())
			fmt.Fprintf(w, "%s %s %s %q %v from %s %v", name, r.Method, r.URL.RequestURI(), b, err, from.NodeID, ok)
		})
	}
	p := startPeer(t, "n1", "c", nil, map[string]http.Handler{"/rest/": answer("rest"), "/rest/admin/": answer("admin")})
	q := startPeer(t, "n2", "c", nil, nil)
	for path, want := range map[string]string{
		"/rest/pin?a=b":   `rest PUT /rest/pin?a=b "body" <nil> from n2 true`,
		"/rest/admin/x":   `admin PUT /rest/admin/x "body" <nil> from n2 true`,
		"/rest/../secret": `rest PUT /rest/../secret "body" <nil> from n2 true`,
	} {
		r, err := http.NewRequestWithContext(ctxFor(t, 10*time.Second), http.MethodPut, "http://elsewhere"+path, strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		w, err := q.client.send(q.client.rooms, r, p.target())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(w.Body)
		w.Body.Close()
		if err != nil || string(b) != want {
			t.Errorf("%s: %s, %v, want %s", path, b, err, want)
		}
		if r.URL.Host != "elsewhere" {
			t.Error("the request was changed")
		}
	}
}

// More requests than the server takes are answered "busy", at once; those of the two
// kinds do not take each other's places.
func TestPeerServer_Busy(t *testing.T) {
	gate := make(chan struct{})
	begun := make(chan struct{}, maxPeerForwards+maxPeerRequests)
	p := startPeer(t, "n1", "c", func(n *Node) {
		n.handlePeer("/x/wait", func(ctx context.Context, _ Identity, _ []byte) ([]byte, error) {
			begun <- struct{}{}
			<-gate
			return nil, nil
		})
	}, map[string]http.Handler{"/rest/": http.HandlerFunc(func(http.ResponseWriter, *http.Request) { begun <- struct{}{}; <-gate })})
	var clients []testPeer
	for i := range max(maxPeerRequests/maxCallConns, maxPeerForwards/maxForwardConns) {
		clients = append(clients, startPeer(t, fmt.Sprintf("c%d", i), "c", nil, nil))
	}
	done := make(chan error, maxPeerForwards+maxPeerRequests)
	fill := func(room bool, most, each int) {
		for _, c := range clients[:most/each] {
			for range each {
				go func() {
					if room {
						r, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://x/rest/", nil)
						w, err := c.client.send(c.client.rooms, r, p.target())
						if err == nil {
							w.Body.Close()
						}
						done <- err
						return
					}
					_, err := c.callPeer(context.Background(), p.target(), "/x/wait", nil)
					done <- err
				}()
			}
		}
	}
	arrived := func(requests int) {
		t.Helper()
		for range requests {
			select {
			case <-begun:
			case err := <-done:
				t.Fatalf("answered, or failed, instead of being held: %v", err)
			}
		}
	}
	last := startPeer(t, "last", "c", nil, nil)
	fill(true, maxPeerForwards, maxForwardConns)
	arrived(maxPeerForwards)
	r, _ := http.NewRequestWithContext(ctxFor(t, 10*time.Second), http.MethodGet, "http://x/rest/", nil)
	w, err := last.client.send(last.client.rooms, r, p.target())
	if err != nil || w.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one forwarded request too many: %v, %v", w, err)
	}
	fill(false, maxPeerRequests, maxCallConns)
	arrived(maxPeerRequests)
	if _, err := last.callPeer(ctxFor(t, 10*time.Second), p.target(), "/x/wait", nil); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v, want ErrBusy", err)
	}
	if got := p.server.busy.Load(); got != 2 {
		t.Errorf("%d counted, want 2", got)
	}
	close(gate)
	for range maxPeerForwards + maxPeerRequests {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Work for who has gone, or for a port that closes, is told to end.
func TestPeerServer_WorkEnds(t *testing.T) {
	began, ended := make(chan struct{}, 3), make(chan error, 3)
	p := startPeer(t, "n1", "c", func(n *Node) {
		n.handlePeer("/x/wait", func(ctx context.Context, _ Identity, _ []byte) ([]byte, error) {
			began <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		})
	}, nil)
	q := startPeer(t, "n2", "c", nil, nil)
	ctx, cancel := context.WithCancelCause(context.Background())
	answered := make(chan error, 1)
	call := func(ctx context.Context) {
		_, err := q.callPeer(ctx, p.target(), "/x/wait", []byte("x"))
		answered <- err
	}
	go call(ctx)
	<-began
	cancel(errLost)
	if err := <-answered; !errors.Is(err, errLost) || errors.Is(err, ErrUnreachable) {
		t.Errorf("given up: %v, want why, and not that nothing was sent", err)
	}
	<-ended
	go call(context.Background())
	<-began
	p.peerPort.Close()
	<-ended
	if err := <-answered; err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("the port closed under it: %v", err)
	}
}

// Headers and bodies have their time.
func TestPeerServer_Slow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1, nil)
		c.mustLead()
		host := c.memory.net.Host("peer9")
		q := startPort(t, peerPortConfig{network: host, listen: "peer9:9400"}, "n9", "in-memory")
		for _, tc := range []struct {
			name, text string
			limit      time.Duration
			answered   bool
		}{
			{"nothing", "", helloTimeout, false},
			{"half a header", "POST /cluster/join HTT", helloTimeout, false},
			{"half a body", "POST /cluster/join HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", peerBodyTimeout, true},
		} {
			begin := time.Now()
			conn, err := q.dial(context.Background(), streamHTTP, "peer1:9400", "n1")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, tc.text); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if took := time.Since(begin); err != nil || took < tc.limit || took > tc.limit+time.Second {
				t.Errorf("%s: closed after %v (%v), want %v", tc.name, took, err, tc.limit)
			}
			if tc.answered && !strings.Contains(string(answer), codeBody) {
				t.Errorf("%s: answer %q", tc.name, answer)
			}
			conn.Close()
		}
		q.Close()
		c.stop()
	})
}

func TestNode_Identity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 2, nil)
		c.mustLead()
		got, err := c.nodes[0].look(context.Background(), peerTarget{"n2", "peer2:9400"})
		want := Identity{NodeID: "n2", PeerAddr: "peer2:9400", URL: "http://n2:9000", ClusterID: "in-memory"}
		if err != nil || got.Identity != want || c.nodes[1].Identity() != want {
			t.Errorf("identity %+v, %v, want %+v", got.Identity, err, want)
		}
		c.stop()
	})
}
