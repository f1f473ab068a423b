package executor

import (
	"context"
	"sync"

	"github.com/kvctrl/kvctrl/registry"
)

// slots lets one request at a time through to each worker. A command takes all its
// workers' slots before it sends anything, in the workers' order, so that two
// commands reach every rank in the same order and cannot wait for each other.
//
// Concurrency: any goroutine. A slot exists while somebody holds it or waits for it.
type slots struct {
	mu     sync.Mutex
	byName map[registry.WorkerRef]*slot
}

type slot struct {
	token chan struct{} // holds one token while the slot is free
	users int           // holders and waiters; guarded by slots.mu
}

func newSlots() *slots { return &slots{byName: map[registry.WorkerRef]*slot{}} }

// acquire takes the slots of all workers, which must be in a fixed order, or none.
func (s *slots) acquire(ctx context.Context, workers []registry.WorkerRef) error {
	for i, w := range workers {
		select {
		case <-s.join(w).token:
		case <-ctx.Done():
			s.leave(w)
			s.release(workers[:i])
			return ctx.Err()
		}
	}
	return nil
}

// release gives slots back.
func (s *slots) release(workers []registry.WorkerRef) {
	for _, w := range workers {
		s.mu.Lock()
		sl := s.byName[w]
		s.mu.Unlock()
		sl.token <- struct{}{} // never blocks: the holder puts its token back
		s.leave(w)
	}
}

func (s *slots) join(w registry.WorkerRef) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.byName[w]
	if sl == nil {
		sl = &slot{token: make(chan struct{}, 1)}
		sl.token <- struct{}{}
		s.byName[w] = sl
	}
	sl.users++
	return sl
}

func (s *slots) leave(w registry.WorkerRef) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.byName[w]
	if sl.users--; sl.users == 0 {
		delete(s.byName, w)
	}
}
