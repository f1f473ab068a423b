package ingest

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

var modelSteps = flag.Int("model.steps", 20_000, "steps of the model test, over all stories")

// modelStep is the time that a step takes: more than the replicas' clocks are apart.
const modelStep = 20 * time.Millisecond

// model is a few engines that say things, the ways that lose and delay what they say, one
// to three replicas that take it, their log, and beside it what the log means in plain
// words. See DESIGN.md, "The model".
type model struct {
	t   *rapid.T
	now time.Time

	engines []*modelEngine // also those that have ended
	newest  []*modelEngine // of each worker
	pipes   []*modelPipe
	dealers map[string]*modelEngine
	lists   map[string]*modelSync // by id, all there were

	replicas []*modelReplica
	leader   *modelReplica
	front    *modelReplica // who has all of the log: it leads, or has led
	term     uint64
	log      []*raft.Log
	late     [][]byte // copies of batches that are still under way
	digests  map[uint64]registry.Digest
	naive    naive

	mended   time.Time     // since then nothing goes wrong
	timeout  time.Duration // of a worker; 0: nobody expires
	tooLong  time.Duration // for a sync; 0: as by default
	maxSyncs int
	commands int

	sessions, processes, identities int
}

// TestModel plays random stories and compares, all along, what the registry answers with
// the naive model, and the replicas with each other; at the end of each story the ways
// are mended, what is owed is done, and the index must be what the engines hold.
func TestModel(t *testing.T) {
	const story = 200
	checks := max(1, *modelSteps/story)
	for name, n := range map[string]int{"rapid.checks": checks, "rapid.steps": story} {
		before := flag.Lookup(name).Value.String()
		must(t, flag.Set(name, fmt.Sprint(n)))
		t.Cleanup(func() { must(t, flag.Set(name, before)) }) // other tests have their own
	}
	steps := 0
	count, healed := make(map[string]int), make(map[string]int)
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t, count)
		actions := m.actions()
		t.Repeat(map[string]func(*rapid.T){"step": func(t *rapid.T) {
			steps++
			m.t = t
			m.now = m.now.Add(modelStep)
			actions[draw(t, "action", len(actions))]()
			m.settle()
		}})
		m.t = t
		m.compare()
		for _, e := range m.engines {
			if e.sync != nil {
				count["frozen at the end"]++
			}
		}
		before := maps.Clone(count)
		m.heal()
		for what, n := range count {
			healed[what] += n - before[what]
		}
	})
	t.Logf("%d steps in %d stories", steps, checks)
	for _, what := range slices.Sorted(maps.Keys(count)) {
		t.Logf("%8d %s (%d of them at the end)", count[what], what, healed[what])
	}
}

func newModel(t *rapid.T, count map[string]int) *model {
	m := &model{t: t, now: time.Unix(1_000_000, 0), dealers: make(map[string]*modelEngine), lists: make(map[string]*modelSync), digests: make(map[uint64]registry.Digest),
		naive: naive{count: count, sessions: make(map[registry.SessionID]uint64), seen: make(map[registry.SessionID]registry.Micros)}}
	m.maxSyncs = 1 + draw(t, "max syncs", 3)
	m.timeout = pick(t, "worker timeout", []time.Duration{0, 0, 100 * time.Second})
	m.tooLong = pick(t, "sync timeout", []time.Duration{0, 40 * time.Second})
	evicts := pick(t, "max sync evicts", []int{1 << 18, 3})
	m.naive.maxEvicts = evicts
	for id := range 1 + draw(t, "replicas", 3) {
		r := &modelReplica{m: m, id: id, opts: registry.Options{Shards: 1 << id, MaxSyncEvicts: evicts}}
		r.skew = pick(t, "clock", []time.Duration{0, 0, 5 * time.Millisecond, -5 * time.Millisecond})
		r.fsm = fsm.New(fsm.Options{Registry: r.opts})
		r.boot()
		m.replicas = append(m.replicas, r)
	}
	m.front = m.replicas[0]
	m.elect(m.front)
	peer := "10.0.0.1:9001"
	for i, ref := range []registry.WorkerRef{{Instance: "a"}, {Instance: "a", Worker: 1}, {Instance: "b"}}[:1+draw(t, "workers", 3)] {
		var url *string
		if i != 1 {
			url = &peer
		}
		m.start(ref, !rarely(t, "no heartbeats", 5), url)
	}
	m.naive.unsure = func(id string, next int64) map[registry.Key]bool {
		keys := make(map[registry.Key]bool)
		for _, op := range m.lists[id].after {
			if op.Seq < next {
				keys[registry.Key(op.Key)] = true
			}
		}
		return keys
	}
	if !rarely(t, "no answer", 4) {
		m.calm()
	}
	for _, e := range m.engines { // many stories are of the repair of a loss
		if e.speaks && !rarely(t, "sound", 2) {
			e.lose()
		}
	}
	return m
}

// lose loses an operation, and shows it.
func (e *modelEngine) lose() {
	for _, k := range []lmcache.Key{1, 2, 3} {
		e.operation(modelCPU, k, lmcache.Admit)
		e.flush()
	}
	e.push.frames = slices.Delete(e.push.frames, 1, 2)
	e.m.calm()
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf(format, args...)
}
