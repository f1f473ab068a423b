package main

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/kvctrl/kvctrl/cluster"
)

// errOpening is why a replica is not ready while it reads its log back.
var errOpening = errors.New("the log is being opened")

// openingNode stands for the node until it is open, so that the rooms around it can
// be made first: it answers that there is no leader, which callers wait out.
//
// Concurrency: any goroutine; set is called once.
type openingNode struct{ node atomic.Pointer[cluster.Node] }

func (n *openingNode) set(node *cluster.Node) { n.node.Store(node) }

func (n *openingNode) Propose(ctx context.Context, entry []byte) (cluster.Applied, error) {
	if node := n.node.Load(); node != nil {
		return node.Propose(ctx, entry)
	}
	return cluster.Applied{}, cluster.ErrNoLeader
}

func (n *openingNode) Read(ctx context.Context, r cluster.Read) (cluster.Freshness, error) {
	if node := n.node.Load(); node != nil {
		return node.Read(ctx, r)
	}
	return cluster.Freshness{}, cluster.ErrNoLeader
}

func (n *openingNode) Snapshot(ctx context.Context) error {
	if node := n.node.Load(); node != nil {
		return node.Snapshot(ctx)
	}
	return cluster.ErrNoLeader
}

func (n *openingNode) Ready() error {
	if node := n.node.Load(); node != nil {
		return node.Ready()
	}
	return errOpening
}

func (n *openingNode) NodeID() string {
	if node := n.node.Load(); node != nil {
		return node.NodeID()
	}
	return ""
}

func (n *openingNode) IsLeader() bool {
	node := n.node.Load()
	return node != nil && node.IsLeader()
}

func (n *openingNode) Leader() (cluster.Leader, bool) {
	if node := n.node.Load(); node != nil {
		return node.Leader()
	}
	return cluster.Leader{}, false
}

func (n *openingNode) Status() cluster.Status {
	if node := n.node.Load(); node != nil {
		return node.Status()
	}
	return cluster.Status{Role: "follower"}
}

func (n *openingNode) Counters() cluster.Counters {
	if node := n.node.Load(); node != nil {
		return node.Counters()
	}
	return cluster.Counters{}
}
