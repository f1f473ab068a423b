package registry

import (
	"fmt"
	"slices"
	"strings"
)

// A move is answered by its workers before the destination's events say what has
// arrived, and the registry goes by events alone. So a finished move waits to be
// confirmed by them, at its finish and at every lease.

// await begins to wait for what a move's destination is to report.
func (r *Registry) await(e *eventEntry, c *Confirmation) {
	if c == nil || len(c.Ranks) == 0 {
		return
	}
	e.Confirm = &Confirmation{Key: c.Key, Ranks: slices.Clone(c.Ranks)}
	e.Confirmed = MoveAwaited
	if !r.confirm(e) {
		r.events.awaited = append(r.events.awaited, e)
	}
}

// confirm reports whether the destination of an awaited move has reported it, and notes
// that.
func (r *Registry) confirm(e *eventEntry) bool {
	if len(r.unreported(e)) > 0 {
		return false
	}
	e.Confirmed, e.Confirm = MoveConfirmed, nil
	return true
}

// confirmMoves looks at the awaited moves. Cost: a probe for each.
func (r *Registry) confirmMoves(at Micros) {
	l := &r.events
	l.awaited = slices.DeleteFunc(l.awaited, func(e *eventEntry) bool {
		if e.dropped || r.confirm(e) {
			return true
		}
		e.Finished = notAhead(e.Finished, at)
		e.Created = min(e.Created, e.Finished) // the same clock's
		if at-e.Finished <= r.opts.ConfirmWithin {
			return false
		}
		e.Detail = joinWords(e.Detail, r.unconfirmed(e))
		e.Confirmed, e.Confirm = MoveUnconfirmed, nil
		return true
	})
}

// unreported returns the ranks that do not hold what a move is to have brought them.
func (r *Registry) unreported(e *eventEntry) []int64 {
	var held []int64
	for _, h := range r.idx.Holders(uint64(e.Confirm.Key)) {
		if st := h.V; h.Visible() && st.worker.instance.id == e.Dest.Instance && (st.location == e.Dest.Location || e.Dest.Location == "") {
			held = append(held, st.worker.ref.Worker)
		}
	}
	var missing []int64
	for _, rank := range e.Confirm.Ranks {
		if !slices.Contains(held, rank) {
			missing = append(missing, rank)
		}
	}
	return missing
}

// unconfirmed says in words what has not been reported.
func (r *Registry) unconfirmed(e *eventEntry) string {
	const listed = 8
	missing := r.unreported(e)
	ranks := make([]string, 0, listed)
	for _, rank := range missing[:min(len(missing), listed)] {
		ranks = append(ranks, fmt.Sprint(rank))
	}
	which := "rank " + strings.Join(ranks, ", ") + " does"
	if len(missing) > 1 {
		which = "ranks " + strings.Join(ranks, ", ") + " do"
	}
	if more := len(missing) - listed; more > 0 {
		which = fmt.Sprintf("ranks %s and %d more do", strings.Join(ranks, ", "), more)
	}
	return fmt.Sprintf("instance %q has not reported the moved chunks within %ds: %s not hold the last of them at %q; they may be there all the same, but lookups do not find them",
		e.Dest.Instance, r.opts.ConfirmWithin/second, which, e.Dest.Location)
}

func joinWords(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// awaitedMoves counts the moves that wait to be confirmed.
func (l *eventLog) awaitedMoves() (n int) {
	for _, e := range l.awaited {
		if !e.dropped {
			n++
		}
	}
	return n
}

func (c Confirmed) known() bool {
	switch c {
	case "", MoveAwaited, MoveConfirmed, MoveUnconfirmed:
		return true
	}
	return false
}
