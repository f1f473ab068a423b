package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A non-voter becomes a voter when it has been within promoteLag entries of the leader
// for promoteAfter: a voter that is behind holds up every commit.
const (
	promoteLag   = 250
	promoteAfter = 3 * time.Second
)

// waitingForVote are the members that are to vote and do not yet.
func (n *Node) waitingForVote() []raft.Server {
	var waiting []raft.Server
	for _, s := range n.configuration().Servers {
		if s.Suffrage != raft.Voter && n.memberOf(string(s.ID)).Voter {
			waiting = append(waiting, s)
		}
	}
	return waiting
}

// whoIsNear asks all of them at once.
func (n *Node) whoIsNear(ctx context.Context, waiting []raft.Server) []raft.Server {
	is := make([]bool, len(waiting))
	var wg sync.WaitGroup
	for i, s := range waiting {
		wg.Add(1)
		// Owner: this call; ends within three times lookTimeout.
		go func() {
			defer wg.Done()
			is[i] = n.isNear(ctx, s)
		}()
	}
	wg.Wait()
	var near []raft.Server
	for i, s := range waiting {
		if is[i] {
			near = append(near, s)
		}
	}
	return near
}

// isNear reports whether a member has nearly caught up. One that does not know yet that
// it is taken in is told again.
func (n *Node) isNear(ctx context.Context, s raft.Server) bool {
	to := peerTarget{string(s.ID), string(s.Address)}
	there, err := n.look(ctx, to)
	if err != nil {
		return false
	}
	if there.ClusterID == "" {
		if err := n.admit(ctx, to); err != nil {
			n.log.Debug("a new member does not take the entries yet", "node", to.ID, "error", err)
		}
		return false
	}
	standing, err := n.standingOf(ctx, to)
	return err == nil && standing.Applied+promoteLag >= n.raft.CommitIndex()
}

// nearness notes since when which member has been near.
type nearness map[raft.Server]time.Time

// note takes who is near now, and returns who has been for long enough.
func (m nearness) note(near []raft.Server, now time.Time) (long []raft.Server) {
	is := map[raft.Server]bool{}
	for _, s := range near {
		is[s] = true
		if _, ok := m[s]; !ok {
			m[s] = now
		}
	}
	for s, since := range m {
		switch {
		case !is[s]:
			delete(m, s)
		case now.Sub(since) >= promoteAfter:
			long = append(long, s)
		}
	}
	return long
}

// makeVoter gives a member its vote, if it stands as it was when it was looked at.
func (n *Node) makeVoter(ctx context.Context, s raft.Server) {
	if now, ok := serverOf(n.configuration(), string(s.ID)); !ok || now != s || !n.memberOf(string(s.ID)).Voter {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, changeTimeout, ErrUnknownOutcome)
	defer cancel()
	err := n.changed(ctx, s.ID, func() raft.IndexFuture { return n.raft.AddVoter(s.ID, s.Address, 0, n.times.hold()) })
	if err != nil {
		n.log.Warn("a member that has caught up was not made a voter; tried again", "node", string(s.ID), "error", err)
		return
	}
	n.log.Info("member has caught up and votes now", "node", string(s.ID))
}

// forgetStrangers makes the state forget members that the configuration does not have:
// their removal was cut short.
func (n *Node) forgetStrangers(ctx context.Context) {
	conf := n.configuration()
	for _, m := range n.members() {
		if _, ok := serverOf(conf, m.NodeID); ok || n.pending.has(m.NodeID) {
			continue
		}
		ctx, cancel := context.WithTimeoutCause(ctx, changeTimeout, ErrUnknownOutcome)
		err := n.forget(ctx, m.NodeID)
		cancel()
		if err != nil {
			n.log.Warn("a member that was removed still stands in the state; tried again", "node", m.NodeID, "error", err)
			return
		}
	}
}
