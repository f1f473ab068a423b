package registry

import (
	"errors"
	"fmt"
	"slices"
)

// What RunEvent and FinishEvent refuse an event for.
var (
	ErrEventUnknown = errors.New("no such event")
	ErrEventTerm    = errors.New("event of another term")
	ErrEventState   = errors.New("event in another state")
)

// eventLog holds the open events and the latest finished ones. Guarded by
// Registry.mu.
type eventLog struct {
	byID     map[string]*eventEntry
	created  []*eventEntry // in order of creation, dropped ones among them
	dropped  int
	open     int
	finished []*eventEntry // in order of finish, from head on
	head     int
	awaited  []*eventEntry // moves to be confirmed, in order of finish, dropped ones among them
}

// eventEntry is an event and its place in the order of creation. The slice in it is
// replaced at a change, never written: captures share it.
type eventEntry struct {
	Event
	number  uint64
	dropped bool
}

func (l *eventLog) init() { l.byID = make(map[string]*eventEntry) }

// CreateEvent opens an event. The same id again opens nothing: it returns the event
// that is there, and says whether it is the same command.
func (r *Registry) CreateEvent(c EventCreate) EventCreateResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(c.At)

	l := &r.events
	if e := l.byID[c.ID]; e != nil {
		same := e.Kind == c.Kind && e.Fingerprint == c.Fingerprint
		return EventCreateResult{Event: e.clone(), Existing: true, Conflict: !same}
	}
	switch {
	case c.ID == "":
		return EventCreateResult{Refused: "an event needs an id"}
	case c.Term < r.term:
		return EventCreateResult{Refused: fmt.Sprintf("event %q is of term %d and now is term %d: send it again", c.ID, c.Term, r.term)}
	case l.open >= r.opts.MaxOpenEvents:
		return EventCreateResult{Refused: fmt.Sprintf("%d commands are open, the most there may be: try again later", l.open)}
	}
	e := &eventEntry{number: r.nextNumber(), Event: Event{
		ID:          c.ID,
		Kind:        c.Kind,
		State:       EventPending,
		Source:      c.Source,
		Dest:        c.Dest,
		Fingerprint: c.Fingerprint,
		Tokens:      c.Tokens,
		Term:        c.Term,
		Created:     c.At,
	}}
	l.add(e)
	return EventCreateResult{Event: e.clone()}
}

// RunEvent marks an event as about to be sent. Its workers are running until
// FinishEvent says more. An error means that nothing may be sent.
func (r *Registry) RunEvent(e EventRun) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(e.At)

	ev, err := r.openEvent(e.ID, e.Term)
	if err != nil {
		return err
	}
	if ev.State != EventPending {
		return fmt.Errorf("event %q is %s, not pending: %w", e.ID, ev.State, ErrEventState)
	}
	ev.State = EventRunning
	ev.Workers = make([]WorkerOutcome, len(e.Workers))
	for i, w := range e.Workers {
		ev.Workers[i] = WorkerOutcome{WorkerRef: w, State: EventRunning}
	}
	return nil
}

// FinishEvent closes an event, running or (a command that could not be sent)
// pending.
func (r *Registry) FinishEvent(e EventFinish) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(e.At)

	ev, err := r.openEvent(e.ID, e.Term)
	if err != nil {
		return err
	}
	if !e.State.Final() || !e.State.known() {
		return fmt.Errorf("event %q cannot end as %q: %w", e.ID, e.State, ErrEventState)
	}
	ev.NumTokens, ev.Cause, ev.Detail = e.NumTokens, e.Cause, e.Detail
	if e.Workers != nil {
		ev.Workers = slices.Clone(e.Workers)
	}
	r.events.finish(ev, e.State, e.At, r.opts)
	r.await(ev, e.Confirm)
	return nil
}

// openEvent finds an event that may still change in this term.
func (r *Registry) openEvent(id string, term uint64) (*eventEntry, error) {
	ev := r.events.byID[id]
	switch {
	case ev == nil:
		return nil, fmt.Errorf("event %q: %w", id, ErrEventUnknown)
	case ev.State.Final():
		return nil, fmt.Errorf("event %q is %s already: %w", id, ev.State, ErrEventState)
	case ev.Term != term:
		return nil, fmt.Errorf("event %q is of term %d, not %d: %w", id, ev.Term, term, ErrEventTerm)
	}
	return ev, nil
}

// Event returns an event by id, open or among the latest finished.
func (r *Registry) Event(id string) (Event, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.events.byID[id]; e != nil {
		return e.clone(), true
	}
	return Event{}, false
}

// add appends an event, open or (from a snapshot) final.
func (l *eventLog) add(e *eventEntry) {
	l.byID[e.ID] = e
	l.created = append(l.created, e)
	if !e.State.Final() {
		l.open++
	}
}

// finish closes an event and drops the oldest finished ones beyond the bounds.
func (l *eventLog) finish(e *eventEntry, state EventState, at Micros, opts Options) {
	e.State, e.Finished = state, max(at, e.Created)
	l.open--
	l.finished = append(l.finished, e)
	for len(l.finished)-l.head > opts.MaxEvents {
		l.dropOldest()
	}
}

// interrupt closes all open events of earlier terms.
func (l *eventLog) interrupt(term uint64, at Micros, opts Options) (ids []string) {
	var open []*eventEntry // finish may compact created
	for _, e := range l.created {
		if !e.State.Final() && e.Term < term {
			open = append(open, e)
		}
	}
	for _, e := range open {
		e.Cause = string(EventInterrupted)
		if e.State == EventPending {
			e.Detail = "the leader was lost before it sent anything; send the command again"
		} else {
			e.Detail = "the leader was lost; workers may have done it: look before you send it again"
		}
		e.Workers = slices.Clone(e.Workers)
		for i, w := range e.Workers {
			if w.State == EventRunning {
				e.Workers[i].State = EventInterrupted
			}
		}
		l.finish(e, EventInterrupted, at, opts)
		ids = append(ids, e.ID)
	}
	return ids
}

// expire drops the finished events that are too old. They are looked at in order of
// finish, so an event whose leader's clock was ahead keeps later ones as long as itself.
func (l *eventLog) expire(at Micros, opts Options) {
	for l.head < len(l.finished) && at-l.finished[l.head].Finished > opts.EventMaxAge {
		l.dropOldest()
	}
}

func (l *eventLog) dropOldest() {
	e := l.finished[l.head]
	delete(l.byID, e.ID)
	e.dropped = true
	l.dropped++
	l.finished[l.head] = nil
	l.head++
	// Each list is gone through once in as many drops as it is long.
	if l.head > len(l.finished)/2 && l.head > 64 {
		l.finished = slices.Delete(l.finished, 0, l.head)
		l.head = 0
	}
	if l.dropped > len(l.created)/2 && l.dropped > 64 {
		l.created = slices.DeleteFunc(l.created, func(e *eventEntry) bool { return e.dropped })
		l.dropped = 0
	}
}

func (e *eventEntry) clone() Event {
	c := e.Event
	c.Workers = slices.Clone(e.Workers)
	return c
}

func (s EventState) known() bool {
	switch s {
	case EventPending, EventRunning, EventDone, EventPartial, EventFailed, EventTimedOut, EventInterrupted:
		return true
	}
	return false
}
