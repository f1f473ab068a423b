package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// viewState is who leads, as this node knows it.
type viewState struct {
	leading bool   // this node does, and its term's first entry is applied
	term    uint64 // while leading
	leader  string // node id, "" when nobody is known
	addr    string // the leader's peer address
}

// view publishes viewState and wakes who waits for a change. Any goroutine.
type view struct {
	mu      sync.Mutex
	state   viewState
	changed chan struct{} // closed at the next change
	span    leaderSpan
}

// leaderSpan is the time from when a replica is known to lead until another is known
// to. Nobody leading in between does not end it: the old one may answer yet.
type leaderSpan struct {
	ctx          context.Context // nil before the first leader
	cancel       context.CancelFunc
	leader, addr string
}

// get returns the state and a channel that closes when it changes.
func (v *view) get() (viewState, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.changed == nil {
		v.changed = make(chan struct{})
	}
	return v.state, v.changed
}

func (v *view) update(f func(*viewState)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.state
	if f(&v.state); v.state != old && v.changed != nil {
		close(v.changed)
		v.changed = nil
	}
	if s := v.state; s.leader != "" && (s.leader != v.span.leader || s.addr != v.span.addr) {
		if v.span.cancel != nil {
			v.span.cancel()
		}
		ctx, cancel := context.WithCancel(context.Background())
		v.span = leaderSpan{ctx, cancel, s.leader, s.addr}
	}
}

// spanOf gives a context that ends when another replica is known to lead; it has ended
// when one is already.
func (v *view) spanOf(leader peerTarget) context.Context {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.span.leader == leader.ID && v.span.addr == leader.Addr {
		return v.span.ctx
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	return over
}

// peerHealth is what the leader's heartbeats say of the others.
type peerHealth struct {
	mu     sync.Mutex
	silent map[raft.ServerID]time.Time // last contact of those that do not answer
}

func (p *peerHealth) set(id raft.ServerID, last time.Time, silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !silent {
		delete(p.silent, id)
		return
	}
	if p.silent == nil {
		p.silent = map[raft.ServerID]time.Time{}
	}
	p.silent[id] = last
}

func (p *peerHealth) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.silent)
}

// lastContact returns when the silent peer was last heard, and whether it is
// silent at all.
func (p *peerHealth) lastContact(id raft.ServerID) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, silent := p.silent[id]
	return t, silent
}

// observe turns raft's observations into the view. raft drops what does not fit
// into the channel, but then there is something in it to make us look again.
// Owner: Node, until stopping.
func (n *Node) observe() {
	ch := make(chan raft.Observation, 64)
	o := raft.NewObserver(ch, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation:
			return true
		}
		return false
	})
	n.raft.RegisterObserver(o)
	defer n.raft.DeregisterObserver(o)
	for {
		addr, id := n.raft.LeaderWithID()
		n.view.update(func(s *viewState) { s.leader, s.addr = string(id), string(addr) })
		select {
		case <-n.stopping:
			return
		case o := <-ch:
			switch d := o.Data.(type) {
			case raft.LeaderObservation:
				switch string(d.LeaderID) {
				case "":
				case n.id: // comes before the first heartbeat of the term
					n.peers.clear()
					n.progress.clear()
				default:
					n.progress.clear()
					n.log.Info("leader", "node", string(d.LeaderID), "peer", string(d.LeaderAddr), "term", n.raft.CurrentTerm())
				}
			case raft.FailedHeartbeatObservation:
				n.peers.set(d.PeerID, d.LastContact, true)
			case raft.ResumedHeartbeatObservation:
				n.peers.set(d.PeerID, time.Time{}, false)
			}
		}
	}
}
