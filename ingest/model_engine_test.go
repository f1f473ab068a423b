package ingest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

const (
	modelCPU  = registry.CPULocation
	modelDisk = "LocalDiskBackend"
)

// modelEngine is one process of one rank of an engine: what it truly holds, and LMCache's
// side of the protocol as the reference has it. It talks over a pipe (PUSH) and two
// dealers (the reply and the heartbeat port), each to a replica of its own.
type modelEngine struct {
	m       *model
	ref     registry.WorkerRef
	peer    *string
	port    int64
	process int
	gone    bool // ended, or mute since its registration was not answered
	speaks  bool // its registration was answered
	beating bool // it sends heartbeats

	// haunted: what its predecessor said has been read since it registered. If then its own
	// first words are lost, the other's numbers may pass for them.
	haunted   bool
	lostFirst map[string]bool

	holds map[string]map[lmcache.Key]bool
	queue map[string][]modelOp // not sent yet
	next  map[string]int64

	push        *modelPipe
	asks, beats modelDealer
	sync        *modelSync
	syncs       int
}

// modelOp is an operation; list is the sync whose list is older than it, if its start has
// not been accepted.
type modelOp struct {
	op   lmcache.KVOp
	list *modelSync
}

// modelPipe is a connection to a PULL socket. A worker that connects elsewhere leaves
// its old one behind, with what is in it.
type modelPipe struct {
	to     *modelReplica
	owner  *modelEngine
	frames [][]byte
}

// modelDealer is a connection to a ROUTER, with one question at a time.
type modelDealer struct {
	identity string
	question lmcache.Message // nil: none is open
	sent     bool            // the replica has it
	asked    time.Time
}

type syncStage uint8

const (
	syncTold    syncStage = iota // to begin
	syncListed                   // frozen, the keys are listed
	syncSending                  // accepted
	syncPolling
)

// modelSync is a full sync as full_sync_sender.py makes it.
type modelSync struct {
	id      string
	stage   syncStage
	frozen  time.Time // since then
	keys    [][]lmcache.Key
	tries   int // of the start
	sent    int // batches
	polls   int
	resends int
	polled  time.Time
	after   []lmcache.KVOp // said after the list and before the start was accepted
}

func (m *model) start(ref registry.WorkerRef, beating bool, peer *string) *modelEngine {
	m.processes++
	e := &modelEngine{m: m, ref: ref, process: m.processes, beating: beating, peer: peer, port: int64(8000 + m.processes),
		holds: make(map[string]map[lmcache.Key]bool), queue: make(map[string][]modelOp), next: make(map[string]int64), lostFirst: make(map[string]bool)}
	m.engines = append(m.engines, e)
	if i := slices.IndexFunc(m.newest, func(old *modelEngine) bool { return old.ref == ref }); i >= 0 {
		m.newest[i] = e
	} else {
		m.newest = append(m.newest, e)
	}
	e.connect(m.replicas[m.processes%len(m.replicas)])
	e.dial(&e.asks)
	e.dial(&e.beats)
	e.ask(&e.asks, &lmcache.RegisterMsg{InstanceID: ref.Instance, WorkerID: ref.Worker, IP: "10.0.0.1", Port: e.port, PeerInitURL: peer})
	return e
}

// connect makes a new connection for events. The old one, and what is in it, is its
// replica's.
func (e *modelEngine) connect(to *modelReplica) {
	e.push = &modelPipe{to: to, owner: e}
	e.m.pipes = append(e.m.pipes, e.push)
}

// dial makes a new connection to a ROUTER: a question that was open is lost.
func (e *modelEngine) dial(d *modelDealer) {
	delete(e.m.dealers, d.identity)
	e.m.identities++
	*d = modelDealer{identity: fmt.Sprint(e.m.identities)}
	e.m.dealers[d.identity] = e
}

func (e *modelEngine) ask(d *modelDealer, q lmcache.Message) {
	d.question, d.sent, d.asked = q, false, e.m.now
}

// operation is a change of what the engine holds.
func (e *modelEngine) operation(location string, key lmcache.Key, kind lmcache.OpKind) bool {
	if e.holds[location] == nil {
		e.holds[location] = make(map[lmcache.Key]bool)
	}
	if e.holds[location][key] == (kind == lmcache.Admit) {
		return false
	}
	if kind == lmcache.Admit {
		e.holds[location][key] = true
	} else {
		delete(e.holds[location], key)
	}
	q := modelOp{op: lmcache.KVOp{Kind: kind, Key: key}}
	if location == modelCPU && e.sync != nil && e.sync.stage == syncListed {
		q.list = e.sync
	}
	e.queue[location] = append(e.queue[location], q)
	return true
}

// flush sends what is queued, a message for each location.
func (e *modelEngine) flush() {
	for _, location := range []string{modelCPU, modelDisk} {
		if len(e.queue[location]) == 0 {
			continue
		}
		msg := &lmcache.BatchedKVOperationMsg{InstanceID: e.ref.Instance, WorkerID: e.ref.Worker, Location: location}
		for _, q := range e.queue[location] {
			q.op.Seq = e.next[location]
			e.next[location]++
			msg.Operations = append(msg.Operations, q.op)
			if q.list != nil {
				q.list.after = append(q.list.after, q.op)
			}
		}
		e.queue[location] = nil
		e.send(msg)
	}
}

func (e *modelEngine) send(msg lmcache.Message) {
	e.push.frames = append(e.push.frames, lmcache.Append(nil, msg))
}

// held are the keys of a location, ascending.
func (e *modelEngine) held(location string) []lmcache.Key {
	return slices.Sorted(maps.Keys(e.holds[location]))
}

// beat sends a heartbeat, unless one is open.
func (e *modelEngine) beat() {
	if e.beating && e.speaks && e.beats.question == nil {
		e.ask(&e.beats, &lmcache.HeartbeatMsg{InstanceID: e.ref.Instance, WorkerID: e.ref.Worker, IP: "10.0.0.1", Port: e.port, PeerInitURL: e.peer})
	}
}

// patience is how long LMCache's worker waits for an answer.
const modelPatience = 30 * time.Second

// modelFreeze is how long a full sync without mishap may freeze an engine: until its first
// question for the status, 5 s after the end.
const modelFreeze = 8 * time.Second

// overdue gives up questions that nobody has answered.
func (e *modelEngine) overdue() {
	for _, d := range []*modelDealer{&e.asks, &e.beats} {
		if q := d.question; q != nil && e.m.now.Sub(d.asked) > modelPatience {
			e.dial(d)
			switch q.(type) {
			case *lmcache.RegisterMsg:
				e.end() // for good, as far as we can tell
			case *lmcache.FullSyncStartMsg:
				e.refused()
			}
		}
	}
}

// end ends the process, or what of it talks to us.
func (e *modelEngine) end() {
	e.gone = true
	delete(e.m.dealers, e.asks.identity)
	delete(e.m.dealers, e.beats.identity)
}

// answer takes the answer to the open question of a dealer.
func (e *modelEngine) answer(d *modelDealer, frame []byte) {
	msg, err := lmcache.Decode(frame)
	if err != nil || d.question == nil {
		e.m.fatalf("%v is answered with %x: %v", e.ref, frame, err)
	}
	d.question = nil
	switch a := msg.(type) {
	case *lmcache.RegisterRetMsg:
		e.speaks = true
	case *lmcache.HeartbeatRetMsg:
		if len(a.Commands) > 0 && e.sync == nil {
			e.sync = &modelSync{}
		}
	case *lmcache.FullSyncStartRetMsg:
		if a.Accepted {
			e.sync.stage = syncSending
		} else {
			e.refused()
		}
	case *lmcache.FullSyncStatusRetMsg:
		e.status(a)
	default:
		e.m.fatalf("%v is answered with %s", e.ref, msg.Type())
	}
}

// refused is a start that was not accepted.
func (e *modelEngine) refused() {
	if e.sync.tries++; e.sync.tries == 3 {
		e.sync = nil
	}
}

func (e *modelEngine) status(a *lmcache.FullSyncStatusRetMsg) {
	s := e.sync
	s.polls++
	switch {
	case a.CanExitFreeze || s.polls >= 60:
		if m := e.m; !m.mended.IsZero() && s.frozen.After(m.mended) && m.now.Sub(s.frozen) > modelFreeze {
			m.fatalf("%v was frozen for %v, and nothing went wrong", e.ref, m.now.Sub(s.frozen))
		}
		e.sync = nil
	case len(a.MissingBatches) > 0 && s.resends < 3:
		s.resends++
		for _, i := range a.MissingBatches {
			e.sendBatch(i)
		}
		e.sendEnd()
	}
}

func (e *modelEngine) sendBatch(i int64) {
	b := &lmcache.FullSyncBatchMsg{InstanceID: e.ref.Instance, WorkerID: e.ref.Worker, Location: modelCPU, SyncID: e.sync.id, BatchID: i}
	if i >= 0 && i < int64(len(e.sync.keys)) {
		b.Keys = e.sync.keys[i]
	}
	e.send(b)
}

func (e *modelEngine) sendEnd() {
	e.send(&lmcache.FullSyncEndMsg{InstanceID: e.ref.Instance, WorkerID: e.ref.Worker, Location: modelCPU, SyncID: e.sync.id, ActualTotalKeys: int64(len(e.held(modelCPU)))})
}

// stepSync goes on with the sync, if one runs and nothing is waited for.
func (e *modelEngine) stepSync() {
	s := e.sync
	if s == nil || e.asks.question != nil {
		return
	}
	switch s.stage {
	case syncTold:
		e.syncs++
		s.stage, s.frozen = syncListed, e.m.now
		s.id = fmt.Sprintf("%s_%d_%d.%d", e.ref.Instance, e.ref.Worker, e.process, e.syncs)
		e.m.lists[s.id] = s
		s.keys = slices.Collect(slices.Chunk(e.held(modelCPU), 2))
		if len(s.keys) == 0 {
			s.keys = [][]lmcache.Key{nil}
		}
	case syncListed:
		total := 0
		for _, b := range s.keys {
			total += len(b)
		}
		e.ask(&e.asks, &lmcache.FullSyncStartMsg{InstanceID: e.ref.Instance, WorkerID: e.ref.Worker, Location: modelCPU, SyncID: s.id,
			TotalKeys: int64(total), BatchCount: int64(len(s.keys))})
	case syncSending:
		if s.sent < len(s.keys) {
			e.sendBatch(int64(s.sent))
			s.sent++
			return
		}
		e.sendEnd()
		s.stage, s.polled = syncPolling, e.m.now
	case syncPolling:
		if e.m.now.Sub(s.polled) >= 5*time.Second {
			s.polled = e.m.now
			e.ask(&e.asks, &lmcache.FullSyncStatusMsg{InstanceID: e.ref.Instance, WorkerID: e.ref.Worker, SyncID: s.id})
		}
	}
}
