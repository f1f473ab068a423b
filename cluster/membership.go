package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// JoinRequest asks for a replica to be a member. Known by its node id, it gets the
// addresses given here.
type JoinRequest struct {
	NodeID   string `json:"node_id"`
	PeerAddr string `json:"peer_addr"`
	URL      string `json:"url"` // "" = what the replica itself says
	Voter    bool   `json:"voter"`
}

// JoinResult is the member as it stands. One that is to vote and does not yet is
// made a voter when it has caught up.
type JoinResult struct {
	NodeID   string `json:"node_id"`
	PeerAddr string `json:"peer_addr"`
	URL      string `json:"url"`
	Voter    bool   `json:"voter"`   // now
	Changed  bool   `json:"changed"` // by this request
}

// Join makes a replica a member: first one without a vote, and when that is wished
// a voter once it has caught up. Asked again it changes nothing. It never takes a
// vote away; Leave does.
//
// Only the leader does it; elsewhere the answer is a *NotLeaderError. Errors besides:
// ErrUnreachable (nothing that calls itself so answers at the peer address),
// ErrConflict (id or address are in use, or the replica is of another cluster),
// ErrQuorum (a voter would have to go first, and cannot), ErrRemoved (it has the data
// of a member that was removed), ErrUnknownOutcome (asking again is safe).
func (n *Node) Join(ctx context.Context, r JoinRequest) (JoinResult, error) {
	return n.joinAs(ctx, joinCall{JoinRequest: r})
}

func (n *Node) joinAs(ctx context.Context, r joinCall) (JoinResult, error) {
	if err := n.enter(); err != nil {
		return JoinResult{}, err
	}
	defer n.calls.leave()
	if err := r.check(); err != nil {
		return JoinResult{}, fmt.Errorf("join: %w", err)
	}
	var result JoinResult
	err := n.change(ctx, func(ctx context.Context) (err error) {
		result, err = n.join(ctx, r)
		return err
	})
	if err != nil {
		return JoinResult{}, fmt.Errorf("join of node %q at %s: %w", r.NodeID, r.PeerAddr, err)
	}
	return result, nil
}

func (r JoinRequest) check() error {
	if !nodeIDPattern.MatchString(r.NodeID) {
		return inWords(ErrConflict, "node id %.80q: want 1 to 64 letters, digits, dots, dashes or underscores", r.NodeID)
	}
	host, port, err := net.SplitHostPort(r.PeerAddr)
	if err != nil || unspecified(host) || port == "" || port == "0" || len(r.PeerAddr) > maxPeerAddr {
		return fmt.Errorf("%w: peer address %.80q of node %q: want a host:port that every replica can dial", ErrUnreachable, r.PeerAddr, r.NodeID)
	}
	if len(r.URL) > fsm.MaxName {
		return inWords(ErrConflict, "REST URL of %d bytes of node %q: want at most %d", len(r.URL), r.NodeID, fsm.MaxName)
	}
	return nil
}

// requestJoin sends a request to join to a member, which passes it on to the leader.
func (n *Node) requestJoin(ctx context.Context, to peerTarget, r joinCall) error {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return n.ask(ctx, to, pathJoin, r, nil)
}

// joinCall is a JoinRequest between replicas.
type joinCall struct {
	JoinRequest
	// KeepVote leaves the wish for a vote as it is: a member only says where it is.
	KeepVote bool `json:"keep_vote"`
	Passed   bool `json:"passed"` // on, by a replica that took it for the leader
}

// answerJoin takes a request of another replica, and passes it on once when another
// leads.
func (n *Node) answerJoin(ctx context.Context, _ Identity, body []byte) ([]byte, error) {
	var c joinCall
	if err := unmarshal(body, &c); err != nil {
		return nil, err
	}
	if n.cluster.current() == "" {
		return nil, n.notFormed()
	}
	result, err := n.joinAs(ctx, c)
	var other *NotLeaderError
	if errors.As(err, &other) && !c.Passed {
		if s, ok := serverOf(n.configuration(), other.Leader.NodeID); ok {
			c.Passed = true
			return n.callPeer(ctx, peerTarget{string(s.ID), string(s.Address)}, pathJoin, mustMarshal(c))
		}
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(result)
}

// join is Join on the goroutine that makes changes.
func (n *Node) join(ctx context.Context, r joinCall) (JoinResult, error) {
	conf := n.configuration()
	known, isMember := serverOf(conf, r.NodeID)
	wish := n.memberOf(r.NodeID)
	if r.KeepVote {
		r.Voter = wish.Voter
	}
	wish = registry.Member{NodeID: r.NodeID, PeerAddr: r.PeerAddr, URL: cmp.Or(r.URL, wish.URL), Voter: r.Voter || isMember && known.Suffrage == raft.Voter}
	changed := false

	if r.NodeID == n.id {
		if r.PeerAddr != n.PeerAddr() {
			return JoinResult{}, inWords(ErrConflict, "that node leads, and its peer address is %s; another one is set where it runs, with --peer-advertise", n.PeerAddr())
		}
		return n.joined(ctx, wish, changed)
	}
	there, err := n.look(ctx, peerTarget{r.NodeID, r.PeerAddr})
	if err != nil {
		if isMember && known.Address == raft.ServerAddress(r.PeerAddr) {
			return n.joined(ctx, wish, changed) // a member that does not answer now
		}
		return JoinResult{}, joinRefused(err)
	}
	wish.URL = cmp.Or(there.URL, wish.URL)
	empty := there.ClusterID == ""
	switch {
	case !empty && there.ClusterID != n.cluster.current():
		return JoinResult{}, inWords(ErrConflict, "it is in cluster %q, this is cluster %q; start it with an empty --data-dir", there.ClusterID, n.cluster.current())
	case !isMember && there.WasMember:
		return JoinResult{}, fmt.Errorf("%w; it has the data of before: start it with an empty --data-dir", ErrRemoved)
	case isMember && known.Address != raft.ServerAddress(r.PeerAddr):
		if err := n.movedAway(ctx, known, there.Run); err != nil {
			return JoinResult{}, err
		}
	}
	if other, ok := serverAt(conf, r.PeerAddr); ok && string(other.ID) != r.NodeID {
		if isMember {
			return JoinResult{}, inWords(ErrConflict, "that address is known as node %q's, which may have moved, too, and not said where to yet; if it is gone, have it leave", other.ID)
		}
		// Nobody can reach it there any more.
		n.log.Info("the address of a member belongs to another node by now, the member is removed", "node", string(other.ID), "peer", r.PeerAddr, "new", r.NodeID)
		if err := n.removeServer(ctx, conf, other, false); err != nil {
			return JoinResult{}, fmt.Errorf("its address is that of node %q, which has to be removed first: %w", other.ID, err)
		}
		conf, changed = n.configuration(), true
	}
	if empty && isMember && known.Suffrage == raft.Voter {
		// It has lost its vote and its entries: it must not be counted before it has
		// caught up.
		n.log.Warn("a voter has come back with an empty data directory, it is removed and added anew", "node", r.NodeID)
		if err := n.removeServer(ctx, conf, known, false); err != nil {
			return JoinResult{}, fmt.Errorf("it has lost its data and has to be removed first: %w", err)
		}
		isMember, changed = false, true
		wish.Voter = true
	}
	if empty {
		if err := n.admit(ctx, peerTarget{r.NodeID, r.PeerAddr}); err != nil {
			return JoinResult{}, joinRefused(err)
		}
	}
	// The state first: a member of the configuration has a wish on record, whoever
	// leads then.
	result, err := n.joined(ctx, wish, changed)
	if err != nil || isMember && known.Address == raft.ServerAddress(r.PeerAddr) {
		return result, err
	}
	err = n.changed(ctx, raft.ServerID(r.NodeID), func() raft.IndexFuture { // of a known one only the address changes
		return n.raft.AddNonvoter(raft.ServerID(r.NodeID), raft.ServerAddress(r.PeerAddr), 0, n.times.hold())
	})
	if err != nil {
		return JoinResult{}, err
	}
	n.log.Info("member added or moved", "node", r.NodeID, "peer", r.PeerAddr, "url", wish.URL)
	return n.joined(ctx, wish, true)
}

// joined makes the state know the member, and says how it stands.
func (n *Node) joined(ctx context.Context, m registry.Member, changed bool) (JoinResult, error) {
	if n.opts.Members != nil && n.memberOf(m.NodeID) != m {
		if _, _, err := n.apply(ctx, n.entries.setMember(m)); err != nil {
			return JoinResult{}, fmt.Errorf("note its addresses: %w", err)
		}
		changed = true
	}
	s, ok := serverOf(n.configuration(), m.NodeID)
	return JoinResult{NodeID: m.NodeID, PeerAddr: m.PeerAddr, URL: m.URL, Voter: ok && s.Suffrage == raft.Voter, Changed: changed}, nil
}

// joinRefused sorts why a joiner did not answer as it should.
func joinRefused(err error) error {
	var refused *helloRefused
	switch {
	case errors.As(err, &refused) && refused.Code == helloWrongCluster:
		return inWords(ErrConflict, "%w; start it with an empty --data-dir", err)
	case errors.As(err, &refused) && refused.Code == helloSameNode:
		return inWords(ErrConflict, "%w; give one of the two another --node-id", err)
	case errors.Is(err, ErrConflict):
		return err
	case !errors.Is(err, ErrUnreachable):
		err = fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return fmt.Errorf("%w; is it running, and is this the address that others dial (--peer-advertise)?", err)
}

// movedAway returns an error while a member's old address still answers as it, from
// another process than the one at its new address.
func (n *Node) movedAway(ctx context.Context, known raft.Server, run string) error {
	there, err := n.look(ctx, peerTarget{string(known.ID), string(known.Address)})
	if err != nil || there.Run == run {
		return nil
	}
	return inWords(ErrConflict, "node %q still answers at %s: stop it first, or give the new one another --node-id", known.ID, known.Address)
}

// admitPath tells an empty replica that the cluster takes it in: from then on it
// takes the leader's entries.
const admitPath = "/cluster/found/admit"

func (n *Node) admit(ctx context.Context, to peerTarget) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return n.ask(ctx, to, admitPath, attempt{n.cluster.current()}, nil)
}

// answerAdmit lets the leader of a cluster in: of the one that this node has asked,
// or of any when it was given none to ask. An empty replica under the id of a voter
// must not take part before the leader has taken its vote away.
func (n *Node) answerAdmit(_ context.Context, from Identity, body []byte) ([]byte, error) {
	var a attempt
	if err := unmarshal(body, &a); err != nil {
		return nil, err
	}
	f := &n.formation
	f.mu.Lock()
	defer f.mu.Unlock()
	switch own := n.cluster.current(); {
	case own == a.Cluster:
		return nil, nil
	case own != "" || from.ClusterID != a.Cluster:
		return nil, inWords(ErrConflict, "this node is in cluster %q", own)
	case f.promise != nil && f.promise.Cluster != a.Cluster:
		return nil, inWords(ErrConflict, "this node has promised node %q to found a cluster with it", f.promise.founder().NodeID)
	case len(n.opts.Join) > 0 && f.asked != a.Cluster:
		return nil, inWords(ErrConflict, "this node was started with --join and has not asked cluster %q; start it without, or with --join naming that cluster", a.Cluster)
	}
	if !n.cluster.agree(a.Cluster) {
		return nil, inWords(ErrConflict, "this node is in cluster %q by now", n.cluster.current())
	}
	return nil, nil
}

// serverAt is the member with that peer address.
func serverAt(c raft.Configuration, addr string) (raft.Server, bool) {
	i := slices.IndexFunc(c.Servers, func(s raft.Server) bool { return s.Address == raft.ServerAddress(addr) })
	if i < 0 {
		return raft.Server{}, false
	}
	return c.Servers[i], true
}

// memberOf is what the state knows of a replica, zero when nothing.
func (n *Node) memberOf(id string) registry.Member {
	for _, m := range n.members() {
		if m.NodeID == id {
			return m
		}
	}
	return registry.Member{}
}
