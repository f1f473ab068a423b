package ingest

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

const second = registry.Micros(1_000_000)

// naive is what the log means, in the plainest words: sets of keys per stream, and every
// question answered by looking at all of them. It reads entries, so it knows nothing of
// replicas. Lists are in order of registration or of first use.
type naive struct {
	instances []*naiveInstance
	sessions  map[registry.SessionID]uint64 // last batch
	seen      map[registry.SessionID]registry.Micros
	now       registry.Micros
	term      uint64
	events    []*registry.Event
	gaps      int64
	late      int64
	order     int
	maxEvicts int

	// unsure gives the keys of operations that came between the list of a sync and its
	// start, when next is the number that follows. Nobody can tell them from older ones.
	unsure func(syncID string, next int64) map[registry.Key]bool

	count map[string]int // what there was, for the test's own figures
}

type naiveInstance struct {
	id      string
	workers []*naiveWorker
}

type naiveWorker struct {
	ref        registry.WorkerRef
	ip         string
	port       int64
	process    int64 // the port of the process that is registered: each has its own
	peer       *string
	registered registry.Micros
	beat       registry.Micros // last heartbeat
	heard      registry.Micros // last word of any kind
	beats      bool
	suspect    bool
	adopted    bool   // known by a heartbeat alone: it may hold what nobody told
	wanted     string // why it owes a full sync
	failures   int    // syncs given up since the last that completed
	failed     registry.Micros
	streams    []*naiveStream
}

type naiveStream struct {
	location string
	order    int // of first use, among all streams
	keys     map[registry.Key]bool
	stored   bool
	lossy    bool
	cleared  bool                  // sound again by holding nothing: what was lost may be missing
	unsure   map[registry.Key]bool // what the last sync may say wrongly of
	blind    bool                  // what was lost between a sync's start and the first number nobody can know
	gaps     int64
	counted  bool    // a gap of this message
	numbers  []int64 // all there ever were
	writer   registry.SessionID
	missing  map[int64]*naiveHole // numbers that were passed over
	sync     *naiveSync
	synced   bool // the last sync that ended was complete
	ended    struct {
		id string
		at registry.Micros
	}
}

// naiveHole is what numbers that were passed over at one time have in common.
type naiveHole struct {
	made     registry.Micros
	until    registry.Micros
	extended bool
}

type naiveSync struct {
	id      string
	started registry.Micros
	batches int64
	got     map[int64]bool
	keys    map[registry.Key]bool
	evicted map[registry.Key]bool
	unsure  map[registry.Key]bool
	ended   bool
	lost    bool
}

// apply takes an entry as fsm.Decode gives it.
func (n *naive) apply(value any) {
	switch v := value.(type) {
	case fsm.WorkerBatch:
		n.now = max(n.now, v.At)
		if last, known := n.sessions[v.Session]; known && v.Number <= last {
			n.count["batches twice"]++
			return
		}
		n.sessions[v.Session], n.seen[v.Session] = v.Number, n.now
		for _, r := range v.Records {
			n.record(r, v.Session)
		}
	case registry.Lease:
		n.lease(v)
	case registry.TermBegin:
		n.beginTerm(v)
	case registry.EventCreate:
		n.createEvent(v)
	case registry.EventRun:
		n.runEvent(v)
	case registry.EventFinish:
		n.finishEvent(v)
	default:
		panic(fmt.Sprintf("naive: %T", value))
	}
}

func (n *naive) record(r any, session registry.SessionID) {
	switch r := r.(type) {
	case registry.Registration:
		n.register(r)
	case fsm.Deregistration:
		if w := n.worker(r.WorkerRef); w != nil && r.At >= w.registered-second {
			n.forget(r.WorkerRef)
		}
	case registry.Ops:
		n.ops(r, session)
	case registry.SyncStart:
		n.syncStart(r)
	case registry.SyncBatch:
		n.syncPart(r.Stream, r.SyncID, r.BatchID, r.Keys, r.At)
	case registry.SyncEnd:
		if s := n.running(r.Stream, r.SyncID); s != nil {
			s.sync.ended = true
			n.complete(r.Stream, s, r.At)
		}
	}
}

func (n *naive) worker(ref registry.WorkerRef) *naiveWorker {
	for _, i := range n.instances {
		for _, w := range i.workers {
			if w.ref == ref {
				return w
			}
		}
	}
	return nil
}

func (n *naive) register(r registry.Registration) {
	w := n.worker(r.WorkerRef)
	known := w != nil
	if known && r.At < w.registered-second {
		n.count["registrations late"]++
		return // late: of an earlier process
	}
	if !known {
		w = &naiveWorker{ref: r.WorkerRef}
		at := slices.IndexFunc(n.instances, func(i *naiveInstance) bool { return i.id == r.Instance })
		if at < 0 {
			at = len(n.instances)
			n.instances = append(n.instances, &naiveInstance{id: r.Instance})
		}
		n.instances[at].workers = append(n.instances[at].workers, w)
	}
	if known && !r.ByHeartbeat && !w.adopted && len(w.streams) == 0 && r.At <= w.registered+30*second &&
		w.ip == r.IP && w.port == r.Port && reflect.DeepEqual(w.peer, r.PeerInitURL) {
		w.heard = max(w.heard, r.At)
		n.count["registered twice"]++
		return
	}
	w.ip, w.port = r.IP, r.Port
	if r.PeerInitURL != nil || !known || !r.ByHeartbeat { // a heartbeat without one is no news
		w.peer = r.PeerInitURL
	}
	if r.ByHeartbeat && known {
		w.beats, w.beat, w.heard = true, max(w.beat, r.At), max(w.heard, r.At)
		return
	}
	w.registered, w.beat, w.heard, w.process = r.At, r.At, r.At, r.Port
	w.streams, w.wanted, w.suspect = nil, "", false
	w.failures, w.failed = 0, 0
	w.adopted, w.beats = r.ByHeartbeat, r.ByHeartbeat
	if known {
		n.count["registered anew"]++
	}
	if r.ByHeartbeat {
		n.count["adopted"]++
		w.wanted = registry.ReasonReRegistered
	}
}

func (n *naive) forget(ref registry.WorkerRef) {
	for _, i := range n.instances {
		i.workers = slices.DeleteFunc(i.workers, func(w *naiveWorker) bool { return w.ref == ref })
	}
	n.instances = slices.DeleteFunc(n.instances, func(i *naiveInstance) bool { return len(i.workers) == 0 })
}

func (n *naive) lease(l registry.Lease) {
	n.now = max(n.now, l.At)
	for _, h := range l.Heard {
		if w := n.worker(h.WorkerRef); w != nil {
			if h.Heartbeat > 0 {
				w.beats, w.beat = true, max(w.beat, h.Heartbeat)
			}
			w.heard = max(w.heard, h.Any, h.Heartbeat)
		}
	}
	silence, timeout := cmp.Or(l.SuspectAfter, registry.DefaultSuspectAfter), cmp.Or(l.SyncTimeout, registry.DefaultSyncTimeout)
	for _, i := range n.instances {
		for _, w := range i.workers {
			w.suspect = silence > 0 && w.beats && l.At-w.heard > silence
			for _, s := range w.streams {
				if s.sync != nil && timeout > 0 && l.At-s.sync.started > timeout {
					n.count["syncs given up, too old"]++
					w.failSync(s, l.At)
				}
			}
		}
	}
	for _, ref := range l.Expired {
		if w := n.worker(ref); w != nil && l.At-w.heard > second {
			n.count["expired"]++
			n.forget(ref)
		}
	}
	for _, e := range n.events {
		if e.Confirmed == registry.MoveAwaited {
			n.confirm(e, l.At)
		}
	}
	for id, seen := range n.seen {
		if n.now-seen > 3600*second {
			delete(n.seen, id)
			delete(n.sessions, id)
		}
	}
}

// failSync gives up a stream's sync: what was known stays, and the worker owes another.
func (w *naiveWorker) failSync(s *naiveStream, at registry.Micros) {
	s.ended.id, s.ended.at = s.sync.id, at
	s.sync, s.synced = nil, false
	w.failures++
	w.failed = at
	w.want(registry.ReasonSyncFailed)
}

func (w *naiveWorker) want(reason string) {
	if w.wanted == "" {
		w.wanted = reason
	}
}

func (w *naiveWorker) syncing() bool {
	return slices.ContainsFunc(w.streams, func(s *naiveStream) bool { return s.sync != nil })
}

func (n *naive) stream(w *naiveWorker, location string) *naiveStream {
	for _, s := range w.streams {
		if s.location == location {
			return s
		}
	}
	n.order++
	s := &naiveStream{location: location, order: n.order, keys: make(map[registry.Key]bool), missing: make(map[int64]*naiveHole), lossy: w.adopted}
	w.streams = append(w.streams, s)
	return s
}
