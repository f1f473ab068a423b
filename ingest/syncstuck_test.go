package ingest

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// TestSync_Stuck: an engine dies in mid-sync, at any point. What was known of it stays,
// its events count, others sync meanwhile; after the timeout it owes a sync again, is
// asked after a pause, and the next one makes it whole.
func TestSync_Stuck(t *testing.T) {
	for name, batches := range map[string]int{"after the start": 0, "after a batch": 1, "before the last batch": 3} {
		t.Run(name, func(t *testing.T) {
			clock := new(turned)
			r := start(t, func(o *Options) { o.Now, o.MaxSyncs = clock.now, 2 })
			all := r.engines("i", "j")
			e, other := all[0], all[1]
			for _, x := range all {
				x.register()
				x.admit(1, 2, 3, 4, 5, 6, 7)
				x.operations(lmcache.Evict, true, 2)
				x.admit(8)
				x.taken()
			}
			if !e.beat() {
				t.Fatal("not asked for a sync")
			}
			announced, accepted := e.begin()
			if !accepted || len(announced) != 4 {
				t.Fatalf("start of %d batches accepted: %v", len(announced), accepted)
			}
			for i := range batches {
				e.say(e.batchMsg(i, announced[i]))
			}
			e.admit(9) // it goes on as if nothing had been
			e.evict(1)
			e.taken()
			if info, _ := r.log.Registry().Worker(ref("i")); info.SyncState != registry.SyncSyncing || info.Keys != 8 {
				t.Fatalf("state %s with %d keys, want syncing with the 8 known by events: 2 to 9", info.SyncState, info.Keys)
			}
			clock.turn(syncTime)
			if !other.beat() || other.sync() != 1 {
				t.Error("the other engine does not get its sync")
			}
			other.holds("after its sync")

			clock.turn(registrySyncTimeout - 10*time.Second)
			r.lease(t, clock)
			if info, _ := r.log.Registry().Worker(ref("i")); info.SyncState != registry.SyncSyncing {
				t.Fatalf("before the timeout the state is %s", info.SyncState)
			}
			clock.turn(20 * time.Second)
			r.lease(t, clock)
			info, _ := r.log.Registry().Worker(ref("i"))
			if info.SyncState != registry.SyncWanted || info.Keys != 8 || !info.Locations[0].Lossy {
				t.Fatalf("given up: state %s, %d keys, %+v, want wanted, with what was known", info.SyncState, info.Keys, info.Locations)
			}
			if st := e.status(); st.IsComplete || !st.CanExitFreeze {
				t.Errorf("the status of a sync that was given up is %+v, want to be let go", st)
			}
			e.say(e.batchMsg(3, announced[3]), e.endMsg(8)) // late: it changes nothing
			e.taken()
			if now, _ := r.log.Registry().Worker(ref("i")); now.Keys != 8 || now.SyncState != registry.SyncWanted {
				t.Errorf("after late words of it: state %s, %d keys", now.SyncState, now.Keys)
			}
			clock.turn(time.Hour) // whatever the pause is
			if !e.beat() || e.sync() != 1 {
				t.Fatal("the engine is not asked again, or the second sync does not end")
			}
			e.holds("after the second sync")
		})
	}
}

const registrySyncTimeout = time.Duration(registry.DefaultSyncTimeout) * time.Microsecond

// TestSync_Liars: a worker that says wrong things of its sync hurts itself at most. What
// is known after it is what it has said and no more, nobody else loses anything, memory
// follows what was sent, and a true sync makes it whole.
func TestSync_Liars(t *testing.T) {
	const huge = int64(1) << 62
	for name, tt := range map[string]struct {
		total, count int64
		refused      bool
		batches      map[int64][]lmcache.Key
		ended        int64 // keys, as its end says
		keys         int64 // known after it; 3 were before
		done         bool
	}{
		"fewer keys announced":    {total: 0, count: 1, batches: map[int64][]lmcache.Key{0: {4, 5}}, ended: 2, keys: 2, done: true},
		"a host of keys":          {total: huge, count: 1, batches: map[int64][]lmcache.Key{0: {4, 5}}, ended: 2, keys: 2, done: true},
		"less than none":          {total: -1, count: 1, batches: map[int64][]lmcache.Key{0: {4, 5}}, ended: -huge, keys: 2, done: true},
		"another sum in the end":  {total: 2, count: 1, batches: map[int64][]lmcache.Key{0: {4, 5}}, ended: huge, keys: 2, done: true},
		"no batches, some come":   {total: 2, count: 0, batches: map[int64][]lmcache.Key{0: {4, 5}}, ended: 2, keys: 2, done: true},
		"no batches":              {total: 2, count: 0, ended: 2, keys: 0, done: true},
		"more batches than said":  {total: 2, count: 1, batches: map[int64][]lmcache.Key{0: {4}, 1: {5}, -1: {6}, huge: {7}}, ended: 2, keys: 4, done: true},
		"fewer batches than said": {total: 2, count: 3, batches: map[int64][]lmcache.Key{0: {4}, 2: {5}}, ended: 2, keys: 3},
		"a million batches":       {total: 2, count: registry.MaxSyncBatches, batches: map[int64][]lmcache.Key{0: {4}, registry.MaxSyncBatches - 1: {5}}, ended: 2, keys: 3},
		"too many batches":        {total: 2, count: registry.MaxSyncBatches + 1, refused: true, batches: map[int64][]lmcache.Key{0: {4}}, ended: 1, keys: 3},
		"a host of batches":       {total: 2, count: huge, refused: true, batches: map[int64][]lmcache.Key{0: {4}}, ended: 1, keys: 3},
		"less than no batches":    {total: 2, count: -1, refused: true, batches: map[int64][]lmcache.Key{0: {4}}, ended: 1, keys: 3},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, nil)
			all := r.engines("liar", "other")
			e, other := all[0], all[1]
			for _, x := range all {
				x.register()
				x.admit(1, 2, 3)
			}
			e.taken()
			e.id++
			ret, ok := e.ask.ask(&lmcache.FullSyncStartMsg{InstanceID: "liar", WorkerID: 1, Location: registry.CPULocation, SyncID: e.syncID(),
				TotalKeys: tt.total, BatchCount: tt.count}).(*lmcache.FullSyncStartRetMsg)
			if !ok || ret.Accepted == tt.refused {
				t.Fatalf("start: %+v, want refused: %v", ret, tt.refused)
			}
			for id, keys := range tt.batches {
				m := e.batchMsg(0, keys)
				m.BatchID = id
				e.say(m)
			}
			m := e.endMsg(0)
			m.ActualTotalKeys = tt.ended
			e.say(m)
			e.taken()
			if n := r.keys("liar"); n != tt.keys {
				t.Errorf("%d keys are known of it, want %d", n, tt.keys)
			}
			st := e.status()
			if st.IsComplete != tt.done || len(st.MissingBatches) > registry.MaxMissingListed {
				t.Errorf("complete: %v with %d missing batches listed, want %v", st.IsComplete, len(st.MissingBatches), tt.done)
			}
			e.admit(10)
			other.evict(1)
			other.holds("after the other's lies")
			if e.sync() != 1 {
				t.Fatal("a true sync does not end")
			}
			e.holds("after a true sync")
		})
	}
}

// TestSync_LiesTakeNoMemory: workers that announce as many batches as they may, in as
// many locations as they may, and send the last one each.
func TestSync_LiesTakeNoMemory(t *testing.T) {
	const workers, locations = 20, 64 // registry.Options.MaxLocations
	r := start(t, nil)
	all := r.engines(names("w", workers)...)
	for _, e := range all {
		e.register()
	}
	before := heap()
	for _, e := range all {
		for l := range locations {
			e.id++
			start := e.startMsg(1, registry.MaxSyncBatches)
			start.Location, start.TotalKeys = fmt.Sprint("location_", l), 1<<62
			if ret := e.ask.ask(start).(*lmcache.FullSyncStartRetMsg); !ret.Accepted {
				t.Fatalf("refused: %s", *ret.ErrorMsg)
			}
			b := e.batchMsg(registry.MaxSyncBatches-1, []lmcache.Key{lmcache.Key(l)})
			b.Location = start.Location
			e.say(b)
			if st := e.status(); len(st.MissingBatches) != registry.MaxMissingListed {
				t.Fatalf("%d batches are listed as missing, want %d", len(st.MissingBatches), registry.MaxMissingListed)
			}
		}
		e.taken()
	}
	each := (heap() - before) / (workers * locations)
	t.Logf("%d bytes a sync that was announced and not made", each)
	if each > 8<<10 {
		t.Errorf("each takes %d bytes, want at most 8 KiB", each)
	}
	if n := r.log.Registry().Totals().SyncingWorkers; n != workers {
		t.Errorf("%d workers sync, want %d", n, workers)
	}
}

func names(prefix string, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint(prefix, i))
	}
	return out
}

// heap is the live heap in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what the first one's finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestSync_AnyOrder: batches in any order, some twice or three times, with those of a
// sync that is no more and of one that never was in between, and with events of the
// engine, which go on. What is known in the end is what the engine holds.
func TestSync_AnyOrder(t *testing.T) {
	const rounds = 60
	r := start(t, nil)
	e := r.engines("i")[0]
	e.register()
	e.admit(1, 2, 3)
	for seed := range uint64(rounds) {
		rng := seeded(seed)
		e.batchKeys = 1 + rng.IntN(4)
		if rng.IntN(3) == 0 {
			e.operations(lmcache.OpKind(rng.IntN(2)), true, lmcache.Key(rng.IntN(40))) // lost, before the list
		}
		// A sync that another one replaces.
		dead, _ := e.begin()
		late := e.batchMsg(rng.IntN(len(dead)), []lmcache.Key{lmcache.Key(1000 + seed)})
		if rng.IntN(2) == 0 {
			e.say(late)
		}
		batches, accepted := e.begin()
		if !accepted {
			t.Fatal("a new id is refused")
		}
		var words []lmcache.Message
		for i, keys := range batches {
			for range 1 + rng.IntN(3) {
				words = append(words, e.batchMsg(i, keys))
			}
		}
		e.id++
		never := e.batchMsg(0, []lmcache.Key{2000})
		e.id--
		words = append(words, late, never, e.endMsg(len(e.held)))
		rng.Shuffle(len(words), func(i, j int) { words[i], words[j] = words[j], words[i] })
		for _, m := range words {
			e.say(m)
			if key := lmcache.Key(rng.IntN(40)); rng.IntN(2) == 0 {
				e.operations(lmcache.OpKind(rng.IntN(2)), false, key)
			}
		}
		e.holds(fmt.Sprint("seed ", seed))
		if st := e.status(); !st.IsComplete || !st.CanExitFreeze {
			t.Errorf("seed %d: %+v, want complete", seed, st)
		}
		if t.Failed() {
			return
		}
		e.say(slices.Clone(words)...) // all of it once more: the sync is over
		e.holds(fmt.Sprint("seed ", seed, ", after all was said again"))
	}
}
