package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/internal/indexwait"
	"github.com/kvctrl/kvctrl/internal/memnet"
	"github.com/kvctrl/kvctrl/registry"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("CLUSTER_CHILD_DIR"); dir != "" {
		os.Exit(childMain(dir))
	}
	goleak.VerifyTestMain(m)
}

// ledger is a state machine that keeps the commands that begin with "x:". The
// node's own entries it counts and forgets.
type ledger struct {
	mark indexwait.Mark

	mu    sync.Mutex
	lines []string
	own   int
	term  uint64 // of the last entry
	known map[string]registry.Member
	gate  chan struct{} // when set, ApplyBatch waits for it

	persist func() // when set, called by Persist
}

var errRefusedByLedger = errors.New("the ledger refuses this")

var errNoEntry = errors.New("this is no entry")

func (l *ledger) Check(entry []byte) error {
	if bytes.Equal(entry, []byte("x:invalid")) {
		return errNoEntry
	}
	return nil
}

func (l *ledger) Applied() uint64 { return l.mark.Reached() }

func (l *ledger) WaitApplied(ctx context.Context, index uint64) error { return l.mark.Wait(ctx, index) }

func (l *ledger) Apply(log *raft.Log) any { return l.ApplyBatch([]*raft.Log{log})[0] }

func (l *ledger) ApplyBatch(logs []*raft.Log) []any {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]any, len(logs))
	for i, log := range logs {
		switch {
		case log.Type != raft.LogCommand:
		case bytes.Equal(log.Data, []byte("x:refuse")):
			out[i] = errRefusedByLedger
		case bytes.HasPrefix(log.Data, []byte("x:")):
			l.lines = append(l.lines, string(log.Data))
			out[i] = len(l.lines)
		default:
			l.own++
			l.keepMember(log.Data)
		}
	}
	l.term = logs[len(logs)-1].Term
	l.mark.Publish(logs[len(logs)-1].Index)
	return out
}

func (l *ledger) lastTerm() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term
}

// keepMember takes the entries about members. The caller holds the lock.
func (l *ledger) keepMember(entry []byte) {
	e, err := fsm.Decode(entry)
	if err != nil {
		return
	}
	if l.known == nil {
		l.known = map[string]registry.Member{}
	}
	switch m := e.Value.(type) {
	case registry.Member:
		l.known[m.NodeID] = m
	case fsm.RemoveMember:
		delete(l.known, m.NodeID)
	}
}

// members is for Options.Members.
func (l *ledger) members() []registry.Member {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.known))
}

func (l *ledger) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

func (l *ledger) has(line string) bool { return slices.Contains(l.all(), line) }

type ledgerSnapshot struct {
	Applied uint64
	Lines   []string
	Known   map[string]registry.Member
	persist func()
}

func (l *ledger) Snapshot() (raft.FSMSnapshot, error) {
	l.mu.Lock()
	known := maps.Clone(l.known)
	l.mu.Unlock()
	return &ledgerSnapshot{l.Applied(), l.all(), known, l.persist}, nil
}

func (s *ledgerSnapshot) Persist(sink raft.SnapshotSink) error {
	if s.persist != nil {
		s.persist()
	}
	if err := json.NewEncoder(sink).Encode(s); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (s *ledgerSnapshot) Release() {}

func (l *ledger) Restore(r io.ReadCloser) error {
	var s ledgerSnapshot
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return err
	}
	l.mu.Lock()
	l.lines, l.known = s.Lines, s.Known
	l.mu.Unlock()
	l.mark.Publish(s.Applied)
	return nil
}

// testLogger sends a node's log to the test.
func testLogger(t testing.TB) hclog.Logger {
	level := hclog.LevelFromString(os.Getenv("TEST_LOG_LEVEL"))
	if level == hclog.NoLevel {
		level = hclog.Off
	}
	return hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: level})
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}

// fatals collects what OnFatal is told.
type fatals chan error

func (f fatals) tell(err error) { f <- err }

// testOptions are options for a node in dir, on any port.
func testOptions(t testing.TB, dir string) Options {
	return Options{
		DataDir: dir, PeerAddr: "127.0.0.1:0", URL: "http://here:9000", FSM: &ledger{}, BootstrapExpect: 1,
		Logger: testLogger(t), MinFreeBytes: -1,
		OnFatal: func(err error) { t.Errorf("OnFatal: %v", err) },
	}
}

func ctxFor(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func mustOpen(t testing.TB, o Options) *Node {
	t.Helper()
	n, err := Open(ctxFor(t, 20*time.Second), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close(ctxFor(t, 20*time.Second)) })
	return n
}

func mustClose(t testing.TB, n *Node) {
	t.Helper()
	if err := n.Close(ctxFor(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
}

func mustPropose(t testing.TB, n *Node, line string) Applied {
	t.Helper()
	a, err := n.Propose(ctxFor(t, 20*time.Second), []byte(line))
	if err != nil {
		t.Fatalf("propose %q: %v", line, err)
	}
	return a
}

// await waits until ok returns nil.
func await(t testing.TB, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	var err error
	for time.Now().Before(deadline) {
		if err = ok(); err == nil {
			return
		}
		<-time.After(2 * time.Millisecond)
	}
	t.Fatalf("%s: %v", what, err)
}

func isTrue(what string, ok func() bool) func() error {
	return func() error {
		if !ok() {
			return errors.New(what)
		}
		return nil
	}
}

func wantLines(t testing.TB, l *ledger, want ...string) {
	t.Helper()
	if got := l.all(); !slices.Equal(got, want) {
		t.Errorf("state has %q, want %q", got, want)
	}
}

// memory is the disk and network of nodes that live in memory.
type memory struct {
	t    testing.TB
	net  *memnet.Network
	conf raft.Configuration
}

// newMemory lays out a cluster of n voters named n1, n2, … on hosts peer1, peer2, …
func newMemory(t testing.TB, n int) *memory {
	m := &memory{t: t, net: memnet.New(1)}
	for i := 1; i <= n; i++ {
		m.conf.Servers = append(m.conf.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(fmt.Sprintf("n%d", i)), Address: raft.ServerAddress(fmt.Sprintf("peer%d:9400", i)),
		})
	}
	return m
}

// host is where the node of that id is.
func host(id string) string { return "peer" + id[1:] }

// others are the hosts of all nodes but one.
func (m *memory) others(id string) []string {
	var hosts []string
	for _, s := range m.conf.Servers {
		if string(s.ID) != id {
			hosts = append(hosts, host(string(s.ID)))
		}
	}
	return hosts
}

// cut takes a node off, both ways; join puts it back. As with TCP, what is sent
// meanwhile arrives then.
func (m *memory) cut(n *Node) { m.net.Partition([]string{host(n.id)}, m.others(n.id)) }

func (m *memory) join(n *Node) {
	for _, h := range m.others(n.id) {
		m.net.Heal(host(n.id), h)
		m.net.Heal(h, host(n.id))
	}
}

// parts of the i-th node, counted from 1.
func (m *memory) parts(i int) parts {
	m.t.Helper()
	s := m.conf.Servers[i-1]
	log := testLogger(m.t)
	port, err := listenPeers(context.Background(), peerPortConfig{network: m.net.Host(host(string(s.ID))), listen: string(s.Address), log: log})
	if err != nil {
		m.t.Fatal(err)
	}
	return parts{
		nodeID: string(s.ID), port: port, transport: newRaftTransport(port, log),
		store: &memStore{InmemStore: raft.NewInmemStore()}, storePath: "memory",
		snapshots: raft.NewInmemSnapshotStore(), bootstrap: m.conf, clusterID: "in-memory", files: &memFiles{},
	}
}

// memFiles are the small files of a data directory in memory.
type memFiles struct {
	mu      sync.Mutex
	texts   map[string]string
	written func(name string) // told after a write
}

func (f *memFiles) read(name string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.texts[name], nil
}

func (f *memFiles) write(name, text string) error {
	f.mu.Lock()
	if f.texts == nil {
		f.texts = map[string]string{}
	}
	f.texts[name] = text
	told := f.written
	f.mu.Unlock()
	if told != nil {
		told(name)
	}
	return nil
}

func (f *memFiles) remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.texts, name)
	return nil
}

// memStore is a log store in memory whose calls can be made to fail or hang.
type memStore struct {
	*raft.InmemStore
	mu    sync.Mutex
	fault func(call string) error
}

func (s *memStore) Close() error { return nil }

func (s *memStore) break_(f func(call string) error) {
	s.mu.Lock()
	s.fault = f
	s.mu.Unlock()
}

func (s *memStore) check(call string) error {
	s.mu.Lock()
	f := s.fault
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(call)
}

func (s *memStore) StoreLogs(logs []*raft.Log) error {
	if err := s.check("StoreLogs"); err != nil {
		return err
	}
	return s.InmemStore.StoreLogs(logs)
}

func (s *memStore) GetLog(i uint64, l *raft.Log) error {
	if err := s.check("GetLog"); err != nil {
		return err
	}
	return s.InmemStore.GetLog(i, l)
}

func (s *memStore) SetUint64(k []byte, v uint64) error {
	if err := s.check("SetUint64"); err != nil {
		return err
	}
	return s.InmemStore.SetUint64(k, v)
}

func mustStart(t testing.TB, o Options, p parts) *Node {
	t.Helper()
	n, err := start(o.withDefaults(), p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
