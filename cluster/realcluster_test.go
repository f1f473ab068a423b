package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// realCluster is a cluster of nodes with disks, TCP and the real state machine.
type realCluster struct {
	t      testing.TB
	nodes  []*Node
	states []*fsm.FSM
}

// openCluster starts one whose members are all voters from the start.
func openCluster(t testing.TB, size int, tune func(i int, o *Options)) *realCluster {
	t.Helper()
	c := &realCluster{t: t}
	var all []parts
	var opts []Options
	var conf raft.Configuration
	for i := range size {
		state := fsm.New(fsm.Options{OnFatal: func(err error) { t.Errorf("state machine: %v", err) }})
		o := testOptions(t, t.TempDir())
		o.NodeID, o.URL, o.FSM = fmt.Sprintf("n%d", i+1), fmt.Sprintf("http://n%d:9000", i+1), state
		o.Members = func() []registry.Member { return state.Registry().Members() }
		if tune != nil {
			tune(i, &o)
		}
		o = o.withDefaults()
		var undo undoList
		p, err := diskParts(context.Background(), o, &undo)
		if err != nil {
			t.Fatal(err)
		}
		p.clusterID = "real"
		conf.Servers = append(conf.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(p.nodeID), Address: p.transport.LocalAddr()})
		all, opts, c.states = append(all, p), append(opts, o), append(c.states, state)
	}
	for i, p := range all {
		p.bootstrap = conf
		n := mustStart(t, opts[i], p)
		c.nodes = append(c.nodes, n)
		t.Cleanup(func() { _ = n.Close(ctxFor(t, 20*time.Second)) })
	}
	return c
}

// leader waits for one that all agree on, and returns it and the others.
func (c *realCluster) leader() (leader *Node, others []*Node) {
	c.t.Helper()
	await(c.t, "leader", func() error {
		leader, others = nil, nil
		for _, n := range c.nodes {
			if n.closing.Load() {
				continue
			}
			if n.IsLeader() {
				leader = n
			} else {
				others = append(others, n)
			}
		}
		if leader == nil {
			return ErrNoLeader
		}
		for _, n := range others {
			if s, _ := n.view.get(); s.leader != leader.id {
				return fmt.Errorf("%s says that %q leads", n.id, s.leader)
			}
		}
		return nil
	})
	return leader, others
}

// state of a node.
func (c *realCluster) state(n *Node) *fsm.FSM { return c.states[slices.Index(c.nodes, n)] }

// batch makes a worker batch that registers worker i of an instance.
func batch(session byte, number uint64, worker int) []byte {
	b := fsm.NewBatch(registry.SessionID{session})
	b.Register(registry.Registration{WorkerRef: registry.WorkerRef{Instance: "vllm-0", Worker: int64(worker)}, IP: "10.0.0.1", Port: 9000, At: now()})
	return b.Encode(number, now())
}
