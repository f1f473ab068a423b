package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

func TestNode_RestartKeepsEntries(t *testing.T) {
	for _, store := range []string{LogStoreBolt, LogStoreWAL} {
		t.Run(store, func(t *testing.T) {
			o := testOptions(t, t.TempDir())
			o.LogStore = store
			n := mustOpen(t, o)
			id := n.NodeID()
			a := mustPropose(t, n, "x:1")
			b := mustPropose(t, n, "x:2")
			if b.Index <= a.Index || b.Result != 2 {
				t.Errorf("applied %+v after %+v, want a larger index and result 2", b, a)
			}
			mustClose(t, n)

			state := &ledger{}
			o.FSM = state
			n = mustOpen(t, o)
			if n.NodeID() != id {
				t.Errorf("node id is %q after the restart, was %q", n.NodeID(), id)
			}
			await(t, "ready", n.Ready)
			wantLines(t, state, "x:1", "x:2")
			mustPropose(t, n, "x:3")
			mustClose(t, n)
			wantLines(t, state, "x:1", "x:2", "x:3")
		})
	}
}

// The embedded default is ready within a second of an empty directory. That is a
// promise about an idle machine, so it is logged; the test holds a loose bound.
func TestNode_ReadySoon(t *testing.T) {
	o := testOptions(t, t.TempDir())
	for _, what := range []string{"first start", "restart"} {
		begin := time.Now()
		n := mustOpen(t, o)
		opened := time.Since(begin)
		await(t, "ready", n.Ready)
		t.Logf("%s: open after %v, ready after %v", what, opened.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s: ready after %v", what, took)
		}
		mustClose(t, n)
		o.FSM = &ledger{}
	}
}

// Without the hurried election a cluster of one waits 0.5 to 1 s for a leader that
// nobody else can be; with timings stretched by ten the difference is plain.
func TestNode_SoleVoterDoesNotWait(t *testing.T) {
	o := testOptions(t, t.TempDir())
	o.TimingFactor = 10 // an election by itself: 5 to 10 s
	begin := time.Now()
	n := mustOpen(t, o)
	await(t, "ready", n.Ready)
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("ready after %v: the first election was not hurried", took)
	}
	mustClose(t, n)
}

func TestNode_SnapshotAndRestartFromIt(t *testing.T) {
	o := testOptions(t, t.TempDir())
	o.SnapshotThreshold, o.TrailingLogs = 16, 24
	n := mustOpen(t, o)
	var want []string
	propose := func(k int) {
		for range k {
			want = append(want, fmt.Sprintf("x:%d", len(want)))
			mustPropose(t, n, want[len(want)-1])
		}
	}
	propose(40)
	if err := n.Snapshot(ctxFor(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	at := n.Status().LastSnapshotIndex
	if at == 0 || at > n.Status().AppliedIndex {
		t.Fatalf("snapshot at %d, applied %d", at, n.Status().AppliedIndex)
	}
	first, err := n.parts.store.FirstIndex()
	if err != nil || first < 2 {
		t.Errorf("the log begins at %d, %v after the snapshot: nothing was let go", first, err)
	}
	propose(3)
	mustClose(t, n)

	state := &ledger{}
	o.FSM = state
	n, err = Open(ctxFor(t, 10*time.Second), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := n.Status().LastSnapshotIndex; got != at {
		t.Errorf("started from snapshot %d, want %d", got, at)
	}
	await(t, "ready", n.Ready)
	wantLines(t, state, want...)
	// Right after a restart there is little new; both answers of raft are fine.
	if err := n.Snapshot(ctxFor(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
	mustClose(t, n)
}

func TestNode_AddressChange(t *testing.T) {
	o := testOptions(t, t.TempDir())
	var mu sync.Mutex
	var members []registry.Member
	o.Members = func() []registry.Member { mu.Lock(); defer mu.Unlock(); return members }
	n := mustOpen(t, o)
	await(t, "ready", n.Ready)
	old := n.PeerAddr()
	mustClose(t, n)

	o.FSM = &ledger{}
	o.PeerAddr, o.PeerAdvertise = "127.0.0.1:0", "replica-0.example:9400"
	n = mustOpen(t, o)
	await(t, "new address", isTrue("configuration has the old address", func() bool {
		s := n.configuration().Servers
		return len(s) == 1 && s[0].Address == "replica-0.example:9400"
	}))
	await(t, "ready", n.Ready)
	mustPropose(t, n, "x:1")
	st := n.Status()
	if st.Nodes[0].PeerAddr == old || st.Role != "leader" || st.Leader.NodeID != n.NodeID() || st.Leader.URL != o.URL {
		t.Errorf("status %+v after the address changed from %s", st, old)
	}
	mustClose(t, n)
}

// The state learns this replica's addresses once, not at every start.
func TestNode_RealStateMachine(t *testing.T) {
	o := testOptions(t, t.TempDir())
	open := func() (*Node, *fsm.FSM) {
		state := fsm.New(fsm.Options{OnFatal: func(err error) { t.Errorf("state machine: %v", err) }})
		o.FSM = state
		o.Members = func() []registry.Member { return state.Registry().Members() }
		o.PeerAdvertise = "127.0.0.1:1234"
		n := mustOpen(t, o)
		await(t, "ready", n.Ready)
		await(t, "member", isTrue("not announced", func() bool { return len(state.Registry().Members()) == 1 }))
		return n, state
	}
	n, state := open()
	want := registry.Member{NodeID: n.NodeID(), PeerAddr: "127.0.0.1:1234", URL: o.URL, Voter: true}
	if got := state.Registry().Members(); !slices.Equal(got, []registry.Member{want}) {
		t.Errorf("members %+v, want %+v", got, want)
	}
	w := registry.WorkerRef{Instance: "vllm-0", Worker: 0}
	b := fsm.NewBatch(registry.SessionID{1})
	b.Register(registry.Registration{WorkerRef: w, IP: "10.0.0.1", Port: 8000})
	a, err := n.Propose(ctxFor(t, 10*time.Second), b.Encode(1, now()))
	if err != nil {
		t.Fatal(err)
	}
	if res, ok := a.Result.(fsm.BatchResult); !ok || len(res.Records) != 1 || res.Duplicate {
		t.Errorf("result %+v, want one record", a.Result)
	}
	// A name beyond what the format allows would stop every replica for good.
	long := registry.EventCreate{ID: "e", Kind: registry.CommandClear, Source: registry.Target{Instance: "vllm-0", Location: strings.Repeat("x", fsm.MaxName+1)}}
	if _, err := n.Propose(ctxFor(t, 10*time.Second), fsm.EncodeCreateEvent(long)); !errors.Is(err, ErrInvalid) {
		t.Errorf("an event with a location of %d bytes: %v, want ErrInvalid", fsm.MaxName+1, err)
	}
	if err := n.Snapshot(ctxFor(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Read(ctxFor(t, 10*time.Second), Read{Consistency: Linearizable}); err != nil {
		t.Fatal(err)
	}
	digest := state.Registry().Digest()
	mustClose(t, n)

	n, state = open()
	if _, ok := state.Registry().Worker(w); !ok {
		t.Error("the worker is gone after the restart")
	}
	if state.Registry().Digest() == (registry.Digest{}) || digest == (registry.Digest{}) {
		t.Error("digest of nothing")
	}
	mustClose(t, n)
}

// TestPropose_Errors has what callers of Propose branch on.
func TestPropose_Errors(t *testing.T) {
	state := &ledger{}
	o := testOptions(t, "")
	o.FSM, o.MaxEntry = state, 2000
	n := mustStart(t, o, newMemory(t, 1).parts(1))
	await(t, "ready", n.Ready)

	if _, err := n.Propose(context.Background(), []byte("x:invalid")); !errors.Is(err, ErrInvalid) || !errors.Is(err, errNoEntry) {
		t.Errorf("an entry that cannot be applied: %v, want ErrInvalid with the reason", err)
	}
	if _, err := n.Propose(context.Background(), make([]byte, 2001)); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "2001") {
		t.Errorf("too large: %v", err)
	}
	a, err := n.Propose(context.Background(), []byte("x:refuse"))
	if err != nil || a.Result != error(errRefusedByLedger) || a.Index == 0 {
		t.Errorf("refused by the state machine: %+v, %v; want its verdict as a result", a, err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := n.Propose(gone, []byte("x:late")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}

	// An entry that the state machine is slow to apply: the caller goes, the outcome is open.
	gate := make(chan struct{})
	state.mu.Lock()
	state.gate = gate
	state.mu.Unlock()
	short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := n.Propose(short, []byte("x:slow")); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("timed out in between: %v, want unknown and deadline", err)
	}
	close(gate)
	await(t, "slow entry", isTrue("not applied", func() bool { return state.has("x:slow") }))

	mustClose(t, n)
	if _, err := n.Propose(context.Background(), []byte("x:1")); !errors.Is(err, ErrStopped) {
		t.Errorf("after Close: %v", err)
	}
	if _, err := n.Read(context.Background(), Read{}); !errors.Is(err, ErrStopped) {
		t.Errorf("read after Close: %v", err)
	}
	if err := n.Ready(); !errors.Is(err, ErrStopped) {
		t.Errorf("ready after Close: %v", err)
	}
	mustClose(t, n) // again
}

// Close answers what is under way: applied, or unknown, never silence.
func TestClose_DuringProposals(t *testing.T) {
	for range 5 {
		state := &ledger{}
		o := testOptions(t, "")
		o.FSM = state
		n := mustStart(t, o, newMemory(t, 1).parts(1))
		await(t, "ready", n.Ready)
		var wg sync.WaitGroup
		begun := make(chan struct{}, 64)
		for g := range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := 0; ; i++ {
					line := fmt.Sprintf("x:%d.%d", g, i)
					_, err := n.Propose(context.Background(), []byte(line))
					switch {
					case err == nil && !state.has(line):
						t.Errorf("%s acknowledged and not applied", line)
					case err == nil:
						if i == 3 {
							begun <- struct{}{}
						}
						continue
					case errors.Is(err, ErrUnknownOutcome), errors.Is(err, ErrStopped):
					default:
						t.Errorf("%s: %v", line, err)
					}
					return
				}
			}()
		}
		<-begun
		mustClose(t, n)
		wg.Wait()
	}
}

// TestClose_Again: a call after the first has the first one's outcome, also with a ctx
// that has ended; one beside the first waits no longer than its ctx.
func TestClose_Again(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	release := make(chan struct{})
	o := testOptions(t, "")
	o.LeaderTasks = []LeaderTask{{Name: "stays", Run: func(context.Context, uint64) error { <-release; return nil }}}
	n := mustStart(t, o, newMemory(t, 1).parts(1))
	await(t, "ready", n.Ready)
	first := make(chan error, 1)
	go func() { first <- n.Close(ctxFor(t, 20*time.Second)) }()
	<-n.stopping
	if err := n.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("beside the first: %v, want its own ctx's error", err)
	}
	close(release)
	want := <-first
	if want != nil {
		t.Errorf("first: %v", want)
	}
	for range 20 {
		if err := n.Close(ended); err != want {
			t.Fatalf("after the first: %v, want %v", err, want)
		}
	}
}

func TestOpen_PortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := testOptions(t, t.TempDir())
	o.PeerAddr = l.Addr().String()
	if _, err := Open(context.Background(), o); err == nil || !strings.Contains(err.Error(), "--peer-addr") {
		t.Fatalf("got %v, want an error that names the flag", err)
	}
	o.PeerAddr = "127.0.0.1:0" // what the failed Open took is given back
	mustClose(t, mustOpen(t, o))
}

// A node keeps no more of a data directory than its files.
func TestNode_DirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	n := mustOpen(t, testOptions(t, dir))
	mustClose(t, n)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v, want 0700", info.Mode(), err)
	}
}

func TestNode_StatusOfOne(t *testing.T) {
	n := mustOpen(t, testOptions(t, t.TempDir()))
	await(t, "ready", n.Ready)
	a := mustPropose(t, n, "x:1")
	await(t, "announced", isTrue("not yet", func() bool { return n.Counters().InFlight == 0 }))
	s := n.Status()
	if s.NodeID != n.NodeID() || s.Role != "leader" || s.Term == 0 || s.CommitIndex < a.Index || s.AppliedIndex < a.Index || s.LogBytes <= 0 || len(s.Nodes) != 1 {
		t.Fatalf("status %+v", s)
	}
	self := s.Nodes[0]
	if !self.Voter || self.Role != "leader" || self.Reachable == nil || !*self.Reachable || *self.AppliedIndex < a.Index || self.PeerAddr != n.PeerAddr() {
		t.Errorf("node %+v", self)
	}
	if !n.IsLeader() || n.Term() != s.Term {
		t.Errorf("leader %v, term %d, want true, %d", n.IsLeader(), n.Term(), s.Term)
	}
	c := n.Counters()
	if c.Applied == 0 || c.StoreCalls == 0 || c.StoreTime == 0 || c.LogBytesSinceSnapshot == 0 || c.InFlight != 0 || c.CommitSeconds.Count != c.Applied || c.CommitSeconds.Sum <= 0 {
		t.Errorf("counters %+v", c)
	}
	if err := n.Transfer(context.Background(), n.NodeID()); err != nil {
		t.Errorf("transfer to itself: %v", err)
	}
	if err := n.Transfer(context.Background(), ""); !errors.Is(err, ErrNotVoter) {
		t.Errorf("transfer without anybody to take it: %v", err)
	}
	if err := n.Transfer(context.Background(), "n9"); !errors.Is(err, ErrNotVoter) {
		t.Errorf("transfer to a stranger: %v", err)
	}
	mustClose(t, n)
}

func TestClassify(t *testing.T) {
	storeErr := errors.New(`unable to store logs within log store, err: "no space left on device"`)
	for _, c := range []struct {
		name  string
		err   error
		index uint64
		want  outcome
	}{
		{"committed and applied", nil, 7, outcomeApplied},
		{"not leader", raft.ErrNotLeader, 0, outcomeRefused},
		{"transfer in progress", raft.ErrLeadershipTransferInProgress, 0, outcomeRefused},
		{"enqueue timeout from Apply", raft.ErrEnqueueTimeout, 0, outcomeRefused},
		{"shutdown from Apply", raft.ErrRaftShutdown, 0, outcomeRefused},
		{"shutdown from a future", raft.ErrRaftShutdown, 7, outcomeUnknown},
		{"leadership lost", raft.ErrLeadershipLost, 7, outcomeUnknown},
		{"leadership lost, no position", raft.ErrLeadershipLost, 0, outcomeUnknown},
		{"not leader, with a position", raft.ErrNotLeader, 7, outcomeUnknown},
		{"aborted by restore", raft.ErrAbortedByRestore, 7, outcomeUnknown},
		{"store error", storeErr, 7, outcomeUnknown},
		{"store error, no position", storeErr, 0, outcomeUnknown},
		{"something new", errors.New("what raft may say one day"), 0, outcomeUnknown},
	} {
		if got := classify(c.err, c.index); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
