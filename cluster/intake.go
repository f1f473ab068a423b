package cluster

import (
	"context"
	"sync"
)

// intake counts what is under way and can be shut: afterwards nothing enters, and
// wait returns when the last has left. (A WaitGroup may not be added to while
// someone waits for it to become zero.)
type intake struct {
	mu   sync.Mutex
	n    int
	shut bool
	idle chan struct{} // made by wait, closed when shut and empty
}

func (i *intake) enter() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.shut {
		return false
	}
	i.n++
	return true
}

func (i *intake) leave() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.n--; i.n == 0 && i.idle != nil {
		close(i.idle)
		i.idle = nil
	}
}

func (i *intake) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.shut = true
}

// wait waits for the last to leave after close, and returns how many have not when
// ctx ends first.
func (i *intake) wait(ctx context.Context) int {
	i.mu.Lock()
	if i.n == 0 {
		i.mu.Unlock()
		return 0
	}
	if i.idle == nil {
		i.idle = make(chan struct{})
	}
	idle := i.idle
	i.mu.Unlock()
	select {
	case <-idle:
		return 0
	case <-ctx.Done():
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.n
	}
}

// enter admits a call, or says why not.
func (n *Node) enter() error {
	if err := n.failed(); err != nil {
		return err
	}
	if !n.calls.enter() {
		return ErrStopped
	}
	return nil
}
