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

// join adds a replica. Twice is the same as once: a replica that is in the cluster as
// asked for is left as it is.
func (s *Server) join(t terms, vs values) (*mutation, error) {
	ask := cluster.JoinRequest{
		NodeID: vs[joinNode].str, PeerAddr: vs[joinPeerAddr].str, URL: vs[joinURL].str,
		Voter: !vs[joinVoter].present || vs[joinVoter].boolean,
	}
	return &mutation{
		what: fmt.Sprintf("join of node %q", ask.NodeID), longest: adminWait(t), repeats: true,
		act: func(ctx context.Context) (int, any, error) {
			got, err := s.opts.Node.Join(ctx, ask)
			return http.StatusOK, struct {
				NodeID   string `json:"node_id"`
				PeerAddr string `json:"peer_addr"`
				URL      string `json:"url"`
				Voter    bool   `json:"voter"`
				Changed  bool   `json:"changed"`
			}{got.NodeID, got.PeerAddr, got.URL, got.Voter, got.Changed}, err
		},
	}, nil
}

// left is the answer to a leave.
type left struct {
	NodeID string `json:"node_id"`
}

// leave removes a replica. It may be repeated when its outcome is not known: that there is
// no such replica then means that it was done.
func (s *Server) leave(t terms, vs values) (*mutation, error) {
	node := vs[leaveNode].str
	return &mutation{
		what: fmt.Sprintf("leave of node %q", node), longest: adminWait(t), repeats: true, doneIf: codeUnknownNode, done: left{node},
		act: func(ctx context.Context) (int, any, error) {
			return http.StatusOK, left{node}, s.opts.Node.Leave(ctx, node, vs[leaveForce].boolean)
		},
	}, nil
}

// transferred is the answer to a transfer.
type transferred struct {
	Leader cluster.Leader `json:"leader"`
}

// transfer hands leadership over. To a named replica twice is the same as once. Without a
// name it is repeated only when it has surely not been done: else it might move on. Its
// answer is lost as a rule when another replica than the leader was asked, which hears of
// the next leader before the last one has said so: that another one leads is the answer.
func (s *Server) transfer(t terms, vs values) (*mutation, error) {
	node := vs[0].str
	before, led := s.opts.Node.Leader()
	m := &mutation{what: "transfer of leadership", longest: adminWait(t), repeats: node != ""}
	if node != "" {
		m.what += fmt.Sprintf(" to node %q", node)
	} else {
		m.recorded = func() (status int, body any, known bool, err error) {
			now, leads := s.opts.Node.Leader()
			return http.StatusOK, transferred{now}, led && leads && now.NodeID != before.NodeID, nil
		}
	}
	m.act = func(ctx context.Context) (int, any, error) {
		if node != "" && !slices.ContainsFunc(s.opts.Node.Status().Nodes, func(n cluster.NodeStatus) bool { return n.NodeID == node }) {
			return 0, nil, fmt.Errorf("transfer of leadership to %q: %w", node, cluster.ErrUnknownNode)
		}
		if err := s.opts.Node.Transfer(ctx, node); err != nil {
			return 0, nil, err
		}
		return http.StatusOK, transferred{s.leaderAfter(ctx, node)}, nil
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
