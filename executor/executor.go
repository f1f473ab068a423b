package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// Log is where commands become entries; *cluster.Node is one.
type Log interface {
	Propose(ctx context.Context, entry []byte) (cluster.Applied, error)
}

// Options are an executor's parts and limits.
type Options struct {
	Log      Log
	Registry func() *registry.Registry // asked anew for each command
	KeysOf   KeysOf                    // default: no move is confirmed by its destination
	Dialer   Dialer                    // default: ZMQ REQ
	Logger   hclog.Logger

	// Deadline is the longest wait for a worker's answer (30 s), and for earlier
	// commands to free the workers.
	Deadline time.Duration
	// LogWait is the longest wait for an entry to be committed (10 s).
	LogWait time.Duration
	// MaxOpen is how many commands may be open at a time (1 024); more are refused
	// with ErrBusy.
	MaxOpen int
	// MaxTokens bounds the token ids that open commands keep (16 Mi: 256 MB, of moves
	// half as much again); more are refused with ErrBusy. One command alone may have more.
	MaxTokens int
	// Now is the clock that stamps entries (time.Now).
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.Dialer == nil {
		o.Dialer = newZMQDialer()
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Deadline == 0 {
		o.Deadline = 30 * time.Second
	}
	if o.LogWait == 0 {
		o.LogWait = 10 * time.Second
	}
	if o.MaxOpen == 0 {
		o.MaxOpen = 1024
	}
	if o.MaxTokens == 0 {
		o.MaxTokens = 16 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Validate names every fault at once.
func (o Options) Validate() error {
	var faults []error
	if o.Log == nil {
		faults = append(faults, errors.New("no Log"))
	}
	if o.Registry == nil {
		faults = append(faults, errors.New("no Registry"))
	}
	if o.Deadline < 0 || o.LogWait < 0 || o.MaxOpen < 0 || o.MaxTokens < 0 {
		faults = append(faults, fmt.Errorf("limits below zero: Deadline %s, LogWait %s, MaxOpen %d, MaxTokens %d", o.Deadline, o.LogWait, o.MaxOpen, o.MaxTokens))
	}
	return errors.Join(faults...)
}

// Executor acts on workers while this replica leads.
type Executor struct {
	opts  Options
	log   hclog.Logger
	slots *slots
	stats *counters

	mu     sync.Mutex
	lead   *leadership     // nil while this replica does not lead
	runs   map[string]*run // open commands of this leadership, by event id
	tokens int             // that runs keep
}

// leadership is one term's right to act.
type leadership struct {
	ctx  context.Context // ends with the leadership
	term uint64
	wg   sync.WaitGroup // commands under way
}

// run is a command under way. event and err are set before done is closed.
type run struct {
	fingerprint [16]byte
	created     chan struct{} // closed once the event is in the log; may stay open when it fails
	done        chan struct{}
	event       registry.Event
	err         error
}

func (r *run) isCreated() bool {
	select {
	case <-r.created:
		return true
	default:
		return false
	}
}

// New makes an executor; it acts once Lead is called.
func New(o Options) (*Executor, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("executor: %w", err)
	}
	o = o.withDefaults()
	return &Executor{opts: o, log: o.Logger, slots: newSlots(), stats: newCounters(), runs: map[string]*run{}}, nil
}

// Lead gives the right to act until ctx ends, and returns when every command under
// way has ended. It is a cluster.LeaderTask: terms do not overlap.
func (e *Executor) Lead(ctx context.Context, term uint64) error {
	l := &leadership{ctx: ctx, term: term}
	e.mu.Lock()
	e.lead = l
	e.mu.Unlock()

	<-ctx.Done()

	e.mu.Lock()
	e.lead = nil
	e.mu.Unlock()
	l.wg.Wait()
	return nil
}

// Do carries a command out and returns its event. It waits for the outcome unless
// the command is detached or ctx ends; the command itself goes on either way.
//
// Errors: *UnknownInstanceError, *PlanError, *ConflictError, ErrNotLeading and
// ErrBusy mean that nothing was sent. *CommandError carries an event that ended
// other than done. ErrOutcomeUnknown and ctx's own error leave it open: the event's
// id, in the returned event, tells later.
//
// Leadership: when it is lost, Do returns at once, with ErrNotLeading when there is no
// event, else with ErrOutcomeUnknown. The same command with the same id at the next
// leader gives the outcome: what this one began is a *CommandError of an interrupted
// event there, what never got into the log is carried out.
func (e *Executor) Do(ctx context.Context, c Command) (registry.Event, error) {
	if err := c.validate(); err != nil {
		return registry.Event{}, err
	}
	if c.EventID == "" {
		c.EventID = NewEventID(c.Kind)
	}
	if c.Deadline <= 0 {
		c.Deadline = e.opts.Deadline
	}
	r, err := e.start(c)
	if err != nil {
		return registry.Event{}, err
	}
	if c.Detach {
		return e.detached(ctx, c, r)
	}
	select {
	case <-r.done:
		return r.event, r.err
	case <-ctx.Done():
		return registry.Event{ID: c.EventID, Kind: c.Kind, State: registry.EventRunning}, ctx.Err()
	}
}

// start returns the run of a command: a new one, or the one that its event id stands
// for already.
func (e *Executor) start(c Command) (*run, error) {
	fingerprint := c.Fingerprint()

	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lead
	if l == nil || l.ctx.Err() != nil {
		return nil, ErrNotLeading
	}
	if r := e.runs[c.EventID]; r != nil {
		if r.fingerprint != fingerprint {
			return nil, &ConflictError{Event: registry.Event{ID: c.EventID, Kind: c.Kind, Source: c.Source}}
		}
		return r, nil
	}
	reg := e.opts.Registry()
	if ev, ok := reg.Event(c.EventID); ok {
		return settled(c, fingerprint, ev)
	}
	tasks, err := plan(reg, &c, c.EventID)
	if err != nil {
		return nil, err
	}
	if len(e.runs) >= e.opts.MaxOpen {
		return nil, fmt.Errorf("%d commands are open, the most there may be: %w", len(e.runs), ErrBusy)
	}
	tokens := len(c.tokens())
	if e.tokens > 0 && e.tokens+tokens > e.opts.MaxTokens {
		return nil, fmt.Errorf("open commands name %d tokens, with %d more it would be above %d: %w", e.tokens, tokens, e.opts.MaxTokens, ErrBusy)
	}
	e.tokens += tokens
	r := &run{fingerprint: fingerprint, created: make(chan struct{}), done: make(chan struct{})}
	e.runs[c.EventID] = r
	l.wg.Add(1)
	// Owner: this leadership, which waits for it in Lead. It ends with the command's
	// last deadline or with l.ctx.
	go func() {
		defer l.wg.Done()
		began := e.opts.Now()
		ev, err := e.carryOut(l, c, tasks, r)
		if r.isCreated() && ev.State.Final() {
			e.stats.took(c.Kind, e.opts.Now().Sub(began))
		}
		e.mu.Lock()
		delete(e.runs, c.EventID)
		e.tokens -= tokens
		e.mu.Unlock()
		r.event, r.err = ev, err
		e.stats.finished(c.Kind, ev, err)
		close(r.done)
	}()
	return r, nil
}

// settled answers for an event that is in the log already and not under way here.
func settled(c Command, fingerprint [16]byte, ev registry.Event) (*run, error) {
	if ev.Kind != c.Kind || ev.Fingerprint != fingerprint {
		return nil, &ConflictError{Event: ev}
	}
	r := &run{fingerprint: fingerprint, created: make(chan struct{}), done: make(chan struct{}), event: ev}
	close(r.created)
	switch {
	case ev.State == registry.EventDone:
	case ev.State.Final():
		r.err = &CommandError{Event: ev, Cause: Cause(ev.Cause)}
	default:
		// Of this term, and its goroutine has just ended without its last entry.
		r.err = fmt.Errorf("event %q: %w", ev.ID, ErrOutcomeUnknown)
	}
	close(r.done)
	return r, nil
}

// Recorded gives what Do would of a command whose event has ended, from a replica's own
// state, whoever leads. False while there is no such event, or it is not over.
func Recorded(reg *registry.Registry, c Command) (ev registry.Event, known bool, err error) {
	ev, ok := reg.Event(c.EventID)
	if !ok || !ev.State.Final() {
		return registry.Event{}, false, nil
	}
	r, err := settled(c, c.Fingerprint(), ev)
	if err != nil {
		return ev, true, err
	}
	return ev, true, r.err
}

// carryOut is steps 2 to 6 of the package's comment.
func (e *Executor) carryOut(l *leadership, c Command, tasks []task, r *run) (registry.Event, error) {
	blank := registry.Event{ID: c.EventID, Kind: c.Kind}
	result, err := e.propose(l, fsm.EncodeCreateEvent(registry.EventCreate{
		ID: c.EventID, Kind: c.Kind, Source: c.Source, Dest: c.Dest,
		Fingerprint: r.fingerprint, Tokens: int64(len(c.tokens())), Term: l.term, At: e.now(),
	}))
	switch {
	case errors.Is(err, ErrOutcomeUnknown):
		return e.abandon(l, c, err)
	case err != nil: // there is no event
		return blank, err
	}
	created, ok := result.(registry.EventCreateResult)
	switch {
	case !ok:
		return blank, fmt.Errorf("bug: creating an event was answered with %T", result)
	case created.Refused != "":
		return blank, fmt.Errorf("%s: %w", created.Refused, ErrBusy)
	case created.Existing:
		earlier, err := settled(c, r.fingerprint, created.Event)
		if err != nil {
			return created.Event, err
		}
		return earlier.event, earlier.err
	}
	close(r.created)

	workers := make([]registry.WorkerRef, len(tasks))
	for i, t := range tasks {
		workers[i] = t.worker
	}
	waiting, cancel := context.WithTimeout(l.ctx, c.Deadline)
	err = e.slots.acquire(waiting, workers)
	cancel()
	switch {
	case l.ctx.Err() != nil:
		if err == nil {
			e.slots.release(workers)
		}
		return e.abandon(l, c, ErrNotLeading)
	case err != nil:
		return e.abandon(l, c, fmt.Errorf("the workers of instance %q were busy with earlier commands for %s: %w", c.Source.Instance, c.Deadline, ErrBusy))
	}
	defer e.slots.release(workers)
	if tasks, err = e.planAgain(c, workers); err != nil {
		return e.abandon(l, c, err)
	}

	arrives := e.expect(&c, tasks)
	if err := e.begin(l, c, workers); err != nil {
		return e.abandon(l, c, err)
	}
	finish, cause := judge(&c, e.ask(l, c.Deadline, tasks))
	arrives.confirm(&finish)
	ev, err := e.finish(l, c, finish)
	if err == nil && cause != "" {
		e.log.Info("command did not succeed", "event", ev.ID, "state", string(ev.State), "instance", c.Source.Instance, "detail", ev.Detail)
		err = &CommandError{Event: ev, Cause: cause}
	}
	return ev, err
}

// pauseLimit is how long the entry "running" may take without a second look at who
// leads. Another replica leads 0.5 to 1 s after this process was stopped.
const pauseLimit = time.Second

// begin writes that the event is running. Without an error workers may have it now, and
// this replica led a moment ago: a process that was stopped meanwhile, and is deposed
// without knowing it yet, asks the log again before it sends.
func (e *Executor) begin(l *leadership, c Command, workers []registry.WorkerRef) error {
	entry := fsm.EncodeRunEvent(registry.EventRun{ID: c.EventID, Term: l.term, Workers: workers, At: e.now()})
	began := e.opts.Now()
	result, err := e.propose(l, entry)
	if refused, ok := result.(error); ok {
		err = refused
	}
	for err == nil && e.opts.Now().Sub(began) > pauseLimit {
		began = e.opts.Now()
		// It is running already, so the entry is refused; that it was committed is what
		// counts.
		if _, err = e.propose(l, entry); err == nil {
			if ev, ok := e.opts.Registry().Event(c.EventID); !ok || ev.State != registry.EventRunning || ev.Term != l.term {
				err = fmt.Errorf("it is %q in term %d by now: %w", ev.State, ev.Term, ErrNotLeading)
			}
		}
	}
	return err
}

// planAgain is the plan as of now: a worker may have come back at another address while
// the command waited, and its old one may be anybody's.
func (e *Executor) planAgain(c Command, held []registry.WorkerRef) ([]task, error) {
	tasks, err := plan(e.opts.Registry(), &c, c.EventID)
	if err != nil {
		return nil, err
	}
	if !slices.EqualFunc(tasks, held, func(t task, w registry.WorkerRef) bool { return t.worker == w }) {
		return nil, &PlanError{Code: "ranks", Detail: fmt.Sprintf(
			"the workers of instance %q changed while %s waited for them: send it again under a new event id", c.Source.Instance, c.Kind)}
	}
	return tasks, nil
}

// abandon closes an event of which nothing was sent.
func (e *Executor) abandon(l *leadership, c Command, why error) (registry.Event, error) {
	why = fmt.Errorf("event %q: nothing was sent: %w", c.EventID, why)
	ev, err := e.finish(l, c, registry.EventFinish{State: registry.EventFailed, Cause: string(CauseUnsent), Detail: why.Error()})
	if err != nil {
		return ev, err
	}
	return ev, why
}

// finish writes the event's end and returns the event as the log has it. While this
// replica leads it tries until it is written: an event left open would stay open for
// the rest of the term. The error is a *CommandError when the event has ended otherwise:
// another leader has interrupted it, and this one leads again and was not told yet.
func (e *Executor) finish(l *leadership, c Command, f registry.EventFinish) (registry.Event, error) {
	f.ID, f.Term, f.At = c.EventID, l.term, e.now()
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		// A refusal means that an earlier try was written after all, or that the
		// event was never created: either way there is nothing left to write.
		_, err := e.propose(l, fsm.EncodeFinishEvent(f))
		if err == nil {
			break
		}
		if errors.Is(err, cluster.ErrTooLarge) && shorten(&f) {
			continue
		}
		select {
		case <-l.ctx.Done():
			lost := registry.Event{ID: c.EventID, Kind: c.Kind, Source: c.Source, Dest: c.Dest, State: registry.EventRunning, Workers: f.Workers}
			return lost, fmt.Errorf("event %q: %w", c.EventID, ErrOutcomeUnknown)
		case <-time.After(pause):
		}
	}
	ev, ok := e.opts.Registry().Event(c.EventID)
	switch {
	case !ok:
		ev = registry.Event{ID: c.EventID, Kind: c.Kind, Source: c.Source, Dest: c.Dest, State: f.State, NumTokens: f.NumTokens, Detail: f.Detail, Workers: f.Workers}
	case ev.State != f.State:
		return ev, &CommandError{Event: ev, Cause: Cause(ev.Cause)}
	}
	return ev, nil
}

// shorten makes the end of a command with very many workers fit into an entry, and
// reports whether there was something to leave out: their words, then their parts.
func shorten(f *registry.EventFinish) bool {
	for i := range f.Workers {
		if f.Workers[i].Error != "" {
			for j := range f.Workers[i:] {
				f.Workers[i+j].Error = ""
			}
			return true
		}
	}
	some := len(f.Workers) > 0
	f.Workers = nil
	return some
}

// The pauses between tries to write an event's end grow from retryFirst to retryMost.
const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 2 * time.Second
)

// detached waits only until the event is in the log.
func (e *Executor) detached(ctx context.Context, c Command, r *run) (registry.Event, error) {
	select {
	case <-r.created:
	case <-r.done:
		return r.event, r.err
	case <-ctx.Done():
		return registry.Event{ID: c.EventID, Kind: c.Kind}, ctx.Err()
	}
	if ev, ok := e.opts.Registry().Event(c.EventID); ok {
		return ev, nil
	}
	return registry.Event{ID: c.EventID, Kind: c.Kind, State: registry.EventPending}, nil
}

// propose commits an entry of this leadership. Only after ErrOutcomeUnknown may the
// entry be in the log.
func (e *Executor) propose(l *leadership, entry []byte) (any, error) {
	ctx, cancel := context.WithTimeout(l.ctx, e.opts.LogWait)
	defer cancel()
	applied, err := e.opts.Log.Propose(ctx, entry)
	is := func(targets ...error) bool {
		return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
	}
	switch {
	case err == nil:
		return applied.Result, nil
	case is(cluster.ErrUnknownOutcome):
		return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	case is(cluster.ErrTooLarge, cluster.ErrInvalid):
		return nil, err
	case is(cluster.ErrNotLeader, cluster.ErrNoLeader, cluster.ErrStopped, context.Cause(l.ctx)):
		return nil, fmt.Errorf("%w: %w", ErrNotLeading, err)
	case is(cluster.ErrBusy, context.DeadlineExceeded):
		return nil, fmt.Errorf("%w: %w", ErrBusy, err)
	default:
		return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
}

func (e *Executor) now() registry.Micros { return registry.Micros(e.opts.Now().UnixMicro()) }
