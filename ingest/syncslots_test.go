package ingest

import (
	"fmt"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// desk is slots with what the registry would say beside them.
type desk struct {
	*testing.T
	slots   syncSlots
	owed    map[string]registry.Owed // who owes a sync and has not begun
	syncing int
	looks   int
	t0      time.Time
}

func newDesk(t *testing.T, slots int, names ...string) *desk {
	d := &desk{T: t, slots: syncSlots{max: slots, stats: newCounters()}, owed: make(map[string]registry.Owed), t0: time.Unix(100_000, 0)}
	for _, name := range names {
		d.owed[name] = registry.Owed{Reason: "r"}
	}
	return d
}

func (d *desk) wants(w registry.WorkerRef) bool { _, ok := d.owed[w.Instance]; return ok }

// ask checks whether a worker is told to sync at a time after the beginning.
func (d *desk) ask(name string, after time.Duration, want bool) {
	d.Helper()
	count := func() int { d.looks++; return d.syncing }
	if got := d.slots.ask(ref(name), d.owed[name], d.t0.Add(after), count, d.wants); got != want {
		d.Errorf("%s is told to sync after %v: %v, want %v", name, after, got, want)
	}
}

// starts lets a worker start its sync, ends end it.
func (d *desk) starts(name string) { delete(d.owed, name); d.syncing++ }
func (d *desk) ends(string)        { d.syncing-- }

func TestSyncSlots_AtMostSoManyAtOnce(t *testing.T) {
	const s = time.Second
	d := newDesk(t, 2, "a", "b", "c")
	d.syncing = 2
	d.ask("a", 0, false)
	for range 100 { // and nobody counts them again for a second
		d.ask("a", fullTime-1, false)
	}
	if d.looks != 1 {
		t.Errorf("the syncing workers were counted %d times, want once", d.looks)
	}
	d.syncing = 1
	d.ask("a", s, true)
	d.ask("b", 4*s, false) // one runs, one is asked
	d.ask("a", 4*s, true)  // the same answer, full or not
	d.starts("a")
	d.ask("b", 5*s, false) // a is one of those that sync now
	d.ends("somebody")
	d.ask("b", 6*s, true)
	d.ask("c", 9*s, false)
	d.ends("a")
	d.ask("c", 10*s, true) // b is asked and has not started
}

// TestSyncSlots_Spaced: however many are free, one after the other.
func TestSyncSlots_Spaced(t *testing.T) {
	for slots, want := range map[int]time.Duration{1: 5 * time.Second, 4: 1250 * time.Millisecond, 50: 100 * time.Millisecond} {
		d := newDesk(t, slots, names("w", slots+1)...)
		given := 0
		for after := time.Duration(0); after < syncTime; after += time.Millisecond {
			name := fmt.Sprint("w", given)
			last := given
			if d.slots.ask(ref(name), d.owed[name], d.t0.Add(after), func() int { return 0 }, d.wants) {
				given++
			}
			if at := time.Duration(last) * want; (given > last) != (after == at) {
				t.Fatalf("%d slots: one is given at %v: %v, want at %v", slots, after, given > last, at)
			}
		}
		if given != slots {
			t.Errorf("%d of %d slots are given within %v", given, slots, syncTime)
		}
	}
}

// TestSyncSlots_InVain: who is asked and does not start loses its slot, and is asked
// again after pauses that grow; when it does start all is forgotten.
func TestSyncSlots_InVain(t *testing.T) {
	d := newDesk(t, 1, "a")
	at := time.Duration(0)
	for i, pause := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
		d.ask("a", at, true)
		d.ask("a", at+slotTime-1, true)
		at += slotTime
		d.ask("a", at, false)
		d.ask("a", at+pause-1, false)
		at += pause
		if n := d.slots.stats.syncsInVain.Load(); n != uint64(i+1) {
			t.Fatalf("%d times asked in vain, counted %d", i+1, n)
		}
	}
	d.ask("a", at, true)
	d.starts("a")
	d.slots.look(d.t0.Add(at+time.Second), d.wants)
	d.ends("a")
	d.owed["a"] = registry.Owed{} // again
	at += 10 * time.Second
	d.ask("a", at, true)
	at += slotTime
	d.slots.look(d.t0.Add(at), d.wants)
	d.ask("a", at+firstPause-1, false)
	d.ask("a", at+firstPause, true)
}

// TestSyncSlots_PastIsForgotten: what is remembered of workers goes when they have
// been calm and owe nothing.
func TestSyncSlots_PastIsForgotten(t *testing.T) {
	d := newDesk(t, 50, names("w", 50)...)
	for i := range 50 {
		d.ask(fmt.Sprint("w", i), time.Duration(i)*time.Second/10, true)
	}
	d.slots.look(d.t0.Add(5*time.Minute), d.wants)
	d.slots.look(d.t0.Add(time.Hour), d.wants)
	if n := len(d.slots.past); n != 50 || len(d.slots.asked) != 0 {
		t.Fatalf("%d are remembered, %d have slots, want 50 and none", n, len(d.slots.asked))
	}
	clear(d.owed)
	d.slots.look(d.t0.Add(time.Hour+sortEvery), d.wants)
	if n := len(d.slots.past); n != 0 {
		t.Errorf("%d are remembered that owe nothing", n)
	}
}

// TestSyncSlots_AgainAndAgain: a worker on a link that goes on to lose syncs as often as it
// loses, at first; then after pauses that grow. After a calm time all is as at first.
func TestSyncSlots_AgainAndAgain(t *testing.T) {
	d := newDesk(t, 4)
	at := time.Duration(0)
	round := func(pause time.Duration) {
		t.Helper()
		d.owed["a"] = registry.Owed{}
		if pause > 0 {
			d.ask("a", at+pause-1, false)
		}
		at += pause
		d.ask("a", at, true)
		at += time.Second
		d.starts("a")
		d.slots.look(d.t0.Add(at), d.wants)
		d.ends("a")
		at += 8 * time.Second
	}
	for range freeSyncs {
		round(0)
	}
	for _, pause := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
		round(pause - 8*time.Second) // from when it was seen to have started
	}
	at += calmTime
	for range freeSyncs {
		round(0)
	}
}

// TestSyncSlots_WhoCannotSync: workers that never start do not keep those that do from it.
func TestSyncSlots_WhoCannotSync(t *testing.T) {
	d := newDesk(t, 4, names("deaf", 200)...)
	d.owed["good"] = registry.Owed{}
	after := time.Duration(0)
	for ; after < time.Hour; after += 100 * time.Millisecond { // all the deaf have been asked once, and again
		d.slots.ask(ref(fmt.Sprint("deaf", int(after/(100*time.Millisecond))%200)), registry.Owed{}, d.t0.Add(after), func() int { return 0 }, d.wants)
		if asked, again := len(d.slots.asked), d.slots.askedAgain(); asked > 4 || again > 2 {
			t.Fatalf("after %v %d slots are given, %d of them to workers that did not start before", after, asked, again)
		}
	}
	begun := after
	for ; !d.slots.ask(ref("good"), registry.Owed{}, d.t0.Add(after), func() int { return 0 }, d.wants); after += time.Second {
		if after > begun+time.Minute {
			t.Fatal("a worker that can sync is not asked within a minute")
		}
	}
}

// TestSyncSlots_Failed: a worker whose syncs were given up is asked again after pauses
// that grow, by whatever leader.
func TestSyncSlots_Failed(t *testing.T) {
	for failures, pause := range map[int]time.Duration{0: 0, 1: 30 * time.Second, 2: time.Minute, 5: 8 * time.Minute, 6: 10 * time.Minute, 1000: 10 * time.Minute} {
		d := newDesk(t, 1)
		d.owed["a"] = registry.Owed{Failures: failures, FailedAt: micros(d.t0)}
		if pause > 0 {
			d.ask("a", 0, false)
			d.ask("a", pause-1, false)
		}
		d.ask("a", pause, true)
	}
	d := newDesk(t, 1, "b")
	d.owed["a"] = registry.Owed{Failures: 1, FailedAt: micros(d.t0)}
	d.ask("a", 0, false)
	d.ask("b", 0, true) // the other does not wait for that
}

// TestSync_GrowingPauses: an engine that dies in every sync is asked less and less often;
// one that comes through is asked at once when it loses something again. Over the sockets,
// with the leader's leases.
func TestSync_GrowingPauses(t *testing.T) {
	clock := new(turned)
	r := start(t, func(o *Options) { o.Now = clock.now })
	e := r.engines("i")[0]
	e.register()
	e.admit(1, 2, 3)
	loss := func() {
		e.operations(lmcache.Evict, true, 1)
		e.admit(1)
		e.taken()
	}
	loss()
	wait := func() (waited time.Duration) {
		t.Helper()
		for ; !e.beat(); waited += 5 * time.Second {
			if clock.turn(5 * time.Second); waited > time.Hour {
				t.Fatal("not asked within an hour")
			}
		}
		return waited
	}
	if waited := wait(); waited != 0 {
		t.Fatalf("asked %v after the loss, want at once", waited)
	}
	for i, pause := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
		if _, accepted := e.begin(); !accepted {
			t.Fatal("not accepted")
		}
		e.beat() // it goes on, and is told nothing
		clock.turn(registrySyncTimeout + time.Second)
		r.lease(t, clock)
		owed, wanted := r.log.Registry().SyncWanted(ref("i"))
		if !wanted || owed.Failures != i+1 {
			t.Fatalf("after %d syncs given up: %+v, %v", i+1, owed, wanted)
		}
		if st := e.status(); !st.CanExitFreeze || st.IsComplete {
			t.Errorf("status of a sync that was given up: %+v, want to be let go", st)
		}
		if waited := wait(); waited < pause-5*time.Second || waited > pause+5*time.Second {
			t.Errorf("after %d syncs given up asked after %v, want %v", i+1, waited, pause)
		}
	}
	if e.sync() != 1 {
		t.Fatal("the sync does not end")
	}
	e.holds("after a sync at last")
	clock.turn(syncTime)
	loss()
	if waited := wait(); waited != 0 {
		t.Errorf("after a good sync and a new loss asked after %v, want at once", waited)
	}
}

// TestSync_Unrepaired: a worker that sends no heartbeats cannot be asked: it takes no slot
// and shows as unrepaired, and with its first heartbeat it is asked.
func TestSync_Unrepaired(t *testing.T) {
	r := start(t, func(o *Options) { o.MaxSyncs = 1 })
	both := r.engines("i", "j")
	e, other := both[0], both[1]
	e.register()
	e.admit(1, 2, 3)
	e.operations(lmcache.Evict, true, 1)
	e.admit(4)
	e.taken()
	if info, _ := r.log.Registry().Worker(ref("i")); info.SyncState != registry.SyncUnrepaired || r.log.Registry().Totals().UnrepairedWorkers != 1 {
		t.Errorf("state %s, %+v, want unrepaired", info.SyncState, r.log.Registry().Totals())
	}
	if !other.beat() {
		t.Error("the unrepaired one has the slot")
	}
	if polls := other.sync(); polls != 1 {
		t.Errorf("the other's sync ends at poll %d, want the first", polls)
	}
	eventually(t, "it is asked with its first heartbeat", e.beat)
	if polls := e.sync(); polls != 1 {
		t.Errorf("its sync ends at poll %d, want the first", polls)
	}
	e.holds("after its sync")
}

// TestSync_GivenUpLetsItsWorkerGo: a sync dies of too many evicts; its engine, which is
// frozen and asks how it stands, is let go at once and not after five minutes.
func TestSync_GivenUpLetsItsWorkerGo(t *testing.T) {
	r := start(t, func(o *Options) {
		o.Log.(*memLog).FSM = smallFSM(registry.Options{MaxSyncEvicts: 3})
	})
	e := r.engines("i")[0]
	e.register()
	e.admit(1, 2, 3, 4, 5, 6, 7)
	e.operations(lmcache.Evict, true, 1)
	e.admit(8)
	e.taken()
	if !e.beat() {
		t.Fatal("not asked")
	}
	if st := e.status(); !st.CanExitFreeze || st.IsComplete {
		t.Errorf("asked, and not started: %+v", st)
	}
	batches, _ := e.begin()
	if st := e.status(); st.CanExitFreeze || len(st.MissingBatches) != len(batches) {
		t.Errorf("in mid-sync: %+v, want to stay frozen", st)
	}
	e.evict(2, 3, 4, 5)
	e.taken()
	if st := e.status(); !st.CanExitFreeze || st.IsComplete {
		t.Errorf("given up: %+v, want to be let go", st)
	}
	if counts := r.log.Registry().SyncCounts(); counts.Started != 1 || counts.Failed != 1 {
		t.Errorf("counted %+v", counts)
	}
}
