package simworker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	zmq "github.com/pebbe/zmq4"
	"golang.org/x/sync/errgroup"
)

// Endpoint is a controller's sockets for workers, host:port.
type Endpoint struct{ Pull, Reply string }

// FleetOptions configures a Fleet. Endpoints has no default.
type FleetOptions struct {
	Instances int // default 1
	Ranks     int // workers per instance. Default 1
	// Seed decides names' workload and everything the workers draw.
	Seed uint64
	// Endpoints are shared out: worker i talks to endpoint i mod len.
	Endpoints []Endpoint
	// Name of instance i is Name followed by i. Default "sim-".
	Name string
	// Worker is the template of every worker; Instance, Rank, Pull, Reply, Seed, Peers
	// and Context are set by the fleet, and Port must be 0.
	Worker   Options
	Workload WorkloadOptions
	// Parallel is how many workers register at the same time. Default 1: the order of
	// registration is the order of instances and ranks.
	Parallel int
}

// Fleet is a number of instances with all their ranks, and a workload.
// Life: NewFleet, Start, then Step or Run as often as wanted, Stop.
//
// Concurrency: Step and Run one at a time; the rest from any goroutine.
type Fleet struct {
	o     FleetOptions
	zctx  *zmq.Context
	peers Peers
	work  *Workload

	mu      sync.Mutex
	workers []*Worker // rank r of instance i is at i*Ranks+r
}

// NewFleet makes a fleet.
func NewFleet(o FleetOptions) (*Fleet, error) {
	def(&o.Instances, 1)
	def(&o.Ranks, 1)
	def(&o.Name, "sim-")
	def(&o.Parallel, 1)
	o.Worker = o.Worker.withDefaults()
	if len(o.Endpoints) == 0 {
		return nil, errors.New("simulated fleet: no endpoint to send to")
	}
	if o.Instances < 1 || o.Ranks < 1 || o.Parallel < 1 || o.Worker.Port != 0 || o.Worker.Deaf {
		return nil, fmt.Errorf("simulated fleet: %d instances of %d ranks, %d in parallel, port %d, deaf %v: want at least 1 of each, port 0, not deaf",
			o.Instances, o.Ranks, o.Parallel, o.Worker.Port, o.Worker.Deaf)
	}
	f := &Fleet{o: o, work: NewWorkload(o.Seed, o.Instances, o.Worker.ChunkSize, o.Workload)}
	f.workers = make([]*Worker, o.Instances*o.Ranks)
	return f, nil
}

// socketsPerWorker is what one worker opens, wake-ups included.
const socketsPerWorker = 10

// Start starts and registers all workers. After an error none is left.
func (f *Fleet) Start(ctx context.Context) error {
	zctx, err := zmq.NewContext()
	if err != nil {
		return fmt.Errorf("simulated fleet: %w", err)
	}
	if err := zctx.SetMaxSockets(64 + socketsPerWorker*len(f.workers)); err != nil {
		return errors.Join(fmt.Errorf("simulated fleet: %d workers: %w", len(f.workers), err), zctx.Term())
	}
	f.zctx = zctx
	starting, startCtx := errgroup.WithContext(ctx)
	starting.SetLimit(f.o.Parallel)
	for i := range f.workers {
		if startCtx.Err() != nil {
			break
		}
		starting.Go(func() error { return f.startWorker(startCtx, i) })
	}
	if err := starting.Wait(); err != nil {
		return errors.Join(err, f.Stop())
	}
	return nil
}

func (f *Fleet) startWorker(ctx context.Context, i int) error {
	o := f.o.Worker
	o.Instance = fmt.Sprintf("%s%d", f.o.Name, i/f.o.Ranks)
	o.Rank = int64(i % f.o.Ranks)
	e := f.o.Endpoints[i%len(f.o.Endpoints)]
	o.Pull, o.Reply = e.Pull, e.Reply
	o.Seed, o.Peers, o.Context = f.o.Seed+uint64(i), &f.peers, f.zctx
	w, err := New(o)
	if err != nil {
		return err
	}
	if err := w.Start(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.workers[i] = w
	return nil
}

// Stop stops all workers and returns what went wrong.
func (f *Fleet) Stop() error {
	var stopping errgroup.Group
	for _, w := range f.Workers() {
		stopping.Go(w.Stop)
	}
	err := stopping.Wait()
	if f.zctx != nil {
		err = errors.Join(err, f.zctx.Term())
		f.zctx = nil
	}
	return err
}

// Workers returns the workers that run, by instance and rank.
func (f *Fleet) Workers() []*Worker {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*Worker
	for _, w := range f.workers {
		if w != nil {
			out = append(out, w)
		}
	}
	return out
}

// Worker returns a rank of an instance.
func (f *Fleet) Worker(instance, rank int) *Worker {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.workers[instance*f.o.Ranks+rank]
}

// Restart kills a worker and starts it anew: another process with the same name, an
// empty cache and numbers from 0.
func (f *Fleet) Restart(ctx context.Context, instance, rank int) error {
	if err := f.Worker(instance, rank).Kill(); err != nil {
		return err
	}
	return f.startWorker(ctx, instance*f.o.Ranks+rank)
}

// Step lets the next request happen: all ranks of its instance store its chunks.
func (f *Fleet) Step() Step {
	step := f.work.Next()
	keys := f.Worker(step.Instance, 0).Chunks(step.Tokens)
	for r := range f.o.Ranks {
		f.Worker(step.Instance, r).StoreKeys(LocalCPU, keys)
	}
	return step
}

// Run takes steps, so many a second (0: as fast as the controller takes them), until
// ctx ends.
func (f *Fleet) Run(ctx context.Context, perSecond float64) {
	began, n := time.Now(), 0
	for ctx.Err() == nil {
		f.Step()
		n++
		if perSecond > 0 {
			pause(ctx, time.Until(began.Add(time.Duration(float64(n)/perSecond*float64(time.Second)))))
		}
	}
}

// Flush waits until all events are handed to the sockets, for at most limit.
func (f *Fleet) Flush(limit time.Duration) bool {
	until := time.Now().Add(limit)
	for _, w := range f.Workers() {
		if !w.Flush(time.Until(until)) {
			return false
		}
	}
	return true
}

// Stats is the sum over all workers.
func (f *Fleet) Stats() Stats {
	var sum Stats
	for _, w := range f.Workers() {
		st := w.Stats()
		sum.Sent.Messages += st.Sent.Messages
		sum.Sent.Operations += st.Sent.Operations
		sum.Sent.Lost += st.Sent.Lost
		sum.Heartbeats += st.Heartbeats
		sum.Syncs += st.Syncs
		sum.SyncsGood += st.SyncsGood
	}
	return sum
}
