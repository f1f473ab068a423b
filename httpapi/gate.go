package httpapi

import "sync"

// gate counts what is under way. Once shut it lets nobody in, so that waiting for the
// last one ends.
//
// Concurrency: any goroutine.
type gate struct {
	mu    sync.Mutex
	inner int
	shut  bool
	empty chan struct{} // made by wait, closed when nobody is in
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
	if g.inner == 0 && g.empty != nil {
		close(g.empty)
	}
}

// close shuts the gate. Who is in stays until it leaves.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
}

// wait returns when nobody is in. Call it once, after close.
func (g *gate) wait() {
	g.mu.Lock()
	empty := make(chan struct{})
	if g.inner == 0 {
		close(empty)
	} else {
		g.empty = empty
	}
	g.mu.Unlock()
	<-empty
}

// waiting is how many are in.
func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inner
}
