package ingest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

const sec registry.Micros = 1_000_000

func info(instance string, registered, heard registry.Micros) registry.WorkerInfo {
	return registry.WorkerInfo{WorkerRef: ref(instance), Registered: registered, LastHeard: heard,
		LastHeartbeat: registered, Liveness: registry.Alive}
}

func heard(instance string, any, beat registry.Micros) registry.Heard {
	return registry.Heard{WorkerRef: ref(instance), Any: any, Heartbeat: beat}
}

func TestLeasePlan(t *testing.T) {
	beats := func(w registry.WorkerInfo) registry.WorkerInfo { w.Beats = true; return w }
	suspect := func(w registry.WorkerInfo) registry.WorkerInfo { w.Liveness = registry.Suspect; return w }
	type workers = []registry.WorkerInfo
	for _, tt := range []struct {
		name    string
		plan    leasePlan
		heard   []registry.Heard
		expired []registry.WorkerRef
		none    bool
		spared  bool // nobody becomes suspect by this lease
	}{
		{name: "nothing heard, nothing expires: no entry", none: true,
			plan: leasePlan{Now: 1000 * sec, Workers: workers{info("a", 0, 0)}}},
		{name: "heard is what the log has not seen yet, sorted",
			plan:  leasePlan{Now: 100 * sec, Workers: workers{info("b", 0, 0), info("a", 0, 0)}, Heard: []registry.Heard{heard("b", 99*sec, 0), heard("a", 98*sec, 97*sec)}},
			heard: []registry.Heard{heard("a", 98*sec, 97*sec), heard("b", 99*sec, 0)}},
		{name: "who is not registered is not named", none: true,
			plan: leasePlan{Now: 100 * sec, Workers: workers{info("a", 0, 0)}, Heard: []registry.Heard{heard("stranger", 99*sec, 99*sec)}}},
		{name: "two replicas heard the same worker: the later times",
			plan:  leasePlan{Now: 100 * sec, Workers: workers{info("a", 0, 0)}, Heard: []registry.Heard{heard("a", 98*sec, 10*sec), heard("a", 97*sec, 20*sec)}},
			heard: []registry.Heard{heard("a", 98*sec, 20*sec)}},
		{name: "without a timeout nobody expires, however silent", none: true,
			plan: leasePlan{Now: 1e9 * sec, Workers: workers{info("a", 0, 0)}}},
		{name: "silent for longer than the timeout",
			plan:    leasePlan{Now: 400 * sec, Timeout: 300 * sec, Workers: workers{info("a", 0, 99*sec)}},
			expired: []registry.WorkerRef{ref("a")}},
		{name: "silent for exactly the timeout", none: true,
			plan: leasePlan{Now: 400 * sec, Timeout: 300 * sec, Workers: workers{info("a", 0, 100*sec)}}},
		{name: "any message is life: heard without a heartbeat",
			plan:  leasePlan{Now: 400 * sec, Timeout: 300 * sec, Workers: workers{info("a", 0, 0)}, Heard: []registry.Heard{heard("a", 399*sec, 0)}},
			heard: []registry.Heard{heard("a", 399*sec, 0)}},
		{name: "heard, but long ago: noted and expired",
			plan:    leasePlan{Now: 400 * sec, Timeout: 300 * sec, Workers: workers{info("a", 0, 0)}, Heard: []registry.Heard{heard("a", 50*sec, 0)}},
			heard:   []registry.Heard{heard("a", 50*sec, 0)},
			expired: []registry.WorkerRef{ref("a")}},
		{name: "never said anything: counts from its registration",
			plan:    leasePlan{Now: 400 * sec, Timeout: 300 * sec, Workers: workers{info("new", 200*sec, 0), info("old", 50*sec, 0)}},
			expired: []registry.WorkerRef{ref("old")}},
		{name: "a new leader gives everybody a fresh period", none: true,
			plan: leasePlan{Now: 1000 * sec, Since: 800 * sec, Timeout: 300 * sec, Workers: workers{info("a", 0, 0)}}},
		{name: "and no more than that",
			plan:    leasePlan{Now: 1101 * sec, Since: 800 * sec, Timeout: 300 * sec, Workers: workers{info("a", 0, 0)}},
			expired: []registry.WorkerRef{ref("a")}},
		{name: "several expire, sorted",
			plan:    leasePlan{Now: 1000 * sec, Timeout: 300 * sec, Workers: workers{info("b", 0, 0), info("a", 0, 0)}},
			expired: []registry.WorkerRef{ref("a"), ref("b")}},
		{name: "a running sync or an awaited move needs the clock", plan: leasePlan{Now: 1000 * sec, Waits: true, Workers: workers{info("a", 0, 0)}}},
		{name: "so does a worker whose heartbeats stopped", plan: leasePlan{Now: 100 * sec, Workers: workers{beats(info("a", 0, 39*sec))}}},
		{name: "not yet", none: true, plan: leasePlan{Now: 100 * sec, Workers: workers{beats(info("a", 0, 40*sec))}}},
		{name: "not again", none: true, plan: leasePlan{Now: 100 * sec, Workers: workers{suspect(beats(info("a", 0, 0)))}}},
		{name: "not by heartbeats it never sent", none: true, plan: leasePlan{Now: 100 * sec, Workers: workers{info("a", 0, 0)}}},
		{name: "the period can be set", plan: leasePlan{Now: 100 * sec, SuspectAfter: 10 * sec, Workers: workers{beats(info("a", 0, 89*sec))}}},
		{name: "nobody is suspect while the term is younger than that", none: true, spared: true,
			plan: leasePlan{Now: 1000 * sec, Since: 940 * sec, Workers: workers{beats(info("a", 0, 0))}}},
		{name: "not by a lease that is for others either", spared: true,
			plan:  leasePlan{Now: 1000 * sec, Since: 940 * sec, Workers: workers{beats(info("a", 0, 0)), info("b", 0, 0)}, Heard: []registry.Heard{heard("b", 999*sec, 0)}},
			heard: []registry.Heard{heard("b", 999*sec, 0)}},
		{name: "and then by its silence",
			plan: leasePlan{Now: 1001 * sec, Since: 940 * sec, Workers: workers{beats(info("a", 0, 0))}}},
		{name: "or switched off", none: true, plan: leasePlan{Now: 1e6 * sec, SuspectAfter: -1, Workers: workers{beats(info("a", 0, 0))}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lease, ok := tt.plan.lease()
			if ok == tt.none {
				t.Fatalf("something to say: %v, want %v", ok, !tt.none)
			}
			if !reflect.DeepEqual(lease.Heard, tt.heard) || !reflect.DeepEqual(lease.Expired, tt.expired) {
				t.Errorf("heard %v, expired %v, want %v and %v", lease.Heard, lease.Expired, tt.heard, tt.expired)
			}
			suspectAfter := tt.plan.SuspectAfter
			if tt.spared {
				suspectAfter = -1
			}
			if lease.At != tt.plan.Now || lease.SuspectAfter != suspectAfter || lease.SyncTimeout != tt.plan.SyncTimeout {
				t.Errorf("lease %+v does not carry the plan's time and periods", lease)
			}
		})
	}
}

// leaseRig is a memLog with worker i, and what was heard.
func leaseRig(t *testing.T) (*memLog, *notes) {
	log := newMemLog()
	b := fsm.NewBatch(session())
	register(b)
	_, err := log.Propose(context.Background(), b.Encode(1, 1))
	must(t, err)
	return log, new(notes)
}

// lead runs a lease task with turns of a second and a worker timeout of 5 s until the
// test ends. Call it in a synctest bubble.
func lead(t *testing.T, log *memLog, heard *notes, now func() time.Time) {
	task := LeaseTask(LeaseOptions{
		Log: log, State: log, PutBack: heard.put,
		Heard:    func(context.Context) []registry.Heard { return heard.take() },
		Interval: time.Second, HealthCheckInterval: time.Hour, WorkerTimeout: 5 * time.Second, Now: now,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- task.Run(ctx, 1) }() // ends with ctx
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
}

func TestLeaseTask_CommitsAndExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, heard := leaseRig(t)
		lead(t, log, heard, time.Now)
		at := micros(time.Now())
		heard.note(ref("i"), times{at, at})
		time.Sleep(1500 * time.Millisecond)
		if w, _ := log.Registry().Worker(ref("i")); w.LastHeartbeat != at || w.LastHeard != at {
			t.Errorf("the heartbeat of %d is not in the registry: %+v", at, w)
		}
		entries := log.applied()
		time.Sleep(6 * time.Second)
		if _, known := log.Registry().Worker(ref("i")); known {
			t.Error("the worker is not expired")
		}
		if n := log.applied() - entries; n != 1 {
			t.Errorf("%d entries to expire one worker", n)
		}
	})
}

// While the process is stopped, the machine sleeps or the clock is set forward nobody
// is listened to: that is no worker's silence.
func TestLeaseTask_ItsOwnPauseExpiresNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, heard := leaseRig(t)
		var ahead atomic.Int64
		lead(t, log, heard, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
		heard.note(ref("i"), times{micros(time.Now()), micros(time.Now())})
		time.Sleep(1500 * time.Millisecond)
		ahead.Store(int64(time.Hour))
		time.Sleep(4500 * time.Millisecond)
		if _, known := log.Registry().Worker(ref("i")); !known {
			t.Error("the worker is expired by the pause")
		}
		time.Sleep(3 * time.Second)
		if _, known := log.Registry().Worker(ref("i")); known {
			t.Error("the worker is not expired by its own silence after the pause")
		}
	})
}

func TestLeaseTask_PutsBackWhatIsNotCommitted(t *testing.T) {
	log, heard := leaseRig(t)
	log.fail(func([]byte) (bool, error) { return false, cluster.ErrNoLeader })
	o := LeaseOptions{Log: log, State: log, PutBack: heard.put, Now: time.Now,
		Heard: func(context.Context) []registry.Heard { return heard.take() }}
	heard.note(ref("i"), times{7, 7})
	if err := o.once(context.Background(), 1, 0); !errors.Is(err, cluster.ErrNoLeader) {
		t.Fatalf("lease without a leader: %v", err)
	}
	want := []registry.Heard{{WorkerRef: ref("i"), Any: 7, Heartbeat: 7}}
	if got := heard.take(); !reflect.DeepEqual(got, want) {
		t.Errorf("notes after the failure: %v, want %v", got, want)
	}
}

func TestNotes_LaterTimesWin(t *testing.T) {
	var n notes
	n.note(ref("b"), times{any: 10, heartbeat: 10})
	n.note(ref("b"), times{any: 12})
	n.note(ref("a"), times{any: 11})
	n.put([]registry.Heard{{WorkerRef: ref("b"), Any: 5, Heartbeat: 11}})
	want := []registry.Heard{{WorkerRef: ref("a"), Any: 11}, {WorkerRef: ref("b"), Any: 12, Heartbeat: 11}}
	if got := n.take(); !reflect.DeepEqual(got, want) {
		t.Errorf("took %v, want %v", got, want)
	}
	if got := n.take(); len(got) != 0 {
		t.Errorf("took %v again", got)
	}
}

// Names are the workers' own. However long and many they are, every part of a lease is
// one that the log takes, and nobody is given up before all who were heard are named.
func TestLeaseParts_FitTheLog(t *testing.T) {
	lease := registry.Lease{At: 5, SuspectAfter: 6, SyncTimeout: 7}
	for i := range 3000 {
		w := registry.WorkerRef{Instance: fmt.Sprintf("%s-%d", strings.Repeat("n", fsm.MaxName-5), i), Worker: int64(i)}
		lease.Heard = append(lease.Heard, registry.Heard{WorkerRef: w, Any: 1 << 50, Heartbeat: 1 << 50})
		lease.Expired = append(lease.Expired, w)
	}
	parts := leaseParts(lease, maxLeaseBytes)
	if len(parts) < 2 {
		t.Fatalf("%d parts", len(parts))
	}
	whole := registry.Lease{At: 5, SuspectAfter: 6, SyncTimeout: 7}
	for i, p := range parts {
		if err := fsm.Check(fsm.EncodeLease(p)); err != nil {
			t.Errorf("part %d: %v", i, err)
		}
		if p.At != lease.At || p.SuspectAfter != lease.SuspectAfter || p.SyncTimeout != lease.SyncTimeout {
			t.Errorf("part %d lost its times: %+v", i, p)
		}
		if len(whole.Expired) > 0 && len(p.Heard) > 0 {
			t.Errorf("part %d names who was heard after somebody was given up", i)
		}
		whole.Heard = append(whole.Heard, p.Heard...)
		whole.Expired = append(whole.Expired, p.Expired...)
	}
	if diff := cmp.Diff(lease, whole); diff != "" {
		t.Errorf("parts (-lease +together):\n%s", diff)
	}
	if n := len(leaseParts(registry.Lease{At: 5}, maxLeaseBytes)); n != 1 {
		t.Errorf("an empty lease has %d parts, want the one", n)
	}
}
