package registry

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// twins is a registry beside the naive one, and beside a second registry that gets
// the same changes in another way: another number of shards, runs cut up, sweeps, and
// snapshots loaded now and then.
type twins struct {
	naive naive
	reg   *Registry
	other *Registry
	opts  Options // of the other
	now   Micros
	next  map[StreamRef]int64 // the number that would follow
	syncs int
}

var (
	drawWorker = rapid.Custom(func(t *rapid.T) WorkerRef {
		return WorkerRef{rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "instance"), rapid.Int64Range(0, 1).Draw(t, "rank")}
	})
	drawStream = rapid.Custom(func(t *rapid.T) StreamRef {
		return StreamRef{drawWorker.Draw(t, "worker"), rapid.SampledFrom([]string{CPULocation, CPULocation, "disk"}).Draw(t, "location")}
	})
	drawKey    = rapid.Custom(func(t *rapid.T) Key { return Key(rapid.Uint64Range(1, 6).Draw(t, "key")) })
	drawKeys   = rapid.SliceOfN(drawKey, 0, 8)
	drawSyncID = rapid.SampledFrom([]string{"s", "t"})
)

// TestRegistry_AgreesWithNaive says random things to all three and compares what they
// answer.
func TestRegistry_AgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &twins{reg: New(Options{}), opts: Options{Shards: 1 << rapid.IntRange(0, 3).Draw(t, "shards")}, now: 1, next: make(map[StreamRef]int64)}
		w.other = New(w.opts)
		for range 5 { // few stories begin before there are workers
			w.register(t)
		}
		t.Repeat(map[string]func(*rapid.T){
			"register":    w.register,
			"deregister":  w.deregister,
			"message":     w.message,
			"message2":    w.message,
			"message3":    w.message,
			"sync start":  w.syncStart,
			"sync batch":  w.syncBatch,
			"sync batch2": w.syncBatch,
			"sync end":    w.syncEnd,
			"whole sync":  w.wholeSync,
			"batch":       w.batch,
			"event":       w.event,
			"lease":       w.lease,
			"sweep":       func(t *rapid.T) { w.other.Sweep(rapid.IntRange(0, 500).Draw(t, "slots")) },
			"reload":      func(t *rapid.T) { w.other = reload(t, w.other, w.opts) },
			"lookup":      w.lookup,
			"p2p":         w.p2p,
			"":            w.compare,
		})
	})
}

// both applies a change to the two registries; they must give the same result.
func both[R any](t *rapid.T, w *twins, change func(*Registry) R) R {
	t.Helper()
	a, b := change(w.reg), change(w.other)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Fatalf("results differ:\n%s", diff)
	}
	return a
}

func (w *twins) register(t *rapid.T) {
	g := Registration{WorkerRef: drawWorker.Draw(t, "worker"), IP: "h", ByHeartbeat: rapid.Bool().Draw(t, "by heartbeat")}
	peer := rapid.SampledFrom([]string{"", "p", "q"}).Draw(t, "peer")
	if peer != "" {
		g.PeerInitURL = &peer
	}
	g.At = w.said(t)
	both(t, w, func(r *Registry) RegisterResult { return r.Register(g) })
	w.naive.register(g.WorkerRef, peer, g.ByHeartbeat, g.At)
}

func (w *twins) deregister(t *rapid.T) {
	ref := drawWorker.Draw(t, "worker")
	at := w.said(t)
	known := both(t, w, func(r *Registry) bool { return r.Deregister(ref, at) })
	if want := w.naive.worker(ref) != nil; known != want {
		t.Fatalf("deregister says known %v, want %v", known, want)
	}
	w.naive.deregister(ref, at)
}

// said is when a worker said something: mostly now, sometimes it has been held up.
func (w *twins) said(t *rapid.T) Micros {
	if rapid.IntRange(0, 9).Draw(t, "held up") == 0 {
		return w.now - rapid.SampledFrom([]Micros{second, 2 * second, 15 * second}).Draw(t, "for")
	}
	return w.now
}

// message says one message: mostly with the numbers that follow and to the same
// replica, sometimes with breaks.
func (w *twins) message(t *rapid.T) { w.messageOf(t, drawStream.Draw(t, "stream")) }

func (w *twins) messageOf(t *rapid.T, ref StreamRef) {
	numbered := rapid.IntRange(0, 9).Draw(t, "numbered") > 0
	session := SessionID{rapid.SampledFrom([]byte{1, 1, 1, 2, 3}).Draw(t, "session")}
	at := w.said(t)
	next := w.next[ref]
	var ops []naiveOp
	for range rapid.IntRange(1, 12).Draw(t, "ops") {
		if rapid.IntRange(0, 19).Draw(t, "break") == 0 {
			next = rapid.Int64Range(0, 5).Draw(t, "number")
		}
		ops = append(ops, naiveOp{drawKey.Draw(t, "key"), rapid.IntRange(0, 2).Draw(t, "evict") == 0, next})
		next++
	}
	w.next[ref] = next

	cut := func(i int) bool { return numbered && ops[i].number != ops[i-1].number+1 }
	a := apply(w.reg, ref, numbered, ops, session, at, cut)
	cuts := rapid.Uint32().Draw(t, "cuts")
	b := apply(w.other, ref, numbered, ops, session, at, func(i int) bool { return cut(i) || cuts&(1<<i) != 0 })
	if want := w.naive.message(ref, numbered, ops, session, at); a != want || b != want {
		t.Fatalf("%d operations late, %d of the other, naive %d", a, b, want)
	}
}

// apply cuts a message into runs where cut says so, and returns how many operations
// came too late.
func apply(r *Registry, ref StreamRef, numbered bool, ops []naiveOp, session SessionID, at Micros, cut func(int) bool) (late int) {
	run := Ops{Stream: ref, Session: session, Numbered: numbered, First: ops[0].number, At: at}
	for i, op := range ops {
		if i > 0 && cut(i) {
			late += r.ApplyOps(run).Late
			run = Ops{Stream: ref, Session: session, Numbered: numbered, First: op.number, At: at, Continues: true}
		}
		n := len(run.Keys)
		if op.evict {
			run.Evict = append(run.Evict, make(Bitmap, n/8+1-len(run.Evict))...)
			run.Evict[n/8] |= 1 << (n % 8)
		}
		run.Keys = append(run.Keys, op.key)
	}
	return late + r.ApplyOps(run).Late
}

func (w *twins) syncStart(t *rapid.T) {
	s := SyncStart{Stream: drawStream.Draw(t, "stream"), SyncID: drawSyncID.Draw(t, "id"), BatchCount: rapid.Int64Range(0, 3).Draw(t, "batches"), TotalKeys: rapid.Int64Range(0, 1).Draw(t, "total"), At: w.now}
	both(t, w, func(r *Registry) SyncStartResult { return r.SyncStart(s) })
	w.naive.syncStart(s.Stream, s.SyncID, s.BatchCount, s.TotalKeys)
}

func (w *twins) syncBatch(t *rapid.T) {
	b := SyncBatch{Stream: drawStream.Draw(t, "stream"), SyncID: drawSyncID.Draw(t, "id"), BatchID: rapid.Int64Range(0, 3).Draw(t, "batch"), Keys: drawKeys.Draw(t, "keys"), At: w.now}
	both(t, w, func(r *Registry) SyncResult { return r.SyncBatch(b) })
	w.naive.sync(b.Stream, b.SyncID, b.BatchID, b.Keys)
}

func (w *twins) syncEnd(t *rapid.T) {
	e := SyncEnd{Stream: drawStream.Draw(t, "stream"), SyncID: drawSyncID.Draw(t, "id"), At: w.now}
	both(t, w, func(r *Registry) SyncResult { return r.SyncEnd(e) })
	w.naive.sync(e.Stream, e.SyncID, -1, nil)
}

// wholeSync is a full sync as a worker sends it, with events between the batches.
func (w *twins) wholeSync(t *rapid.T) {
	const batches = 3
	ref := drawStream.Draw(t, "stream")
	w.syncs++
	id := fmt.Sprint("whole", w.syncs)
	total := rapid.Int64Range(0, 1).Draw(t, "total")
	both(t, w, func(r *Registry) SyncStartResult {
		return r.SyncStart(SyncStart{Stream: ref, SyncID: id, BatchCount: batches, TotalKeys: total, At: w.now})
	})
	w.naive.syncStart(ref, id, batches, total)
	for _, batch := range rapid.Permutation([]int64{0, 1, 2}).Draw(t, "order") {
		if rapid.Bool().Draw(t, "event") {
			w.messageOf(t, ref)
		}
		keys := drawKeys.Draw(t, "keys")
		both(t, w, func(r *Registry) SyncResult {
			return r.SyncBatch(SyncBatch{Stream: ref, SyncID: id, BatchID: batch, Keys: keys, At: w.now})
		})
		w.naive.sync(ref, id, batch, keys)
		w.compare(t)
	}
	both(t, w, func(r *Registry) SyncResult { return r.SyncEnd(SyncEnd{Stream: ref, SyncID: id, At: w.now}) })
	w.naive.sync(ref, id, -1, nil)
}

func (w *twins) batch(t *rapid.T) {
	id := SessionID{rapid.ByteRange(0, 2).Draw(t, "session")}
	number := rapid.Uint64Range(0, 9).Draw(t, "number")
	both(t, w, func(r *Registry) bool { return r.AcceptBatch(id, number, w.now) })
	if r := w.reg; r.AcceptBatch(id, number, w.now) || w.other.AcceptBatch(id, number, w.now) {
		t.Fatalf("batch %d was accepted twice", number)
	}
}

func (w *twins) event(t *rapid.T) {
	id := rapid.SampledFrom([]string{"e", "f", "g"}).Draw(t, "event")
	term := rapid.Uint64Range(0, 2).Draw(t, "term")
	text := func(err error) string { return fmt.Sprint(err) }
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0:
		both(t, w, func(r *Registry) EventCreateResult {
			return r.CreateEvent(EventCreate{ID: id, Kind: CommandMove, Dest: Target{"a", CPULocation}, Term: term, At: w.now})
		})
	case 1:
		workers := []WorkerRef{drawWorker.Draw(t, "worker")}
		both(t, w, func(r *Registry) string {
			return text(r.RunEvent(EventRun{ID: id, Term: term, Workers: workers, At: w.now}))
		})
	case 2:
		f := EventFinish{ID: id, Term: term, State: EventDone, At: w.now}
		if rapid.Bool().Draw(t, "confirm") {
			f.Confirm = &Confirmation{Key: drawKey.Draw(t, "key"), Ranks: []int64{0}}
		}
		both(t, w, func(r *Registry) string {
			return text(r.FinishEvent(f))
		})
	case 3:
		both(t, w, func(r *Registry) []string { return r.BeginTerm(TermBegin{Term: term, Node: "n", At: w.now}) })
	}
}

// lease lets time go on. No sync is given up and nobody is suspect: the scenarios tell
// of that.
func (w *twins) lease(t *rapid.T) {
	w.now += rapid.SampledFrom([]Micros{1, second, 6 * second}).Draw(t, "time")
	l := Lease{At: w.now, SuspectAfter: -1, SyncTimeout: -1, Heard: []Heard{{WorkerRef: drawWorker.Draw(t, "worker"), Any: w.now}}}
	w.reg.Lease(l)
	w.other.Lease(l)
}

func (w *twins) lookup(t *rapid.T) {
	keys := drawKeys.Draw(t, "keys")
	if diff := cmp.Diff(w.naive.lookup(keys), lookup(w.reg, "", keys)); diff != "" {
		t.Fatalf("lookup of %v: -naive +registry\n%s", keys, diff)
	}
	only := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "only")
	want := slices.DeleteFunc(w.naive.lookup(keys), func(h Hit) bool { return h.Instance != only })
	if diff := cmp.Diff(want, lookup(w.other, only, keys)); diff != "" {
		t.Fatalf("lookup of %v at %s: -naive +registry\n%s", keys, only, diff)
	}
}

func (w *twins) p2p(t *rapid.T) {
	keys := drawKeys.Draw(t, "keys")
	asker := WorkerRef{rapid.SampledFrom([]string{"a", "x"}).Draw(t, "asker"), rapid.Int64Range(0, 2).Draw(t, "rank")}
	want, wantFound := w.naive.p2p(asker, keys)
	for _, r := range []*Registry{w.reg, w.other} {
		if got, found := r.P2PLookup(asker, keys); got != want || found != wantFound {
			t.Fatalf("p2p of %v by %v: %v %v, naive %v %v", keys, asker, got, found, want, wantFound)
		}
	}
}

// compare runs after every step.
func (w *twins) compare(t *rapid.T) {
	if a, b := w.reg.Digest(), w.other.Digest(); a != b {
		sa, _ := w.reg.capture()
		sb, _ := w.other.capture()
		t.Fatalf("digests differ:\n%s", cmp.Diff(sa, sb))
	}
	var keys, gaps int64
	for _, i := range w.naive.instances {
		for _, n := range i.workers {
			info, ok := w.reg.Worker(n.ref)
			if !ok || len(info.Locations) != len(n.streams) {
				t.Fatalf("worker %v: %v, %d locations, naive %d", n.ref, ok, len(info.Locations), len(n.streams))
			}
			var syncing bool
			for j, s := range n.streams {
				want := LocationInfo{Location: s.location, Keys: int64(len(s.keys)), Gaps: s.gaps, Lossy: s.lossy, Numbered: len(s.numbers) > 0 && !s.unnumbered()}
				got := info.Locations[j]
				if want.Numbered {
					want.NextSeq = s.numbers[len(s.numbers)-1] + 1
				} else {
					got.NextSeq = 0
				}
				if got != want {
					t.Fatalf("stream %v %d: %+v, naive %+v", n.ref, j, got, want)
				}
				keys += want.Keys
				syncing = syncing || s.sync != nil
			}
			if owed, wanted := w.reg.SyncWanted(n.ref); !syncing && (owed.Reason != n.wanted || wanted != (owed.Reason != "")) || syncing && wanted {
				t.Fatalf("worker %v wants %+v, naive %q, syncing %v", n.ref, owed, n.wanted, syncing)
			}
		}
	}
	for _, keys := range [][]Key{{1, 2, 3, 4, 5, 6}, {3, 3, 1, 2}, {6, 5, 4}, {2}} {
		if diff := cmp.Diff(w.naive.lookup(keys), lookup(w.reg, "", keys)); diff != "" {
			t.Fatalf("lookup of %v: -naive +registry\n%s", keys, diff)
		}
		for _, asker := range []WorkerRef{{"x", 1}, {"a", 2}} {
			want, _ := w.naive.p2p(asker, keys)
			if got, _ := w.reg.P2PLookup(asker, keys); got != want {
				t.Fatalf("p2p of %v by %v: %v, naive %v", keys, asker, got, want)
			}
		}
	}
	gaps = w.naive.gaps
	if got := w.reg.Totals(); got.Keys != keys || got.Gaps != gaps || got.Late != w.naive.late || got.Instances != len(w.naive.instances) {
		t.Fatalf("totals %+v, naive %d keys, %d gaps, %d late, %d instances", got, keys, gaps, w.naive.late, len(w.naive.instances))
	}
}
