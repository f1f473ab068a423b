package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// removedFile marks the data directory of a node that was removed from its cluster.
	removedFile = "removed"
	// memberFile marks that of a node that has been a member for certain. Who has only
	// been about to become one, by an entry that was dropped with its leader, is not
	// removed when the next leader does not know it: it asks to join again.
	memberFile = "member"
)

// removedError says that a data directory is that of a removed node.
func removedError(dir, node, mark string) error {
	return fmt.Errorf("%w: node %q, data directory %q (%s); to run it again as a new member start it with an empty --data-dir and --join, and move this directory away", ErrRemoved, node, dir, mark)
}

// notRemoved refuses the data directory of a removed node.
func notRemoved(files smallFiles, dir, node string) error {
	mark, err := files.read(removedFile)
	if err != nil || mark == "" {
		return err
	}
	return removedError(dir, node, mark)
}

// removedPath tells a node that it was removed.
const removedPath = "/cluster/removed"

type removedCall struct {
	Term uint64 `json:"term"` // of the leader that says so
}

// tellRemoved tells a node that was removed, if it is there. If not it will ask.
func (n *Node) tellRemoved(ctx context.Context, gone raft.Server) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := n.ask(ctx, peerTarget{string(gone.ID), string(gone.Address)}, removedPath, removedCall{n.raft.CurrentTerm()}, nil)
	if err != nil {
		n.log.Debug("a node that was removed was not told; it will ask", "node", string(gone.ID), "error", err)
	}
}

// answerRemoved takes the word of a leader whose term is no older than this node's.
func (n *Node) answerRemoved(_ context.Context, from Identity, body []byte) ([]byte, error) {
	var c removedCall
	if err := unmarshal(body, &c); err != nil {
		return nil, err
	}
	if term := n.raft.CurrentTerm(); c.Term < term {
		return nil, inWords(ErrConflict, "the word of term %d, and it is term %d", c.Term, term)
	}
	n.wasRemoved(from.NodeID, c.Term)
	return nil, nil
}

// memberPath answers how a replica stands, and whether who asks is a member.
const memberPath = "/cluster/member"

// standing is the answer.
type standing struct {
	Term    uint64 `json:"term"`
	Applied uint64 `json:"applied"`
	Leading bool   `json:"leading"` // and the term has begun
	// Member says that who asks is a member, or may be once it is decided; Settled that
	// it is one for certain.
	Member  bool `json:"member"`
	Settled bool `json:"settled"`
	// LeaderID and LeaderAddr say whom to ask instead, empty when nobody leads.
	LeaderID   string `json:"leader_id"`
	LeaderAddr string `json:"leader_addr"`
}

func (n *Node) answerMember(_ context.Context, from Identity, _ []byte) ([]byte, error) {
	s, _ := n.view.get()
	conf, pending := n.configuration(), n.pending.has(from.NodeID)
	// Asked after the configuration was read: that of another leader, which is in the log
	// as soon as this node follows it, may not be committed.
	term, leads := n.leads()
	_, named := serverOf(conf, from.NodeID)
	a := standing{
		Term: n.raft.CurrentTerm(), Applied: n.machine.Applied(), Leading: leads,
		Member: named || pending, Settled: named && !pending,
	}
	if leader, ok := serverOf(conf, s.leader); ok {
		a.LeaderID, a.LeaderAddr = string(leader.ID), string(leader.Address)
	}
	if leads {
		a.Term = term // and if leadership is lost meanwhile, it was true then
	}
	return json.Marshal(a)
}

func (n *Node) standingOf(ctx context.Context, to peerTarget) (standing, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var s standing
	return s, n.ask(ctx, to, memberPath, nil, &s)
}

// askIfMember asks the other replicas whether this node is a member, and returns the
// word that counts: that of a leader of a term that has begun and is no older than this
// node's. All that was committed before is in its configuration. False when nobody
// could say.
//
// raft stops sending to a removed node, which so may never see the entry that removed
// it, or not that it was committed.
func (n *Node) askIfMember(ctx context.Context) (s standing, by string, ok bool) {
	term := n.raft.CurrentTerm()
	asked := map[peerTarget]bool{}
	ask := n.othersKnown()
	for i := 0; i < len(ask) && i < maxJoin && ctx.Err() == nil; i++ {
		asked[ask[i]] = true
		s, err := n.standingOf(ctx, ask[i])
		switch {
		case err != nil:
		case s.Leading && s.Term >= term:
			return s, ask[i].ID, true
		case s.LeaderID != "" && s.LeaderID != n.id:
			if to := (peerTarget{s.LeaderID, s.LeaderAddr}); !asked[to] {
				ask = append(ask, to)
			}
		}
	}
	return standing{}, "", false
}

// wasMember reports whether this node has been a member for certain.
func (n *Node) wasMember() bool { return n.certain.Load() }

// markMember notes that this node is a member for certain.
func (n *Node) markMember() {
	if n.certain.Load() {
		return
	}
	if err := n.parts.files.write(memberFile, n.cluster.current()); err != nil {
		n.log.Warn("cannot note that this node is a member", "error", err)
		return
	}
	n.certain.Store(true)
}

// othersKnown are the replicas that this node may ask.
func (n *Node) othersKnown() []peerTarget {
	var out []peerTarget
	seen := map[string]bool{n.id: true}
	add := func(id, addr string) {
		if !seen[id] {
			seen[id] = true
			out = append(out, peerTarget{id, addr})
		}
	}
	for _, s := range n.configuration().Servers {
		add(string(s.ID), string(s.Address))
	}
	for _, m := range n.members() {
		add(m.NodeID, m.PeerAddr)
	}
	if p := n.promised(); p != nil {
		for _, m := range p.Nodes {
			add(m.NodeID, m.PeerAddr)
		}
	}
	return out
}

// wasRemoved marks the data directory and ends this node.
func (n *Node) wasRemoved(by string, term uint64) {
	mark := fmt.Sprintf("node %q, the leader of term %d of cluster %q, said so on %s", by, term, n.cluster.current(), time.Now().UTC().Format(time.RFC3339))
	err := removedError(n.opts.DataDir, n.id, mark)
	if failed := n.parts.files.write(removedFile, mark); failed != nil {
		err = errors.Join(err, failed)
	}
	n.fail(err)
}
