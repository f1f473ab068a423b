package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
)

// Changes of the cluster: who belongs to it, and who leads.

// adminWork is how long a change of the cluster may take once there is a leader: it dials
// the replica, commits a configuration and an entry, or waits for an election.
const adminWork = 15 * time.Second

func adminWait(t terms) time.Duration { return max(t.timeout, defaultHold) + adminWork }

// transfer hands leadership over. To a named replica twice is the same as once. Without a
// name it is repeated only when it has surely not been done: else it might move on.
func (s *Server) transfer(t terms, vs values) (*mutation, error) {
	node := vs[0].str
	m := &mutation{what: "transfer of leadership", longest: adminWait(t), repeats: node != ""}
	if node != "" {
		m.what += fmt.Sprintf(" to node %q", node)
	}
	m.act = func(ctx context.Context) (int, any, error) {
		if node != "" && !slices.ContainsFunc(s.opts.Node.Status().Nodes, func(n cluster.NodeStatus) bool { return n.NodeID == node }) {
			return 0, nil, fmt.Errorf("transfer of leadership to %q: %w", node, cluster.ErrUnknownNode)
		}
		if err := s.opts.Node.Transfer(ctx, node); err != nil {
			return 0, nil, err
		}
		return http.StatusOK, struct {
			Leader cluster.Leader `json:"leader"`
		}{s.leaderAfter(ctx, node)}, nil
	}
	return m, nil
}

// leaderAfter waits a moment for the word of who leads after a transfer; empty without.
func (s *Server) leaderAfter(ctx context.Context, wanted string) cluster.Leader {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	tick := time.NewTicker(lookFirst)
	defer tick.Stop()
	for {
		if l, known := s.opts.Node.Leader(); known && (l.NodeID != s.opts.Node.NodeID() || l.NodeID == wanted) {
			return l
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return cluster.Leader{}
		}
	}
}
