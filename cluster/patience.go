package cluster

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// maxPatience is how long entries wait for a peer that does not answer heartbeats. It
// only bounds the goroutine of a peer that is sent none any more: one that was removed,
// or that an earlier leadership looked after.
const maxPatience = time.Minute

// patience holds entries and snapshots back from peers that do not answer, until they
// answer a heartbeat. Without it raft tries them again and again, doubles its pause each
// time, up to 10.24 s, and does not shorten it when the peer is back: a replica that had
// been away for some seconds would get no entries for as long again, and the cluster
// would stand still if another one were lost meanwhile.
//
// Concurrency: any goroutine.
type patience struct {
	mu     sync.Mutex
	silent map[raft.ServerID]chan struct{} // closed when the peer answers
	done   chan struct{}                   // closed by end
}

func newPatience() *patience {
	return &patience{silent: map[raft.ServerID]chan struct{}{}, done: make(chan struct{})}
}

// note takes what became of a request to a peer.
func (p *patience) note(id raft.ServerID, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	back, silent := p.silent[id]
	switch {
	case err != nil && !silent:
		p.silent[id] = make(chan struct{})
	case err == nil && silent:
		delete(p.silent, id)
		close(back)
	}
}

// await returns when the peer is not known to be silent, or after maxPatience: the
// request itself says then what is wrong. The error is that the transport has ended.
func (p *patience) await(id raft.ServerID) error {
	p.mu.Lock()
	back, silent := p.silent[id]
	p.mu.Unlock()
	if !silent {
		return nil
	}
	limit := time.NewTimer(maxPatience)
	defer limit.Stop()
	select {
	case <-back:
	case <-limit.C:
	case <-p.done:
		return fmt.Errorf("peer %q: %w", id, raft.ErrTransportShutdown)
	}
	return nil
}

// end lets everybody go.
func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
	default:
		close(p.done)
	}
}
