package httpapi

import (
	"fmt"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/kvctrl/kvctrl/registry"
)

// The commands' outcomes, from the log: any replica can tell.

// workerPart is one worker's part of a command.
type workerPart struct {
	Instance  string              `json:"instance_id"`
	Worker    int64               `json:"worker_id"`
	Status    registry.EventState `json:"status"`
	NumTokens int64               `json:"num_tokens"`
	Error     string              `json:"error"`
}

func partsOf(outcomes []registry.WorkerOutcome) []workerPart {
	parts := make([]workerPart, len(outcomes))
	for i, o := range outcomes {
		parts[i] = workerPart{o.Instance, o.Worker, o.State, o.NumTokens, o.Error}
	}
	return parts
}

// place is a target in an answer.
type place struct {
	Instance string `json:"instance_id"`
	Location string `json:"location"`
}

// eventRow is a command in an answer. Times are microseconds since 1970; finished_us
// is 0 while the command is open. confirmed is left out when there is nothing to confirm.
type eventRow struct {
	ID          string               `json:"event_id"`
	Kind        registry.CommandKind `json:"kind"`
	Status      registry.EventState  `json:"status"`
	Source      place                `json:"source"`
	Destination *place               `json:"destination,omitempty"`
	NumTokens   int64                `json:"num_tokens"`
	Confirmed   registry.Confirmed   `json:"confirmed,omitempty"`
	Detail      string               `json:"detail"`
	Created     registry.Micros      `json:"created_us"`
	Finished    registry.Micros      `json:"finished_us"`
	Workers     []workerPart         `json:"workers"`
}

func rowOf(e registry.Event) eventRow {
	row := eventRow{
		ID: e.ID, Kind: e.Kind, Status: e.State, Source: place(e.Source), NumTokens: e.NumTokens, Confirmed: e.Confirmed,
		Detail: e.Detail, Created: e.Created, Finished: e.Finished, Workers: partsOf(e.Workers),
	}
	if e.Kind == registry.CommandMove {
		to := place(e.Dest)
		row.Destination = &to
	}
	return row
}

// eventStates are all that a command can be in.
var eventStates = []registry.EventState{
	registry.EventPending, registry.EventRunning, registry.EventDone, registry.EventPartial, registry.EventFailed, registry.EventTimedOut, registry.EventInterrupted,
}

// texts are words of a type as texts.
func texts[T ~string](words []T) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return out
}

const (
	defaultEvents = 100
	maxEvents     = 1000
)

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	limit, given := q.integer("limit")
	if !given {
		limit = defaultEvents
	} else if limit < 1 || limit > maxEvents {
		q.fault("limit", "value_error", fmt.Sprintf("Input should be an integer from 1 to %d", maxEvents), nil)
	}
	filter := registry.EventFilter{
		Kind:  registry.CommandKind(q.choice("kind", texts(commandKinds))),
		State: registry.EventState(q.choice("status", texts(eventStates))),
	}
	if err := s.fresh(w, r, q); err != nil {
		return err
	}
	rows := []eventRow{}
	for _, e := range s.opts.State.Registry().EventsOf(filter, int(limit)) {
		rows = append(rows, rowOf(e))
	}
	return s.writeJSON(w, http.StatusOK, struct {
		Events []eventRow `json:"events"`
	}{rows})
}

func (s *Server) event(w http.ResponseWriter, r *http.Request) error {
	if err := s.fresh(w, r, queryOf(r)); err != nil {
		return err
	}
	id := mux.Vars(r)["id"]
	e, known := s.opts.State.Registry().Event(id)
	if !known {
		return &problem{code: codeUnknownEvent, detail: fmt.Sprintf("no event %q", id)}
	}
	return s.writeJSON(w, http.StatusOK, rowOf(e))
}

// eventUnknown is what /check_finish says of an id that is not in the log, or no more.
const eventUnknown = "unknown"

func (s *Server) checkFinish(w http.ResponseWriter, r *http.Request) error {
	return s.parsed(w, r, bodyCheckFinish, func(vs values) error {
		if err := s.fresh(w, r, queryOf(r)); err != nil {
			return err
		}
		status := eventUnknown
		if e, known := s.opts.State.Registry().Event(vs[0].str); known {
			status = string(e.State)
		}
		return s.writeJSON(w, http.StatusOK, struct {
			Status string `json:"status"`
		}{status})
	})
}
