package httpapi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/registry"
)

// Requests that change something are carried out by the leader alone. Any replica takes
// them, reads and checks them, and then sees to it that the leader does them: here, when
// this replica is it, else over the peer port (forward.go). This file is the one place
// that decides which, and when to look again.

// mutator reads a mutation from a checked body. It carries nothing out.
type mutator func(t terms, vs values) (*mutation, error)

// terms are what a request says beside its body.
type terms struct {
	wait    bool          // for the outcome
	timeout time.Duration // 0: not given
	eventID string        // what another replica that was asked has named the command; "": nothing yet
}

// mutation is something that only the leader can do.
type mutation struct {
	what    string // for people: clear on instance "a"
	eventID string // of a command
	named   bool   // that id is ours and not the body's
	// longest is the most that all of it may take; hold, how much of that may pass
	// without a leader.
	longest, hold time.Duration
	// repeats: it may be sent again when nobody knows whether it was done, because twice
	// is the same as once.
	repeats bool
	// doneIf is a refusal that means, after an attempt that may have done it, that it did;
	// done is then the answer.
	doneIf code
	done   any
	// act does it on this replica. The answer's status and body, or why not: then nothing
	// has been done, but for what the error's code leaves open (standingOf).
	act func(ctx context.Context) (status int, body any, err error)
	// recorded is what this replica knows of a mutation whose answer was lost, as act would
	// give it: a command that has ended, from the state; nil for what leaves no trace. False
	// while nothing is known.
	recorded func() (status int, body any, known bool, err error)
}

// defaultHold is how long a mutation waits for a leader when it names no timeout: two
// elections and the time to notice.
const defaultHold = 5 * time.Second

// reply writes a mutation's answer.
type reply func(w http.ResponseWriter) error

// standing is what one attempt has proven.
type standing uint8

const (
	settled   standing = iota // there is an answer
	untouched                 // nobody who leads has seen it: try again
	open                      // it may have been done
)

// standingOf says what a refusal proves, whichever replica gave it.
func standingOf(c code) standing {
	switch c {
	case codeNotLeader, codeNoLeader, codeStopping:
		return untouched
	case codeUnknownOutcome:
		return open
	}
	return settled
}

// standing is what a refusal proves of a mutation with all its attempts. That there is no
// room for one more says nothing of an earlier one that may have done it.
func (t *trial) standing(c code) standing {
	if c == codeBusy && t.unsure != nil {
		return untouched
	}
	return standingOf(c)
}

// mutating answers a route's requests from clients.
func (s *Server) mutating(rt route) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return s.readMutation(w, r, rt, "", func(m *mutation, body []byte) error {
			answer, err := s.carryOut(r, rt, m, body)
			// Who leads, and what is applied, may have changed meanwhile. The index is of a
			// state in which it is done, so that min_index reads it anywhere.
			s.setPlace(w.Header())
			if err != nil {
				return err
			}
			return answer(w)
		})
	}
}

// readMutation reads and checks a request and calls f with what it wants.
func (s *Server) readMutation(w http.ResponseWriter, r *http.Request, rt route, eventID string, f func(m *mutation, body []byte) error) error {
	q := queryOf(r)
	t := terms{wait: true, eventID: eventID}
	if slices.Contains(rt.params, "wait") {
		t.wait = q.boolean("wait", true)
	}
	var given bool
	if t.timeout, given = q.duration("timeout", maxTimeout); given && t.timeout == 0 {
		q.fault("timeout", "greater_than", "Input should be greater than 0", ctxOf("gt", 0))
	}
	if err := q.err(); err != nil {
		return err
	}
	return s.withBody(w, r, func(body []byte) error {
		if err := contentType(r, body); err != nil {
			return err
		}
		vs, err := rt.body.parse(body)
		if err != nil {
			return err
		}
		m, err := rt.mutate(t, vs)
		if err != nil {
			return err
		}
		m.hold = defaultHold
		if t.timeout > 0 {
			m.hold = t.timeout
		}
		return f(m, body)
	})
}

// The pauses between two looks for a leader.
const (
	lookFirst = 5 * time.Millisecond
	lookMost  = 50 * time.Millisecond
)

// carryOut has a mutation done by whoever leads. Over a change of leader it is tried
// again: always when nobody who leads has seen it, and when it may have been done if
// twice is the same as once. It ends with the client, with the mutation's time, or when
// there has been no leader for its hold.
func (s *Server) carryOut(r *http.Request, rt route, m *mutation, body []byte) (reply, error) {
	t := &trial{server: s, request: r, route: rt, mutation: m, body: body, deadline: time.Now().Add(m.longest)}
	leaderBy := time.Now().Add(m.hold)
	for pause := lookFirst; ; pause = min(2*pause, lookMost) {
		answer, stands, err := t.attempt(r.Context())
		if stands == settled {
			return answer, err
		}
		now := time.Now()
		if stands == open {
			t.unsure = err
			if leaderBy = now.Add(m.hold); errors.Is(err, errLeaderless) {
				leaderBy = now
			}
		}
		switch {
		case r.Context().Err() != nil:
			return t.cutShort(r.Context().Err())
		case t.unsure != nil && !now.Before(t.deadline):
			return t.unclear(codeTimeout, fmt.Sprintf("is not known to be done after %s (%v)", m.longest, t.unsure))
		case t.unsure != nil && (!m.repeats || !now.Before(leaderBy)):
			return t.unclear(codeUnknownOutcome, fmt.Sprintf("may have been done, its answer was lost (%v)", t.unsure))
		case errors.Is(err, cluster.ErrStopped) && !now.Before(leaderBy):
			return nil, err
		case !now.Before(leaderBy):
			return nil, &problem{code: codeNoLeader, detail: fmt.Sprintf("%s was not begun: no leader took it for %s (%v)", m.what, m.hold, err)}
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-r.Context().Done():
			return t.cutShort(r.Context().Err())
		}
	}
}

// trial is one mutation on its way.
type trial struct {
	server   *Server
	request  *http.Request
	route    route
	mutation *mutation
	body     []byte
	owned    bool // the body is our own copy
	deadline time.Time
	unsure   error // why it may have been done; nil: it surely has not
}

func (t *trial) attempt(ctx context.Context) (reply, standing, error) {
	s := t.server
	if s.opts.Node.IsLeader() && s.acts.enter() {
		defer s.acts.leave()
		answer, err := s.act(ctx, t.mutation, t.deadline)
		if err == nil {
			return answer, settled, nil
		}
		if answer := t.doneAlready(problemOf(err).code); answer != nil {
			return answer, settled, nil
		}
		return nil, t.standing(problemOf(err).code), err
	}
	return t.forward(ctx)
}

// doneAlready is the answer when a refusal shows that an earlier attempt has done it.
func (t *trial) doneAlready(c code) reply {
	if t.unsure == nil || t.mutation.doneIf == "" || c != t.mutation.doneIf {
		return nil
	}
	return t.server.jsonReply(http.StatusOK, t.mutation.done)
}

// act does a mutation on this replica, which leads as far as it knows.
func (s *Server) act(ctx context.Context, m *mutation, deadline time.Time) (reply, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	status, body, err := m.act(ctx)
	switch {
	case err == nil:
		return s.jsonReply(status, body), nil
	case ctx.Err() == nil:
		return nil, err
	case errors.Is(err, context.DeadlineExceeded):
		return nil, m.problem(codeTimeout, registry.EventRunning, fmt.Sprintf("%s is still under way after %s", m.what, m.longest))
	case errors.Is(err, context.Canceled) && s.life.Err() != nil:
		return nil, m.problem(codeUnknownOutcome, registry.EventRunning, fmt.Sprintf("%s is still under way and this replica is stopping", m.what))
	}
	return nil, err
}

func (s *Server) jsonReply(status int, body any) reply {
	return func(w http.ResponseWriter) error { return s.writeJSON(w, status, body) }
}

// problem is a failure that leaves a mutation's outcome open; state is its event's, as far
// as it is known.
func (m *mutation) problem(c code, state registry.EventState, detail string) error {
	if m.eventID == "" {
		return &problem{code: c, plain: true, detail: detail + ": GET /admin/status tells whether it was done"}
	}
	return &problem{code: c, event: &registry.Event{ID: m.eventID, State: state}, detail: detail}
}

// unclear is the answer when no attempt has brought one: the outcome if the log has it by
// now, as far as it has arrived here, else that it is not known.
func (t *trial) unclear(c code, detail string) (reply, error) {
	m := t.mutation
	if m.recorded != nil {
		if status, body, known, err := m.recorded(); known {
			if err != nil {
				return nil, err
			}
			return t.server.jsonReply(status, body), nil
		}
	}
	ev, _ := t.server.opts.State.Registry().Event(m.eventID)
	return nil, m.problem(c, ev.State, m.what+" "+detail)
}

// cutShort is the answer when the request's context has ended: the client has gone, or
// this replica is stopping.
func (t *trial) cutShort(err error) (reply, error) {
	if t.server.life.Err() != nil && t.unsure != nil {
		return t.unclear(codeUnknownOutcome, "may have been done, and this replica is stopping")
	}
	return nil, err
}
