package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/internal/memnet"
)

// village is replicas on real data directories, in real time, with a network in memory
// so that they keep their addresses.
type village struct {
	t     *testing.T
	net   *memnet.Network
	dirs  map[string]string
	state map[string]*ledger
	mu    sync.Mutex
	nodes map[string]*Node // that run
}

func newVillage(t *testing.T) *village {
	return &village{t: t, net: memnet.New(1), dirs: map[string]string{}, state: map[string]*ledger{}, nodes: map[string]*Node{}}
}

func (v *village) options(id string, expect int, join ...string) Options {
	if v.dirs[id] == "" {
		v.dirs[id] = v.t.TempDir()
	}
	o := testOptions(v.t, v.dirs[id])
	o.Logger = o.Logger.With("at", id)
	o.NodeID, o.PeerAddr, o.URL, o.Network = id, id+":9400", urlOf(id), v.net.Host(id)
	o.TimingFactor = 0.4
	v.state[id] = &ledger{}
	o.FSM, o.Members = v.state[id], v.state[id].members
	o.BootstrapExpect = expect
	for _, j := range join {
		o.Join = append(o.Join, urlOf(j))
	}
	o.Discover = func(_ context.Context, url string) (Identity, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		for id, n := range v.nodes {
			if urlOf(id) == url {
				return n.Identity(), nil
			}
		}
		return Identity{}, errors.New("connection refused")
	}
	return o
}

// found lays out directories of replicas that are about to be one cluster: the first
// has decided, all have agreed.
func (v *village) found(ids ...string) {
	v.t.Helper()
	p := promise{Cluster: "village"}
	for _, id := range ids {
		p.Nodes = append(p.Nodes, Identity{NodeID: id, PeerAddr: id + ":9400", URL: urlOf(id)})
	}
	for i, id := range ids {
		v.dirs[id] = v.t.TempDir()
		files := map[string]string{versionFile: "1", promiseFile: string(mustMarshal(p))}
		if i == 0 {
			files[clusterIDFile] = p.Cluster
		}
		for name, text := range files {
			if err := writeDurably(v.dirs[id], name, []byte(text+"\n")); err != nil {
				v.t.Fatal(err)
			}
		}
	}
}

func (v *village) open(o Options) *Node {
	v.t.Helper()
	n := mustOpen(v.t, o)
	v.mu.Lock()
	v.nodes[o.NodeID] = n
	v.mu.Unlock()
	return n
}

func (v *village) close(id string) {
	v.t.Helper()
	v.mu.Lock()
	n := v.nodes[id]
	delete(v.nodes, id)
	v.mu.Unlock()
	mustClose(v.t, n)
}

// ready waits until each node is a voter of a cluster of just these.
func (v *village) ready(ids ...string) {
	v.t.Helper()
	await(v.t, "ready", func() error {
		for _, id := range ids {
			n := v.nodes[id]
			if err := n.Ready(); err != nil {
				return fmt.Errorf("%s: %w", id, err)
			}
			conf := n.configuration()
			for _, o := range ids {
				if s, ok := serverOf(conf, o); !ok || s.Suffrage != raft.Voter || len(conf.Servers) != len(ids) || len(v.state[id].members()) != len(ids) {
					return fmt.Errorf("%s has the configuration %v and the members %v", id, conf, v.state[id].members())
				}
			}
		}
		return nil
	})
}

// propose puts a line into the log, whoever leads.
func (v *village) propose(line string) {
	v.t.Helper()
	await(v.t, line, func() error {
		_, err := v.leader().Propose(v.t.Context(), []byte(line))
		return err
	})
}

// want holds a node's state to the lines. One whose outcome was unknown at first may be
// there twice, one after the other: propose repeats it.
func (v *village) want(id string, lines ...string) {
	v.t.Helper()
	if got := slices.Compact(v.state[id].all()); !slices.Equal(got, lines) {
		v.t.Errorf("%s has %q, want %q", id, got, lines)
	}
}

// leader is the node that leads.
func (v *village) leader() *Node {
	v.t.Helper()
	var leader *Node
	await(v.t, "leader", isTrue("nobody leads", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, n := range v.nodes {
			if n.IsLeader() {
				leader = n
				return true
			}
		}
		return false
	}))
	return leader
}
