package ingest

import (
	"fmt"
	"slices"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

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
