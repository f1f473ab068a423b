package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/registry"
)

// announce makes the cluster know this member by the addresses it has now, with the
// request that an empty one joins with.
func (n *Node) announce(ctx context.Context) {
	leader, ok := n.Leader()
	if ok && leader.NodeID == n.id {
		return // settleAddress does
	}
	conf := n.configuration()
	self, _ := serverOf(conf, n.id)
	known := n.memberOf(n.id)
	want := registry.Member{NodeID: n.id, PeerAddr: n.PeerAddr(), URL: n.opts.URL, Voter: known.Voter || self.Suffrage == raft.Voter}
	// KeepVote: the entry with the wish may not be applied here yet.
	call := joinCall{JoinRequest: JoinRequest{NodeID: n.id, PeerAddr: want.PeerAddr, URL: want.URL, Voter: want.Voter}, KeepVote: true}
	if string(self.Address) == want.PeerAddr && (n.opts.Members == nil || known == want || !ok) {
		return // also while a new member waits for the entry that names it
	}
	// Without a leader: it may be there and not reach this node at its old address.
	var targets []peerTarget
	for _, s := range conf.Servers {
		if string(s.ID) != n.id && (!ok || string(s.ID) == leader.NodeID) {
			targets = append(targets, peerTarget{string(s.ID), string(s.Address)})
		}
	}
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	var errs []error
	for _, to := range targets {
		err := n.requestJoin(ctx, to, call)
		if err == nil {
			return
		}
		errs = append(errs, fmt.Errorf("node %q: %w", to.ID, err))
	}
	if err := errors.Join(errs...); err != nil {
		n.complain.add("announce", "the cluster does not know this replica by its present addresses yet", "node", n.id,
			"peer", want.PeerAddr, "known_peer", string(self.Address), "url", want.URL, "known_url", known.URL, "error", err)
	}
}

// settleAddress makes the cluster know this node, which leads, by the address it has
// now: in raft's configuration, and in the state, where its URL stands.
func (n *Node) settleAddress(ctx context.Context) error {
	addr := n.parts.transport.LocalAddr()
	if s, ok := serverOf(n.configuration(), n.id); ok && s.Address != addr {
		n.log.Info("address changed", "node", n.id, "from", string(s.Address), "to", string(addr))
		// With a known id this only changes the address.
		if err := n.changed(ctx, s.ID, func() raft.IndexFuture { return n.raft.AddVoter(s.ID, addr, 0, n.times.hold()) }); err != nil {
			return fmt.Errorf("change the address of node %q to %s: %w", n.id, addr, err)
		}
	}
	self := registry.Member{NodeID: n.id, PeerAddr: string(addr), URL: n.opts.URL, Voter: true}
	if n.memberOf(n.id) == self {
		return nil
	}
	if _, _, err := n.apply(ctx, n.entries.setMember(self)); err != nil {
		return fmt.Errorf("announce node %q: %w", n.id, err)
	}
	return nil
}
