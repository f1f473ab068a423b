package ingest

import (
	"bytes"
	"context"
	"io"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/internal/zmqwake"
	"github.com/kvctrl/kvctrl/registry"
)

// modelReplica is a Server without sockets and goroutines in front of a state machine:
// the model hands it frames, and does one after the other what its goroutines would do.
type modelReplica struct {
	m    *model
	id   int
	opts registry.Options
	fsm  *fsm.FSM
	skew time.Duration // of its clock
	cut  bool          // it reaches no other replica

	s           *Server
	pull        *puller
	reply, beat *router
	flying      *batch
	pause       time.Time // of its questions for slots

	// of the lease, when it leads
	since, looked registry.Micros
}

// boot starts the replica's process anew, with the log it had.
func (r *modelReplica) boot() {
	r.m.sessions++
	s := New(Options{Log: r, State: r, Leader: r, Session: registry.SessionID{byte(r.m.sessions), byte(r.m.sessions >> 8), 1}, MaxSyncs: r.m.maxSyncs, Now: r.clock})
	s.ports.Heartbeat = 1
	r.s, r.flying, r.pause = s, nil, time.Time{}
	r.pull = &puller{s: s, name: "pull"}
	r.reply = &router{s: s, name: "reply", wake: new(zmqwake.Waker), counts: &s.stats.reply, handle: s.reply, pending: newPending(s.opts.MaxPending)}
	r.beat = &router{s: s, name: "heartbeat", wake: new(zmqwake.Waker), counts: &s.stats.heartbeat, handle: s.heartbeatOnly, pending: newPending(s.opts.MaxPending)}
}

func (r *modelReplica) clock() time.Time { return r.m.now.Add(r.skew) }

// What the Server asks of its replica.

func (r *modelReplica) Registry() *registry.Registry                        { return r.fsm.Registry() }
func (r *modelReplica) WaitApplied(ctx context.Context, index uint64) error { return nil }
func (r *modelReplica) IsLeader() bool                                      { return r.m.leader == r }

func (r *modelReplica) Term() uint64 { return r.m.term }

func (r *modelReplica) AskLeader(_ context.Context, path string, body []byte) ([]byte, error) {
	leader := r.m.leader
	switch {
	case leader == nil:
		return nil, cluster.ErrNoLeader
	case r.cut || leader.cut:
		return nil, cluster.ErrUnknownOutcome
	case path == pathHeard:
		return leader.s.takeHeardOf(body)
	default:
		return leader.s.answerSlot(body)
	}
}

// Propose takes an entry in good weather.
func (r *modelReplica) Propose(_ context.Context, entry []byte) (cluster.Applied, error) {
	if r.m.leader == nil || r.cut || r.m.leader.cut {
		return cluster.Applied{}, cluster.ErrNoLeader
	}
	return r.m.commit(entry), nil
}

// modelFate is what becomes of an attempt to put a batch into the log.
type modelFate uint8

const (
	modelApplied modelFate = iota
	modelUntold            // in the log, but the proposer hears nothing of it
	modelLate              // as if lost, but a copy is under way
	modelLost
)

// propose makes one attempt for the oldest batch, and reports whether it is in the log.
func (r *modelReplica) propose(f modelFate) bool {
	q := r.s.queue
	if r.flying == nil {
		if len(q.sealed) == 0 && q.records.Records() == 0 {
			return false
		}
		r.flying = q.take()
	}
	if r.m.leader == nil || r.cut && r.m.leader != r || r.m.leader.cut {
		return false
	}
	switch f {
	case modelApplied:
		applied := r.m.commit(r.flying.entry)
		q.finish(r.flying, judge(applied))
		r.flying = nil
		return true
	case modelUntold:
		r.m.commit(r.flying.entry)
	case modelLate:
		r.m.late = append(r.m.late, r.flying.entry)
	}
	return false
}

// tell tells who waits, in order, as tellAll does.
func (r *modelReplica) tell() {
	q := r.s.queue
	for len(q.words) > 0 {
		w := q.words[0]
		q.words = q.words[1:]
		for _, x := range w.waiters {
			o := outcome{Err: w.verdict.err, Duplicate: w.verdict.result.Duplicate}
			if x.record >= 0 && x.record < len(w.verdict.result.Records) {
				o.Result = w.verdict.result.Records[x.record]
			}
			x.tell(o)
		}
		q.bytes -= waiterBytes * len(w.waiters)
	}
}

// ask puts the questions for slots to the leader, as askSlots does.
func (r *modelReplica) ask() {
	for {
		select {
		case q := <-r.s.questions:
			if now := r.clock(); now.Before(r.pause) || now.Sub(q.since) > slotPatience {
				q.tell(slotAnswer{})
				continue
			}
			answer, err := r.s.askSlot(context.Background(), q.worker)
			if err != nil || answer.Full {
				r.pause = r.clock().Add(fullTime)
			}
			q.tell(answer)
		default:
			return
		}
	}
}

// answers hands what is answered, or overdue, to the workers.
func (r *modelReplica) answers() {
	r.tell()
	r.ask()
	for _, router := range []*router{r.reply, r.beat} {
		router.pending.expire(r.clock())
		for _, out := range router.pending.take(nil) {
			r.m.answered(out)
		}
	}
}

// lease is one turn of the leader's lease task.
func (r *modelReplica) lease() {
	o := LeaseOptions{Log: r, State: r, Heard: r.s.TakeHeard, PutBack: r.s.PutBackHeard, Interval: 5 * time.Second,
		WorkerTimeout: r.m.timeout, SyncTimeout: r.m.tooLong, Now: r.clock}
	if r.m.timeout > 0 {
		o.HealthCheckInterval = time.Second
	}
	o.Logger = r.s.logger
	now := micros(r.clock())
	if now-r.looked > 2*5*second {
		r.since = now
	}
	_ = o.once(context.Background(), now, r.since) // what it could not commit is put back
	r.looked = now
}

// catchUp applies the log up to an index.
func (r *modelReplica) catchUp(index uint64) {
	for next := r.fsm.Applied() + 1; next <= index; next++ {
		r.fsm.ApplyBatch(r.m.log[next-1 : next])
		if want, ok := r.m.digests[next]; ok {
			if at, got := r.fsm.Digest(); at != next || got != want {
				r.m.fatalf("replica %d at index %d has digest %v, the first to get there %v", r.id, next, got, want)
			}
		}
	}
}

// reload builds the state anew from a snapshot of another replica's.
func (r *modelReplica) reload(from *modelReplica) {
	if from.fsm.Applied() < r.fsm.Applied() {
		return
	}
	snap, err := from.fsm.Snapshot()
	if err != nil {
		r.m.fatalf("snapshot: %v", err)
	}
	defer snap.Release()
	var sink modelSink
	if err := snap.Persist(&sink); err != nil {
		r.m.fatalf("write snapshot: %v", err)
	}
	if err := r.fsm.Restore(io.NopCloser(&sink.Buffer)); err != nil {
		r.m.fatalf("restore: %v", err)
	}
	_, a := from.fsm.Digest()
	if _, b := r.fsm.Digest(); a != b {
		r.m.fatalf("a snapshot of digest %v is loaded with digest %v", a, b)
	}
}

// modelSink is a snapshot in memory.
type modelSink struct{ bytes.Buffer }

func (*modelSink) ID() string    { return "model" }
func (*modelSink) Cancel() error { return nil }
func (*modelSink) Close() error  { return nil }

// commit appends an entry to the log. The leader applies it, and so does the naive model.
func (m *model) commit(entry []byte) cluster.Applied {
	index := uint64(len(m.log)) + 1
	m.log = append(m.log, &raft.Log{Index: index, Term: m.term, Type: raft.LogCommand, Data: entry})
	decoded, err := fsm.Decode(entry)
	if err != nil {
		m.fatalf("entry %d: %v", index, err)
	}
	m.tell(index, decoded.Value)
	m.naive.count["entries"]++
	m.naive.apply(decoded.Value)
	m.leader.catchUp(index - 1)
	result := m.leader.fsm.ApplyBatch(m.log[index-1:])[0]
	if index%8 == 0 { // often enough for the others to be compared with
		_, m.digests[index] = m.leader.fsm.Digest()
	}
	return cluster.Applied{Index: index, Result: result}
}

// elect makes a replica the leader of a new term.
func (m *model) elect(r *modelReplica) {
	m.leader, r.cut = r, false
	m.term++
	r.since, r.looked = micros(r.clock()), micros(r.clock())
	r.s.noteTerm()
	r.catchUp(uint64(len(m.log)))
	m.commit(fsm.EncodeTermBegin(registry.TermBegin{Term: m.term, Node: "n" + string(rune('0'+r.id)), At: micros(r.clock())}))
}

var drawBits = rapid.Uint32()

// draw returns a number below n. Rapid prefers small numbers, which makes poor choices; 0
// stays what everything shrinks to.
func draw(t *rapid.T, what string, n int) int {
	return int(uint64(drawBits.Draw(t, what)*0x9e3779b1) * uint64(n) >> 32)
}

func pick[T any](t *rapid.T, what string, from []T) T { return from[draw(t, what, len(from))] }

// rarely is true once in so many times.
func rarely(t *rapid.T, what string, times int) bool { return draw(t, what, times) == times-1 }
