package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// memCluster is a cluster in memory, for a synctest bubble: virtual time, no disk,
// no sockets. Stop it before the bubble ends.
type memCluster struct {
	t       *testing.T
	memory  *memory
	nodes   []*Node
	states  []*ledger
	stores  []*memStore
	onFatal atomic.Pointer[func(error)] // told what OnFatal is, when that is expected
}

func startCluster(t *testing.T, size int, tasks func(node int) []LeaderTask) *memCluster {
	t.Helper()
	c := &memCluster{t: t, memory: newMemory(t, size)}
	for i := 1; i <= size; i++ {
		o := testOptions(t, "")
		state := &ledger{}
		o.FSM = state
		o.URL = fmt.Sprintf("http://n%d:9000", i)
		unexpected := o.OnFatal
		o.OnFatal = func(err error) {
			if expected := c.onFatal.Load(); expected != nil {
				(*expected)(err)
			} else {
				unexpected(err)
			}
		}
		if tasks != nil {
			o.LeaderTasks = tasks(i)
		}
		p := c.memory.parts(i)
		c.stores = append(c.stores, p.store.(*memStore))
		c.states = append(c.states, state)
		c.nodes = append(c.nodes, mustStart(t, o, p))
	}
	return c
}

// leader is the node that leads, nil when none does or more than one thinks so.
func (c *memCluster) leader() *Node {
	var leader *Node
	for _, n := range c.nodes {
		if n.IsLeader() {
			if leader != nil {
				return nil
			}
			leader = n
		}
	}
	return leader
}

func (c *memCluster) mustLead() *Node {
	c.t.Helper()
	await(c.t, "leader", isTrue("nobody leads", func() bool { return c.leader() != nil }))
	return c.leader()
}

func (c *memCluster) stop() {
	c.t.Helper()
	for _, n := range c.nodes {
		if err := n.Close(context.Background()); err != nil {
			c.t.Errorf("close %s: %v", n.NodeID(), err)
		}
	}
	<-time.After(time.Minute) // raft's last timers fire while the bubble lives
}

func TestCluster_ThreeReplicasFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, nil)
		leader := c.mustLead()
		a := mustPropose(t, leader, "x:1")
		for i, n := range c.nodes {
			if _, err := n.Read(ctxFor(t, time.Minute), Read{MinIndex: a.Index}); err != nil {
				t.Errorf("%s: %v", n.NodeID(), err)
			}
			wantLines(t, c.states[i], "x:1")
			await(t, "ready", n.Ready)
			l, ok := n.Leader()
			if !ok || l.NodeID != leader.NodeID() {
				t.Errorf("%s says that %+v leads", n.NodeID(), l)
			}
			if n == leader {
				continue
			}
			var not *NotLeaderError
			if _, err := n.Propose(context.Background(), []byte("x:no")); !errors.As(err, &not) || !errors.Is(err, ErrNotLeader) || not.Leader.NodeID != leader.NodeID() {
				t.Errorf("%s proposes: %v, want the leader named", n.NodeID(), err)
			}
			if f, err := n.Read(context.Background(), Read{Consistency: Linearizable}); err != nil || f.Staleness != 0 {
				t.Errorf("%s reads linearizably: %+v, %v", n.NodeID(), f, err)
			}
			if err := n.Transfer(context.Background(), n.NodeID()); !errors.Is(err, ErrNotLeader) {
				t.Errorf("%s takes leadership: %v", n.NodeID(), err)
			}
		}
		<-time.After(4 * freshTick) // before the first stamps have come back a bound is met by a barrier
		for _, n := range c.nodes {
			f, err := n.Read(context.Background(), Read{Consistency: Bounded, MaxStaleness: time.Second})
			if err != nil || f.Staleness <= 0 || f.Staleness > 4*freshTick {
				t.Errorf("%s within a second: %+v, %v; want what the voters vouch for", n.NodeID(), f, err)
			}
			f, err = n.Read(context.Background(), Read{Consistency: Bounded, MaxStaleness: time.Millisecond})
			if err != nil || f.Staleness != 0 {
				t.Errorf("%s within a bound tighter than that: %+v, %v; want a proven 0", n.NodeID(), f, err)
			}
			if f, err := n.Read(context.Background(), Read{}); err != nil || f.Staleness > 4*freshTick {
				t.Errorf("%s reads stale: %+v, %v", n.NodeID(), f, err)
			}
		}
		c.stop()
	})
}

// Leader tasks run on one node at a time, after the term's own entry, and the next
// term waits for the last one's.
func TestCluster_LeaderTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running [4]atomic.Int32
		var mu sync.Mutex
		var begun []uint64
		var c *memCluster
		c = startCluster(t, 3, func(node int) []LeaderTask {
			run := func(ctx context.Context, term uint64) error {
				n := c.nodes[node-1]
				if s, _ := n.view.get(); !s.leading || s.term != term {
					t.Errorf("n%d: task of term %d, the view is %+v", node, term, s)
				}
				if applied, commit := n.machine.Applied(), n.raft.CommitIndex(); c.states[node-1].lastTerm() != term {
					t.Errorf("n%d: task runs before its term's entry is applied (%d of %d)", node, applied, commit)
				}
				if running[node].Add(1) > 2 {
					t.Errorf("n%d: tasks of two terms at once", node)
				}
				mu.Lock()
				begun = append(begun, term)
				mu.Unlock()
				<-ctx.Done()
				<-time.After(300 * time.Millisecond) // slow to end
				running[node].Add(-1)
				return ctx.Err()
			}
			return []LeaderTask{{Name: "a", Run: run}, {Name: "b", Run: run}}
		})
		for round := range 6 {
			leader := c.mustLead()
			await(t, "tasks", isTrue("not running", func() bool {
				return running[slices.Index(c.nodes, leader)+1].Load() == 2
			}))
			if round%2 == 0 {
				if err := leader.Transfer(context.Background(), ""); err != nil {
					t.Errorf("transfer: %v", err)
				}
			} else {
				c.memory.cut(leader)
				await(t, "step down", isTrue("still leads", func() bool { return !leader.IsLeader() }))
				await(t, "tasks end", isTrue("run on", func() bool { return running[slices.Index(c.nodes, leader)+1].Load() == 0 }))
				c.memory.join(leader)
			}
			<-time.After(3 * time.Second)
		}
		mustPropose(t, c.mustLead(), "x:done")
		c.stop()
		for i := range running {
			if n := running[i].Load(); n != 0 {
				t.Errorf("n%d: %d tasks run after Close", i, n)
			}
		}
		if !slices.IsSorted(begun) || len(begun) < 14 {
			t.Errorf("tasks of the terms %v, want 7 terms of two in order", begun)
		}
	})
}

// A leader that closes hands over: the others need not find out by its silence.
func TestCluster_CloseHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, nil)
		leader := c.mustLead()
		mustPropose(t, leader, "x:1")
		begin := time.Now()
		mustClose(t, leader)
		next := c.mustLead()
		if took := time.Since(begin); next == leader || took > 200*time.Millisecond {
			t.Errorf("%s leads %v after %s closed; an election by silence takes 500 ms", next.NodeID(), took, leader.NodeID())
		}
		mustPropose(t, next, "x:2")
		c.stop()
	})
}

// A follower is ready when it has caught up, not when it has heard of a leader.
func TestCluster_FollowerNotReadyYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, nil)
		leader := c.mustLead()
		i := (slices.Index(c.nodes, leader) + 1) % 3
		f, state := c.nodes[i], c.states[i]
		await(t, "ready", f.Ready)

		gate := make(chan struct{})
		state.mu.Lock()
		state.gate = gate
		state.mu.Unlock()
		for range 3 {
			mustPropose(t, leader, "x:1")
		}
		<-time.After(time.Second)
		if err := f.Ready(); err != nil {
			t.Errorf("a second behind: %v; it should not come and go under load", err)
		}
		<-time.After(readyLag)
		if err := f.Ready(); err == nil || !strings.Contains(err.Error(), "is the state of 6") {
			t.Errorf("far behind: ready says %v", err)
		}
		// A new leader has to be caught up with first.
		other := c.nodes[3-i-slices.Index(c.nodes, leader)]
		if err := leader.Transfer(context.Background(), other.NodeID()); err != nil {
			t.Fatal(err)
		}
		await(t, "other leads", isTrue("does not", other.IsLeader))
		<-time.After(2 * freshTick)
		want := fmt.Sprintf("applied index %d of ", f.machine.Applied())
		if err := f.Ready(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("behind a new leader: ready says %v, want %q", err, want)
		}
		close(gate)
		await(t, "ready again", f.Ready)

		// One that has not been heard from says nothing of how far the state is.
		f.fresh.heard(0, 0, 0)
		if err := f.Ready(); err == nil || !strings.Contains(err.Error(), "has not said yet") {
			t.Errorf("nothing heard: ready says %v", err)
		}
		await(t, "ready once it is heard", f.Ready)
		c.stop()
	})
}

// What an earlier term's heartbeats said does not stick.
func TestCluster_SilenceOfAnEarlierTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, nil)
		a := c.mustLead()
		i := slices.Index(c.nodes, a)
		b, other := c.nodes[(i+1)%3], c.nodes[(i+2)%3]
		a.peers.set(raft.ServerID(other.NodeID()), time.Now(), true) // noted as the term ended
		for _, to := range []*Node{b, a} {
			if err := c.mustLead().Transfer(context.Background(), to.NodeID()); err != nil {
				t.Fatal(err)
			}
			await(t, "leader", isTrue(to.NodeID()+" does not lead", to.IsLeader))
		}
		for _, s := range a.Status().Nodes {
			if s.Reachable == nil || !*s.Reachable {
				t.Errorf("node %+v", s)
			}
		}
		c.stop()
	})
}

// A node that loses leadership and has it again before its tasks have ended waits
// for them; so does Close.
func TestCluster_NextTermWaitsForTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, terms [4]atomic.Int32
		c := startCluster(t, 3, func(node int) []LeaderTask {
			return []LeaderTask{{Name: "slow to end", Run: func(ctx context.Context, _ uint64) error {
				if running[node].Add(1) != 1 {
					t.Errorf("n%d: tasks of two terms at once", node)
				}
				terms[node].Add(1)
				<-ctx.Done()
				<-time.After(2 * time.Second)
				running[node].Add(-1)
				return nil
			}}}
		})
		a := c.mustLead()
		i := slices.Index(c.nodes, a) + 1
		b := c.nodes[i%3]
		await(t, "task", isTrue("not running", func() bool { return running[i].Load() == 1 }))
		begin := time.Now()
		if err := a.Transfer(context.Background(), b.NodeID()); err != nil {
			t.Fatal(err)
		}
		await(t, "b leads", isTrue("does not", b.IsLeader))
		if err := b.Transfer(context.Background(), a.NodeID()); err != nil {
			t.Fatal(err)
		}
		await(t, "a leads", isTrue("does not", func() bool { return a.raft.State() == raft.Leader }))
		if took := time.Since(begin); took > time.Second {
			t.Fatalf("there and back took %v: the test proves nothing", took)
		}
		await(t, "second term", isTrue("not running", func() bool { return terms[i].Load() == 2 }))
		if took := time.Since(begin); took < 2*time.Second {
			t.Errorf("second term's task began after %v, the first's ends after 2s", took)
		}
		mustClose(t, a)
		if running[i].Load() != 0 {
			t.Error("Close left a task running")
		}
		c.stop()
	})
}

// A task that fails gives leadership away; the node tries again when it leads.
func TestCluster_TaskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls, survived atomic.Int32
		c := startCluster(t, 1, func(int) []LeaderTask {
			return []LeaderTask{
				{Name: "fails twice", Run: func(ctx context.Context, _ uint64) error {
					if calls.Add(1) <= 2 {
						return errors.New("no")
					}
					<-ctx.Done()
					return nil
				}},
				{Name: "ends by itself", Run: func(context.Context, uint64) error { survived.Add(1); return nil }},
			}
		})
		await(t, "third try", isTrue("not yet", func() bool { return calls.Load() == 3 && c.leader() != nil }))
		mustPropose(t, c.leader(), "x:1")
		if survived.Load() != 3 {
			t.Errorf("the other task ran %d times, want 3", survived.Load())
		}
		c.stop()
	})
}

// What a cut-off leader is asked to propose is unknown, not refused, and what was
// acknowledged is on the others.
func TestCluster_CutOffLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, nil)
		old := c.mustLead()
		mustPropose(t, old, "x:kept")
		<-time.After(4 * freshTick) // until stamps have come back it knows of no age
		c.memory.cut(old)
		if _, err := old.Propose(context.Background(), []byte("x:lost")); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, raft.ErrLeadershipLost) {
			t.Errorf("propose without a quorum: %v, want unknown and leadership lost", err)
		}
		if _, err := old.Propose(context.Background(), []byte("x:none")); !errors.Is(err, ErrNoLeader) {
			t.Errorf("propose without a leader: %v", err)
		}
		if err := old.Ready(); !errors.Is(err, ErrNoLeader) {
			t.Errorf("ready without a leader: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := old.Read(ctx, Read{Consistency: Bounded, MaxStaleness: time.Millisecond}); !errors.Is(err, ErrStale) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("bounded read without a leader: %v", err)
		}
		f, err := old.Read(context.Background(), Read{})
		if err != nil || f.Staleness < time.Second {
			t.Errorf("stale read a second after the cut: %+v, %v", f, err)
		}
		// Old knowledge is knowledge: the bound grows by the clock.
		if _, err := old.Read(ctxFor(t, time.Minute), Read{Consistency: Bounded, MaxStaleness: time.Hour}); err != nil {
			t.Errorf("read within an hour: %v", err)
		}
		c.memory.join(old)
		now := c.mustLead()
		mustPropose(t, now, "x:new")
		for i, n := range c.nodes {
			await(t, "ready", n.Ready)
			await(t, "new entry", isTrue("not applied", func() bool { return c.states[i].has("x:new") }))
			if !c.states[i].has("x:kept") {
				t.Errorf("%s lost an acknowledged entry", n.NodeID())
			}
		}
		await(t, "everybody reachable", func() error {
			s := now.Status()
			if len(s.Nodes) != 3 || s.Role != "leader" {
				return fmt.Errorf("status %+v", s)
			}
			for _, node := range s.Nodes {
				if node.Reachable == nil || !*node.Reachable || !node.Voter {
					return fmt.Errorf("node %+v", node)
				}
			}
			return nil
		})
		c.stop()
	})
}

// A leader that was deposed is none at once, also while its tasks take their time to end.
func TestCluster_DeposedWhileTasksEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, func(int) []LeaderTask {
			return []LeaderTask{{Name: "slow to end", Run: func(ctx context.Context, _ uint64) error {
				<-ctx.Done()
				<-time.After(8 * time.Second)
				return nil
			}}}
		})
		old := c.mustLead()
		mustPropose(t, old, "x:1")
		c.memory.cut(old)
		await(t, "deposed", isTrue("leads on", func() bool { return old.raft.State() != raft.Leader }))
		wait(5 * time.Second)
		if f, err := old.Read(t.Context(), Read{}); err != nil || f.Staleness < 5*time.Second {
			t.Errorf("read of a leader deposed 5s ago: %+v, %v", f, err)
		}
		if err := old.Ready(); !errors.Is(err, ErrNoLeader) {
			t.Errorf("ready: %v", err)
		}
		if _, err := old.serveCommit(t.Context(), Identity{NodeID: "n9"}, []byte(`{}`)); !errors.Is(err, ErrNoLeader) {
			t.Errorf("its word on what is committed: %v", err)
		}
		begin := time.Now()
		if err := old.Leave(t.Context(), "n9", false); !errors.Is(err, ErrNoLeader) || time.Since(begin) > time.Second {
			t.Errorf("change of the membership: %v after %v", err, time.Since(begin))
		}
		c.memory.join(old)
		c.stop()
	})
}

// The leader's status says who does not answer.
func TestCluster_StatusOfSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, nil)
		leader := c.mustLead()
		var other *Node
		for _, n := range c.nodes {
			if n != leader {
				other = n
			}
		}
		c.memory.cut(other)
		find := func() NodeStatus {
			for _, s := range leader.Status().Nodes {
				if s.NodeID == other.NodeID() {
					return s
				}
			}
			return NodeStatus{}
		}
		await(t, "silence noticed", isTrue("still reachable", func() bool {
			s := find()
			return s.Reachable != nil && !*s.Reachable && s.LastContactMS != nil
		}))
		c.memory.join(other)
		await(t, "answer noticed", isTrue("still silent", func() bool { s := find(); return s.Reachable != nil && *s.Reachable }))
		c.stop()
	})
}

func TestCluster_TransferToVotersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, nil)
		leader := c.mustLead()
		var target *Node
		for _, n := range c.nodes {
			if n != leader {
				target = n
			}
		}
		if err := leader.await(context.Background(), func() error {
			return leader.raft.DemoteVoter(raft.ServerID(target.NodeID()), 0, time.Second).Error()
		}); err != nil {
			t.Fatal(err)
		}
		if err := leader.Transfer(context.Background(), target.NodeID()); !errors.Is(err, ErrNotVoter) {
			t.Errorf("transfer to a non-voter: %v", err)
		}
		if err := leader.await(context.Background(), func() error {
			return leader.raft.AddVoter(raft.ServerID(target.NodeID()), target.parts.transport.LocalAddr(), 0, time.Second).Error()
		}); err != nil {
			t.Fatal(err)
		}
		if err := leader.Transfer(context.Background(), target.NodeID()); err != nil {
			t.Errorf("transfer to a voter: %v", err)
		}
		await(t, "target leads", isTrue("does not", target.IsLeader))
		mustPropose(t, target, "x:1")
		c.stop()
	})
}

// TestCluster_TransferToNobody: a target that does not answer is refused before raft stops
// taking entries for its sake.
func TestCluster_TransferToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, nil)
		defer c.stop()
		leader := c.mustLead()
		target := c.nodes[(slices.Index(c.nodes, leader)+1)%3]
		c.memory.cut(target)
		err := leader.Transfer(context.Background(), target.NodeID())
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), target.NodeID()) {
			t.Errorf("transfer to a voter that is cut off: %v", err)
		}
		mustPropose(t, leader, "x:1")
		c.memory.join(target)
	})
}

// TestCluster_TransferToWhoAnswers: without a name leadership goes to a voter that answers,
// also when raft thinks most of one that does not, and entries go on at once.
func TestCluster_TransferToWhoAnswers(t *testing.T) {
	for name, giveAway := range map[string]func(*Node) error{
		"transfer": func(n *Node) error { return n.Transfer(context.Background(), "") },
		"stop":     func(n *Node) error { return n.Close(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := startCluster(t, 5, nil)
				defer c.stop()
				leader := c.mustLead()
				mustPropose(t, leader, "x:1")
				<-time.After(time.Second) // all have it, so that raft takes the first in the list
				silent := c.nodes[slices.IndexFunc(c.nodes, func(n *Node) bool { return n != leader })]
				c.memory.cut(silent)
				begin := time.Now()
				if err := giveAway(leader); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				var next *Node
				await(t, "one that answers leads", isTrue("none does", func() bool {
					i := slices.IndexFunc(c.nodes, func(n *Node) bool { return n != leader && n.IsLeader() })
					if i >= 0 {
						next = c.nodes[i]
					}
					return i >= 0
				}))
				if took := time.Since(begin); took > 300*time.Millisecond {
					t.Errorf("it took %v", took)
				}
				c.memory.join(silent)
				mustPropose(t, next, "x:2")
			})
		})
	}
}

// TestCluster_TransferNobodyAnswers: it is refused in words, and the leader goes on.
func TestCluster_TransferNobodyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 2, nil)
		defer c.stop()
		leader := c.mustLead()
		other := c.nodes[1-slices.Index(c.nodes, leader)]
		mustClose(t, other)
		err := leader.Transfer(context.Background(), "")
		wantError(t, "transfer", err, ErrUnreachable, "no other voter answers", other.id)
	})
}

func TestTransferred(t *testing.T) {
	n := &Node{}
	for _, c := range []struct{ err, is error }{
		{errors.New("leadership transfer timeout"), ErrConflict},
		{inWords(ErrUnreachable, "no other voter answers"), ErrUnreachable},
		{raft.ErrLeadershipTransferInProgress, ErrBusy},
		{context.DeadlineExceeded, context.DeadlineExceeded},
		{ErrStopped, ErrStopped},
		{unknown(context.DeadlineExceeded), ErrUnknownOutcome},
	} {
		for _, to := range []string{"", "n2"} {
			if err := n.transferred(c.err, to); !errors.Is(err, c.is) || c.is != ErrConflict && errors.Is(err, ErrConflict) {
				t.Errorf("%v, to %q: %v, want %v", c.err, to, err, c.is)
			}
		}
	}
}

// Writes go on while leadership moves: Propose waits, it does not fail.
func TestCluster_ProposeThroughTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 3, nil)
		c.mustLead()
		stop := make(chan struct{})
		var acked []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				line := fmt.Sprintf("x:%d", i)
				for {
					l := c.leader()
					if l == nil {
						<-time.After(time.Millisecond)
						continue
					}
					_, err := l.Propose(context.Background(), []byte(line))
					if err == nil {
						acked = append(acked, line)
						break
					}
					if !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUnknownOutcome) {
						t.Errorf("%s: %v", line, err)
						break
					}
				}
				<-time.After(time.Millisecond)
			}
		}()
		for range 5 {
			if err := c.mustLead().Transfer(context.Background(), ""); err != nil {
				t.Errorf("transfer: %v", err)
			}
			<-time.After(2 * time.Second)
		}
		close(stop)
		<-done
		last := acked[len(acked)-1]
		for i := range c.nodes {
			await(t, "last entry", isTrue("not applied", func() bool { return c.states[i].has(last) }))
			got := map[string]bool{}
			for _, line := range c.states[i].all() {
				got[line] = true
			}
			for _, line := range acked {
				if !got[line] {
					t.Fatalf("node %d lost %s", i+1, line)
				}
			}
		}
		if len(acked) < 100 {
			t.Errorf("%d entries in ten seconds", len(acked))
		}
		c.stop()
	})
}

// A transfer that never ends (#696) makes the node step aside.
func TestWatchTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(fatals, 10)
		o := testOptions(t, "")
		o.OnFatal = told.tell
		n := mustStart(t, o, newMemory(t, 1).parts(1))
		await(t, "ready", n.Ready)
		refused := raft.ErrLeadershipTransferInProgress
		n.watchTransfer(refused)
		<-time.After(time.Second)
		n.watchTransfer(refused) // as long as an ordinary one
		n.watchTransfer(nil)     // and over
		n.watchTransfer(refused)
		<-time.After(1500 * time.Millisecond)
		n.watchTransfer(refused)
		if len(told) != 0 {
			t.Errorf("told %v of transfers that end", <-told)
		}
		<-time.After(time.Second)
		n.watchTransfer(refused)
		if err := <-told; !errors.Is(err, ErrTransferStuck) {
			t.Errorf("told %v", err)
		}
		mustClose(t, n)
		<-time.After(time.Minute)
	})
}
