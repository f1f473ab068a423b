package e2e

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/registry"
)

// settle ends the load and looks whether the cluster kept what it promises. All replicas
// must run. When drained is set nothing was on its way to a replica that ended, and no
// worker may show a loss.
func (l *clusterLoad) settle(drained bool) {
	t := l.t
	t.Helper()
	l.stop()
	l.c.Await()
	awaitHeartbeats(t, l.workers()) // those with losses that show are asked for a full sync
	sayMore(t, l.workers(), l.random(3))
	l.shownEverywhere("all that was said")
	awaitHeartbeats(t, l.workers())
	l.shownEverywhere("all that was said, and what was made good")
	digest := l.c.Converge()

	l.promptsFound()
	commands := l.commandsKept()
	l.registrationsKept()
	gaps := l.syncsAskedRightly(drained)
	began := time.Now()
	checked := l.registers.check(t, registerModel) + l.commanded.check(t, commandModel)
	l.report(commands, gaps, checked, time.Since(began))
	l.stopFleets()
	l.mu.Lock()
	for _, err := range l.faults {
		t.Error(err)
	}
	l.mu.Unlock()
	l.statesHold(digest, gaps)
}

// promptsFound: every replica finds what any replica has ever found.
func (l *clusterLoad) promptsFound() {
	l.t.Helper()
	for i := range l.at {
		for _, k := range l.prompts.everSeen() {
			hits, err := l.at[i].lookup(k.tokens)
			if err != nil {
				l.t.Fatal(err)
			}
			if hits[k.instance] != len(k.tokens) {
				l.t.Errorf("a prompt was found on %s by some replica, and replica %d answers %v in the end", k.instance, i, hits)
			}
		}
	}
}

// registrationsKept: who was told that it is registered is, on every replica, at the same
// address.
func (l *clusterLoad) registrationsKept() {
	l.t.Helper()
	for i, at := range l.at {
		views, err := at.workers()
		if err != nil {
			l.t.Fatal(err)
		}
		for _, w := range l.registered {
			if v, known := views[w.instance+"/0"]; !known || v.IP != l.c.Host() || v.Port != w.port {
				l.t.Errorf("worker %s/0 was registered at port %d; replica %d: known %v, %s:%d", w.instance, w.port, i, known, v.IP, v.Port)
			}
		}
		for _, w := range l.workers() {
			if v, known := views[w.String()]; !known || v.Port != w.Port() {
				l.t.Errorf("worker %s at port %d: replica %d: known %v at port %d", w, w.Port(), i, known, v.Port)
			}
		}
	}
}

// losesNothing: so far no worker shows a gap whose replica's process has not ended.
func (l *clusterLoad) losesNothing() {
	l.t.Helper()
	views, err := l.at[l.c.number(l.c.Leader())].workers()
	if err != nil {
		l.t.Fatal(err)
	}
	l.losses(views, false)
}

// losses returns the workers that show a gap. One may only when the replica that it talks
// to has ended under load: what PUSH has on its way then is gone.
func (l *clusterLoad) losses(views map[string]workerView, drained bool) (gaps map[string]bool) {
	l.t.Helper()
	gaps = map[string]bool{}
	for _, w := range l.workers() {
		_, gap, lossy := views[w.String()].at(simworker.LocalCPU)
		_, diskGap, diskLossy := views[w.String()].at(simworker.LocalDisk)
		if gap+diskGap == 0 && !lossy && !diskLossy {
			continue
		}
		gaps[w.String()] = true
		if home := l.homes[w.String()]; drained || !l.lost(home) {
			l.t.Errorf("worker %s at replica %d shows losses (gaps %d and %d, lossy %v and %v), and nothing was on its way to a process that ended",
				w, home, gap, diskGap, lossy, diskLossy)
		}
	}
	return gaps
}

// syncsAskedRightly: only a worker that shows a gap is asked for a full sync, and not more
// often than it has gaps. It returns who has any.
func (l *clusterLoad) syncsAskedRightly(drained bool) (gaps map[string]bool) {
	t := l.t
	t.Helper()
	views, err := l.at[0].workers()
	if err != nil {
		t.Fatal(err)
	}
	gaps = l.losses(views, drained)
	for _, w := range l.workers() {
		v := views[w.String()]
		_, gap, _ := v.at(simworker.LocalCPU)
		if asked := w.Stats().Syncs; asked > uint64(gap) {
			t.Errorf("worker %s lost something %d times and was asked for %d full syncs (state %s)", w, gap, asked, v.SyncState)
		}
	}
	for _, w := range l.idle.Workers() {
		if gaps[w.String()] || w.Stats().Syncs > 0 {
			t.Errorf("worker %s was idle; it has gaps: %v, full syncs: %d", w, gaps[w.String()], w.Stats().Syncs)
		}
	}
	return gaps
}

// statesHold ends all replicas, as an operator does, and looks into what one of them has on
// disk: it has the digest that all told, and every chunk that the workers hold.
func (l *clusterLoad) statesHold(told Digest, gaps map[string]bool) {
	t := l.t
	t.Helper()
	ended := make([]int, len(l.c.replicas))
	for i, r := range l.c.replicas {
		r.ExpectDown()
		ended[i] = r.Terminate()
	}
	for i, code := range ended {
		if code != 0 {
			t.Errorf("SIGTERM ended replica %d with exit code %d, want 0", i, code)
		}
	}
	for _, r := range l.c.replicas {
		wantNoFaults(t, r)
	}
	i := l.random(6).IntN(len(l.at))
	log := openOffline(t, l.at[i].r.DataDir)
	defer log.close(t)
	rng := rand.New(rand.NewPCG(l.seed, 7))
	state := log.replay(t, told.Index, true, func() int { return 1 + rng.IntN(64) })
	if got := state.Digest().String(); got != told.Digest {
		t.Errorf("the disk of replica %d has digest %s at index %d, all replicas said %s", i, got, told.Index, told.Digest)
	}
	for _, w := range l.workers() {
		for _, location := range w.Locations() {
			if location != simworker.LocalCPU && gaps[w.String()] {
				continue // no full sync makes that good
			}
			ref := registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: w.Instance(), Worker: w.Rank()}, Location: location}
			for _, key := range w.Holds(location) {
				if !holds(state, registry.Key(key), ref) {
					t.Errorf("worker %s holds chunk %x in %s, replica %d does not know", w, key, location, i)
					break
				}
			}
		}
	}
}

// report prints what the load reached, and fails a test whose load fell short.
func (l *clusterLoad) report(commands map[string]int, gaps map[string]bool, checked int, checking time.Duration) {
	t := l.t
	t.Helper()
	took := l.ended.Sub(l.began).Seconds()
	admits := float64(l.admits.Load()) / took
	t.Logf("%.1f s: %.0f admits/s of %.0f asked for, %d commands (%.1f/s): %v, %d registrations, %d workers with losses, %d full syncs",
		took, admits, l.want.admits, len(l.commands), float64(len(l.commands))/took, commands, len(l.registered), len(gaps), syncsOf(l.workers()))
	for i := range l.lookups {
		f := &l.lookups[i]
		slices.Sort(f.took)
		t.Logf("replica %d: %.0f lookups/s while live, p50 %s, p99 %s, worst %s", i, float64(len(f.took))/took, part(f.took, 0.5), part(f.took, 0.99), part(f.took, 1))
	}
	var answered []time.Duration
	for _, s := range l.commands {
		if s.status != 0 {
			answered = append(answered, s.took)
		}
	}
	slices.Sort(answered)
	t.Logf("commands: p50 %s, p99 %s, worst %s; %d linearizability-checked operations in %s (%d reads, %d failed); %d digests compared under load",
		part(answered, 0.5), part(answered, 0.99), part(answered, 1), checked, checking.Round(time.Millisecond), l.reads.Load(), l.readFailures.Load(), l.c.Compared())
	// What nobody did cannot have gone wrong, and a register that is always empty is linearizable.
	if admits == 0 || commands["done"] == 0 || len(l.registered) == 0 || l.hits.Load() == 0 || len(l.prompts.everSeen()) == 0 {
		t.Errorf("%.0f admits/s, %d commands done, %d registrations, %d reads that found something, %d prompts found: too little for this run to mean anything",
			admits, commands["done"], len(l.registered), l.hits.Load(), len(l.prompts.everSeen()))
	}
	for i := range l.lookups {
		if len(l.lookups[i].took) == 0 {
			t.Errorf("no lookup was made on replica %d while it was live", i)
		}
	}
	if *long && !raceEnabled && admits < 0.9*l.want.admits {
		t.Errorf("%.0f admits/s were stored, want %.0f: the workers or the cluster cannot carry it", admits, l.want.admits)
	}
}

// part is a quantile of sorted durations.
func part(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))].Round(10 * time.Microsecond)
}
