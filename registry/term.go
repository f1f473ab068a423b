package registry

// BeginTerm notes a new leader and closes what earlier leaders left open: nobody
// else may send those commands, and nobody knows what became of them. It returns
// the ids of the events it interrupted, oldest first. A term that is not newer than
// the current one changes nothing.
func (r *Registry) BeginTerm(t TermBegin) (interrupted []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(t.At)
	if t.Term <= r.term {
		return nil
	}
	r.term, r.leader = t.Term, t.Node
	return r.events.interrupt(t.Term, t.At, r.opts)
}

// Term returns the current term and the node that leads it; 0 before the first.
func (r *Registry) Term() (term uint64, node string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.term, r.leader
}

// Time returns the largest time of all entries so far.
func (r *Registry) Time() Micros {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.now
}
