package registry

import (
	"fmt"
	"slices"
	"sync"

	"github.com/kvctrl/kvctrl/registry/index"
)

// Registry is the whole state. See the package comment for who may call what.
type Registry struct {
	opts Options
	idx  *index.Index[*stream]

	// mu guards everything below. The writer holds it for the whole of a change,
	// so that counts, lists and digests are those of a moment between two changes.
	// Search and P2PLookup never take it.
	mu sync.RWMutex

	now    Micros // largest At of all entries so far
	term   uint64
	leader string // node of the term
	gaps   int64
	late   int64

	// lastNumber counts instances, workers, streams and events in the order in
	// which they appeared; a number is never given twice.
	lastNumber uint64
	instances  []*instance // by number
	byID       map[string]*instance
	workers    map[WorkerRef]*worker

	events   eventLog
	members  memberSet
	sessions map[SessionID]session
	departed departures

	instanceSlots, workerSlots, streamSlots slots

	syncs syncCounters // no state

	searches, peerSearches sync.Pool
}

// New makes an empty registry. It panics when opts does not validate.
func New(opts Options) *Registry {
	if err := opts.Validate(); err != nil {
		panic("bug: registry options: " + err.Error())
	}
	r := &Registry{
		opts:     opts.withDefaults(),
		idx:      index.New[*stream](index.Options{Shards: opts.Shards}),
		byID:     make(map[string]*instance),
		workers:  make(map[WorkerRef]*worker),
		sessions: make(map[SessionID]session),
	}
	r.events.init()
	r.searches.New = func() any { return &Search{reg: r} }
	r.peerSearches.New = func() any { return new(peerSearch) }
	return r
}

// advance moves the registry's time forward and drops what is too old at the entry's
// own: after an entry whose clock was ahead, events have their full age again.
func (r *Registry) advance(at Micros) {
	r.now = max(r.now, at)
	r.events.expire(at, r.opts)
}

func (r *Registry) nextNumber() uint64 {
	r.lastNumber++
	return r.lastNumber
}

// Register makes a worker known, or known anew.
//
// By RegisterMsg the worker's process is new: all that an earlier one of this name
// held, its streams and syncs are gone, in O(1) for any number of keys. By
// heartbeat the process goes on: an unknown worker owes a full sync, a known one
// loses nothing. A registration that is older than the known one, late from another
// replica, changes nothing. One that repeats the known one is a sign of life.
func (r *Registry) Register(g Registration) RegisterResult {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(g.At)

	w, known := r.workers[g.WorkerRef]
	if !known {
		if refused := r.full(g.Instance); refused != "" {
			return RegisterResult{Refused: refused}
		}
		w = r.addWorker(g.WorkerRef)
		w.firsts.now = slices.Clone(r.departed.firstKeys(g.WorkerRef))
	} else if w.after(g.At) {
		return RegisterResult{Known: true}
	} else if w.repeats(g) {
		w.hear(g.At, 0)
		return RegisterResult{Known: true}
	}
	w.ip, w.port = g.IP, g.Port
	// A heartbeat repeats what the worker registered with. One that names no peer
	// address is no news that there is none.
	if g.PeerInitURL != nil || !known || !g.ByHeartbeat {
		w.setPeer(g.PeerInitURL)
	}
	switch {
	case g.ByHeartbeat && known:
		w.hear(g.At, g.At)
	case g.ByHeartbeat:
		w.begin(g.At)
		w.beats, w.adopted = true, true
		w.wanted = ReasonReRegistered
	default:
		r.dropStreams(w)
		w.begin(g.At)
		w.firsts.turn()
	}
	return RegisterResult{Known: known}
}

// Deregister forgets a worker and all it holds, in O(1) for any number of keys.
// It reports whether the worker was known. A leave from before its registration, late
// from another replica, is an earlier process's and changes nothing.
func (r *Registry) Deregister(ref WorkerRef, at Micros) (known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(at)
	if w := r.workers[ref]; w != nil && w.after(at) {
		return true
	}
	return r.deregister(ref, at, DepartedDeregistered)
}

func (r *Registry) deregister(ref WorkerRef, at Micros, why string) bool {
	w, ok := r.workers[ref]
	if !ok {
		return false
	}
	r.departed.add(w, at, why)
	r.dropStreams(w)
	delete(r.workers, ref)
	inst := w.instance
	inst.remove(w)
	r.workerSlots.free(w.slot)
	if len(inst.workers) == 0 {
		delete(r.byID, inst.id)
		i, _ := slices.BinarySearchFunc(r.instances, inst.number, byInstanceNumber)
		r.instances = slices.Delete(r.instances, i, i+1)
		r.instanceSlots.free(inst.slot)
	}
	return true
}

// full says why an instance gets no further worker, if so.
func (r *Registry) full(instance string) (refused string) {
	if n := len(r.workers); n >= r.opts.MaxWorkers {
		return fmt.Sprintf("%d workers are registered, the most there may be: deregister some, or lower the worker timeout", n)
	}
	if inst := r.byID[instance]; inst != nil && len(inst.workers) >= r.opts.MaxRanks {
		return fmt.Sprintf("instance %q has %d workers, the most there may be: give each engine an instance id of its own", instance, len(inst.workers))
	}
	return ""
}

func (r *Registry) addWorker(ref WorkerRef) *worker {
	inst := r.byID[ref.Instance]
	if inst == nil {
		inst = r.newInstance(ref.Instance, r.nextNumber())
	}
	return r.newWorker(inst, ref.Worker, r.nextNumber())
}

func (r *Registry) newInstance(id string, number uint64) *instance {
	inst := &instance{id: id, number: number, slot: r.instanceSlots.take()}
	inst.storing.Store(new([]*worker))
	r.byID[id] = inst
	r.instances = append(r.instances, inst)
	return inst
}

func (r *Registry) newWorker(inst *instance, rank int64, number uint64) *worker {
	w := &worker{
		ref:      WorkerRef{Instance: inst.id, Worker: rank},
		instance: inst,
		number:   number,
		slot:     r.workerSlots.take(),
	}
	inst.workers = append(inst.workers, w)
	r.workers[w.ref] = w
	return w
}

// Sweep cleans up to the given number of index slots of what dropped holders left
// behind. It changes no answer and no digest.
func (r *Registry) Sweep(slots int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idx.Sweep(slots)
}
