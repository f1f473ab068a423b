package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// leavePath has the leader remove a member, for one that has just handed over.
const leavePath = "/cluster/leave"

// Leave removes a member. Only the leader does it; elsewhere the answer is a
// *NotLeaderError. A leader that is to leave hands over first, and the next one
// removes it.
//
// Errors: ErrUnknownNode, ErrQuorum (too few of the remaining voters answer; force
// overrides that, but never removes the last voter), ErrUnknownOutcome (asking again
// is safe).
func (n *Node) Leave(ctx context.Context, nodeID string, force bool) error {
	if err := n.enter(); err != nil {
		return err
	}
	defer n.calls.leave()
	var err error
	if nodeID == n.id && n.IsLeader() {
		err = n.leaveLeading(ctx, force)
	} else {
		var gone raft.Server
		if gone, err = n.leave(ctx, nodeID, force); err == nil {
			n.tellRemoved(ctx, gone)
		}
	}
	if err != nil {
		return fmt.Errorf("leave of node %.80q: %w", nodeID, err)
	}
	return nil
}

// leave removes another node.
func (n *Node) leave(ctx context.Context, nodeID string, force bool) (gone raft.Server, err error) {
	err = n.change(ctx, func(ctx context.Context) error {
		conf := n.configuration()
		s, ok := serverOf(conf, nodeID)
		switch {
		case !ok:
			return fmt.Errorf("%w: the members are %s", ErrUnknownNode, memberIDs(conf))
		case nodeID == n.id:
			return fmt.Errorf("%w: it leads by now: ask again", ErrBusy)
		}
		gone = s
		if err := n.removeServer(ctx, conf, s, force); err != nil {
			return err
		}
		return n.forget(ctx, nodeID)
	})
	return gone, err
}

// removeServer takes a member out of raft's configuration, if the others can do
// without.
func (n *Node) removeServer(ctx context.Context, conf raft.Configuration, s raft.Server, force bool) error {
	if string(s.ID) == n.id {
		return inWords(ErrConflict, "node %q leads", n.id)
	}
	if err := n.quorumWithout(ctx, conf, s, force); err != nil {
		return err
	}
	err := n.changed(ctx, s.ID, func() raft.IndexFuture { return n.raft.RemoveServer(s.ID, 0, n.times.hold()) })
	if err == nil {
		n.log.Info("member removed", "node", string(s.ID), "peer", string(s.Address))
	}
	return err
}

// forget makes the state forget a member.
func (n *Node) forget(ctx context.Context, nodeID string) error {
	if n.opts.Members != nil && n.memberOf(nodeID).NodeID == "" {
		return nil
	}
	_, _, err := n.apply(ctx, n.entries.removeMember(nodeID))
	return err
}

// quorumWithout returns ErrQuorum when the voters that answer would be no majority of
// those that are left without s.
func (n *Node) quorumWithout(ctx context.Context, conf raft.Configuration, s raft.Server, force bool) error {
	if s.Suffrage != raft.Voter {
		return nil
	}
	var rest []raft.Server
	for _, o := range conf.Servers {
		if o.Suffrage == raft.Voter && o.ID != s.ID {
			rest = append(rest, o)
		}
	}
	if len(rest) == 0 {
		return fmt.Errorf("%w: node %q is the last voter", ErrQuorum, s.ID)
	}
	if force {
		return nil
	}
	answers := make([]bool, len(rest))
	var wg sync.WaitGroup
	for i, o := range rest {
		if string(o.ID) == n.id {
			answers[i] = true
			continue
		}
		wg.Add(1)
		// Owner: this call; ends within lookTimeout.
		go func() {
			defer wg.Done()
			there, err := n.look(ctx, peerTarget{string(o.ID), string(o.Address)})
			answers[i] = err == nil && there.ClusterID == n.cluster.current()
		}()
	}
	wg.Wait()
	var silent []string
	for i, o := range rest {
		if !answers[i] {
			silent = append(silent, fmt.Sprintf("%q at %s", o.ID, o.Address))
		}
	}
	if healthy, need := len(rest)-len(silent), len(rest)/2+1; healthy < need {
		return fmt.Errorf("%w: of the %d voters without node %q %d must answer, and %d do; not %s: bring them back, or remove those first, or use force",
			ErrQuorum, len(rest), s.ID, need, healthy, strings.Join(silent, ", "))
	}
	return nil
}

// leaveLeading removes this node, which leads: it hands over and has the next leader
// do it.
func (n *Node) leaveLeading(ctx context.Context, force bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, changeTimeout,
		fmt.Errorf("%w: it was not removed within %v: ask again", ErrUnknownOutcome, changeTimeout))
	defer cancel()
	conf := n.configuration()
	self, ok := serverOf(conf, n.id)
	if !ok {
		return ErrUnknownNode
	}
	if err := n.quorumWithout(ctx, conf, self, force); err != nil {
		return err
	}
	if err := n.transferred(n.handTo(ctx), ""); err != nil {
		return fmt.Errorf("it leads, and leadership was not handed over: %w", err)
	}
	for {
		s, changed := n.view.get()
		leader, ok := serverOf(n.configuration(), s.leader)
		var again <-chan time.Time
		if ok && s.leader != n.id {
			err := n.ask(ctx, peerTarget{string(leader.ID), string(leader.Address)}, leavePath, leaveCall{n.id, force}, nil)
			switch {
			case err == nil, errors.Is(err, ErrUnknownNode): // an earlier request has done it
				return nil
			case errors.Is(err, ErrQuorum):
				return err
			}
			again = time.After(n.times.election / 5)
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-n.stopping:
			return unknown(ErrStopped)
		}
	}
}

// leaveCall is Leave between replicas.
type leaveCall struct {
	NodeID string `json:"node_id"`
	Force  bool   `json:"force"`
}

func (n *Node) answerLeave(ctx context.Context, _ Identity, body []byte) ([]byte, error) {
	var c leaveCall
	if err := unmarshal(body, &c); err != nil {
		return nil, err
	}
	if _, err := n.leave(ctx, c.NodeID, c.Force); err != nil {
		return nil, fmt.Errorf("leave of node %.80q: %w", c.NodeID, err)
	}
	return nil, nil // who asks is told by this
}

func memberIDs(c raft.Configuration) string {
	ids := map[string]bool{}
	for _, s := range c.Servers {
		ids[fmt.Sprintf("%q", s.ID)] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(ids)), ", ")
}
