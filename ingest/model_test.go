package ingest

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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

// engine is one that lives and may talk.
func (m *model) engine() *modelEngine {
	var alive []*modelEngine
	for _, e := range m.engines {
		if !e.gone {
			alive = append(alive, e)
		}
	}
	if len(alive) == 0 {
		return nil
	}
	return pick(m.t, "worker", alive)
}

// with runs an action of a living engine that has registered.
func (m *model) with(act func(e *modelEngine)) func() {
	return func() {
		if e := m.engine(); e != nil && e.speaks {
			act(e)
		}
	}
}

var modelKeys = []lmcache.Key{1, 2, 3, 4, 5, 6}

func (m *model) location() string {
	return pick(m.t, "location", []string{modelCPU, modelCPU, modelCPU, modelDisk})
}

// actions are what may happen, as often as it stands here.
func (m *model) actions() (all []func()) {
	may := func(times int, act func()) {
		for range times {
			all = append(all, act)
		}
	}
	replica := func() *modelReplica { return pick(m.t, "replica", m.replicas) }
	may(1, func() {}) // what all else shrinks to
	may(18, m.goOn)

	may(6, m.with(m.store))
	may(3, m.with(func(e *modelEngine) { e.operation(m.location(), pick(m.t, "key", modelKeys), lmcache.Evict) }))
	may(1, m.with(func(e *modelEngine) { // clear
		for _, k := range e.held(modelCPU) {
			e.operation(modelCPU, k, lmcache.Evict)
		}
	}))
	may(1, m.with(func(e *modelEngine) { // compress
		l := m.location()
		for _, k := range e.held(l)[:min(2, len(e.holds[l]))] {
			e.operation(l, k, lmcache.Evict)
			e.operation(l, k, lmcache.Admit)
		}
	}))
	may(6, m.with((*modelEngine).flush))
	may(5, m.deliver)
	may(3, m.question)
	may(2, m.with((*modelEngine).beat))
	may(3, m.with((*modelEngine).stepSync))
	may(3, func() { replica().propose(modelApplied) })
	may(1, func() { replica().catchUp(uint64(len(m.log))) })
	may(2, func() {
		m.now = m.now.Add(pick(m.t, "time", []time.Duration{time.Second, 6 * time.Second, 31 * time.Second, 130 * time.Second}))
	})
	may(2, func() {
		if m.leader != nil {
			m.leader.lease()
		}
	})
	may(1, func() { // nobody says anything for long
		if m.leader != nil && m.timeout > 0 && rarely(m.t, "silence", 3) {
			for silent := time.Duration(0); silent <= m.timeout; silent += 5 * time.Second {
				m.now = m.now.Add(5 * time.Second)
				m.leader.lease()
			}
		}
	})
	may(1, func() { m.heard(replica()) })
	may(1, m.command)
	may(4, m.compare)

	// What goes wrong.
	may(2, func() {
		if p := m.pipe(); p != nil {
			n := min(1+draw(m.t, "frames", 3), len(p.frames))
			m.t.Logf("# %d messages of %v are lost", n, p.owner.ref)
			p.lose(n)
		}
	})
	may(1, func() {
		if p := m.pipe(); p != nil && rarely(m.t, "twice", 3) {
			m.t.Logf("# a message of %v comes twice", p.owner.ref)
			p.frames = slices.Insert(p.frames, 0, p.frames[0])
		}
	})
	may(1, m.with(func(e *modelEngine) {
		e.connect(replica())
		m.t.Logf("# %v goes on at replica %d", e.ref, e.push.to.id)
	}))
	may(2, m.with(func(e *modelEngine) { e.dial(&e.asks) }))
	may(2, m.restart)
	may(3, func() { replica().propose(pick(m.t, "fate", []modelFate{modelUntold, modelLate, modelLost})) })
	may(1, func() {
		if m.leader != nil && len(m.late) > 0 {
			i := draw(m.t, "copy", len(m.late))
			entry := m.late[i]
			m.late = slices.Delete(m.late, i, i+1)
			m.commit(entry)
		}
	})
	may(1, func() { replica().reload(m.front) })
	may(1, func() { replica().Registry().Sweep(1 << 12) })
	may(1, func() {
		if r := replica(); rarely(m.t, "crash", 4) {
			m.crash(r)
		}
	})
	may(1, func() { r := replica(); r.cut = !r.cut && rarely(m.t, "cut", 3) })
	may(1, func() {
		if r := replica(); m.leader == nil || rarely(m.t, "elect", 3) {
			m.elect(r)
		}
	})
	may(1, func() {
		if rarely(m.t, "leaderless", 5) {
			m.leader = nil
		}
	})
	return all
}

// store puts a chunk into a cache, unless the engine is frozen; what is under way then
// is stored all the same.
func (m *model) store(e *modelEngine) {
	if e.speaks && (e.sync == nil || e.sync.stage == syncTold || rarely(m.t, "under way", 3)) {
		l, k := m.location(), pick(m.t, "key", modelKeys)
		if held := e.held(l); len(held) >= 3 && !e.holds[l][k] { // full
			e.operation(l, pick(m.t, "evicted", held), lmcache.Evict)
		}
		if !e.operation(l, k, lmcache.Admit) {
			e.operation(l, k, lmcache.Evict)
		}
	}
}

// restart ends a process, or finds it mute, and starts the next one.
func (m *model) restart() {
	e := pick(m.t, "worker", m.newest)
	if !e.gone && !rarely(m.t, "restart", 8) {
		return
	}
	if !e.gone && e.speaks && rarely(m.t, "with a word", 4) {
		e.send(&lmcache.DeRegisterMsg{InstanceID: e.ref.Instance, WorkerID: e.ref.Worker, IP: "10.0.0.1", Port: e.port})
	}
	e.end()
	m.t.Logf("# %v starts anew", e.ref)
	m.start(e.ref, e.beating, e.peer)
}

// goOn is a moment in which all goes well with an engine.
func (m *model) goOn() {
	e := m.engine()
	if e == nil {
		return
	}
	if m.leader == nil {
		m.elect(m.front)
	}
	m.store(e)
	e.beat()
	if to := pick(m.t, "replica", m.replicas); !to.cut {
		e.put(&e.asks, to, to.reply)
		e.put(&e.beats, to, to.beat)
	}
	e.stepSync()
	if draw(m.t, "flush", 2) == 0 {
		e.flush()
	}
	for len(e.push.frames) > 0 {
		e.push.deliver()
		m.now = m.now.Add(modelStep)
	}
	for _, r := range m.replicas {
		for r.propose(modelApplied) {
		}
		r.catchUp(uint64(len(m.log)))
	}
	m.settle()
	e.stepSync()
	if draw(m.t, "pass", 4) == 3 {
		m.now = m.now.Add(5 * time.Second)
	}
}

// pipe is one with something in it.
func (m *model) pipe() *modelPipe {
	m.pipes = slices.DeleteFunc(m.pipes, func(p *modelPipe) bool {
		return len(p.frames) == 0 && (p.owner.gone || p.owner.push != p)
	})
	var full []*modelPipe
	for _, p := range m.pipes {
		if len(p.frames) > 0 {
			full = append(full, p)
		}
	}
	if len(full) == 0 {
		return nil
	}
	return pick(m.t, "pipe", full)
}

func (m *model) deliver() {
	if p := m.pipe(); p != nil {
		p.deliver()
	}
}

// lose loses the next messages.
func (p *modelPipe) lose(n int) {
	for _, frame := range p.frames[:n] {
		if m, _ := lmcache.Decode(frame); m.Type() == "BatchedKVOperationMsg" {
			if m := m.(*lmcache.BatchedKVOperationMsg); m.Operations[0].Seq == 0 {
				p.owner.lostFirst[m.Location] = true
			}
		}
	}
	p.frames = p.frames[n:]
}

func (p *modelPipe) deliver() {
	frame := p.frames[0]
	for _, e := range p.owner.m.newest {
		e.haunted = e.haunted || e.ref == p.owner.ref && e != p.owner
	}
	p.frames = p.frames[1:]
	p.to.pull.part(frame, "model")
}

// question lets a question reach a replica.
func (m *model) question() {
	e := m.engine()
	if e == nil {
		return
	}
	to := pick(m.t, "replica", m.replicas)
	e.put(&e.asks, to, to.reply)
	e.put(&e.beats, to, to.beat)
}

func (e *modelEngine) put(d *modelDealer, to *modelReplica, at *router) {
	if d.question != nil && !d.sent {
		d.sent = true
		at.one([][]byte{[]byte(d.identity), nil, lmcache.Append(nil, d.question)}, "model")
	}
}

// answered takes an answer to whom it is for, if that still listens.
func (m *model) answered(out reply) {
	e := m.dealers[out.identity]
	if e == nil {
		return
	}
	if out.identity == e.asks.identity {
		e.answer(&e.asks, out.answer)
	} else {
		e.answer(&e.beats, out.answer)
	}
}

func (m *model) crash(r *modelReplica) {
	m.t.Logf("# replica %d crashes", r.id)
	for _, p := range m.pipes {
		if p.to == r {
			p.lose(len(p.frames))
			if e := p.owner; e.push == p && !e.gone {
				e.connect(m.replicas[(r.id+1)%len(m.replicas)])
			}
		}
	}
	if m.leader == r {
		m.leader = nil
	}
	r.boot()
}

// heard lets a follower tell the leader whom it has heard.
func (m *model) heard(r *modelReplica) { r.s.sendHeard(m.t.Context()) }

// settle does what needs no luck.
func (m *model) settle() {
	for _, r := range m.replicas {
		r.answers()
	}
	for _, e := range m.engines {
		if !e.gone {
			e.overdue()
		}
	}
}

func (m *model) command() {
	if m.leader == nil {
		return
	}
	id := fmt.Sprintf("e%d", draw(m.t, "event", m.commands+1))
	term, at := m.term-uint64(draw(m.t, "old term", 8)/7), micros(m.leader.clock())
	switch draw(m.t, "what", 3) {
	case 0:
		m.commands++
		m.commit(fsm.EncodeCreateEvent(registry.EventCreate{ID: id, Kind: registry.CommandMove, Source: registry.Target{Instance: "a", Location: modelCPU},
			Dest: registry.Target{Instance: pick(m.t, "to", []string{"a", "b"}), Location: pick(m.t, "location", []string{modelCPU, modelDisk, ""})}, Tokens: 7, Term: term, At: at}))
	case 1:
		m.commit(fsm.EncodeRunEvent(registry.EventRun{ID: id, Term: term, Workers: []registry.WorkerRef{{Instance: "a"}}, At: at}))
	case 2:
		var confirm *registry.Confirmation
		if draw(m.t, "confirm", 4) > 0 {
			confirm = &registry.Confirmation{Key: registry.Key(pick(m.t, "key", modelKeys)), Ranks: pick(m.t, "ranks", [][]int64{{0}, {0, 1}})}
		}
		m.commit(fsm.EncodeFinishEvent(registry.EventFinish{ID: id, Term: term, State: registry.EventDone, NumTokens: 7, Confirm: confirm, At: at,
			Workers: []registry.WorkerOutcome{{WorkerRef: registry.WorkerRef{Instance: "a"}, State: registry.EventDone, NumTokens: 7}}}))
	}
}

// compare compares the front's registry with the naive model.
func (m *model) compare() {
	m.t.Helper()
	m.front = pickFront(m)
	reg := m.front.Registry()
	diff := func(what string, want, got any, opts ...cmp.Option) {
		m.t.Helper()
		if d := cmp.Diff(want, got, opts...); d != "" {
			m.fatalf("%s: -naive +registry\n%s", what, d)
		}
	}
	for _, k := range modelKeys {
		diff(fmt.Sprintf("holders of %d", k), m.naive.holders(registry.Key(k)), reg.Holders(registry.Key(k)))
	}
	for _, keys := range [][]registry.Key{{1, 2, 3, 4}, {3, 3, 1}, {6, 5}, {2}} {
		hits := []registry.Hit{}
		s := reg.NewSearch("")
		for _, k := range keys {
			if !s.Next(k) {
				break
			}
		}
		hits = append(hits, s.Hits()...)
		s.Close()
		diff(fmt.Sprintf("lookup of %v", keys), m.naive.lookup(keys), hits)
		for _, asker := range []registry.WorkerRef{{Instance: "x", Worker: 1}, {Instance: "b"}} {
			want, _ := m.naive.p2p(asker, keys)
			got, _ := reg.P2PLookup(asker, keys)
			diff(fmt.Sprintf("peer lookup of %v by %v", keys, asker), want, got)
		}
	}
	workers, totals := m.naive.infos()
	infos := reg.Workers("")
	for _, w := range infos {
		for i := range w.Locations {
			if l := &w.Locations[i]; !l.Numbered {
				l.NextSeq = 0
			}
		}
	}
	diff("workers", workers, infos, cmpopts.EquateEmpty())
	got := reg.Totals()
	diff("totals", totals, registry.Totals{Instances: got.Instances, Workers: got.Workers, Keys: got.Keys, Gaps: got.Gaps, Late: got.Late,
		SuspectWorkers: got.SuspectWorkers, UnrepairedWorkers: got.UnrepairedWorkers, LossyStreams: got.LossyStreams, OpenEvents: got.OpenEvents,
		AwaitedMoves: got.AwaitedMoves, Events: got.Events})
	for _, e := range m.naive.events {
		got, _ := reg.Event(e.ID)
		diff("event", *e, got, cmpopts.IgnoreFields(registry.Event{}, "Detail"))
	}
	for _, e := range m.engines {
		if !e.gone && e.speaks {
			e.truth(reg, modelCPU)
			e.truth(reg, modelDisk)
		}
	}
}

// pickFront is a replica that has applied the whole log.
func pickFront(m *model) *modelReplica {
	for _, r := range m.replicas {
		if r.fsm.Applied() == uint64(len(m.log)) {
			return r
		}
	}
	m.front.catchUp(uint64(len(m.log)))
	return m.front
}
