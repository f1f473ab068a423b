package httpapi

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/kvctrl/kvctrl/executor"
)

// health asks every worker of an instance for its self-check. It changes nothing and
// needs no leader. LMCache has codes for workers that answer nonsense and none for
// those that do not answer (it hangs): these make the whole a 504 that names them.
func (s *Server) health(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	deadline, given := q.duration("timeout", maxTimeout)
	if given && deadline == 0 {
		q.fault("timeout", "greater_than", "Input should be greater than 0", ctxOf("gt", 0))
	}
	if err := q.err(); err != nil {
		return err
	}
	return s.parsed(w, r, bodyHealth, func(vs values) error {
		instance := vs[0].str
		all, err := s.opts.Executor.Health(r.Context(), instance, deadline)
		if err != nil {
			return err
		}
		if err := r.Context().Err(); err != nil {
			return err
		}
		if p := silent(instance, all); p != nil {
			return p
		}
		return s.writeJSON(w, http.StatusOK, struct {
			EventID string     `json:"event_id"`
			Codes   errorCodes `json:"error_codes"`
		}{"health" + uuid.NewString(), codesOf(all)})
	})
}

// codesOf is the answer's order: ascending ranks.
func codesOf(all []executor.WorkerHealth) errorCodes {
	codes := slices.Clone(all)
	slices.SortFunc(codes, func(a, b executor.WorkerHealth) int { return cmp.Compare(a.Worker, b.Worker) })
	return codes
}

// silent is nil when every worker has answered something.
func silent(instance string, all []executor.WorkerHealth) *problem {
	var faults []string
	worst := codeUnreachable
	for _, h := range codesOf(all) {
		var what string
		switch h.Code {
		case executor.CodeNotAnswering:
			what, worst = "did not answer in time", codeTimeout
		case executor.CodeNotAsked:
			what, worst = "was busy with an earlier command", codeTimeout
		case executor.CodeNotReached:
			what = "was not reached at the address that it registered"
		default:
			continue
		}
		faults = append(faults, fmt.Sprintf("worker %q/%d %s", instance, h.Worker, what))
	}
	if len(faults) == 0 {
		return nil
	}
	return &problem{code: worst, detail: strings.Join(faults, "; ") + ": error_codes has the others", plain: true, health: all}
}
