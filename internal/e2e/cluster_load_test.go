package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
)

// long makes the cluster tests what they are before a release: more load for longer.
var long = flag.Bool("e2e.long", false, "the long form of the cluster tests: each hurts its cluster several times, with more load around it")

// workerCapacity is how many chunks a worker holds in each location.
const workerCapacity = 2000

// rates is what a load tries to reach.
type rates struct {
	admits   float64 // a second, by all workers together; once they are full each evicts one chunk
	lookups  float64 // a second, on every replica
	commands float64 // a second, through any replica
}

// fullRates are those that a cluster must carry. The race detector makes everything many
// times slower, the workers and the clients too, so its runs are told what they reached
// and ask for less.
func fullRates() rates {
	if raceEnabled {
		return rates{admits: 8_000, lookups: 100, commands: 20}
	}
	return rates{admits: 50_000, lookups: 200, commands: 20}
}

// clusterLoad is all that goes on at a cluster while it is hurt. Every instance's ranks
// are at different replicas. Its fleets:
//
//	churn  stores and evicts at the rate, in LocalCPUBackend, and stores prompts that are
//	       looked up in LocalDiskBackend, where nothing evicts them
//	cmd    is commanded: clear, pin, move
//	regs   stores and evicts the registers (history_test.go), one worker at each replica
//	idle   holds something and sends heartbeats only
//
// It goes on until stop, whatever becomes of the replicas.
type clusterLoad struct {
	t    *testing.T
	c    *Cluster
	name string
	seed uint64
	want rates

	at      []*client // of each replica that was there at the start
	starts  []int     // of each replica's processes, before the load
	zctx    *zmq.Context
	churn   *simworker.Fleet
	cmd     *simworker.Fleet
	regs    *simworker.Fleet
	idle    *simworker.Fleet
	homes   map[string]int // replica that a worker talks to, by worker
	prompts *prompts

	registers *history
	commanded *history

	running             sync.WaitGroup
	endStore, endAsk    context.CancelFunc
	began, ended        time.Time
	admits              atomic.Int64
	lookups             []lookupFigures // of each replica
	reads, readFailures atomic.Int64    // of registers and events
	hits                atomic.Int64    // reads that found some of a register

	mu         sync.Mutex
	now        []register // that each of regs writes
	commands   []*sentCommand
	answers    []commandTook
	asked      []string // ids of commands that somebody may ask for
	registered []registered
	faults     []error // of goroutines, told at the end
}

// startClusterLoad starts the fleets, lets every stream begin (that the first events of
// one were lost cannot be told from its numbers), waits until all replicas show it, and
// begins the load.
func startClusterLoad(t *testing.T, c *Cluster, want rates) *clusterLoad {
	t.Helper()
	l := &clusterLoad{t: t, c: c, name: "load", seed: uint64(time.Now().UnixNano()), want: want,
		homes: map[string]int{}, registers: newHistory(), commanded: newHistory()}
	t.Logf("seed %d", l.seed)
	for _, r := range c.replicas {
		l.at = append(l.at, newClient(t, r))
		l.starts = append(l.starts, r.Starts())
	}
	n := len(l.at)
	l.lookups = make([]lookupFigures, n)
	l.prompts = newPrompts(t, n)
	zctx, err := zmq.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	l.zctx = zctx
	l.churn = l.fleet("churn", 2*n, 2, 1)
	l.cmd = l.fleet("cmd", 3, 1, 100)
	l.regs = l.fleet("regs", n, 1, 200)
	l.idle = l.fleet("idle", n, 2, 300)
	t.Cleanup(l.stopFleets)
	rng := l.random(0)
	for _, w := range l.workers() {
		w.StoreKeys(simworker.LocalCPU, randomKeys(rng, 200))
		w.StoreKeys(simworker.LocalDisk, randomKeys(rng, 5))
	}
	for range 20 {
		l.keep(rng)
	}
	l.shownEverywhere("the fleets' first events")
	for i, at := range l.at {
		life, _ := at.r.Life()
		for _, p := range l.prompts.all() {
			l.prompts.found(p, i, life)
		}
	}
	l.start()
	return l
}

// random is a source of its own for each use.
func (l *clusterLoad) random(use uint64) *rand.Rand { return rand.New(rand.NewPCG(l.seed, use)) }

// fleet starts workers, the i-th at replica i modulo their number.
func (l *clusterLoad) fleet(kind string, instances, ranks int, seed uint64) *simworker.Fleet {
	l.t.Helper()
	o := simworker.FleetOptions{
		Instances: instances, Ranks: ranks, Seed: l.seed + seed, Name: l.name + "-" + kind + "-", Parallel: 8,
		Worker: simworker.Options{
			IP: l.c.Host(), ChunkSize: crashChunk, Capacity: workerCapacity, MaxQueued: 100_000,
			HeartbeatEvery: 200 * time.Millisecond, HeartbeatDelay: 20 * time.Millisecond, AnswerTimeout: 2 * time.Second,
			Sync: simworker.SyncOptions{Delay: -1, Poll: 20 * time.Millisecond, Pause: -1, Retry: 50 * time.Millisecond, Starts: 100},
		},
	}
	for _, at := range l.at {
		o.Endpoints = append(o.Endpoints, simworker.Endpoint{Pull: at.r.PullAddr(), Reply: at.r.ReplyAddr()})
	}
	f, err := simworker.NewFleet(o)
	if err == nil {
		err = f.Start(l.t.Context())
	}
	if err != nil {
		l.t.Fatalf("start fleet %s: %v", kind, err)
	}
	for i, w := range f.Workers() {
		l.homes[w.String()] = i % len(l.at)
	}
	return f
}

func (l *clusterLoad) fleets() []*simworker.Fleet {
	return []*simworker.Fleet{l.churn, l.cmd, l.regs, l.idle}
}

func (l *clusterLoad) workers() (all []*simworker.Worker) {
	for _, f := range l.fleets() {
		all = append(all, f.Workers()...)
	}
	return all
}

// stopFleets ends what is left of the load. It may be called twice.
func (l *clusterLoad) stopFleets() {
	l.t.Helper()
	l.stop()
	if l.zctx == nil {
		return
	}
	for _, f := range l.fleets() {
		if f == nil { // newer than a fleet that did not start
			continue
		}
		for _, w := range f.Workers() {
			if err := w.Kill(); err != nil {
				l.t.Error(err)
			}
		}
		if err := f.Stop(); err != nil {
			l.t.Error(err)
		}
	}
	if err := l.zctx.Term(); err != nil {
		l.t.Error(err)
	}
	l.zctx = nil
}

// start begins everything that goes on until stop.
func (l *clusterLoad) start() {
	storing, endStore := context.WithCancel(context.Background())
	asking, endAsk := context.WithCancel(context.Background())
	l.endStore, l.endAsk = endStore, endAsk
	l.began = time.Now()
	for i, w := range l.churn.Workers() {
		l.running.Go(func() { l.store(storing, w, uint64(i)) })
	}
	l.startRegisters(storing, asking)
	l.running.Go(func() { l.keepOn(asking) })
	for i := range l.at {
		l.running.Go(func() { l.lookOn(asking, i) })
		l.running.Go(func() { l.askDigests(asking, i) })
	}
	l.running.Go(func() { l.commandOn(asking) })
	for i := range 2 {
		l.running.Go(func() { l.askEvents(asking, i) })
	}
	l.running.Go(func() { l.registerOn(asking) })
}

// stop ends the load; the fleets stay. Commands under way are waited for.
func (l *clusterLoad) stop() {
	if l.endStore == nil {
		return
	}
	l.endAsk()
	l.endStore()
	l.running.Wait()
	if l.ended.IsZero() {
		l.ended = time.Now()
	}
}

// fault notes what a goroutine found wrong.
func (l *clusterLoad) fault(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) < 100 {
		l.faults = append(l.faults, fmt.Errorf("after %s: %w", time.Since(l.began).Round(time.Millisecond), err))
	}
}

// live picks a replica that is meant to answer, and its life.
func (l *clusterLoad) live(rng *rand.Rand) (i int, life uint64, ok bool) {
	for range 20 {
		i = rng.IntN(len(l.at))
		if life, ok = l.at[i].r.Life(); ok {
			return i, life, true
		}
	}
	return 0, 0, false
}

// excused reports whether a replica that was asked in some life may have failed.
func (l *clusterLoad) excused(i int, life uint64) bool {
	now, _ := l.at[i].r.Life()
	return now != life
}

// store admits on one worker at its share of the rate; the worker evicts what is too much.
func (l *clusterLoad) store(ctx context.Context, w *simworker.Worker, seed uint64) {
	rng := l.random(1000 + seed)
	share := l.want.admits / float64(len(l.churn.Workers()))
	done, began := 0.0, time.Now()
	for tick(ctx, 10*time.Millisecond) {
		due := share*time.Since(began).Seconds() - done
		n := min(int(due), int(share/10)+1) // what is late beyond a tenth of a second is given up
		if n <= 0 {
			continue
		}
		l.admits.Add(int64(w.StoreKeys(simworker.LocalCPU, randomKeys(rng, n)))) // none while it is frozen
		done += max(float64(n), due-share/10)
	}
}

// growLog stores until the log of every live replica has been cut, so that an empty one
// cannot catch up by entries alone. How many entries are kept behind a snapshot is set
// anew every second: one round may not do.
func (l *clusterLoad) growLog() {
	l.t.Helper()
	rng := l.random(8)
	err := Poll(2*time.Minute, func() error {
		for range 20 {
			for _, w := range l.churn.Workers() {
				w.StoreKeys(simworker.LocalCPU, randomKeys(rng, 1000))
			}
		}
		if !l.churn.Flush(60 * time.Second) {
			return errors.New("what makes the log grow is not sent within 60s")
		}
		for _, at := range l.at {
			l.c.must(at.r, http.StatusOK, "/admin/snapshot", nil)
			if !strings.Contains(at.r.Log(), "compacting logs") {
				return fmt.Errorf("the log of the replica on %s has not been cut", at.r.PeerAddr())
			}
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
}

// registerOn lets new workers register, one after the other, at any live replica, and
// leave without a word.
func (l *clusterLoad) registerOn(ctx context.Context) {
	rng := l.random(2)
	for n := 0; tick(ctx, 100*time.Millisecond); n++ {
		i, life, ok := l.live(rng)
		if !ok {
			continue
		}
		r := l.at[i].r
		// Real workers wait for 30 s and are dead when nothing has come.
		w, err := simworker.New(simworker.Options{Instance: fmt.Sprintf("%s-reg-%d", l.name, n), Pull: r.PullAddr(), Reply: r.ReplyAddr(),
			IP: l.c.Host(), AnswerTimeout: 25 * time.Second, Context: l.zctx})
		if err != nil {
			l.fault(err)
			return
		}
		giveUp, cancel := context.WithCancel(context.Background())
		stopWatch := l.whenDown(i, life, cancel)
		err = w.Start(giveUp)
		stopWatch()
		cancel()
		switch {
		case err != nil && l.excused(i, life):
			continue
		case err != nil:
			l.fault(fmt.Errorf("a registration at live replica %d: %w", i, err))
			continue
		case w.HeartbeatURL() == "":
			l.fault(fmt.Errorf("worker %s was not answered with a heartbeat address", w))
		default:
			l.mu.Lock()
			l.registered = append(l.registered, registered{w.Instance(), w.Port()})
			l.mu.Unlock()
		}
		if err := w.Kill(); err != nil {
			l.fault(err)
			return
		}
	}
}

// whenDown calls f when a life of a replica is over, until the function it returns is
// called.
func (l *clusterLoad) whenDown(i int, life uint64, f func()) (stop func()) {
	watching, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with stop, or with the life
		defer close(done)
		for tick(watching, 20*time.Millisecond) {
			if l.excused(i, life) {
				f()
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// askDigests collects digests under load: any two of the same index must be equal.
func (l *clusterLoad) askDigests(ctx context.Context, i int) {
	for tick(ctx, 50*time.Millisecond) {
		life, live := l.at[i].r.Life()
		if !live {
			continue
		}
		if _, err := l.c.Digest(l.at[i].r, 0); err != nil && !l.excused(i, life) {
			l.fault(fmt.Errorf("digest of live replica %d: %w", i, err))
		}
	}
}

// lost reports whether a replica's process has ended since the load began, which loses
// what was on its way to it.
func (l *clusterLoad) lost(i int) bool { return l.at[i].r.Starts() != l.starts[i] }

// shownEverywhere waits until nothing is on its way any more: no worker has anything to
// send and all live replicas show what the workers hold.
func (l *clusterLoad) shownEverywhere(what string) {
	l.t.Helper()
	for _, f := range l.fleets() {
		if !f.Flush(60 * time.Second) {
			l.t.Fatalf("%s: not handed to the sockets within 60s", what)
		}
	}
	for i, at := range l.at {
		if _, live := at.r.Life(); !live {
			continue
		}
		Eventually(l.t, 60*time.Second, fmt.Sprintf("%s, on replica %d", what, i), func() error {
			views, err := at.workers()
			if err != nil {
				return err
			}
			for _, w := range l.workers() {
				if err := shown(w, views[w.String()]); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// chunksOf returns the keys of a prompt.
func (l *clusterLoad) chunksOf(tokens []int64) []lmcache.Key { return l.prompts.chunks(tokens) }
