package httpapi

import (
	"cmp"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/ingest"
	"github.com/kvctrl/kvctrl/internal/promptkeys"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// fakeNode is a replica that leads, unless told otherwise.
type fakeNode struct {
	follows  bool
	leader   cluster.Leader // of a follower; empty: nobody leads
	place    func() (leads bool, leader cluster.Leader)
	id       string // n1
	identity cluster.Identity
	ready    error
	read     func(ctx context.Context, r cluster.Read) (cluster.Freshness, error)
	snapshot func(ctx context.Context) error
	join     func(ctx context.Context, r cluster.JoinRequest) (cluster.JoinResult, error)
	leave    func(ctx context.Context, nodeID string, force bool) error
	transfer func(ctx context.Context, nodeID string) error
	toLeader http.RoundTripper
	status   cluster.Status
	counters cluster.Counters
}

var _ Node = (*fakeNode)(nil)

func (n *fakeNode) NodeID() string             { return cmp.Or(n.id, "n1") }
func (n *fakeNode) Identity() cluster.Identity { return n.identity }
func (n *fakeNode) now() (leads bool, leader cluster.Leader) {
	switch {
	case n.place != nil:
		return n.place()
	case n.follows:
		return false, n.leader
	}
	return true, cluster.Leader{NodeID: "n1", URL: "http://n1:9000"}
}
func (n *fakeNode) IsLeader() bool { leads, _ := n.now(); return leads }
func (n *fakeNode) Leader() (cluster.Leader, bool) {
	_, l := n.now()
	return l, l.NodeID != ""
}
func (n *fakeNode) LeaderTransport() http.RoundTripper {
	if n.toLeader == nil {
		return roundTripper(func(*http.Request) (*http.Response, error) { return nil, cluster.ErrNoLeader })
	}
	return n.toLeader
}
func (n *fakeNode) Join(ctx context.Context, r cluster.JoinRequest) (cluster.JoinResult, error) {
	if n.join != nil {
		return n.join(ctx, r)
	}
	return cluster.JoinResult{}, cluster.ErrUnreachable
}
func (n *fakeNode) Leave(ctx context.Context, nodeID string, force bool) error {
	if n.leave != nil {
		return n.leave(ctx, nodeID, force)
	}
	return cluster.ErrUnknownNode
}
func (n *fakeNode) Transfer(ctx context.Context, nodeID string) error {
	if n.transfer != nil {
		return n.transfer(ctx, nodeID)
	}
	return cluster.ErrNotVoter
}
func (n *fakeNode) Status() cluster.Status     { return n.status }
func (n *fakeNode) Counters() cluster.Counters { return n.counters }
func (n *fakeNode) Ready() error               { return n.ready }
func (n *fakeNode) Read(ctx context.Context, r cluster.Read) (cluster.Freshness, error) {
	if n.read != nil {
		return n.read(ctx, r)
	}
	return cluster.Freshness{Index: 7, Staleness: 1500 * time.Microsecond}, nil
}
func (n *fakeNode) Snapshot(ctx context.Context) error {
	if n.snapshot != nil {
		return n.snapshot(ctx)
	}
	return nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// fakeState is a registry of its own.
type fakeState struct {
	reg      atomic.Pointer[registry.Registry]
	applied  func() uint64
	digested uint64 // index of the digest
}

func newState() *fakeState {
	s := &fakeState{applied: func() uint64 { return 7 }, digested: 8}
	s.reg.Store(registry.New(registry.Options{Shards: 4}))
	return s
}

func (s *fakeState) Registry() *registry.Registry { return s.reg.Load() }
func (s *fakeState) Applied() uint64              { return s.applied() }
func (s *fakeState) Digest() (uint64, registry.Digest) {
	return s.digested, s.Registry().Digest()
}
func (s *fakeState) Stats() fsm.Stats {
	return fsm.Stats{Entries: 21, Operations: 22, Duplicates: 23, Restores: 24}
}

// fakeExecutor answers what the test says.
type fakeExecutor struct {
	do     func(ctx context.Context, c executor.Command) (registry.Event, error)
	health func(ctx context.Context, instance string, deadline time.Duration) ([]executor.WorkerHealth, error)
	stats  executor.Stats
}

func (e *fakeExecutor) Do(ctx context.Context, c executor.Command) (registry.Event, error) {
	if e.do != nil {
		return e.do(ctx, c)
	}
	return registry.Event{}, &executor.UnknownInstanceError{Instance: c.Source.Instance}
}

func (e *fakeExecutor) Health(ctx context.Context, instance string, deadline time.Duration) ([]executor.WorkerHealth, error) {
	if e.health != nil {
		return e.health(ctx, instance, deadline)
	}
	return nil, nil
}
func (e *fakeExecutor) Stats() executor.Stats { return e.stats }

type fakeIngest struct{ stats ingest.Stats }

func (i *fakeIngest) Stats() ingest.Stats { return i.stats }

// rig is a server on fakes.
type rig struct {
	t     testing.TB
	node  *fakeNode
	state *fakeState
	exec  *fakeExecutor
	in    *fakeIngest
	s     *Server
}

func newRig(t testing.TB, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, node: &fakeNode{}, state: newState(), exec: &fakeExecutor{}, in: &fakeIngest{}}
	o := Options{Node: r.node, State: r.state, Executor: r.exec, Ingest: r.in, Addr: "127.0.0.1:0", Version: "test", Finder: finder(t, "builtin@0")}
	if testing.Verbose() {
		o.Logger = hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: hclog.Debug})
	}
	for _, f := range change {
		f(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.s = s
	return r
}

// finder is one of a profile, or of auto with seeds.
func finder(t testing.TB, profile string, seeds ...string) *promptkeys.Finder {
	t.Helper()
	f, err := promptkeys.New(promptkeys.Options{Profile: profile, Seeds: seeds})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// send makes a request without a network.
func (r *rig) send(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r.t.Helper()
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	r.s.Handler().ServeHTTP(w, req)
	return w
}

func (r *rig) post(target, body string) *httptest.ResponseRecorder {
	r.t.Helper()
	return r.send(http.MethodPost, target, body)
}

func (r *rig) get(target string) *httptest.ResponseRecorder {
	r.t.Helper()
	return r.send(http.MethodGet, target, "")
}

// want checks status and body.
func want(t testing.TB, w *httptest.ResponseRecorder, status int, body string) {
	t.Helper()
	if w.Code != status || body != "" && w.Body.String() != body {
		t.Fatalf("answer %d %s\nwant %d %s", w.Code, w.Body, status, body)
	}
}

// register makes a worker known.
func (r *rig) register(instance string, worker int64) {
	url := "127.0.0.1:7000"
	r.state.Registry().Register(registry.Registration{
		WorkerRef: registry.WorkerRef{Instance: instance, Worker: worker}, IP: "127.0.0.1", Port: 8000 + worker, PeerInitURL: &url, At: 1_700_000_000_250_000,
	})
}

// admit lets a worker hold keys.
func (r *rig) admit(instance string, worker int64, location string, keys ...lmcache.Key) {
	ops := registry.Ops{Stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: instance, Worker: worker}, Location: location}, At: 1_700_000_000_250_000}
	for _, k := range keys {
		ops.Keys = append(ops.Keys, registry.Key(k))
	}
	if res := r.state.Registry().ApplyOps(ops); res.Unknown || res.Refused != "" {
		r.t.Fatalf("admit refused: %+v", res)
	}
}

// chain is the keys of a prompt under a profile.
func chain(t testing.TB, profile string, tokens []int64) []lmcache.Key {
	t.Helper()
	p, err := lmcache.ParseProfile(profile)
	if err != nil {
		t.Fatal(err)
	}
	return p.Chain(tokens, lmcache.DefaultChunkSize, true)
}

// counting gives n tokens from first on.
func counting(first, n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(first + i)
	}
	return out
}
