package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/registry"
)

// code says in one word why a request failed. The set is closed (see kinds).
type code string

const (
	codeBadBody        code = "bad_body"
	codeTooLarge       code = "too_large"
	codeNotFound       code = "not_found"
	codeMethod         code = "method_not_allowed"
	codeUnknown        code = "unknown_instance"
	codeUnknownWorker  code = "unknown_worker"
	codeUnknownAddress code = "unknown_address"
	codeUnknownEvent   code = "unknown_event"
	codeRanks          code = "ranks"
	codeNoP2P          code = "no_p2p"
	codeSamePlace      code = "same_place"
	codeConflict       code = "conflict"
	codeWorkerError    code = "worker_error"
	codeBadAnswer      code = "bad_answer"
	codeDisagree       code = "disagree"
	codePartial        code = "partial"
	codeInterrupted    code = "interrupted"
	codeUnsent         code = "unsent"
	codeTimeout        code = "timeout"
	codeUnreachable    code = "unreachable"
	codeNoLeader       code = "no_leader"
	codeNotLeader      code = "not_leader"
	codeUnknownOutcome code = "unknown_outcome"
	codeBusy           code = "busy"
	codeStale          code = "stale"
	codeNotReady       code = "not_ready"
	codeStopping       code = "stopping"
	codeUnknownNode    code = "unknown_node"
	codeQuorum         code = "quorum"
	codeNotVoter       code = "not_voter"
	codePeer           code = "peer_unreachable"
	codeRemoved        code = "removed"
	codeInternal       code = "internal"
)

// kindOf is what a code means for a client.
type kindOf struct {
	status int
	retry  int    // seconds for Retry-After, on every 503; 0: none
	advice string // added to the detail
}

// kinds is the one table from code to status and advice.
var kinds = map[code]kindOf{
	codeBadBody:        {status: 400},
	codeTooLarge:       {status: 413},
	codeNotFound:       {status: 404},
	codeMethod:         {status: 405},
	codeUnknown:        {status: 404, advice: "GET /instances lists those that are registered"},
	codeUnknownWorker:  {status: 404},
	codeUnknownAddress: {status: 404, advice: "GET /controller/workers lists the addresses as workers registered them"},
	codeUnknownEvent:   {status: 404, advice: "finished events are kept for a day, the latest 10000"},
	codeRanks:          {status: 409},
	codeNoP2P:          {status: 409},
	codeSamePlace:      {status: 409},
	codeConflict:       {status: 409},
	codeWorkerError:    {status: 502},
	codeBadAnswer:      {status: 502},
	codeDisagree:       {status: 502, advice: "every worker has done it; see workers"},
	codePartial:        {status: 502, advice: "see workers for who did"},
	codeInterrupted:    {status: 502, advice: "send it again under a new event id if it is still wanted"},
	codeUnsent:         {status: 503, retry: 1, advice: "send it again under a new event id"},
	codeTimeout:        {status: 504, advice: "GET /events/{event_id} tells what is known"},
	codeUnreachable:    {status: 504},
	codeNoLeader:       {status: 503, retry: 1, advice: "try again"},
	codeNotLeader:      {status: 503, retry: 1, advice: "try again"},
	codeUnknownOutcome: {status: 503, retry: 1, advice: "send it again with the same event_id: it is not done twice"},
	codeBusy:           {status: 503, retry: 1},
	codeStale:          {status: 503, retry: 1, advice: "ask again, ask the leader, or ask for less (consistency, max_staleness, min_index, timeout)"},
	codeNotReady:       {status: 503, retry: 1},
	codeStopping:       {status: 503, retry: 1, advice: "ask another replica"},
	codeUnknownNode:    {status: 404, advice: "GET /admin/status lists the replicas"},
	codeQuorum:         {status: 409, advice: "force overrides, and may leave a cluster that cannot commit"},
	codeNotVoter:       {status: 409},
	codePeer:           {status: 409, advice: "is it running, and is this its peer address?"},
	codeRemoved:        {status: 409, advice: "start it on an empty data directory"},
	codeInternal:       {status: 500},
}

// problem is a failed request.
type problem struct {
	code   code
	detail string // what happened, to which thing
	plain  bool   // the detail stands alone, as LMCache's own texts do: no advice is added
	// event is the command that failed, when it is in the log: its id and its workers'
	// parts go into the answer.
	event   *registry.Event
	health  []executor.WorkerHealth // of a /health that not every worker answered
	closing bool                    // the connection cannot be used further
}

func (p *problem) Error() string { return p.detail }

// body is the answer of a problem. LMCache's clients read detail.
type problemBody struct {
	Detail  string        `json:"detail"`
	Code    code          `json:"code"`
	EventID string        `json:"event_id,omitempty"`
	Status  string        `json:"status,omitempty"`
	Workers []workerPart  `json:"workers,omitempty"`
	Codes   *errorCodes   `json:"error_codes,omitempty"`
	Leader  *problemPlace `json:"leader,omitempty"`
}

type problemPlace struct {
	NodeID string `json:"node_id"`
	URL    string `json:"url"`
}

// causes is the one table from a failed command's cause to its code.
var causes = map[executor.Cause]code{
	executor.CauseWorkerError: codeWorkerError,
	executor.CauseBadAnswer:   codeBadAnswer,
	executor.CauseTimeout:     codeTimeout,
	executor.CauseUnreachable: codeUnreachable,
	executor.CauseDisagree:    codeDisagree,
	executor.CausePartial:     codePartial,
	executor.CauseUnsent:      codeUnsent,
	executor.CauseInterrupted: codeInterrupted,
}

// sentinels is the one table from the errors of the rooms below to codes. The first
// that fits counts.
var sentinels = []struct {
	is   error
	code code
}{
	{executor.ErrBusy, codeBusy},
	{executor.ErrOutcomeUnknown, codeUnknownOutcome},
	{executor.ErrNotLeading, codeNoLeader},
	{cluster.ErrUnknownOutcome, codeUnknownOutcome}, // before its cause, which alone proves that nothing was done
	{cluster.ErrStopped, codeStopping},
	{cluster.ErrStale, codeStale},
	{cluster.ErrNoLeader, codeNoLeader},
	{cluster.ErrNotLeader, codeNotLeader},
	{cluster.ErrBusy, codeBusy},
	{cluster.ErrUnknownNode, codeUnknownNode},
	{cluster.ErrQuorum, codeQuorum},
	{cluster.ErrConflict, codeConflict},
	{cluster.ErrUnreachable, codePeer},
	{cluster.ErrNotVoter, codeNotVoter},
	{cluster.ErrRemoved, codeRemoved},
	{cluster.ErrForming, codeNotReady},
	{context.DeadlineExceeded, codeTimeout},
}

// problemOf puts any error into words for a client. An error that is none of those that
// callers expect is a fault of ours.
func problemOf(err error) *problem {
	var (
		p        *problem
		unknown  *executor.UnknownInstanceError
		plan     *executor.PlanError
		conflict *executor.ConflictError
		failed   *executor.CommandError
		sense    *senselessError
	)
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &sense):
		return &problem{code: codeBadBody, detail: "There was an error parsing the body: " + sense.why}
	case errors.As(err, &unknown):
		return &problem{code: codeUnknown, detail: err.Error()}
	case errors.As(err, &plan):
		return &problem{code: code(plan.Code), detail: plan.Detail}
	case errors.As(err, &conflict):
		return &problem{code: codeConflict, detail: err.Error()}
	case errors.As(err, &failed):
		c, known := causes[failed.Cause]
		if !known {
			c = codeWorkerError
		}
		return &problem{code: c, detail: failed.Error(), event: &failed.Event}
	}
	for _, s := range sentinels {
		if errors.Is(err, s.is) {
			return &problem{code: s.code, detail: err.Error()}
		}
	}
	return &problem{code: codeInternal, detail: "a fault of the controller: " + err.Error()}
}

// writeProblem answers a failed request.
func (s *Server) writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && s.life.Err() == nil && errors.Is(err, context.Canceled) {
		// The client has gone. The status is for our own counters.
		w.WriteHeader(statusClientGone)
		return
	}
	var fs faults
	if errors.As(err, &fs) {
		s.writeFaults(w, fs)
		return
	}
	p := problemOf(err)
	if s.life.Err() != nil && errors.Is(err, context.Canceled) {
		p = &problem{code: codeStopping, detail: "this replica is stopping"}
	}
	kind, known := kinds[p.code]
	if !known {
		kind = kinds[codeInternal]
	}
	if kind.status >= 500 && (p.code == codeInternal || !known) {
		s.log.Error("request failed", "route", askedOf(r).route, "error", err)
	}
	b := problemBody{Detail: p.detail, Code: p.code}
	if kind.advice != "" && !p.plain {
		b.Detail = fmt.Sprintf("%s: %s", p.detail, kind.advice)
	}
	if p.event != nil {
		b.EventID, b.Status, b.Workers = p.event.ID, string(p.event.State), partsOf(p.event.Workers)
	}
	if p.health != nil {
		codes := codesOf(p.health)
		b.Codes = &codes
	}
	if p.code == codeNotLeader || p.code == codeNoLeader {
		if l, ok := s.opts.Node.Leader(); ok {
			b.Leader = &problemPlace{NodeID: l.NodeID, URL: l.URL}
		}
	}
	if askedOf(r).peer {
		w.Header().Set(headerCode, string(p.code))
	}
	if kind.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(kind.retry))
	}
	if p.closing {
		w.Header().Set("Connection", "close")
	}
	if err := s.writeJSON(w, kind.status, b); err != nil {
		s.log.Error("answer not written", "route", askedOf(r).route, "error", err)
	}
}

// statusClientGone is what others count a client's hang-up under; nobody receives it.
const statusClientGone = 499

// writeFaults answers 422 in FastAPI's shape. What did not fit is given back, unless
// it is long.
func (s *Server) writeFaults(w http.ResponseWriter, fs faults) {
	shown := make(faults, len(fs))
	for i, f := range fs {
		shown[i] = f
		if len(f.Input) > maxInput {
			shown[i].Input = asText(fmt.Appendf(nil, "(%d bytes, left out)", len(f.Input)))
		}
	}
	// An input lies in the body, so it is valid JSON: this cannot fail.
	if err := s.writeJSON(w, http.StatusUnprocessableEntity, struct {
		Detail faults `json:"detail"`
	}{shown}); err != nil {
		panic("bug: faults as JSON: " + err.Error())
	}
}

// errorCodes are worker ids with their codes, in ascending order of the worker.
type errorCodes []executor.WorkerHealth

func (c errorCodes) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, h := range c {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"%d":%d`, h.Worker, h.Code)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

var _ json.Marshaler = errorCodes(nil)
