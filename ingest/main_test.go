package ingest

import (
	"context"
	"crypto/rand"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	zmq "github.com/pebbe/zmq4"
	"go.uber.org/goleak"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What cmd puts in: the contracts hold.
var (
	_ Log    = submitter{}
	_ Leader = (*cluster.Node)(nil)
	_ State  = (*fsm.FSM)(nil)
)

// submitter is how a replica's batches reach the log.
type submitter struct{ *cluster.Node }

func (s submitter) Propose(ctx context.Context, entry []byte) (cluster.Applied, error) {
	return s.Submit(ctx, entry)
}

// memLog is a replicated log of one replica in memory: the real state machine behind
// a mutex. fault, if set, decides for each attempt whether the entry is applied and
// what the proposer is told.
type memLog struct {
	*fsm.FSM
	mu      sync.Mutex
	index   uint64
	entries [][]byte // applied
	fault   func(entry []byte) (apply bool, err error)
	hold    chan struct{} // not nil: attempts wait until it is closed
	waiting chan struct{} // not nil: told when an attempt begins to wait
	takes   time.Duration // that an attempt takes, as with a disk; fixed
}

func newMemLog() *memLog { return &memLog{FSM: fsm.New(fsm.Options{})} }

func (l *memLog) Propose(ctx context.Context, entry []byte) (cluster.Applied, error) {
	l.mu.Lock()
	hold, waiting := l.hold, l.waiting
	l.mu.Unlock()
	if hold != nil {
		if waiting != nil {
			waiting <- struct{}{}
		}
		select {
		case <-hold:
		case <-ctx.Done():
			return cluster.Applied{}, cluster.ErrUnknownOutcome
		}
	}
	if l.takes > 0 {
		select {
		case <-time.After(l.takes):
		case <-ctx.Done():
			return cluster.Applied{}, cluster.ErrUnknownOutcome
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	apply, err := true, error(nil)
	if l.fault != nil {
		apply, err = l.fault(entry)
	}
	if !apply {
		return cluster.Applied{}, err
	}
	l.index++
	l.entries = append(l.entries, entry)
	result := l.Apply(&raft.Log{Index: l.index, Term: 1, Type: raft.LogCommand, Data: entry})
	if err != nil {
		return cluster.Applied{}, err
	}
	return cluster.Applied{Index: l.index, Result: result}, nil
}

// pause makes attempts wait until the returned function is called.
func (l *memLog) pause() (resume func()) {
	hold := make(chan struct{})
	l.mu.Lock()
	l.hold = hold
	l.mu.Unlock()
	return func() {
		l.mu.Lock()
		l.hold = nil
		l.mu.Unlock()
		close(hold)
	}
}

func (l *memLog) fail(fault func([]byte) (bool, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = fault
}

func (l *memLog) applied() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

func session() (s registry.SessionID) {
	rand.Read(s[:])
	return s
}

// rig is a Server on free ports in front of a memLog.
type rig struct {
	t    testing.TB
	s    *Server
	log  *memLog
	zctx *zmq.Context
}

// start runs a Server; change may alter its options.
func start(t testing.TB, change func(*Options)) *rig {
	t.Helper()
	log := newMemLog()
	o := Options{
		Log: log, State: log, Session: session(), Host: "127.0.0.1",
		PullPorts: []int{AnyPort, AnyPort}, ReplyPort: AnyPort, HeartbeatPort: AnyPort,
		Logger: hclog.New(&hclog.LoggerOptions{Output: &testWriter{t: t}, Level: hclog.Debug}),
	}
	if change != nil {
		change(&o)
	}
	r := &rig{t: t, s: New(o), log: log}
	if err := r.s.Open(); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { served <- r.s.Serve(ctx) }()
	zctx, err := zmq.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	r.zctx = zctx
	t.Cleanup(func() { // after the sockets of the test, which are closed by their own cleanups
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := r.s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := zctx.Term(); err != nil {
			t.Errorf("term: %v", err)
		}
	})
	return r
}

// testWriter sends log lines to the test, until it ends.
type testWriter struct {
	t    testing.TB
	mu   sync.Mutex
	over bool
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.t.Log(string(p))
	}
	return len(p), nil
}

const patience = 10 * time.Second

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.After(patience); !ok(); {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// client is a socket of a worker.
type client struct {
	t    testing.TB
	sock *zmq.Socket
	req  bool
}

func (r *rig) dial(kind zmq.Type, port int) *client {
	r.t.Helper()
	sock, err := r.zctx.NewSocket(kind)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { sock.Close() })
	must(r.t, sock.SetLinger(0))
	must(r.t, sock.SetRcvtimeo(patience))
	must(r.t, sock.SetSndtimeo(patience))
	must(r.t, sock.Connect(endpoint(port)))
	return &client{t: r.t, sock: sock, req: kind == zmq.REQ}
}

func (r *rig) dealer() *client    { return r.dial(zmq.DEALER, r.s.Ports().Reply) }
func (r *rig) heartbeat() *client { return r.dial(zmq.DEALER, r.s.Ports().Heartbeat) }
func (r *rig) push() *client      { return r.dial(zmq.PUSH, r.s.Ports().Pull[0]) }

// send sends messages: a PUSH as the parts of one, a DEALER one request each.
func (c *client) raw(frames ...[]byte) {
	c.t.Helper()
	_, err := c.sock.SendMessage(frames)
	must(c.t, err)
}

func (c *client) request(m lmcache.Message) {
	c.t.Helper()
	if c.req {
		c.raw(lmcache.Append(nil, m))
	} else {
		c.raw(nil, lmcache.Append(nil, m))
	}
}

func (c *client) parts(ms ...lmcache.Message) {
	c.t.Helper()
	var frames [][]byte
	for _, m := range ms {
		frames = append(frames, lmcache.Append(nil, m))
	}
	c.raw(frames...)
}

// answer receives one answer.
func (c *client) answer() lmcache.Message {
	c.t.Helper()
	frames, err := c.sock.RecvMessageBytes(0)
	must(c.t, err)
	if !c.req && (len(frames) != 2 || len(frames[0]) != 0) {
		c.t.Fatalf("answer of %d frames, want an empty one and the payload", len(frames))
	}
	m, err := lmcache.Decode(frames[len(frames)-1])
	must(c.t, err)
	return m
}

func (c *client) ask(m lmcache.Message) lmcache.Message {
	c.t.Helper()
	c.request(m)
	return c.answer()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ptr[T any](v T) *T { return &v }

// Messages of worker i/1 unless said otherwise.
func registerMsg(instance string) *lmcache.RegisterMsg {
	return &lmcache.RegisterMsg{InstanceID: instance, WorkerID: 1, IP: "10.0.0.1", Port: 8001, PeerInitURL: ptr("10.0.0.1:8201")}
}

func heartbeatMsg(instance string) *lmcache.HeartbeatMsg {
	return (*lmcache.HeartbeatMsg)(registerMsg(instance))
}

func opsMsg(instance, location string, first int64, keys ...lmcache.Key) *lmcache.BatchedKVOperationMsg {
	m := &lmcache.BatchedKVOperationMsg{InstanceID: instance, WorkerID: 1, Location: location}
	for i, k := range keys {
		m.Operations = append(m.Operations, lmcache.KVOp{Key: k, Seq: first + int64(i)})
	}
	return m
}

func ref(instance string) registry.WorkerRef {
	return registry.WorkerRef{Instance: instance, Worker: 1}
}

func (r *rig) register(instance string) {
	r.t.Helper()
	if m := r.dealer().ask(registerMsg(instance)); m.Type() != "RegisterRetMsg" {
		r.t.Fatalf("registration was answered with %s", m.Type())
	}
}

// keys is how many (chunk, location) pairs a worker holds.
func (r *rig) keys(instance string) int64 {
	info, _ := r.log.Registry().Worker(ref(instance))
	return info.Keys
}

// settled waits until everything sent on PULL that was taken is applied.
func (r *rig) settled() {
	r.t.Helper()
	eventually(r.t, "everything taken is applied", func() bool {
		st := r.s.Stats()
		return st.Pull.Active == 0 && st.QueueBytes == 0
	})
}

func endpoint(port int) string { return "tcp://127.0.0.1:" + strconv.Itoa(port) }

// smallFSM is a state machine with other limits.
func smallFSM(o registry.Options) *fsm.FSM { return fsm.New(fsm.Options{Registry: o}) }
