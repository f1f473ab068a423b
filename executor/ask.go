package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// ask sends every task to its worker, side by side, and returns their answers in the
// order of the tasks.
func (e *Executor) ask(l *leadership, deadline time.Duration, tasks []task) []answer {
	answers := make([]answer, len(tasks))
	var wg sync.WaitGroup
	for i, t := range tasks {
		wg.Go(func() { // ends with the deadline or with l.ctx
			ctx, cancel := context.WithTimeout(l.ctx, deadline)
			defer cancel()
			answers[i] = e.askOne(ctx, deadline, t)
		})
	}
	wg.Wait()
	return answers
}

func (e *Executor) askOne(ctx context.Context, deadline time.Duration, t task) answer {
	began := e.opts.Now()
	reply, err := e.opts.Dialer.Ask(ctx, t.addr, lmcache.Append(nil, t.msg))
	e.stats.asked(e.opts.Now().Sub(began))
	if err == nil {
		return read(t.worker, t.msg, reply)
	}
	a := answer{worker: t.worker}
	switch {
	case errors.Is(err, errUnreachable):
		a.cause, a.text = CauseUnreachable, fmt.Sprintf("was not reached at %s; nothing was sent: %v", t.addr, err)
	case errors.Is(err, context.DeadlineExceeded):
		a.cause, a.text = CauseTimeout, fmt.Sprintf("did not answer within %s; it may still do it", deadline)
	case errors.Is(err, context.Canceled):
		a.cause, a.text = CauseTimeout, "was not waited for: this replica no longer leads; it may still do it"
	default:
		a.cause, a.text = CauseTimeout, fmt.Sprintf("gave no answer: %v; it may still do it", err)
	}
	return a
}

// LMCache's codes for a health question that got no health answer.
const (
	CodeErrorAnswer   = -1001 // the worker sent ErrorMsg
	CodeOtherAnswer   = -1002 // another message
	CodeBadAnswer     = -1003 // not decodable
	CodeNotAnswering  = -1004 // ours: nothing within the deadline
	CodeNotReached    = -1005 // ours: no connection
	CodeNotAsked      = -1006 // ours: busy with an earlier command for the whole deadline
	maxHealthDeadline = 10 * time.Second
)

// WorkerHealth is a worker's own verdict: 0 good, -1 bad, or one of the codes above.
type WorkerHealth struct {
	registry.WorkerRef
	Code int64
}

// Health asks every worker of an instance for its self-check; an unknown instance
// has none. Workers that do not answer are told apart by their code, so that one
// hung rank does not hide the others. It needs no leadership: it changes nothing.
func (e *Executor) Health(ctx context.Context, instance string, deadline time.Duration) ([]WorkerHealth, error) {
	ws, err := ranks(e.opts.Registry(), instance)
	var unknown *UnknownInstanceError
	if errors.As(err, &unknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if deadline <= 0 || deadline > maxHealthDeadline {
		deadline = min(e.opts.Deadline, maxHealthDeadline)
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	out := make([]WorkerHealth, len(ws))
	var wg sync.WaitGroup
	for i, w := range ws {
		out[i].WorkerRef = w.WorkerRef
		wg.Go(func() { out[i].Code = e.healthOf(ctx, w) }) // ends with ctx
	}
	wg.Wait()
	return out, nil
}

func (e *Executor) healthOf(ctx context.Context, w registry.WorkerInfo) int64 {
	if err := e.slots.acquire(ctx, []registry.WorkerRef{w.WorkerRef}); err != nil {
		return CodeNotAsked
	}
	defer e.slots.release([]registry.WorkerRef{w.WorkerRef})
	msg := &lmcache.HealthWorkerMsg{WorkerEventID: fmt.Sprintf("HealthWorker%d%s", w.Worker, uuid.NewString())}
	reply, err := e.opts.Dialer.Ask(ctx, address(w), lmcache.Append(nil, msg))
	switch {
	case errors.Is(err, errUnreachable):
		return CodeNotReached
	case err != nil:
		return CodeNotAnswering
	}
	m, err := lmcache.Decode(reply)
	if err != nil {
		return CodeBadAnswer
	}
	switch m := m.(type) {
	case *lmcache.HealthWorkerRetMsg:
		return m.ErrorCode
	case *lmcache.ErrorMsg:
		return CodeErrorAnswer
	}
	return CodeOtherAnswer
}
