package ingest

import (
	"slices"
	"time"

	"github.com/kvctrl/kvctrl/lmcache"
)

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
		if rarely(m.t, "two hours", 20) { // sessions are forgotten
			m.now = m.now.Add(2 * time.Hour)
		}
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
