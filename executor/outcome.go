package executor

import (
	"fmt"
	"strings"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// answer is what came of one worker's part.
type answer struct {
	worker    registry.WorkerRef
	numTokens int64
	cause     Cause  // "" when the worker did it
	text      string // why it did not
}

// judge turns the workers' answers into the event's end.
func judge(c *Command, answers []answer) (f registry.EventFinish, cause Cause) {
	f.Workers = make([]registry.WorkerOutcome, len(answers))
	var did, same int
	worst := Cause("")
	var faults []string
	for i, a := range answers {
		f.Workers[i] = registry.WorkerOutcome{WorkerRef: a.worker, State: stateOf(a.cause), NumTokens: a.numTokens, Error: a.text}
		if a.cause == "" {
			if did == 0 {
				f.NumTokens = a.numTokens
			}
			if a.numTokens == f.NumTokens {
				same++
			}
			did++
			continue
		}
		faults = append(faults, fmt.Sprintf("worker %q/%d %s", a.worker.Instance, a.worker.Worker, a.text))
		if graver(a.cause, worst) {
			worst = a.cause
		}
	}
	switch {
	case did == len(answers) && same == did:
		f.State = registry.EventDone
		return f, ""
	case did == len(answers):
		f.State, cause = registry.EventPartial, CauseDisagree
		f.Detail = fmt.Sprintf("%s: the workers of instance %q disagree: %s", c.Kind, c.Source.Instance, counts(answers))
		f.NumTokens = 0
	case did > 0:
		f.State, cause = registry.EventPartial, CausePartial
		f.Detail = fmt.Sprintf("%s: %d of %d workers did it; %s", c.Kind, did, len(answers), strings.Join(faults, "; "))
		f.NumTokens = 0
	case worst == CauseTimeout:
		f.State, cause = registry.EventTimedOut, worst
		f.Detail = fmt.Sprintf("%s: %s", c.Kind, strings.Join(faults, "; "))
	default:
		f.State, cause = registry.EventFailed, worst
		f.Detail = fmt.Sprintf("%s: %s", c.Kind, strings.Join(faults, "; "))
	}
	f.Cause = string(cause)
	return f, cause
}

// graver orders causes by what they leave open: after a timeout the worker may still
// act, so that outweighs what is known to have failed.
func graver(a, b Cause) bool {
	order := map[Cause]int{"": 0, CauseWorkerError: 1, CauseBadAnswer: 2, CauseUnreachable: 3, CauseTimeout: 4}
	return order[a] > order[b]
}

func stateOf(c Cause) registry.EventState {
	switch c {
	case "":
		return registry.EventDone
	case CauseTimeout:
		return registry.EventTimedOut
	}
	return registry.EventFailed
}

func counts(answers []answer) string {
	parts := make([]string, len(answers))
	for i, a := range answers {
		parts[i] = fmt.Sprintf("worker %d says %d tokens", a.worker.Worker, a.numTokens)
	}
	return strings.Join(parts, ", ")
}

// read makes sense of a worker's reply to msg. Only the reply that belongs to the
// command counts: LMCache takes any that has a num_tokens.
func read(w registry.WorkerRef, msg lmcache.Message, reply []byte) answer {
	a := answer{worker: w}
	m, err := lmcache.Decode(reply)
	if err != nil {
		a.cause, a.text = CauseBadAnswer, fmt.Sprintf("answered what cannot be decoded: %v", err)
		return a
	}
	switch m := m.(type) {
	case *lmcache.ErrorMsg:
		a.cause, a.text = CauseWorkerError, fmt.Sprintf("answered: %s", orNothing(m.Error))
		return a
	case *lmcache.ClearWorkerRetMsg:
		a.numTokens = m.NumTokens
	case *lmcache.PinWorkerRetMsg:
		a.numTokens = m.NumTokens
	case *lmcache.CompressWorkerRetMsg:
		a.numTokens = m.NumTokens
	case *lmcache.DecompressWorkerRetMsg:
		a.numTokens = m.NumTokens
	case *lmcache.MoveWorkerRetMsg:
		a.numTokens = m.NumTokens
	}
	want := strings.TrimSuffix(msg.Type(), "Msg") + "RetMsg"
	switch {
	case m.Type() != want:
		a.numTokens, a.cause, a.text = 0, CauseBadAnswer, fmt.Sprintf("answered %s, not %s", m.Type(), want)
	case a.numTokens < 0:
		a.cause, a.text = CauseBadAnswer, fmt.Sprintf("answered a count of %d tokens", a.numTokens)
		a.numTokens = 0
	}
	return a
}

// orNothing keeps an empty error, which a failed assertion in an engine gives, from
// vanishing in a sentence.
func orNothing(s string) string {
	if strings.TrimSpace(s) == "" {
		return "an error without words"
	}
	return s
}
