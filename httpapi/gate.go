package httpapi

import "sync"

// gate counts the handlers under way. Once shut it lets nobody in, so that waiting for
// the last one ends.
//
// Concurrency: any goroutine.
type gate struct {
	mu    sync.Mutex
	inner int
	shut  bool
	empty chan struct{} // closed when shut and nobody is in; made by close
}

// enter reports whether the caller may go on; then it calls leave when it is done.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return false
	}
	g.inner++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inner--
	if g.shut && g.inner == 0 {
		close(g.empty)
	}
}

// close shuts the gate and waits until nobody is in. Call it once.
func (g *gate) close() {
	g.mu.Lock()
	g.shut, g.empty = true, make(chan struct{})
	if g.inner == 0 {
		close(g.empty)
	}
	g.mu.Unlock()
	<-g.empty
}

// waiting is the number of handlers under way.
func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inner
}
