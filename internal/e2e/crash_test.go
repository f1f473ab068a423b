package e2e

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/registry"
)

// crashArgs make rounds quick: short chunks, full syncs side by side, snapshots often
// enough to fall into a round.
var crashArgs = []string{"--chunk-size", strconv.Itoa(crashChunk), "--hash", "builtin@0", "--max-syncs", "32",
	"--worker-deadline", "2s", "--log-bytes-snapshot", strconv.Itoa(1 << 20)}

// crashRun is one replica that is killed again and again on the same data directory.
type crashRun struct {
	t    *testing.T
	r    *Replica
	c    *client
	rng  *rand.Rand
	seen []keptPrompt // found by a lookup before some kill
}

func newCrashRun(t *testing.T) *crashRun {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := Start(t, Options{Args: crashArgs})
	return &crashRun{t: t, r: r, c: newClient(t, r), rng: rand.New(rand.NewPCG(seed, 0))}
}

// killing says how a round ends.
type killing struct {
	drain      bool // the load pauses and all it said is visible before the kill
	snapshot   bool // the kill comes when a snapshot is being written
	startKills int  // and so many more while the replica starts again
}

// TestCrash_UnderLoad kills a replica at a random moment of a load of admits, evicts,
// commands and registrations.
func TestCrash_UnderLoad(t *testing.T) {
	rounds := 6
	switch {
	case testing.Short():
		rounds = 2
	case raceEnabled: // slow
		rounds = 4
	}
	run := newCrashRun(t)
	for i := range rounds {
		run.round(fmt.Sprintf("r%d", i), killing{})
	}
}

// TestCrash_AfterDrain: when nothing was on its way, nothing is lost and nobody is asked
// for anything.
func TestCrash_AfterDrain(t *testing.T) {
	run := newCrashRun(t)
	run.round("calm", killing{drain: true})
	run.round("again", killing{drain: true, startKills: 1})
}

// TestCrash_WhileSnapshotting kills a replica with a snapshot half written.
func TestCrash_WhileSnapshotting(t *testing.T) {
	run := newCrashRun(t)
	for i := range 2 {
		run.round(fmt.Sprintf("snap%d", i), killing{snapshot: true})
	}
}

// TestCrash_WhileStarting kills a replica under load and then three times more before
// it is up.
func TestCrash_WhileStarting(t *testing.T) {
	run := newCrashRun(t)
	run.round("start", killing{startKills: 3})
}

// round loads the replica, kills it, starts it again and looks what is left.
func (run *crashRun) round(name string, how killing) {
	t := run.t
	t.Helper()
	began := run.c.mustDigest(t)
	l := newCrashLoad(t, run.r, run.c, name, run.rng.Uint64())
	stopped := false
	defer func() { // of a round that fails half-way
		if !stopped {
			l.stop()
		}
	}()
	l.start(run.rng.Uint64())
	l.runs()
	run.kill(l, how)
	l.stopAsking()
	l.asking.Wait()
	for range how.startKills {
		run.r.launch()
		run.randomMoment(250 * time.Millisecond)
		run.r.Kill()
	}
	run.r.Restart()
	run.seen = append(run.seen, l.seen...)
	if left := run.unfinishedSnapshots(); len(left) > 0 {
		t.Errorf("%s: unfinished snapshots are left after the start: %q", name, left)
	}

	awaitHeartbeats(t, l.workers())
	l.stopChurn()
	l.churn.Wait()
	sayMore(t, l.workers(), run.rng)
	l.drained("all that was said after the restart")
	if how.drain { // elsewhere those with losses have had heartbeats until they were synced
		awaitHeartbeats(t, l.workers())
	}

	run.promptsFound()
	cut := run.commandsKept(l)
	run.registrationsKept(l)
	gaps := run.syncsAskedRightly(l, how)
	l.stop()
	stopped = true

	digest := run.c.mustDigest(t)
	if code := run.r.Terminate(); code != 0 {
		t.Fatalf("%s: SIGTERM ended the replica with exit code %d, want 0", name, code)
	}
	log := openOffline(t, run.r.DataDir)
	state := log.sameAsReplays(t, digest, run.rng)
	run.lossesProven(l, log.loggedOps(t, began.Index), state, gaps)
	t.Logf("%s: %d prompts, %d commands (under way at the kill: %v), %d registrations, %d operations, %d workers with losses, %d full syncs; log %d to %d, %d snapshots",
		name, len(l.seen), len(l.commands), cut, len(l.registered), l.busy.Stats().Sent.Operations, len(gaps), syncsOf(l.workers()), log.first, log.last, len(log.snapshots))
	log.close(t)
	run.r.Restart()
}

// kill brings the replica to the moment that how names, and kills it.
func (run *crashRun) kill(l *crashLoad, how killing) {
	t := run.t
	t.Helper()
	switch {
	case how.drain:
		l.stopAsking()
		l.stopChurn()
		l.asking.Wait()
		l.churn.Wait()
		l.drained("all that was said before the kill")
	case how.snapshot:
		if status, answer, err := run.c.post("/admin/snapshot", nil); err != nil || status != 200 {
			t.Fatalf("POST /admin/snapshot is answered %d %s: %v", status, answer, err)
		}
		done := make(chan struct{})
		// Ends with the answer, or with the process.
		go func() {
			defer close(done)
			for run.r.Running() {
				if _, _, err := run.c.post("/admin/snapshot", nil); err != nil {
					return
				}
			}
		}()
		defer func() { <-done }()
		deadline := time.Now().Add(20 * time.Second)
		for len(run.unfinishedSnapshots()) == 0 { // no pause: they last for milliseconds
			if time.Now().After(deadline) {
				t.Fatal("no snapshot is written within 20s of asking for one after the other")
			}
		}
		run.r.Kill()
		t.Logf("killed while a snapshot was written; left behind: %d", len(run.unfinishedSnapshots()))
		return
	default:
		run.randomMoment(400 * time.Millisecond)
	}
	run.r.Kill()
}

// randomMoment lets up to limit pass.
func (run *crashRun) randomMoment(limit time.Duration) {
	<-time.After(time.Duration(run.rng.Int64N(int64(limit))))
}

func (run *crashRun) unfinishedSnapshots() []string {
	left, err := filepath.Glob(filepath.Join(run.r.DataDir, "snapshots", "*.tmp"))
	if err != nil {
		run.t.Fatal(err)
	}
	return left
}

// promptsFound: what a lookup has shown before a kill, it shows after it.
func (run *crashRun) promptsFound() {
	run.t.Helper()
	for i, p := range run.seen {
		hits, err := run.c.lookup(p.tokens)
		if err != nil {
			run.t.Fatal(err)
		}
		if hits[p.instance] != len(p.tokens) {
			run.t.Errorf("prompt %d of %d: was found on %q before a kill, now a lookup answers %v", i, len(run.seen), p.instance, hits)
		}
	}
}

// commandsKept: an answered command is in the log as it was answered, and is not carried
// out again; one without an answer came to an end. No command reached its worker twice.
// It returns what became of those without an answer.
func (run *crashRun) commandsKept(l *crashLoad) map[string]int {
	t := run.t
	t.Helper()
	got, cut := l.deliveries(), map[string]int{}
	repeat := 0
	for _, s := range l.commands {
		e, known, err := run.c.event(s.id)
		if err != nil {
			t.Fatal(err)
		}
		n := s.delivered(got)
		if s.status == 0 {
			cut[fmt.Sprintf("%q, delivered %d", e.Status, n)]++
		}
		switch {
		case n > 1:
			t.Errorf("%s %s reached worker %s %d times", s.path, s.id, s.worker, n)
		case s.status != 0 && (!known || e.Status != s.state || e.NumTokens != s.tokens):
			t.Errorf("%s %s was answered %d, %s with %d tokens; after the restart: known %v, %+v", s.path, s.id, s.status, s.state, s.tokens, known, e)
		case s.status == 200 && n != 1:
			t.Errorf("%s %s was answered 200 and reached worker %s %d times", s.path, s.id, s.worker, n)
		case s.status == 0 && known && e.Status != "done" && e.Status != "interrupted":
			t.Errorf("%s %s was under way at the kill and is %q now, want done, interrupted or unknown", s.path, s.id, e.Status)
		case s.status == 0 && !known && n != 0:
			t.Errorf("%s %s reached worker %s and is not in the log", s.path, s.id, s.worker)
		}
		if !known || repeat >= 8 && s.status != 0 {
			continue
		}
		// Sent again it is answered from the log.
		repeat++
		status, answer, err := run.c.post(s.path, s.body)
		if err != nil {
			t.Fatal(err)
		}
		if wantOK := e.Status == "done"; wantOK != (status == 200) {
			t.Errorf("%s %s is %s; sent again it is answered %d: %s", s.path, s.id, e.Status, status, answer)
		}
	}
	for id, n := range l.deliveries() {
		if n != got[id] {
			t.Errorf("%s reached its worker again after the restart", id)
		}
	}
	return cut
}

// registrationsKept: who was told that it is registered is, at the same address.
func (run *crashRun) registrationsKept(l *crashLoad) {
	run.t.Helper()
	views, err := run.c.workers()
	if err != nil {
		run.t.Fatal(err)
	}
	for _, w := range l.registered {
		v, known := views[w.instance+"/0"]
		if !known || v.IP != "127.0.0.1" || v.Port != w.port {
			run.t.Errorf("worker %s/0 was registered at port %d before the kill; now: known %v, %s:%d", w.instance, w.port, known, v.IP, v.Port)
		}
	}
	for _, w := range l.workers() {
		if v, known := views[w.String()]; !known || v.Port != w.Port() {
			run.t.Errorf("worker %s at port %d: known %v at port %d", w, w.Port(), known, v.Port)
		}
	}
}

// syncsAskedRightly: only a worker whose CPU stream shows a gap is asked for a full
// sync, and none that had nothing on its way. It returns who has a gap anywhere.
func (run *crashRun) syncsAskedRightly(l *crashLoad, how killing) map[string]bool {
	t := run.t
	t.Helper()
	views, err := run.c.workers()
	if err != nil {
		t.Fatal(err)
	}
	gaps := map[string]bool{}
	cpuGaps := 0
	for _, w := range l.workers() {
		v := views[w.String()]
		_, gap, _ := v.at(simworker.LocalCPU)
		_, diskGap, _ := v.at(simworker.LocalDisk)
		if gap > 0 {
			cpuGaps++
		}
		if gap+diskGap > 0 {
			gaps[w.String()] = true
		}
		if asked := v.SyncState != registry.SyncNone || w.Stats().Syncs > 0; asked && gap == 0 {
			t.Errorf("worker %s lost nothing and was asked for a full sync (state %s, %d syncs)", w, v.SyncState, w.Stats().Syncs)
		}
		if how.startKills == 0 && w.Stats().Syncs > uint64(gap) {
			t.Errorf("worker %s has %d gaps and was asked for %d full syncs", w, gap, w.Stats().Syncs)
		}
	}
	for _, w := range l.idle.Workers() {
		if gaps[w.String()] || w.Stats().Syncs > 0 {
			t.Errorf("worker %s was idle at the kill; it has gaps: %v, full syncs: %d", w, gaps[w.String()], w.Stats().Syncs)
		}
	}
	if how.drain && len(gaps) > 0 {
		t.Errorf("all was visible before the kill, and workers have gaps: %v", gaps)
	}
	asked, err := run.c.metric("kvctrl_ingest_syncs_asked_total")
	if err != nil {
		t.Fatal(err)
	}
	if cpuGaps == 0 && asked > 0 {
		t.Errorf("full syncs asked since the restart: %v, and nobody lost anything", asked)
	}
	return gaps
}

// lossesProven holds the gaps against the log: who has one did lose operations between
// its socket and the log, and who has none has every one of them there, once, and
// exactly the chunks it holds.
func (run *crashRun) lossesProven(l *crashLoad, logged map[string]uint64, state *registry.Registry, gaps map[string]bool) {
	t := run.t
	t.Helper()
	for _, w := range l.workers() {
		name, sent := w.String(), w.Stats().Sent.Operations
		switch {
		case logged[name] > sent:
			t.Errorf("worker %s has sent %d operations, the log has %d", name, sent, logged[name])
		case gaps[name] && logged[name] == sent:
			t.Errorf("worker %s shows a gap, and all its %d operations are in the log", name, sent)
		case !gaps[name] && logged[name] != sent:
			t.Errorf("worker %s has sent %d operations, the log has %d, and there is no gap", name, sent, logged[name])
		}
		if gaps[name] {
			continue
		}
		for _, location := range w.Locations() {
			ref := registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: w.Instance(), Worker: w.Rank()}, Location: location}
			for _, key := range w.Holds(location) {
				if !holds(state, registry.Key(key), ref) {
					t.Errorf("worker %s holds chunk %x in %s, the state does not know", name, key, location)
					break
				}
			}
		}
	}
}

func holds(state *registry.Registry, key registry.Key, by registry.StreamRef) bool {
	for _, ref := range state.Holders(key) {
		if ref == by {
			return true
		}
	}
	return false
}
