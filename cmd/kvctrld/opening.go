package main

import (
	"context"
	"errors"
	"net/http"
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

// Submit and Propose differ once the node is open: on a follower the one goes to the
// leader, the other is refused.
func (n *openingNode) Submit(ctx context.Context, entry []byte) (cluster.Applied, error) {
	if node := n.node.Load(); node != nil {
		return node.Submit(ctx, entry)
	}
	return cluster.Applied{}, cluster.ErrNoLeader
}

func (n *openingNode) AskLeader(ctx context.Context, path string, body []byte) ([]byte, error) {
	if node := n.node.Load(); node != nil {
		return node.AskLeader(ctx, path, body)
	}
	return nil, cluster.ErrNoLeader
}

// LeaderTransport may be kept: it looks for the node at each request.
func (n *openingNode) LeaderTransport() http.RoundTripper { return leaderTransport{n} }

type leaderTransport struct{ *openingNode }

func (t leaderTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if node := t.node.Load(); node != nil {
		return node.LeaderTransport().RoundTrip(r)
	}
	if r.Body != nil { // a RoundTripper closes it, whatever comes of the request
		r.Body.Close()
	}
	return nil, cluster.ErrNoLeader
}

func (n *openingNode) Join(ctx context.Context, r cluster.JoinRequest) (cluster.JoinResult, error) {
	if node := n.node.Load(); node != nil {
		return node.Join(ctx, r)
	}
	return cluster.JoinResult{}, cluster.ErrNoLeader
}

func (n *openingNode) Leave(ctx context.Context, nodeID string, force bool) error {
	if node := n.node.Load(); node != nil {
		return node.Leave(ctx, nodeID, force)
	}
	return cluster.ErrNoLeader
}

func (n *openingNode) Transfer(ctx context.Context, nodeID string) error {
	if node := n.node.Load(); node != nil {
		return node.Transfer(ctx, nodeID)
	}
	return cluster.ErrNoLeader
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

func (n *openingNode) Identity() cluster.Identity {
	if node := n.node.Load(); node != nil {
		return node.Identity()
	}
	return cluster.Identity{}
}

func (n *openingNode) Term() uint64 {
	if node := n.node.Load(); node != nil {
		return node.Term()
	}
	return 0
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
