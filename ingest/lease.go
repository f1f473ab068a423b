package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// A lease entry is cut at about maxLeaseBytes, a quarter of what the log takes: names
// are the workers' own, up to a kilobyte each.
const (
	maxLeaseBytes       = 128 << 10
	leaseBytesPerWorker = 40 // rank and two times, as varints, and the name's length
)

// LeaseOptions configures the leader's word on liveness.
type LeaseOptions struct {
	Log   Log
	State State
	// Heard hands over who was heard since the last call, here and as the other replicas
	// say: Server.TakeHeard. PutBack returns what did not get into the log.
	Heard   func(ctx context.Context) []registry.Heard
	PutBack func([]registry.Heard)

	// Interval between leases. Default 5s: 3 bytes a second and worker in the log.
	Interval time.Duration
	// HealthCheckInterval is LMCache's health_check_interval. Not positive: nobody is
	// ever expired, however silent. It also shortens Interval when it is below.
	HealthCheckInterval time.Duration
	// WorkerTimeout is LMCache's lmcache_worker_timeout. Default 300s. Unlike LMCache's
	// it counts from the last message of any kind.
	WorkerTimeout time.Duration
	// SuspectAfter is the silence after which a worker that sends heartbeats is flagged
	// and not offered first; SyncTimeout is LMCache's full_sync_timeout_s. 0: the
	// registry's defaults (60s, 300s); negative: never.
	SuspectAfter, SyncTimeout time.Duration

	Now    func() time.Time
	Logger hclog.Logger
}

// LeaseTask returns the leader's task that commits who was heard and who is given up.
// When a term ends what was taken and not committed is put back.
func LeaseTask(o LeaseOptions) cluster.LeaderTask {
	def(&o.Interval, 5*time.Second)
	def(&o.WorkerTimeout, 300*time.Second)
	if o.HealthCheckInterval > 0 {
		o.Interval = min(o.Interval, o.HealthCheckInterval)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return cluster.LeaderTask{Name: "lease", Run: o.run}
}

func (o LeaseOptions) run(ctx context.Context, _ uint64) error {
	// Times before this term say little: the workers may have talked to nobody while
	// there was no leader.
	since := micros(o.Now())
	looked := since
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := micros(o.Now())
		if away := time.Duration(now-looked) * time.Microsecond; away > 2*o.Interval {
			// This process was stopped, its machine slept or the clock was set: what the
			// workers said meanwhile is still to be read.
			o.Logger.Warn("workers were not looked at for a while; their silence counts from now", "time", away)
			since = now
		}
		err := o.once(ctx, now, since)
		looked = micros(o.Now())
		if err != nil {
			if errors.Is(err, cluster.ErrStopped) || ctx.Err() != nil {
				return nil
			}
			o.Logger.Warn("lease is late", "error", err)
		}
	}
}

// once commits one lease, in several entries when many workers were heard.
func (o LeaseOptions) once(ctx context.Context, now, since registry.Micros) error {
	timeout := registry.Micros(0)
	if o.HealthCheckInterval > 0 {
		timeout = registry.Micros(o.WorkerTimeout.Microseconds())
	}
	reg := o.State.Registry()
	totals := reg.Totals()
	plan := leasePlan{
		Now: now, Since: since, Timeout: timeout,
		SuspectAfter: registry.Micros(o.SuspectAfter.Microseconds()),
		SyncTimeout:  registry.Micros(o.SyncTimeout.Microseconds()),
		Waits:        totals.SyncingWorkers > 0 || totals.AwaitedMoves > 0,
		Workers:      reg.Workers(""),
		Heard:        o.Heard(ctx),
	}
	lease, ok := plan.lease()
	if !ok {
		return nil
	}
	parts := leaseParts(lease, maxLeaseBytes)
	for i, part := range parts {
		if _, err := o.Log.Propose(ctx, fsm.EncodeLease(part)); err != nil {
			late := 0
			for _, p := range parts[i:] {
				o.PutBack(p.Heard) // twice is harmless: a lease says when, not how often
				late += len(p.Heard)
			}
			return fmt.Errorf("commit lease of %d workers: %w", late, err)
		}
		for _, w := range part.Expired {
			o.Logger.Warn("worker expired: nothing was heard of it", "instance", w.Instance,
				"worker", w.Worker, "timeout", o.WorkerTimeout)
		}
	}
	return nil
}

// leaseParts cuts a lease into entries of about most bytes: first who was heard, then
// who is given up, so that nobody is before all is said.
func leaseParts(l registry.Lease, most int) []registry.Lease {
	blank := l
	blank.Heard, blank.Expired = nil, nil
	parts, room := []registry.Lease{blank}, most
	with := func(w registry.WorkerRef) *registry.Lease {
		cost := len(w.Instance) + leaseBytesPerWorker
		if cost > room {
			parts, room = append(parts, blank), most
		}
		room -= cost
		return &parts[len(parts)-1]
	}
	for _, h := range l.Heard {
		p := with(h.WorkerRef)
		p.Heard = append(p.Heard, h)
	}
	for _, w := range l.Expired {
		p := with(w)
		p.Expired = append(p.Expired, w)
	}
	return parts
}

// leasePlan is everything a lease depends on.
type leasePlan struct {
	Now          registry.Micros
	Since        registry.Micros // the beginning of the leader's term, or of its last look after a pause
	Timeout      registry.Micros // 0: nobody expires
	SuspectAfter registry.Micros // as in registry.Lease
	SyncTimeout  registry.Micros // as in registry.Lease
	Waits        bool            // a full sync is running, or a move waits for its destination's report
	Workers      []registry.WorkerInfo
	Heard        []registry.Heard
}

// lease decides who is named as heard and who expires; false means that there is
// nothing to say.
//
// Heard: who is registered. Expired: with a timeout, who was not heard of for longer
// than it, by the registry's word, this lease's, and since the term began. A worker
// that has never said anything counts from its registration. Nobody is suspect before
// the term is as old as the silence that makes one so.
//
// A lease is also the clock by which the registry flags the silent and gives up syncs,
// so there is one, if an empty one, when somebody's silence has grown too long, and at
// every turn while a sync runs.
func (p leasePlan) lease() (registry.Lease, bool) {
	heard := make(map[registry.WorkerRef]times, len(p.Heard))
	for _, h := range p.Heard {
		t := heard[h.WorkerRef]
		heard[h.WorkerRef] = times{max(t.any, h.Any), max(t.heartbeat, h.Heartbeat)}
	}
	silence := p.SuspectAfter
	if silence == 0 {
		silence = registry.DefaultSuspectAfter
	}
	lease := registry.Lease{At: p.Now, SuspectAfter: p.SuspectAfter, SyncTimeout: p.SyncTimeout}
	if p.Now-p.Since <= silence { // there may have been nobody to talk to before
		silence, lease.SuspectAfter = -1, -1
	}
	due := p.Waits
	for _, w := range p.Workers {
		t, wasHeard := heard[w.WorkerRef]
		if wasHeard {
			lease.Heard = append(lease.Heard, registry.Heard{WorkerRef: w.WorkerRef, Any: t.any, Heartbeat: t.heartbeat})
		}
		last := max(w.Registered, w.LastHeard, w.LastHeartbeat, t.any, t.heartbeat)
		if p.Timeout > 0 && p.Now-max(last, p.Since) > p.Timeout {
			lease.Expired = append(lease.Expired, w.WorkerRef)
		}
		if silence > 0 && w.Beats && w.Liveness == registry.Alive && p.Now-last > silence {
			due = true
		}
	}
	slices.SortFunc(lease.Heard, func(a, b registry.Heard) int { return compareWorkers(a.WorkerRef, b.WorkerRef) })
	slices.SortFunc(lease.Expired, compareWorkers)
	return lease, due || len(lease.Heard)+len(lease.Expired) > 0
}
