package cluster

import (
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"
)

// succession has raft look at its leader's silence in time. By itself a follower looks
// once every one to two heartbeat timeouts, whenever that is, so that a dead leader is
// noticed after one and a half to two of them; and with pre-vote it takes half of the
// followers to notice. Here each looks when the leader has been silent for the timeout and
// its place in line, so that no two stand at the same moment and split the votes.
//
// It changes when raft looks, not what it finds: the timeout, the pre-vote and the
// election are raft's. Owner: Node, until stopping.
func (n *Node) succession() {
	timeout := n.times.heartbeat
	var looked time.Time // the last contact that raft was told to look at
	late := false
	for {
		last := n.raft.LastContact()
		silent := n.raft.State() == raft.Follower && !last.IsZero() && !last.Equal(looked)
		wait := timeout / 4
		if silent && !late {
			wait = max(0, time.Until(last)+timeout+time.Duration(n.placeInLine())*timeout/8+rand.N(timeout/32))
		}
		due := time.Now().Add(wait)
		select {
		case <-n.stopping:
			return
		case <-time.After(wait):
		}
		// When we are late ourselves, its heartbeats may be waiting to be read.
		late = time.Since(due) > timeout/10
		if silent && !late && n.raft.LastContact().Equal(last) {
			looked = last
			n.lookAtLeader()
		}
	}
}

// placeInLine counts the voters before this node in the list of members, which is the same
// everywhere, without the leader.
func (n *Node) placeInLine() (place int) {
	_, leader := n.raft.LeaderWithID()
	for _, s := range n.configuration().Servers {
		switch {
		case s.ID == raft.ServerID(n.id):
			return place
		case s.Suffrage == raft.Voter && s.ID != leader:
			place++
		}
	}
	return place
}

// lookAtLeader lets raft look at once whether its leader has been silent for too long.
// It does when it is told of a shorter heartbeat timeout (followerNotifyCh), which is
// shortened by a millisecond and, before, brought back to what it was.
func (n *Node) lookAtLeader() {
	for _, less := range []time.Duration{0, time.Millisecond} {
		err := n.reload(func(rc *raft.ReloadableConfig) { rc.HeartbeatTimeout = n.times.heartbeat - less })
		if err != nil {
			n.log.Warn("cannot hurry an election", "error", err) // it comes by itself
			return
		}
	}
}

// reload changes raft's settings while it runs. Any goroutine.
func (n *Node) reload(change func(*raft.ReloadableConfig)) error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	rc := n.raft.ReloadableConfig() // ReloadConfig takes all fields
	change(&rc)
	return n.raft.ReloadConfig(rc)
}
