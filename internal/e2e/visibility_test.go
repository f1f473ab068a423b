package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
)

// BenchmarkVisibility measures how long an admit takes from a worker that pushes it to a
// follower until a lookup on the third replica finds it, while workers at all replicas
// admit 20 000 chunks a second and evict as many.
func BenchmarkVisibility(b *testing.B) {
	const (
		admits = 20_000
		probes = 1000
		p50    = 10 * time.Millisecond
		p99    = 40 * time.Millisecond
	)
	c := StartCluster(b, 3, ClusterOptions{Args: []string{"--chunk-size", "16", "--hash", "builtin@0"}})
	followers := c.Followers()
	background := backgroundAdmits(b, c, admits)
	w := startWorker(b, followers[0], simworker.Options{Instance: "probe", BatchOps: 1})
	third := &client{r: followers[1], http: c.asks}
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	var took, lookups []time.Duration
	for range probes {
		tokens := randomTokens(rng, 1)
		keys := w.Chunks(tokens)
		pushed := time.Now()
		w.StoreKeys(simworker.LocalCPU, keys)
		for {
			asked := time.Now()
			hits, err := third.lookup(tokens)
			if err != nil {
				b.Fatal(err)
			}
			lookups = append(lookups, time.Since(asked))
			if hits["probe"] == len(tokens) {
				break
			}
			if time.Since(pushed) > 10*time.Second {
				b.Fatal("an admit is not visible after 10 s")
			}
			<-time.After(time.Millisecond) // so that the question does not take the time that it measures
		}
		took = append(took, time.Since(pushed))
		<-time.After(time.Duration(rng.IntN(10_000)) * time.Microsecond) // at any moment of a batch
	}
	rate := background.stop(b)
	slices.Sort(took)
	slices.Sort(lookups)
	fmt.Printf("%s: %d admits pushed to a follower, until visible in a lookup on the third replica, at %.0f admits/s and as many evicts:\n", b.Name(), probes, rate)
	fmt.Printf("  p50 %s (want at most %s), p90 %s, p99 %s (want at most %s), worst %s; of that the lookup itself: p50 %s\n",
		part(took, 0.5), p50, part(took, 0.9), part(took, 0.99), p99, part(took, 1), part(lookups, 0.5))
	b.ReportMetric(float64(part(took, 0.5).Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(part(took, 0.99).Microseconds())/1000, "p99-ms")
	b.ReportMetric(0, "ns/op")
	if rate < 0.95*admits {
		b.Errorf("%.0f admits/s, want %d", rate, admits)
	}
	if part(took, 0.5) > p50 || part(took, 0.99) > p99 {
		b.Error("too slow")
	}
}

// admitting is a fleet that admits at a rate.
type admitting struct {
	fleet   *simworker.Fleet
	cancel  context.CancelFunc
	running sync.WaitGroup
	began   time.Time
	sent    uint64 // operations before began
}

// backgroundAdmits starts workers at all replicas, fills them, and begins.
func backgroundAdmits(b *testing.B, c *Cluster, perSecond float64) *admitting {
	b.Helper()
	const workers, capacity = 12, 1000
	o := simworker.FleetOptions{Instances: workers, Seed: 1, Parallel: 4, Worker: simworker.Options{ChunkSize: crashChunk, Capacity: capacity}}
	for _, r := range c.replicas {
		o.Endpoints = append(o.Endpoints, simworker.Endpoint{Pull: r.PullAddr(), Reply: r.ReplyAddr()})
	}
	fleet, err := simworker.NewFleet(o)
	if err == nil {
		err = fleet.Start(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	a := &admitting{fleet: fleet}
	b.Cleanup(func() {
		if a.cancel != nil {
			a.cancel()
		}
		a.running.Wait()
		if err := fleet.Stop(); err != nil {
			b.Error(err)
		}
	})
	for i, w := range fleet.Workers() {
		w.StoreKeys(simworker.LocalCPU, randomKeys(rand.New(rand.NewPCG(1, uint64(i))), capacity))
	}
	if !fleet.Flush(30 * time.Second) {
		b.Fatal("the workers are not filled within 30 s")
	}
	ctx, cancel := context.WithCancel(context.Background())
	a.cancel, a.began, a.sent = cancel, time.Now(), fleet.Stats().Sent.Operations
	for i, w := range fleet.Workers() {
		a.running.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(i)))
			stored := 0
			for tick(ctx, 10*time.Millisecond) {
				due := int(perSecond/workers*time.Since(a.began).Seconds()) - stored
				stored += w.StoreKeys(simworker.LocalCPU, randomKeys(rng, due))
			}
		})
	}
	return a
}

// stop ends the load and returns how many chunks were admitted a second: every admit has
// evicted another.
func (a *admitting) stop(b *testing.B) float64 {
	b.Helper()
	a.cancel()
	a.running.Wait()
	if !a.fleet.Flush(10 * time.Second) {
		b.Error("the admits are not sent within 10 s")
	}
	return float64(a.fleet.Stats().Sent.Operations-a.sent) / 2 / time.Since(a.began).Seconds()
}
