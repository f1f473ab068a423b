package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

const (
	pathSyncSlot = "/ingest/sync-slot"

	// slotPatience bounds how long a heartbeat waits for its turn to ask the leader. It
	// is answered without a command then, and the worker comes again.
	slotPatience = 2 * time.Second
	// maxSlotQuestions is how many may wait: the leader answers thousands a second.
	maxSlotQuestions = 64
)

// slotQuestion and slotAnswer are what a follower asks the leader on behalf of a worker
// that owes a full sync.
type slotQuestion struct {
	Instance string `json:"instance"`
	Worker   int64  `json:"worker"`
}

type slotAnswer struct {
	Granted bool   `json:"granted"`
	Full    bool   `json:"full"`             // nobody need ask for a moment
	Reason  string `json:"reason,omitempty"` // with granted: what to tell the worker
}

// command gives what to tell a worker in answer to its heartbeat: to sync, if it owes
// that and the leader has a slot for it. Any goroutine; it does not block. tell is called
// once: at once, or from the goroutine that asks the leader.
func (s *Server) command(w registry.WorkerRef, tell func([]lmcache.HeartbeatCommand)) {
	granted := func(reason string) {
		s.stats.syncs.Add(1)
		tell([]lmcache.HeartbeatCommand{{CommandType: "full_sync", Reason: &reason}})
	}
	_, wanted := s.opts.State.Registry().SyncWanted(w)
	switch {
	case !wanted:
		tell(nil)
	case s.leads():
		if answer := s.grant(w); answer.Granted {
			granted(answer.Reason)
		} else {
			tell(nil)
		}
	default:
		select {
		case s.questions <- slotAsked{w, s.opts.Now(), func(answer slotAnswer) {
			if answer.Granted {
				granted(answer.Reason)
			} else {
				tell(nil)
			}
		}}:
		default:
			tell(nil)
		}
	}
}

// grant decides for the whole cluster whether a worker syncs now. On the leader.
func (s *Server) grant(w registry.WorkerRef) slotAnswer {
	s.noteTerm()
	reg := s.opts.State.Registry()
	owed, wanted := reg.SyncWanted(w)
	if !wanted { // here: the asker's state is older
		return slotAnswer{}
	}
	syncing := func() int { return reg.Totals().SyncingWorkers }
	now := s.opts.Now()
	if !s.slots.ask(w, owed, now, syncing, owes(reg)) {
		return slotAnswer{Full: s.slots.isFull(now)}
	}
	return slotAnswer{Granted: true, Reason: owed.Reason}
}

// owes tells who owes a full sync and is in none.
func owes(reg *registry.Registry) func(registry.WorkerRef) bool {
	return func(w registry.WorkerRef) bool {
		_, wanted := reg.SyncWanted(w)
		return wanted
	}
}

// lookAtSlots ends the slots of those who have started, or who did not.
func (s *Server) lookAtSlots() {
	if s.leads() {
		s.slots.look(s.opts.Now(), owes(s.opts.State.Registry()))
	}
}

// noteTerm tells the slots of a term that has begun, if this replica leads it.
func (s *Server) noteTerm() {
	if s.opts.Leader != nil && s.opts.Leader.IsLeader() && len(s.opts.State.Registry().Members()) > 1 {
		s.slots.begin(s.opts.Leader.Term(), s.opts.Now())
	}
}

// answerSlot answers another replica's question. On the leader.
func (s *Server) answerSlot(body []byte) ([]byte, error) {
	var q slotQuestion
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fmt.Errorf("question for a sync slot: %w", err)
	}
	if q.Instance == "" || len(q.Instance) > fsm.MaxName {
		return nil, fmt.Errorf("question for a sync slot of an instance whose name has %d bytes: want 1 to %d", len(q.Instance), fsm.MaxName)
	}
	return json.Marshal(s.grant(worker(q.Instance, q.Worker)))
}

// slotAsked is a question on its way to the leader.
type slotAsked struct {
	worker registry.WorkerRef
	since  time.Time
	tell   func(slotAnswer)
}

// askSlots asks the leader, one question after the other. When all slots are taken, or
// the leader does not answer, nobody asks for a moment: after a loss of state all workers
// of this replica want one. Owned by Serve; it ends with ctx and blocks in requests.
func (s *Server) askSlots(ctx context.Context) {
	var pause time.Time // no question until then
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-s.questions:
			if now := s.opts.Now(); now.Before(pause) || now.Sub(q.since) > slotPatience {
				q.tell(slotAnswer{})
				continue
			}
			answer, err := s.askSlot(ctx, q.worker)
			if err != nil {
				s.stats.slotsUnanswered.Add(1)
				s.logger.Debug("the leader was not asked for a sync slot", "instance", q.worker.Instance, "worker", q.worker.Worker, "error", err)
			}
			if err != nil || answer.Full {
				pause = s.opts.Now().Add(fullTime)
			}
			q.tell(answer)
		}
	}
}

func (s *Server) askSlot(ctx context.Context, w registry.WorkerRef) (slotAnswer, error) {
	question, err := json.Marshal(slotQuestion{w.Instance, w.Worker})
	if err != nil {
		return slotAnswer{}, err
	}
	body, err := s.askLeader(ctx, pathSyncSlot, question)
	if err != nil {
		return slotAnswer{}, err
	}
	var answer slotAnswer
	if err := json.Unmarshal(body, &answer); err != nil {
		return slotAnswer{}, fmt.Errorf("answer to a question for a sync slot: %w", err)
	}
	return answer, nil
}
