// Package indexwait lets many goroutines wait until one has reached an index.
//
// It knows nothing of logs: a Mark is a number that one goroutine publishes, a
// heap of those who wait for it to be reached, and an error that ends all waiting.
package indexwait

import (
	"container/heap"
	"context"
	"sync"
	"sync/atomic"
)

// Mark is an index that has been reached. The zero value stands at 0.
//
// Concurrency: Publish and Fail from one goroutine at a time, the rest from any.
type Mark struct {
	reached atomic.Uint64 // written under mu, read without

	mu      sync.Mutex
	waiters waiters
	failure error
}

// Reached is the index published last.
func (m *Mark) Reached() uint64 { return m.reached.Load() }

// Publish says that the index has been reached: what its publisher wrote before
// is seen by whoever Reached or Wait tells. An index may also step back (a state
// replaced by an older one); who was told before was told the truth then.
//
// Cost: one lock, plus a wake-up for each waiter that is due.
func (m *Mark) Publish(index uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reached.Store(index)
	for len(m.waiters) > 0 && m.waiters[0].index <= index {
		close(heap.Pop(&m.waiters).(*waiter).due)
	}
}

// Fail ends all waiting, now and later, for indexes that have not been reached.
// The first error stays.
func (m *Mark) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		return
	}
	m.failure = err
	for _, w := range m.waiters {
		w.err = err
		w.at = -1
		close(w.due)
	}
	m.waiters = nil
}

// Wait returns nil once the index has been reached, the error of Fail, or the
// cause of the context's end, whichever comes first.
func (m *Mark) Wait(ctx context.Context, index uint64) error {
	if m.reached.Load() >= index {
		return nil
	}
	w, err := m.enlist(ctx, index)
	if w == nil {
		return err
	}
	select {
	case <-w.due:
		return w.err
	case <-ctx.Done():
		m.delist(w)
		return context.Cause(ctx)
	}
}

// enlist gives no waiter when there is nothing to wait for.
func (m *Mark) enlist(ctx context.Context, index uint64) (*waiter, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.reached.Load() >= index:
		return nil, nil
	case m.failure != nil:
		return nil, m.failure
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	w := &waiter{index: index, due: make(chan struct{})}
	heap.Push(&m.waiters, w)
	return w, nil
}

func (m *Mark) delist(w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.at >= 0 {
		heap.Remove(&m.waiters, w.at)
	}
}

// waiting is the number of those who wait.
func (m *Mark) waiting() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiters)
}

type waiter struct {
	index uint64
	at    int           // place in the heap, -1 when out of it
	due   chan struct{} // closed by whoever takes it out, except delist
	err   error         // set before due is closed
}

// waiters is a heap, the lowest index first.
type waiters []*waiter

func (w waiters) Len() int           { return len(w) }
func (w waiters) Less(i, j int) bool { return w[i].index < w[j].index }
func (w waiters) Swap(i, j int)      { w[i], w[j] = w[j], w[i]; w[i].at, w[j].at = i, j }

func (w *waiters) Push(x any) {
	x.(*waiter).at = len(*w)
	*w = append(*w, x.(*waiter))
}

func (w *waiters) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	x.at = -1
	return x
}
