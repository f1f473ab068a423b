package cluster

import (
	"sync"
	"time"
)

// progressTick is how often a follower has the leader's list of how far all are.
const progressTick = time.Second

// nodeProgress is how far a replica was when it was last heard.
type nodeProgress struct {
	NodeID  string `json:"node_id"`
	Applied uint64 `json:"applied"`
	AgoMS   int64  `json:"ago_ms"` // since it was heard
}

// peerProgress is how far the other replicas are, for people. The leader has it from their
// questions for the commit index, in which they say it, twenty times a second; a
// follower from the leader's answers. Any goroutine.
type peerProgress struct {
	mu    sync.Mutex
	nodes map[string]heardProgress
	asked time.Time // when the leader's list was last asked for
}

type heardProgress struct {
	applied uint64
	at      time.Time
}

// note takes what a replica says of itself.
func (p *peerProgress) note(node string, applied uint64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nodes == nil {
		p.nodes = map[string]heardProgress{}
	}
	p.nodes[node] = heardProgress{applied, now}
}

// of says how far a replica was, and when.
func (p *peerProgress) of(node string) (heardProgress, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.nodes[node]
	return h, ok
}

// list gives all of them, as of now.
func (p *peerProgress) list(now time.Time) []nodeProgress {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []nodeProgress
	for id, h := range p.nodes {
		out = append(out, nodeProgress{id, h.applied, now.Sub(h.at).Milliseconds()})
	}
	return out
}

// replace takes the leader's list, which is of now.
func (p *peerProgress) replace(nodes []nodeProgress, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes = map[string]heardProgress{}
	for _, n := range nodes {
		p.nodes[n.NodeID] = heardProgress{n.Applied, now.Add(-time.Duration(n.AgoMS) * time.Millisecond)}
	}
}

// clear forgets all, when who leads changes.
func (p *peerProgress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nodes, p.asked = nil, time.Time{}
}

// due reports whether it is time to ask for the list, and takes it that it is asked.
func (p *peerProgress) due(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.asked) < progressTick {
		return false
	}
	p.asked = now
	return true
}

// contactLimit is how long a replica may not have been heard and still count as
// reachable: some questions and answers may be late.
func (n *Node) contactLimit() time.Duration { return max(2*time.Second, 2*n.times.hold()) }

// describe adds to a node's status what was heard of it.
func (n *Node) describe(s *NodeStatus, leading bool, now time.Time) {
	heard, ok := n.progress.of(s.NodeID)
	if !ok {
		return
	}
	ago := now.Sub(heard.at)
	s.AppliedIndex, s.LastContactMS = ptr(heard.applied), ptr(ago.Milliseconds())
	if leading && s.Reachable != nil && !*s.Reachable {
		return // does not take heartbeats, whatever it says
	}
	s.Reachable = ptr(ago <= n.contactLimit())
}
