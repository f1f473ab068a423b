package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/internal/simworker"
)

// badCluster is a cluster of three that is given what it must not take, and what must not
// change about it.
type badCluster struct {
	t  *testing.T
	c  *Cluster
	id string // of the cluster

	leader *Replica
	term   uint64
	state  string
	tries  int
}

// TestCluster_BadInput: what comes in on the peer port and by join and leave that no
// replica and no operator should send is refused in words, and the cluster does not
// notice: the same leader in the same term, the same members, the same state.
func TestCluster_BadInput(t *testing.T) {
	b := &badCluster{t: t, c: StartCluster(t, 3, ClusterOptions{Args: []string{"--chunk-size", "16", "--hash", "builtin@0"}})}
	first := b.c.replicas[0]
	startWorker(t, first, simworker.Options{Instance: "good"})
	var s struct {
		ClusterID string `json:"cluster_id"`
	}
	if err := b.c.get(first, "/admin/status", &s); err != nil || s.ClusterID == "" {
		t.Fatalf("cluster id %q: %v", s.ClusterID, err)
	}
	b.id = s.ClusterID
	b.c.AwaitMembers(3)
	b.note(t)
	t.Run("peer port", b.peerPort)
	t.Run("requests", b.peerRequests)
	t.Run("join", b.join)
	t.Run("leave", b.leave)
	t.Run("foreign", b.foreign)
	for _, r := range b.c.replicas {
		wantNoFaults(t, r)
	}
	t.Logf("%d cases", b.tries)
}

// note takes the present state for the right one.
func (b *badCluster) note(t *testing.T) {
	t.Helper()
	b.leader = b.c.Await()
	b.term = b.c.term(b.leader)
	b.state = b.view(t)
}

// view is the members, the fleet and the commands as the leader shows them, without times.
// Before it is looked at all replicas have the same state. Their digest itself changes: the
// leader notes in the log whom it has heard.
func (b *badCluster) view(t *testing.T) string {
	t.Helper()
	b.c.Converge()
	s, err := b.c.Status(b.leader)
	if err != nil {
		t.Fatal(err)
	}
	out := ""
	for _, m := range s.Nodes {
		out += fmt.Sprintf("%s at %s, %s, voter %v\n", m.NodeID, m.PeerAddr, m.URL, m.Voter)
	}
	for _, path := range []string{"/instances", "/events"} {
		var v any
		if err := b.c.get(b.leader, path, &v); err != nil {
			t.Fatal(err)
		}
		shown, err := json.Marshal(withoutTimes(v))
		if err != nil {
			t.Fatal(err)
		}
		out += string(shown) + "\n"
	}
	return out
}

// try runs a case and looks whether the cluster is what it was.
func (b *badCluster) try(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	b.tries++
	t.Run(name, func(t *testing.T) {
		f(t)
		leader := b.c.Await()
		if term := b.c.term(leader); leader != b.leader || term != b.term {
			tell := t.Errorf
			if raceEnabled { // beside other packages a leader may starve for a moment
				tell = t.Logf
			}
			tell("replica %d led in term %d, now replica %d leads in term %d", b.c.number(b.leader), b.term, b.c.number(leader), term)
			b.leader, b.term = leader, term
		}
		if state := b.view(t); state != b.state {
			t.Errorf("the state was %s and is %s", b.state, state)
			b.state = state
		}
	})
}

// target is a replica to send bad input to: the leader and a follower in turn.
func (b *badCluster) target() *Replica {
	if b.tries%2 == 0 {
		return b.leader
	}
	return b.c.Followers()[0]
}

// nodeID is a replica's.
func (b *badCluster) nodeID(t *testing.T, r *Replica) string {
	t.Helper()
	s, err := b.c.Status(r)
	if err != nil {
		t.Fatal(err)
	}
	return s.NodeID
}

// hello is what a replica says first on the peer port (docs/formats.md).
func hello(kind byte, version byte, fields ...string) []byte {
	b := []byte{version}
	for _, f := range fields {
		b = binary.BigEndian.AppendUint16(b, uint16(len(f)))
		b = append(b, f...)
	}
	out := binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(b)))
	return append(out, b...)
}

// welcomed reads the answer to a hello: the code of a refusal, "" for none, and its words.
func welcomed(conn net.Conn) (code, words string, err error) {
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return "", "", err
	}
	frame := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, frame); err != nil {
		return "", "", err
	}
	var fields []string
	for rest := frame[1:]; len(rest) >= 2; {
		n := int(binary.BigEndian.Uint16(rest))
		if rest = rest[2:]; n > len(rest) {
			return "", "", fmt.Errorf("answer %x is cut short", frame)
		}
		fields, rest = append(fields, string(rest[:n])), rest[n:]
	}
	if len(fields) < 4 {
		return "", "", fmt.Errorf("answer %x has %d fields, want 4", frame, len(fields))
	}
	return fields[0], fields[3], nil
}

// peerPort: connections that are no replica's.
func (b *badCluster) peerPort(t *testing.T) {
	const stranger, at = "00000000-0000-4000-8000-000000000001", "127.0.0.1:1"
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		out := make([]byte, n)
		for i := range out {
			out[i] = byte(rng.Uint32())
		}
		return out
	}
	for _, kind := range []byte{'R', 'H'} {
		for _, c := range []struct {
			name string
			send func(r *Replica) []byte
			code string // of the refusal; "" for none, the connection just ends
		}{
			{"another cluster", func(*Replica) []byte { return hello(kind, 1, "another-cluster", stranger, at, "") }, "wrong-cluster"},
			{"another node wanted", func(*Replica) []byte { return hello(kind, 1, b.id, stranger, at, "somebody-else") }, "wrong-node"},
			{"its own node id", func(r *Replica) []byte { return hello(kind, 1, b.id, b.nodeID(t, r), at, "") }, "same-node"},
			{"another version", func(*Replica) []byte { return hello(kind, 99, b.id, stranger, at, "") }, "version"},
			{"no fields", func(*Replica) []byte { return hello(kind, 1) }, "malformed"},
			{"a field beyond the frame", func(*Replica) []byte { return []byte{kind, 0, 5, 1, 255, 255, 'a', 'b'} }, "malformed"},
			{"no node id", func(*Replica) []byte { return hello(kind, 1, b.id, "", at, "") }, "malformed"},
			{"a node id of odd letters", func(*Replica) []byte { return hello(kind, 1, b.id, "a\x00\n b", at, "") }, "malformed"},
			{"no address", func(*Replica) []byte { return hello(kind, 1, b.id, stranger, "", "") }, "malformed"},
			{"a frame of 60 KB", func(*Replica) []byte { return hello(kind, 1, strings.Repeat("x", 60_000)) }, "malformed"},
			{"a frame of nothing", func(*Replica) []byte { return []byte{kind, 0, 0} }, "malformed"},
		} {
			b.try(t, fmt.Sprintf("%c: %s", kind, c.name), func(t *testing.T) {
				r := b.target()
				conn := rawConn(t, r.PeerAddr(), c.send(r))
				code, words, err := welcomed(conn)
				if err != nil || code != c.code || words == "" {
					t.Errorf("refused as %q with the words %q (%v), want %q", code, words, err, c.code)
				}
				closes(t, conn)
			})
		}
	}
	b.try(t, "raft of a node in no cluster", func(t *testing.T) {
		conn := rawConn(t, b.target().PeerAddr(), hello('R', 1, "", stranger, at, ""))
		if code, words, err := welcomed(conn); err != nil || code != "no-cluster" || words == "" {
			t.Errorf("refused as %q with the words %q (%v), want no-cluster", code, words, err)
		}
		closes(t, conn)
	})
	b.try(t, "60 streams of random bytes", func(t *testing.T) {
		for i := range 60 {
			bytes := noise(1 + rng.IntN(5000))
			if i%3 > 0 {
				bytes[0] = "RH"[i%2]
			}
			conn := rawConn(t, b.target().PeerAddr(), bytes)
			_ = conn.CloseWrite() // the other side may have closed already
			closes(t, conn)
		}
	})
	b.try(t, "slow hellos, a byte a second, from 60 clients", func(t *testing.T) {
		r, whole := b.target(), hello('R', 1, b.id, stranger, at, "")
		var conns []*net.TCPConn
		for range 60 {
			conns = append(conns, rawConn(t, r.PeerAddr(), whole[:1]))
		}
		began := time.Now()
		open := len(conns)
		for i := 1; open > 0; i++ {
			<-time.After(time.Second)
			if time.Since(began) > 12*time.Second {
				t.Fatalf("%d slow connections are still open after %s", open, time.Since(began))
			}
			open = 0
			for _, conn := range conns {
				if _, err := conn.Write(whole[i : i+1]); err == nil {
					open++
				}
			}
			b.c.must(b.leader, http.StatusOK, "/lookup", map[string]any{"tokens": []int64{1}})
		}
		t.Logf("all are closed after %s", time.Since(began).Round(time.Second))
	})
	b.try(t, "500 connections that say nothing", func(t *testing.T) {
		var conns []net.Conn
		for range 500 {
			conns = append(conns, rawConn(t, b.target().PeerAddr(), nil))
		}
		b.works(t)
		for _, conn := range conns {
			conn.Close()
		}
	})
	b.works(t)
	b.note(t)
}

// works gives one command through every live replica.
func (b *badCluster) works(t *testing.T) {
	t.Helper()
	for _, r := range b.c.Live() {
		if status, answer, err := b.c.Post(r, "/clear", map[string]any{"instance_id": "good", "location": simworker.LocalCPU}); err != nil || status != http.StatusOK {
			t.Errorf("a command through %s is answered %d %s: %v", r.URL(""), status, answer, err)
		}
	}
	b.state = b.view(t)
}

// peerRequest sends a request to the peer port as another replica of this cluster would.
func (b *badCluster) peerRequest(t *testing.T, r *Replica, cluster, request string) (status int, answer string) {
	t.Helper()
	conn := rawConn(t, r.PeerAddr(), hello('H', 1, cluster, "00000000-0000-4000-8000-000000000002", "127.0.0.1:1", ""))
	defer conn.Close()
	if code, words, err := welcomed(conn); err != nil || code != "" {
		t.Fatalf("refused as %q: %q, %v", code, words, err)
	}
	if _, err := io.WriteString(conn, request); err != nil && !hungUp(err) {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("not answered: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil && !hungUp(err) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	return resp.StatusCode, string(body)
}

// peerRequests: requests on the peer port that no replica sends.
func (b *badCluster) peerRequests(t *testing.T) {
	post := func(path string, body []byte) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: kvctrl\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	}
	tooLarge := make([]byte, fsm.MaxEntry+1)
	copy(tooLarge, fsm.NewBatch([16]byte{1}).Encode(1, 1))
	for _, c := range []struct {
		name, request string
		stranger      bool // asked by a node in no cluster
		words         string
	}{
		{"an entry over the limit", post("/cluster/propose", tooLarge), false, "larger"},
		{"an entry of 64 MB", post("/cluster/propose", make([]byte, 64<<20)), false, ""},
		{"an entry of nothing", post("/cluster/propose", nil), false, ""},
		{"an entry of garbage", post("/cluster/propose", bytes.Repeat([]byte{0xa5}, 1000)), false, ""},
		{"an entry that only a leader makes", post("/cluster/propose", fsm.EncodeRemoveMember("n1")), false, ""},
		{"an entry cut short", post("/cluster/propose", fsm.NewBatch([16]byte{1}).Encode(1, 1)[:20]), false, ""},
		{"an entry of a node in no cluster", post("/cluster/propose", fsm.NewBatch([16]byte{1}).Encode(1, 1)), true, ""},
		{"a command of a node in no cluster", post("/rest/clear", []byte(`{"instance_id":"good","location":"LocalCPUBackend"}`)), true, ""},
		{"an unknown path", post("/cluster/nothing", nil), false, ""},
		{"a read by the wrong method", "GET /cluster/propose HTTP/1.1\r\nHost: kvctrl\r\n\r\n", false, ""},
		{"no HTTP", "hello\r\n\r\n", false, ""},
		{"a header of 100 KB", "POST /cluster/propose HTTP/1.1\r\nHost: kvctrl\r\nX: " + strings.Repeat("x", 100_000) + "\r\n\r\n", false, ""},
		{"joining with garbage", post("/cluster/join", []byte("{")), true, ""},
		{"founding another cluster", post("/cluster/found/agree", []byte(`{"cluster_id":"another"}`)), true, ""},
		{"heard of garbage", post("/ingest/heard", bytes.Repeat([]byte{0xff}, 500)), false, ""},
		{"a sync slot for garbage", post("/ingest/sync-slot", bytes.Repeat([]byte{0xff}, 500)), false, ""},
	} {
		b.try(t, c.name, func(t *testing.T) {
			cluster := b.id
			if c.stranger {
				cluster = ""
			}
			status, answer := b.peerRequest(t, b.leader, cluster, c.request)
			if status < 400 || len(answer) == 0 || !strings.Contains(answer, c.words) {
				t.Errorf("answered %d %q, want a refusal with words such as %q", status, shorten(answer, 300), c.words)
			}
		})
	}
	b.works(t)
}

// refused posts what must be refused, within some seconds, in words.
func (b *badCluster) refused(t *testing.T, path string, body map[string]any, want int, words ...string) {
	t.Helper()
	began := time.Now()
	status, answer, err := b.c.Post(b.target(), path, body)
	if err != nil {
		t.Fatal(err)
	}
	var said struct{ Detail json.RawMessage }
	if err := json.Unmarshal(answer, &said); err != nil || status != want || len(said.Detail) < 10 {
		t.Errorf("POST %s %v is answered %d %s, want %d with words", path, body, status, answer, want)
	}
	for _, w := range words {
		if !strings.Contains(string(said.Detail), w) {
			t.Errorf("POST %s %v is answered %s, want %q in it", path, body, answer, w)
		}
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("POST %s %v is answered after %s", path, body, took)
	}
}

// join: nodes that cannot become members.
func (b *badCluster) join(t *testing.T) {
	used := b.nodeID(t, b.c.replicas[1])
	nobody := addr(FreePorts(t, 1))
	alone := Start(t, Options{}) // in a cluster of its own
	var s Status
	if err := b.c.get(alone, "/admin/status", &s); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", addr(FreePorts(t, 1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() }) // takes connections and says nothing
	const url = "http://127.0.0.1:1"
	for _, c := range []struct {
		name string
		body map[string]any
		want int
	}{
		{"nothing said", map[string]any{}, 422},
		{"an id of odd letters", map[string]any{"node_id": "a b\n", "peer_addr": nobody, "url": url, "voter": true}, 0},
		{"an address without a port", map[string]any{"node_id": "new", "peer_addr": "127.0.0.1", "url": url, "voter": true}, 0},
		{"a used id at an address where nobody is", map[string]any{"node_id": used, "peer_addr": nobody, "url": url, "voter": true}, 409},
		{"a used id at another member's address", map[string]any{"node_id": used, "peer_addr": b.c.replicas[2].PeerAddr(), "url": url, "voter": true}, 409},
		{"a used id at an address of another cluster", map[string]any{"node_id": used, "peer_addr": alone.PeerAddr(), "url": url, "voter": true}, 409},
		{"a new id at an address where nobody is", map[string]any{"node_id": "new", "peer_addr": nobody, "url": url, "voter": true}, 409},
		{"a new id at a member's address", map[string]any{"node_id": "new", "peer_addr": b.c.replicas[2].PeerAddr(), "url": url, "voter": true}, 409},
		{"a new id at an address that says nothing", map[string]any{"node_id": "new", "peer_addr": silent.Addr().String(), "url": url, "voter": true}, 409},
		{"a new id at a REST port", map[string]any{"node_id": "new", "peer_addr": addr(alone.Ports.REST), "url": url, "voter": true}, 409},
		{"a new id at a name that is none", map[string]any{"node_id": "new", "peer_addr": "no-such-host.invalid:9400", "url": url, "voter": true}, 409},
		{"a node of another cluster", map[string]any{"node_id": s.NodeID, "peer_addr": alone.PeerAddr(), "url": alone.URL(""), "voter": true}, 409},
	} {
		b.try(t, c.name, func(t *testing.T) {
			want := c.want
			if want == 0 {
				want = 422
			}
			b.refused(t, "/admin/join", c.body, want)
		})
	}
	if code := alone.Terminate(); code != 0 {
		t.Errorf("the other cluster's replica ended with %d", code)
	}
}

// leave: nodes that cannot leave, and leaders that cannot be.
func (b *badCluster) leave(t *testing.T) {
	for _, c := range []struct {
		name, path string
		body       map[string]any
		want       int
		words      string
	}{
		{"a node that nobody knows", "/admin/leave", map[string]any{"node_id": "nobody"}, 404, "nobody"},
		{"nobody", "/admin/leave", map[string]any{}, 422, ""},
		{"leadership to a node that nobody knows", "/admin/transfer", map[string]any{"node_id": "nobody"}, 404, "nobody"},
	} {
		b.try(t, c.name, func(t *testing.T) { b.refused(t, c.path, c.body, c.want, c.words) })
	}
	b.try(t, "one of the two that are left", func(t *testing.T) {
		followers := b.c.Followers()
		id := b.nodeID(t, followers[0])
		followers[1].Kill()
		b.refused(t, "/admin/leave", map[string]any{"node_id": id}, 409, "quorum")
		followers[1].Restart()
		b.c.Await()
		b.c.AwaitMembers(3)
	})
	b.works(t)
}

// refusals notes how many of a replica's connections were refused; await waits for more.
// Its log is no help: it names each kind of refusal once a minute.
func (b *badCluster) refusals(t *testing.T, r *Replica, metric string) (await func(what string)) {
	t.Helper()
	at := newClient(t, r)
	before, err := at.metric(metric)
	if err != nil {
		t.Fatal(err)
	}
	return func(what string) {
		t.Helper()
		Eventually(t, 20*time.Second, what, func() error {
			now, err := at.metric(metric)
			if err == nil && now <= before {
				err = fmt.Errorf("%s is still %v", metric, now)
			}
			return err
		})
	}
}

// foreign: replicas of another cluster that dial this one.
func (b *badCluster) foreign(t *testing.T) {
	// One that was formed elsewhere comes up at the address of a dead member.
	b.try(t, "at a member's address", func(t *testing.T) {
		dead := b.c.Followers()[1]
		dead.Kill()
		refused := b.refusals(t, b.leader, "kvctrl_peer_dials_refused_total")
		other := newReplica(t, Options{ports: dead.Ports})
		other.launch()
		other.AwaitReady()
		refused("the leader is refused at the dead member's address")
		if d, err := b.c.Status(other); err != nil || len(d.Nodes) != 1 {
			t.Errorf("the foreign replica has the members %+v, %v", d.Nodes, err)
		}
		b.works(t)
		if code := other.Terminate(); code != 0 {
			t.Errorf("the foreign replica ended with %d", code)
		}
		dead.Restart()
	})
	// One whose list of members was written by hand wants a member of ours for its own.
	b.try(t, "with one of us among its members", func(t *testing.T) {
		ours := b.c.Followers()[0]
		other := Start(t, Options{})
		s, err := b.c.Status(other)
		if err != nil {
			t.Fatal(err)
		}
		if code := other.Terminate(); code != 0 {
			t.Errorf("it ended with %d", code)
		}
		peers, err := json.Marshal([]map[string]any{
			{"id": s.NodeID, "address": other.PeerAddr(), "non_voter": false},
			{"id": b.nodeID(t, ours), "address": ours.PeerAddr(), "non_voter": false},
		})
		if err == nil {
			err = os.WriteFile(filepath.Join(other.DataDir, "peers.json"), peers, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		refused := b.refusals(t, ours, "kvctrl_peer_connections_refused_total")
		other.Relaunch()
		refused("ours refuses the stranger")
		Eventually(t, 20*time.Second, "the refusal in the stranger's log", func() error {
			if !other.Running() {
				return fmt.Errorf("it has ended: %s", tail(other.Log(), 1000))
			}
			if !strings.Contains(other.Log(), "another replica refused a connection") {
				return errors.New("its log has none")
			}
			return nil
		})
		other.Kill()
	})
	b.works(t)
}
