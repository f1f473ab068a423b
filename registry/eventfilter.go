package registry

import "slices"

// EventFilter chooses among events; a field left empty does not restrict.
type EventFilter struct {
	Kind  CommandKind
	State EventState
}

func (f EventFilter) takes(e *Event) bool {
	return (f.Kind == "" || f.Kind == e.Kind) && (f.State == "" || f.State == e.State)
}

// Events returns the latest events, newest first; all that are kept when limit is 0
// or less.
func (r *Registry) Events(limit int) []Event { return r.EventsOf(EventFilter{}, limit) }

// EventsOf is Events of those that the filter takes.
//
// Cost: it walks over all that are kept (10 000 by default: some 20 µs) when few are taken.
func (r *Registry) EventsOf(f EventFilter, limit int) []Event {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if limit <= 0 || limit > len(r.events.byID) {
		limit = len(r.events.byID)
	}
	out := []Event{}
	for _, e := range slices.Backward(r.events.created) {
		if len(out) == limit {
			break
		}
		if !e.dropped && f.takes(&e.Event) {
			out = append(out, e.clone())
		}
	}
	return out
}
