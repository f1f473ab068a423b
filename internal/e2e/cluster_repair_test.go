package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
)

// TestCluster_LossesAreRepaired: workers at three replicas lose events, and some parts of
// their full syncs as well. Each is asked, at most four at a time, over the death of the
// leader; what is known of each is what it holds in the end. One that sends no heartbeats is
// shown as unrepaired, one whose sync dies is shown to have failed.
func TestCluster_LossesAreRepaired(t *testing.T) {
	t.Parallel()
	const most = 4 // --max-syncs
	c := StartCluster(t, 3, ClusterOptions{Args: []string{"--chunk-size", "16", "--hash", "builtin@0", "--full-sync-timeout", "5s"}})
	leader := c.Leader()
	rng := rand.New(rand.NewPCG(5, 5))
	worker := func(n int, name string, o simworker.Options) *simworker.Worker {
		o.Instance, o.AnswerTimeout = name, 2*time.Second
		o.Sync.Delay, o.Sync.BatchKeys = 200*time.Millisecond, 10
		if o.Sync.Poll == 0 {
			o.Sync.Poll = 300 * time.Millisecond
		}
		w := startWorker(t, c.replicas[n%3], o)
		w.StoreKeys(simworker.LocalCPU, randomKeys(rng, 60))
		return w
	}
	const beat = 250 * time.Millisecond
	var good []*simworker.Worker
	for i, lost := range []simworker.SyncOptions{{}, {Lose: func(batch int) bool { return batch == 1 }}, {LoseEnd: true},
		{Lose: func(int) bool { return true }, LoseEnd: true}, {}, {}, {}, {}, {}} {
		good = append(good, worker(i, fmt.Sprint("good-", i), simworker.Options{HeartbeatEvery: beat, Sync: lost}))
	}
	mute := worker(1, "mute", simworker.Options{})
	dead := worker(2, "dead", simworker.Options{HeartbeatEvery: beat, Sync: simworker.SyncOptions{Lose: func(int) bool { return true }, Poll: time.Hour}})
	all := append([]*simworker.Worker{mute, dead}, good...)
	at := newClient(t, c.Followers()[0])
	known := func(of []*simworker.Worker) error {
		views, err := at.workers()
		if err != nil {
			return err
		}
		for _, w := range of {
			if err := shown(w, views[w.String()]); err != nil {
				return err
			}
		}
		return nil
	}
	Eventually(t, 20*time.Second, "all that was stored", func() error { return known(all) })

	for _, w := range all {
		w.Flush(time.Second)
		w.LoseNext(1)
		w.Evict(simworker.LocalCPU, w.Holds(simworker.LocalCPU)[:5])
		w.Flush(time.Second)
		w.StoreKeys(simworker.LocalCPU, randomKeys(rng, 1))
	}
	began := time.Now()
	killed, peak := false, 0
	Eventually(t, 120*time.Second, "the losses are repaired", func() error {
		syncing, err := at.metric(`kvctrl_registry_sync_workers{state="syncing"}`)
		if err != nil {
			return err
		}
		if peak = max(peak, int(syncing)); !killed && syncing > 0 { // in mid-sync
			killed = true
			leader.Kill()
			leader.Restart()
		}
		return known(good)
	})
	took := time.Since(began)
	views, err := at.workers()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range good {
		if st := w.Stats(); st.SyncsGood != 1 {
			t.Errorf("worker %s has done %d full syncs, %d of them to the end, want one", w, st.Syncs, st.SyncsGood)
		}
	}
	if v := views[mute.String()]; v.SyncState != "unrepaired" {
		t.Errorf("the worker without heartbeats is %s, want unrepaired", v.SyncState)
	}
	Eventually(t, 60*time.Second, "the sync that died is given up", func() error {
		views, err := at.workers()
		if v := views[dead.String()]; err == nil && (v.Failures != 1 || v.SyncState != "wanted") {
			err = fmt.Errorf("it is %s with %d failures", v.SyncState, v.Failures)
		}
		return err
	})
	if v := views[dead.String()]; v.Keys < 60 {
		t.Errorf("of the worker whose sync died %d keys are known, want the 60 of before", v.Keys)
	}
	if !killed || peak == 0 || peak > most {
		t.Errorf("at most %d synced at a time, leader killed meanwhile: %v, want 1 to %d, and yes", peak, killed, most)
	}
	c.Converge()
	t.Logf("%d workers repaired in %s, with the death of the leader, %d at a time at most", len(good), took.Round(100*time.Millisecond), peak)
}
