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
	"github.com/kvctrl/kvctrl/lmcache"
)

// prompts are those that are stored once, on every rank of an instance, and never evicted.
//
// Concurrency: any goroutine.
type prompts struct {
	mu     sync.Mutex
	hasher *lmcache.Hasher
	kept   []*keptPrompt
	seen   []seenPrompts // by each replica
	ever   map[*keptPrompt]bool
}

// seenPrompts are what a replica has found in its present life. Later it must find them.
type seenPrompts struct {
	life uint64
	list []*keptPrompt
	is   map[*keptPrompt]bool // in list
}

func newPrompts(t *testing.T, replicas int) *prompts {
	t.Helper()
	profile, err := lmcache.ParseProfile("builtin@0")
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := profile.NewHasher(crashChunk)
	if err != nil {
		t.Fatal(err)
	}
	return &prompts{hasher: hasher, seen: make([]seenPrompts, replicas), ever: map[*keptPrompt]bool{}}
}

func (p *prompts) chunks(tokens []int64) (keys []lmcache.Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hasher.Start(tokens, false)
	for k, _, ok := p.hasher.Next(); ok; k, _, ok = p.hasher.Next() {
		keys = append(keys, k)
	}
	return keys
}

func (p *prompts) all() []*keptPrompt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.kept)
}

// found notes that replica i has found a prompt, in some life.
func (p *prompts) found(k *keptPrompt, i int, life uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &p.seen[i]
	if s.life != life {
		*s = seenPrompts{life: life, is: map[*keptPrompt]bool{}}
	}
	if !s.is[k] {
		s.is[k] = true
		s.list = append(s.list, k)
	}
	p.ever[k] = true
}

// pick draws one that replica i has found in this life, or, with known false, any.
func (p *prompts) pick(rng *rand.Rand, i int, life uint64) (k *keptPrompt, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.seen[i]
	if s.life == life && len(s.list) > 0 && rng.IntN(4) > 0 {
		return s.list[rng.IntN(len(s.list))], true
	}
	return p.kept[rng.IntN(len(p.kept))], false
}

// keep stores one more prompt on all ranks of some instance.
func (l *clusterLoad) keep(rng *rand.Rand) *keptPrompt {
	k := &keptPrompt{tokens: randomTokens(rng, keptChunks)}
	instance := rng.IntN(2 * len(l.at))
	k.instance = l.churn.Worker(instance, 0).Instance()
	for rank := range 2 {
		l.churn.Worker(instance, rank).StoreKeys(simworker.LocalDisk, l.chunksOf(k.tokens))
	}
	l.prompts.mu.Lock()
	defer l.prompts.mu.Unlock()
	l.prompts.kept = append(l.prompts.kept, k)
	return k
}

// maxKept is how many prompts are kept for each instance, so that none is evicted.
const maxKept = workerCapacity / keptChunks / 2

// keepOn stores prompts as long as the load goes on.
func (l *clusterLoad) keepOn(ctx context.Context) {
	rng := l.random(4)
	for n := 0; n < maxKept*2*len(l.at) && tick(ctx, 100*time.Millisecond); n++ {
		l.keep(rng)
	}
}

// lookupFigures are what lookups on one replica took.
type lookupFigures struct {
	mu   sync.Mutex
	took []time.Duration
}

// lookOn looks prompts up on one replica, at the rate, while it is live.
func (l *clusterLoad) lookOn(ctx context.Context, i int) {
	const askers = 4
	var asking sync.WaitGroup
	for a := range askers {
		asking.Go(func() {
			rng := l.random(5000 + uint64(i*askers+a))
			every := time.NewTicker(time.Duration(askers / l.want.lookups * float64(time.Second)))
			defer every.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-every.C:
				}
				if life, live := l.at[i].r.Life(); live {
					l.look(rng, i, life)
				}
			}
		})
	}
	asking.Wait()
}

// look makes one lookup, which must succeed, and find what the same replica found before.
func (l *clusterLoad) look(rng *rand.Rand, i int, life uint64) {
	k, known := l.prompts.pick(rng, i, life)
	began := time.Now()
	hits, err := l.at[i].lookup(k.tokens)
	took := time.Since(began)
	if l.excused(i, life) {
		return
	}
	f := &l.lookups[i]
	f.mu.Lock()
	f.took = append(f.took, took)
	f.mu.Unlock()
	all := hits[k.instance] == len(k.tokens)
	switch {
	case err != nil:
		l.fault(fmt.Errorf("a lookup on live replica %d, after %s: %w", i, took.Round(time.Millisecond), err))
	case known && !all:
		l.fault(fmt.Errorf("replica %d has found a prompt on %s before, and answers %v now", i, k.instance, hits))
	case all:
		l.prompts.found(k, i, life)
	}
}

// everSeen returns what any replica has found in any life.
func (p *prompts) everSeen() (seen []*keptPrompt) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.kept {
		if p.ever[k] {
			seen = append(seen, k)
		}
	}
	return seen
}
