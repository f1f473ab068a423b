package ingest

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/internal/histogram"
	"github.com/kvctrl/kvctrl/lmcache"
)

// Reasons for a bad frame beyond those of lmcache.Reasons.
const (
	reasonLayout  lmcache.Reason = "layout"   // a ROUTER message of fewer than three frames
	reasonTooLong lmcache.Reason = "too_long" // a name or a batch that no log entry can hold
)

// BadReasons returns every reason a frame is counted under: the closed label set of
// the metric.
func BadReasons() []lmcache.Reason { return append(lmcache.Reasons(), reasonLayout, reasonTooLong) }

// Refusal says why a well-formed message was not taken.
type Refusal string

const (
	RefusedOrchestrator Refusal = "orchestrator"  // a command for the controller itself on a worker's socket
	RefusedWrongSocket  Refusal = "wrong_socket"  // a message that this socket does not take
	RefusedQueueFull    Refusal = "queue_full"    // no room towards the log
	RefusedShuttingDown Refusal = "shutting_down" // came after Serve's context had ended
)

// Refusals returns every Refusal.
func Refusals() []Refusal {
	return []Refusal{RefusedOrchestrator, RefusedWrongSocket, RefusedQueueFull, RefusedShuttingDown}
}

// RetryCause says why an attempt to put a batch into the log was not the last.
type RetryCause string

const (
	RetryNoLeader  RetryCause = "no_leader"       // nobody leads
	RetryNotLeader RetryCause = "not_leader"      // who was asked does not lead
	RetryUnknown   RetryCause = "unknown_outcome" // the answer, or the leader, was lost
	RetryBusy      RetryCause = "busy"            // the leader's log took no more
	RetryOther     RetryCause = "other"
)

// RetryCauses returns every RetryCause.
func RetryCauses() []RetryCause {
	return []RetryCause{RetryNoLeader, RetryNotLeader, RetryUnknown, RetryBusy, RetryOther}
}

func retryCause(err error) RetryCause {
	switch {
	case errors.Is(err, cluster.ErrUnknownOutcome):
		return RetryUnknown
	case errors.Is(err, cluster.ErrNoLeader):
		return RetryNoLeader
	case errors.Is(err, cluster.ErrNotLeader):
		return RetryNotLeader
	case errors.Is(err, cluster.ErrBusy):
		return RetryBusy
	}
	return RetryOther
}

// SocketStats are the figures of one kind of socket. LMCache's gauges of its reply
// socket count both ROUTERs: Reply and Heartbeat together.
type SocketStats struct {
	Messages uint64 // PULL: parts; ROUTER: requests
	Active   int    // being handled; ROUTER: taken and not answered
	Pending  bool   // more was waiting in the socket when it was last looked at
}

// Stats are the figures of a Server since it was made. Counters only grow.
type Stats struct {
	Pull      SocketStats
	Reply     SocketStats
	Heartbeat SocketStats

	Admits, Evicts uint64                    // taken from workers
	BadFrames      map[lmcache.Reason]uint64 // every reason, also those never seen
	Refused        map[Refusal]uint64

	BatchBytes        histogram.Snapshot    // sizes of the batches that the log acknowledged
	CommitSeconds     histogram.Snapshot    // of those, from the first attempt to the acknowledgement
	ForwardSeconds    histogram.Snapshot    // of those that another replica put into the log
	Retries           map[RetryCause]uint64 // attempts that failed and were made again, by every cause
	LeaderChanges     uint64                // batches acknowledged in a later term than they were first tried in
	Duplicates        uint64                // batches of which an earlier attempt had been applied
	LostRecords       uint64                // taken and given up
	LostOperations    uint64
	Gaps              uint64 // messages whose numbers did not follow, among the batches of this replica
	UnknownRecords    uint64 // of workers that are not registered: dropped
	UnknownOperations uint64 // of those
	RefusedRecords    uint64 // of known workers, refused by the registry for its limits
	LateOperations    uint64 // overtaken by what their worker said at another replica: not applied

	QueueBytes    int // taken and not acknowledged
	QueueMaxBytes int
	Outstanding   int           // batches being proposed: 0 or 1
	Waiting       time.Duration // since the first attempt at that batch
	Blocked       uint64        // how often a PULL socket waited for the queue

	PendingMax         int    // unanswered requests per socket
	LateAnswers        uint64 // requests answered without the log, which took too long
	UndeliveredReplies uint64 // the asker was gone, or did not read
	SyncsAsked         uint64 // full_sync commands given
	SyncsNotStarted    uint64 // workers that were asked and did not start one within slotTime; the leader's
	SlotsUnanswered    uint64 // questions for a sync slot that the leader did not answer

	// Signs of life on their way to the leader, counted in workers; HeardLate in requests.
	HeardSent  uint64 // acknowledged by the leader
	HeardTaken uint64 // from other replicas, while this one led
	HeardLate  uint64 // not acknowledged: kept for the next time
}

// counters are the live figures behind Stats. Every field is written by whoever does
// the thing and read by Stats only; no two fields are kept consistent.
type counters struct {
	pull, reply, heartbeat socketCounters

	admits, evicts atomic.Uint64
	bad            map[lmcache.Reason]*atomic.Uint64 // fixed after newCounters
	refused        map[Refusal]*atomic.Uint64

	batchBytes, commitSeconds, forwardSeconds         *histogram.Histogram
	retries                                           map[RetryCause]*atomic.Uint64 // fixed after newCounters
	duplicates, leaderChanges, lateOps                atomic.Uint64
	lostRecords, lostOps                              atomic.Uint64
	gaps, unknownRecords, unknownOps, refusedRecords  atomic.Uint64
	blocked, late, undelivered, syncs, syncsInVain    atomic.Uint64
	heardSent, heardTaken, heardLate, slotsUnanswered atomic.Uint64
}

type socketCounters struct {
	messages atomic.Uint64
	active   atomic.Int64
	more     atomic.Bool
}

func newCounters() *counters {
	// From an fsync of a fast disk to a minute without a leader.
	commits := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	c := &counters{
		bad: make(map[lmcache.Reason]*atomic.Uint64), refused: make(map[Refusal]*atomic.Uint64),
		retries: make(map[RetryCause]*atomic.Uint64),
		// From one registration over the default bound to what an entry holds.
		batchBytes:    histogram.New(64, 256, 1<<10, 4<<10, 16<<10, 64<<10, 128<<10, 256<<10, fsm.MaxEntry),
		commitSeconds: histogram.New(commits...), forwardSeconds: histogram.New(commits...),
	}
	for _, r := range RetryCauses() {
		c.retries[r] = new(atomic.Uint64)
	}
	for _, r := range BadReasons() {
		c.bad[r] = new(atomic.Uint64)
	}
	for _, r := range Refusals() {
		c.refused[r] = new(atomic.Uint64)
	}
	return c
}

func (c *counters) committed(bytes int, took time.Duration, forwarded bool) {
	c.batchBytes.Observe(float64(bytes))
	c.commitSeconds.Observe(took.Seconds())
	if forwarded {
		c.forwardSeconds.Observe(took.Seconds())
	}
}

func (c *counters) lost(records, ops int) {
	c.lostRecords.Add(uint64(records))
	c.lostOps.Add(uint64(ops))
}

func (c *counters) recordApplied(ops int, r fsm.RecordResult) {
	if r.Ops.Gap {
		c.gaps.Add(1)
	}
	if r.Ops.Unknown {
		c.unknownRecords.Add(1)
		c.unknownOps.Add(uint64(ops))
	}
	c.lateOps.Add(uint64(r.Ops.Late))
	if r.Ops.Refused != "" || r.Register.Refused != "" {
		c.refusedRecords.Add(1)
	}
}

func (c *socketCounters) snapshot(active int) SocketStats {
	return SocketStats{Messages: c.messages.Load(), Active: active, Pending: c.more.Load()}
}

// Stats returns the figures. Any goroutine, at any time after New. Cost: small.
func (s *Server) Stats() Stats {
	c := s.stats
	out := Stats{
		Pull:   c.pull.snapshot(int(c.pull.active.Load())),
		Admits: c.admits.Load(), Evicts: c.evicts.Load(),
		BadFrames:  make(map[lmcache.Reason]uint64, len(c.bad)),
		Refused:    make(map[Refusal]uint64, len(c.refused)),
		BatchBytes: c.batchBytes.Snapshot(), CommitSeconds: c.commitSeconds.Snapshot(),
		ForwardSeconds: c.forwardSeconds.Snapshot(), Retries: make(map[RetryCause]uint64, len(c.retries)),
		LeaderChanges: c.leaderChanges.Load(), Duplicates: c.duplicates.Load(), LateOperations: c.lateOps.Load(),
		LostRecords: c.lostRecords.Load(), LostOperations: c.lostOps.Load(),
		Gaps: c.gaps.Load(), UnknownRecords: c.unknownRecords.Load(), UnknownOperations: c.unknownOps.Load(), RefusedRecords: c.refusedRecords.Load(),
		QueueMaxBytes: s.opts.MaxQueue, Blocked: c.blocked.Load(),
		PendingMax: s.opts.MaxPending, LateAnswers: c.late.Load(),
		UndeliveredReplies: c.undelivered.Load(), SyncsAsked: c.syncs.Load(), SyncsNotStarted: c.syncsInVain.Load(), SlotsUnanswered: c.slotsUnanswered.Load(),
		HeardSent: c.heardSent.Load(), HeardTaken: c.heardTaken.Load(), HeardLate: c.heardLate.Load(),
	}
	out.Reply = c.reply.snapshot(int(c.reply.active.Load()))
	out.Heartbeat = c.heartbeat.snapshot(int(c.heartbeat.active.Load()))
	out.QueueBytes, out.Outstanding = s.queue.figures()
	out.Waiting = s.queue.waiting()
	for r, n := range c.bad {
		out.BadFrames[r] = n.Load()
	}
	for r, n := range c.refused {
		out.Refused[r] = n.Load()
	}
	for r, n := range c.retries {
		out.Retries[r] = n.Load()
	}
	return out
}
