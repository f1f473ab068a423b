package ingest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// What LMCache's worker does in a full sync (full_sync_sender.py), without its pauses.
const (
	syncStarts  = 3
	syncPolls   = 60
	syncResends = 3
)

// engine is a worker that knows what it holds, on sockets of its own. Its owner's
// goroutine alone uses it.
type engine struct {
	r    *rig
	name string
	ask  *client
	push *client
	sent *atomic.Uint64 // on PULL, of all engines of the rig

	held map[lmcache.Key]bool
	seq  int64
	id   int // of the last sync

	batchKeys int
	// drop says what of a sync does not reach the controller, or of the controller the
	// engine; parts are "start", "accepted", "batch", "end". Nil: nothing is lost.
	drop func(part string, number, round int) bool
	// twice is called between two batches; other things happen there.
	between func()
}

// engines makes workers of a rig, which are not registered yet. All of one rig are made
// at once: they count together what they have sent.
func (r *rig) engines(names ...string) []*engine {
	sent := new(atomic.Uint64)
	var out []*engine
	for _, name := range names {
		out = append(out, &engine{r: r, name: name, ask: r.dealer(), push: r.push(), sent: sent,
			held: make(map[lmcache.Key]bool), batchKeys: 2})
	}
	return out
}

func (e *engine) register() {
	e.r.t.Helper()
	if m := e.ask.ask(registerMsg(e.name)); m.Type() != "RegisterRetMsg" {
		e.r.t.Fatalf("registration of %s was answered with %s", e.name, m.Type())
	}
}

// operations changes what the engine holds and says so, unless it is lost on the way.
func (e *engine) operations(kind lmcache.OpKind, lost bool, keys ...lmcache.Key) {
	m := opsMsg(e.name, registry.CPULocation, e.seq, keys...)
	for i := range m.Operations {
		m.Operations[i].Kind = kind
		if kind == lmcache.Admit {
			e.held[keys[i]] = true
		} else {
			delete(e.held, keys[i])
		}
	}
	e.seq += int64(len(keys))
	if !lost {
		e.say(m)
	}
}

func (e *engine) admit(keys ...lmcache.Key) { e.operations(lmcache.Admit, false, keys...) }
func (e *engine) evict(keys ...lmcache.Key) { e.operations(lmcache.Evict, false, keys...) }

func (e *engine) say(ms ...lmcache.Message) {
	e.push.parts(ms...)
	e.sent.Add(uint64(len(ms)))
}

// keys is what the engine holds.
func (e *engine) keys() []lmcache.Key {
	keys := make([]lmcache.Key, 0, len(e.held))
	for k := range e.held {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// taken waits until all that the engines of this rig have sent is in the state.
func (e *engine) taken() {
	e.r.t.Helper()
	eventually(e.r.t, "everything sent is taken", func() bool { return e.r.s.Stats().Pull.Messages >= e.sent.Load() })
	e.r.settled()
}

// beat sends a heartbeat and reports whether the answer asks for a sync.
func (e *engine) beat() (told bool) {
	e.r.t.Helper()
	ret, ok := e.ask.ask(heartbeatMsg(e.name)).(*lmcache.HeartbeatRetMsg)
	if !ok {
		e.r.t.Fatal("the heartbeat was not answered with HeartbeatRetMsg")
	}
	return len(ret.Commands) == 1 && ret.Commands[0].CommandType == "full_sync"
}

func (e *engine) drops(part string, number, round int) bool {
	return e.drop != nil && e.drop(part, number, round)
}

func (e *engine) startMsg(keys, batches int) *lmcache.FullSyncStartMsg {
	return &lmcache.FullSyncStartMsg{InstanceID: e.name, WorkerID: 1, Location: registry.CPULocation, SyncID: e.syncID(),
		TotalKeys: int64(keys), BatchCount: int64(batches)}
}

func (e *engine) batchMsg(number int, keys []lmcache.Key) *lmcache.FullSyncBatchMsg {
	return &lmcache.FullSyncBatchMsg{InstanceID: e.name, WorkerID: 1, Location: registry.CPULocation, SyncID: e.syncID(),
		BatchID: int64(number), Keys: keys}
}

func (e *engine) endMsg(keys int) *lmcache.FullSyncEndMsg {
	return &lmcache.FullSyncEndMsg{InstanceID: e.name, WorkerID: 1, Location: registry.CPULocation, SyncID: e.syncID(), ActualTotalKeys: int64(keys)}
}

func (e *engine) statusMsg() *lmcache.FullSyncStatusMsg {
	return &lmcache.FullSyncStatusMsg{InstanceID: e.name, WorkerID: 1, SyncID: e.syncID()}
}

func (e *engine) syncID() string { return fmt.Sprintf("%s_1_%08x", e.name, e.id) }

func (e *engine) status() *lmcache.FullSyncStatusRetMsg {
	e.r.t.Helper()
	ret, ok := e.ask.ask(e.statusMsg()).(*lmcache.FullSyncStatusRetMsg)
	if !ok {
		e.r.t.Fatal("the status was not answered with FullSyncStatusRetMsg")
	}
	return ret
}

// begin starts a sync of what the engine holds now and reports whether the engine heard
// that it is accepted.
func (e *engine) begin() (batches [][]lmcache.Key, accepted bool) {
	e.r.t.Helper()
	e.id++
	batches = slices.Collect(slices.Chunk(e.keys(), e.batchKeys))
	if len(batches) == 0 {
		batches = [][]lmcache.Key{nil}
	}
	for attempt := range syncStarts {
		if e.drops("start", 0, attempt) {
			continue
		}
		ret, ok := e.ask.ask(e.startMsg(len(e.held), len(batches))).(*lmcache.FullSyncStartRetMsg)
		if ok && ret.Accepted && !e.drops("accepted", 0, attempt) {
			return batches, true
		}
	}
	return batches, false
}

// sync does a full sync as LMCache's worker does, and returns how often the engine asked
// for its status before it was let go; -1: it has given up.
func (e *engine) sync() (polls int) {
	e.r.t.Helper()
	batches, accepted := e.begin()
	if !accepted {
		return -1
	}
	count := len(e.held)
	for i, keys := range batches {
		if !e.drops("batch", i, 0) {
			e.say(e.batchMsg(i, keys))
		}
		if e.between != nil {
			e.between()
		}
	}
	if !e.drops("end", 0, 0) {
		e.say(e.endMsg(count))
	}
	for poll, round := 1, 0; poll <= syncPolls; poll++ {
		e.taken() // LMCache's waits 5 s
		st := e.status()
		if st.CanExitFreeze {
			return poll
		}
		if len(st.MissingBatches) == 0 || round == syncResends {
			continue
		}
		round++
		for _, i := range st.MissingBatches {
			if !e.drops("batch", int(i), round) {
				e.say(e.batchMsg(int(i), batches[i]))
			}
		}
		if !e.drops("end", 0, round) {
			e.say(e.endMsg(count))
		}
	}
	return -1
}

// holds checks what the registry says of the engine against what it holds, when all that
// was sent is taken.
func (e *engine) holds(when string) {
	e.r.t.Helper()
	e.taken()
	e.known(when)
}

// known checks that now.
func (e *engine) known(when string) {
	e.r.t.Helper()
	reg := e.r.log.Registry()
	info, _ := reg.Worker(ref(e.name))
	if info.Keys != int64(len(e.held)) {
		e.r.t.Errorf("%s: %d keys are known of %s, it holds %d", when, info.Keys, e.name, len(e.held))
	}
	for k := range e.held {
		if !slices.Contains(reg.Holders(registry.Key(k)), e.stream()) {
			e.r.t.Errorf("%s: key %d of %s is not known", when, k, e.name)
			return
		}
	}
}

func (e *engine) stream() registry.StreamRef {
	return registry.StreamRef{WorkerRef: ref(e.name), Location: registry.CPULocation}
}

// turned is a clock that a test sets forward.
type turned struct{ ahead atomic.Int64 }

func (c *turned) now() time.Time        { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *turned) turn(by time.Duration) { c.ahead.Add(int64(by)) }

// lease lets the leader say its word at the clock's time.
func (r *rig) lease(t testing.TB, clock *turned) {
	t.Helper()
	o := LeaseOptions{Log: r.s.opts.Log, State: r.log, Heard: r.s.TakeHeard, PutBack: r.s.PutBackHeard}
	now := micros(clock.now())
	if err := o.once(t.Context(), now, now); err != nil {
		t.Fatal(err)
	}
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }
