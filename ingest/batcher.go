package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

const (
	// maxMaxBatch leaves room in an entry for the record that fills the batch.
	maxMaxBatch = fsm.MaxEntry / 2

	// A batch whose leader is lost is what a failover is measured by: the pauses stay
	// short. The log itself holds an attempt while there is no leader.
	retryMin = 10 * time.Millisecond
	retryMax = 100 * time.Millisecond
)

// Why a record was not taken.
var (
	errQueueFull = errors.New("the queue towards the log is full")
	errClosed    = errors.New("this replica is shutting down")
	errTooLarge  = errors.New("does not fit into a log entry")
)

// outcome is what became of a record.
type outcome struct {
	// Err is why it was not applied; it will not be.
	Err error
	// Duplicate: applied, but by an earlier attempt whose answer was lost; Result is empty.
	Duplicate bool
	Result    fsm.RecordResult
}

// batcher puts records into batches and the batches into the log: in order, each
// exactly once, one at a time (I1, I2). The log may be this replica's own or the
// leader's, and the leader may change between two attempts: the bytes, the session and
// the number are the same, and so is what comes of it.
//
// A batch is proposed as soon as the one before it is acknowledged, with whatever has
// come together since. So an idle system proposes at once, and a busy one fills
// larger batches the longer the log takes.
//
// Concurrency: add, barrier, close and the figures from any goroutine; run from one.
type batcher struct {
	log     Log
	leader  Leader // nil: this replica is alone
	state   State
	session registry.SessionID
	now     func() time.Time
	logger  hclog.Logger
	stats   *counters

	maxQueue, maxBatch int
	maxPending         int // registrations that have room beyond maxQueue
	proposeTimeout     time.Duration

	mu      sync.Mutex
	changed sync.Cond  // on mu: work, space or an end
	records *fsm.Batch // of open
	open    *batch     // takes records; may be empty
	sealed  []*batch   // full, oldest first
	flying  *batch     // being proposed
	words   []word     // to be told, oldest first
	acked   uint64     // index of the batch acknowledged last
	bytes   int        // of sealed, flying and words
	number  uint64     // of the batch sealed last
	closed  bool
	silent  bool // nobody is told any more: run has ended
}

// batch is a batch of records with what ingest has to remember of each.
type batch struct {
	number uint64
	entry  []byte // since it was sealed
	ops    []int  // operations per record
	// waiters are told when the batch is acknowledged.
	waiters []waiter
	size    int       // counted in batcher.bytes since it was sealed
	began   time.Time // since it flies
}

type waiter struct {
	record int // -1: the whole batch
	tell   func(outcome)
}

// waiterBytes is about what a waiter keeps: itself, its function and the message that
// this will answer. A registration of 20 bytes in the log has one.
const waiterBytes = 256

// weight is what a batch of so many encoded bytes takes of the queue.
func (b *batch) weight(encoded int) int {
	return encoded + 8*len(b.ops) + waiterBytes*len(b.waiters)
}

func newBatcher(o Options, stats *counters) *batcher {
	q := &batcher{
		log: o.Log, leader: o.Leader, state: o.State, session: o.Session, now: o.Now, logger: o.Logger, stats: stats,
		maxQueue: o.MaxQueue, maxBatch: o.MaxBatch, maxPending: o.MaxPending, proposeTimeout: o.ProposeTimeout,
	}
	q.changed.L = &q.mu
	q.records, q.open = fsm.NewBatch(q.session), &batch{}
	return q
}

// add appends the record that put makes. ops is how many operations it holds. tell,
// if not nil, is called once, from the batcher's second goroutine, unless add returns
// an error; it must not block.
//
// At the bound of the queue an event waits; all else has a reserve, and beyond that add
// returns errQueueFull.
func (q *batcher) add(as claim, ops int, put func(*fsm.Batch) int, tell func(outcome)) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if wait := func() bool { return q.full(asEvent) && !q.closed }; as == asEvent && wait() {
		for q.stats.blocked.Add(1); wait(); {
			q.changed.Wait()
		}
	}
	switch {
	case q.closed:
		return errClosed
	case q.full(as):
		return errQueueFull
	}
	record := put(q.records)
	if record < 0 && q.records.Records() > 0 {
		q.seal()
		record = put(q.records)
	}
	if record < 0 {
		return errTooLarge
	}
	q.open.ops = append(q.open.ops, ops)
	if tell != nil {
		q.open.waiters = append(q.open.waiters, waiter{record, tell})
	}
	if q.records.Len() >= q.maxBatch {
		q.seal()
	}
	q.changed.Broadcast()
	return nil
}

// barrier calls tell when everything taken so far is in the log and, as far as that
// does not take too long, in this replica's state. That is at once beyond the bound of
// the queue, where nobody may wait.
func (q *batcher) barrier(tell func(outcome)) {
	if !q.join(waiter{-1, tell}) {
		tell(outcome{})
	}
}

// join lets w wait for the youngest batch there is, and reports whether it may.
func (q *batcher) join(w waiter) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.silent || q.full(asRequest) {
		return false
	}
	last := q.flying
	if len(q.sealed) > 0 {
		last = q.sealed[len(q.sealed)-1]
	}
	switch {
	case q.records.Records() > 0:
		q.open.waiters = append(q.open.waiters, w)
	case last != nil:
		last.waiters = append(last.waiters, w)
		last.size += waiterBytes
		q.bytes += waiterBytes
	default: // all is acknowledged
		q.bytes += waiterBytes
		q.say(word{waiters: []waiter{w}, index: q.acked})
	}
	return true
}

// close refuses further records and wakes who waits in add. run ends when the queue
// is empty, or with its context.
func (q *batcher) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// queued is the weight of all that is taken and not acknowledged. Under mu.
func (q *batcher) queued() int {
	n := q.bytes
	if q.records.Records() > 0 {
		n += q.open.weight(q.records.Len())
	}
	return n
}

// claim says which part of the queue a record may use.
type claim uint8

const (
	asEvent        claim = iota // up to the bound
	asRequest                   // and 1/16 on top: its asker comes again
	asRegistration              // and, on top of that, one for every request that may wait
)

// registrationBytes is about what a registration weighs.
const registrationBytes = waiterBytes + 128

// full reports that there is no room for such a record. Under mu.
func (q *batcher) full(as claim) bool {
	bound := q.maxQueue
	if as >= asRequest {
		bound += q.maxQueue / 16
	}
	if as >= asRegistration {
		bound += q.maxPending * registrationBytes
	}
	return q.queued() >= bound
}

// figures is what Stats shows of the queue.
func (q *batcher) figures() (bytes, outstanding int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.flying != nil {
		outstanding = 1
	}
	return q.queued(), outstanding
}

// waiting is how long the batch that is being proposed has been so.
func (q *batcher) waiting() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.flying == nil {
		return 0
	}
	return time.Since(q.flying.began)
}

// seal numbers and encodes the open batch, so that one that waits takes no more memory
// than it counts for, and opens another. Under mu.
func (q *batcher) seal() {
	b := q.open
	q.number++
	b.number, b.entry = q.number, q.records.Encode(q.number, micros(q.now()))
	b.size = b.weight(len(b.entry))
	q.bytes += b.size
	q.sealed = append(q.sealed, b)
	q.records.Reset()
	q.open = &batch{}
}

// run proposes batches until the batcher is closed and empty, or ctx ends; then the
// waiters of what is left are told so. The server's goroutine.
func (q *batcher) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, q.close)
	defer stop()
	var telling sync.WaitGroup
	telling.Go(func() { q.tellAll(ctx) }) // ends after endTelling
	for b := q.take(); b != nil; b = q.take() {
		q.finish(b, q.commit(ctx, b))
	}
	q.endTelling()
	telling.Wait()
}

// take waits for a batch and makes it the flying one; nil at the end.
func (q *batcher) take() *batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.sealed) == 0 && q.records.Records() == 0 {
		if q.closed {
			return nil
		}
		q.changed.Wait()
	}
	if len(q.sealed) == 0 {
		q.seal()
	}
	q.flying = q.sealed[0]
	q.flying.began = time.Now()
	q.sealed[0] = nil
	q.sealed = q.sealed[1:]
	return q.flying
}

// verdict is the log's word on a batch.
type verdict struct {
	err    error
	index  uint64 // where it stands in the log; of a duplicate, where the repeat does
	result fsm.BatchResult
}

// commit proposes one batch until its fate is known.
func (q *batcher) commit(ctx context.Context, b *batch) verdict {
	if ctx.Err() != nil {
		return verdict{err: errClosed}
	}
	term := q.term()
	pause := retryMin
	for attempt := 1; ; attempt++ {
		forwarded := q.leader != nil && !q.leader.IsLeader()
		applied, err := q.propose(ctx, b.entry)
		if err == nil {
			q.stats.committed(len(b.entry), time.Since(b.began), forwarded)
			if q.term() != term {
				q.stats.leaderChanges.Add(1)
			}
			if attempt > 1 {
				q.logger.Info("batch is in the log", "number", b.number, "attempts", attempt, "bytes", len(b.entry),
					"index", applied.Index, "took", time.Since(b.began))
			}
			return judge(applied)
		}
		if q.permanent(err) || ctx.Err() != nil {
			return verdict{err: err}
		}
		q.stats.retries[retryCause(err)].Add(1)
		if attempt == 1 || attempt%64 == 0 {
			q.logger.Warn("batch waits for the log", "number", b.number, "attempt", attempt,
				"bytes", len(b.entry), "error", err)
		}
		select {
		case <-ctx.Done():
			return verdict{err: errClosed}
		case <-time.After(pause/2 + rand.N(pause)): // half to one and a half
		}
		pause = min(2*pause, retryMax)
	}
}

func (q *batcher) term() uint64 {
	if q.leader == nil {
		return 0
	}
	return q.leader.Term()
}

func (q *batcher) propose(ctx context.Context, entry []byte) (cluster.Applied, error) {
	ctx, cancel := context.WithTimeout(ctx, q.proposeTimeout)
	defer cancel()
	return q.log.Propose(ctx, entry)
}

// permanent tells the errors after which the entry is certain never to be applied and
// trying again is pointless. A stopped log is one only when this replica stops too: else it
// is the leader that stops, and the next one takes the batch.
func (q *batcher) permanent(err error) bool {
	if errors.Is(err, cluster.ErrUnknownOutcome) {
		return false
	}
	if errors.Is(err, cluster.ErrStopped) {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.closed
	}
	return errors.Is(err, cluster.ErrTooLarge) || errors.Is(err, cluster.ErrInvalid)
}

// judge reads what the state machine said of an applied batch.
func judge(applied cluster.Applied) verdict {
	switch r := applied.Result.(type) {
	case fsm.BatchResult:
		return verdict{index: applied.Index, result: r}
	case error:
		return verdict{err: r}
	default:
		return verdict{err: fmt.Errorf("bug: a batch was answered with %T", applied.Result)}
	}
}

// finish counts what became of a batch, takes it off the queue and hands its waiters on
// to be told.
func (q *batcher) finish(b *batch, v verdict) {
	switch {
	case v.err != nil:
		lost := 0
		for _, n := range b.ops {
			lost += n
		}
		q.stats.lost(len(b.ops), lost)
		if errors.Is(v.err, errClosed) || errors.Is(v.err, cluster.ErrStopped) || errors.Is(v.err, context.Canceled) {
			q.logger.Debug("batch given up at shutdown", "records", len(b.ops), "operations", lost)
		} else {
			q.logger.Error("batch given up: its workers' streams show a gap until their next full sync",
				"number", b.number, "records", len(b.ops), "operations", lost, "error", v.err)
		}
	case v.result.Duplicate:
		q.stats.duplicates.Add(1)
	default:
		for i, r := range v.result.Records {
			if i < len(b.ops) {
				q.stats.recordApplied(b.ops[i], r)
			}
		}
	}

	q.mu.Lock()
	defer q.mu.Unlock()
	q.flying = nil
	q.acked = max(q.acked, v.index)
	q.bytes -= b.size - waiterBytes*len(b.waiters) // the rest when they are told
	if len(b.waiters) > 0 {
		q.say(word{waiters: b.waiters, verdict: v, index: v.index})
	}
	q.changed.Broadcast()
}
