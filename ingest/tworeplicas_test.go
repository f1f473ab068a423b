package ingest

import (
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// cluster3 are three replicas with sockets; node 0 leads.
func cluster3(t *testing.T) (*replicas, [3]*rig) {
	c := newReplicas(t, 1, always)
	var rigs [3]*rig
	c.elect(0)
	for id, n := range c.nodes {
		rigs[id] = start(t, func(o *Options) {
			o.Log, o.State, o.Leader, o.HeardEvery = n, n, n, 20*time.Millisecond
		})
		n.server = rigs[id].s
	}
	return c, rigs
}

// worker is the worker of rank 1, as a replica knows it.
func (n *replica) worker(instance string) registry.WorkerInfo {
	w, _ := n.Registry().Worker(ref(instance))
	return w
}

// TestReplicas_OneWorkerThroughAllOfThem: it registers at one replica, pushes to another
// and sends its heartbeats to the third, as connections through a balancer may. It is one
// worker on all of them, nothing is asked of it, and each replica is heard.
func TestReplicas_OneWorkerThroughAllOfThem(t *testing.T) {
	c, r := cluster3(t)
	r[0].register("i")
	push, beat := r[1].push(), r[2].heartbeat()
	for i := range int64(20) {
		push.parts(opsMsg("i", "LocalCPUBackend", 5*i, lmcache.Key(5*i), lmcache.Key(5*i+1), lmcache.Key(5*i+2), lmcache.Key(5*i+3), lmcache.Key(5*i+4)))
		if ret, ok := beat.ask(heartbeatMsg("i")).(*lmcache.HeartbeatRetMsg); !ok || len(ret.Commands) != 0 {
			t.Fatalf("heartbeat: %+v", ret)
		}
	}
	for _, n := range c.nodes {
		eventually(t, "its keys are on every replica", func() bool { return n.worker("i").Keys == 100 })
		w := n.worker("i")
		if totals := n.Registry().Totals(); totals.Workers != 1 || w.Locations[0].Gaps != 0 || w.Locations[0].Lossy || w.SyncState != "none" {
			t.Errorf("replica %d: %d workers, %+v", n.id, totals.Workers, w)
		}
	}
	eventually(t, "the leader has heard of it from all three", func() bool {
		return r[0].s.Stats().HeardTaken >= 2 && r[1].s.Stats().HeardSent >= 1 && r[2].s.Stats().HeardSent >= 1
	})
}

// TestReplicas_AWorkerMovesOn: a connection is lost and comes back at another replica
// while the first one still has a batch that waits. What comes late is not applied on
// top, the loss shows, and a full sync, through whatever replicas, makes it good.
func TestReplicas_AWorkerMovesOn(t *testing.T) {
	c, r := cluster3(t)
	r[2].register("i")
	const cpu = registry.CPULocation
	first := r[1].push()
	first.parts(opsMsg("i", cpu, 0, 100, 101, 102))
	eventually(t, "three keys", func() bool { return c.nodes[0].worker("i").Keys == 3 })
	resume := c.nodes[1].hold()
	first.parts(opsMsg("i", cpu, 3, 7, 103))
	eventually(t, "two more are taken", func() bool { return r[1].s.Stats().Admits == 5 })
	evict := opsMsg("i", cpu, 5, 7)
	evict.Operations[0].Kind = lmcache.Evict
	r[0].push().parts(evict, opsMsg("i", cpu, 6, 104))
	eventually(t, "what it says at the next replica is there", func() bool { return len(c.nodes[2].Registry().Holders(104)) == 1 })
	resume()
	eventually(t, "the late batch is in the log", func() bool { return r[1].s.Stats().QueueBytes == 0 })
	w := c.nodes[2].worker("i")
	if n := len(c.nodes[2].Registry().Holders(7)); n != 0 || w.Keys != 4 || !w.Locations[0].Lossy {
		t.Fatalf("an evicted key has %d holders; the worker is %+v, want 4 keys, lossy", n, w)
	}
	// Heartbeats at replica 1, the sync itself at 2 and 0.
	ret := r[1].heartbeat().ask(heartbeatMsg("i")).(*lmcache.HeartbeatRetMsg)
	if len(ret.Commands) != 1 || *ret.Commands[0].Reason != registry.ReasonEventsLost {
		t.Fatalf("the heartbeat is answered with %+v, want a full sync", ret.Commands)
	}
	d, p := r[2].dealer(), r[0].push()
	if ret := d.ask(&lmcache.FullSyncStartMsg{InstanceID: "i", WorkerID: 1, Location: cpu, SyncID: "s", TotalKeys: 5, BatchCount: 1}).(*lmcache.FullSyncStartRetMsg); !ret.Accepted {
		t.Fatalf("start: %+v", ret)
	}
	p.parts(&lmcache.FullSyncBatchMsg{InstanceID: "i", WorkerID: 1, Location: cpu, SyncID: "s", Keys: []lmcache.Key{100, 101, 102, 103, 104}},
		&lmcache.FullSyncEndMsg{InstanceID: "i", WorkerID: 1, Location: cpu, SyncID: "s", ActualTotalKeys: 5},
		opsMsg("i", cpu, 7, 105))
	eventually(t, "complete", func() bool {
		return d.ask(&lmcache.FullSyncStatusMsg{InstanceID: "i", WorkerID: 1, SyncID: "s"}).(*lmcache.FullSyncStatusRetMsg).IsComplete
	})
	eventually(t, "it is whole", func() bool { w := c.nodes[1].worker("i"); return w.Keys == 6 && !w.Locations[0].Lossy })
}

// TestReplicas_SyncStatusElsewhere: the batches of a full sync wait in one replica while
// the worker asks another one how it stands. It is told what is missing, sends that again,
// and all of it, once and twice, is one sync.
func TestReplicas_SyncStatusElsewhere(t *testing.T) {
	c, r := cluster3(t)
	w := simulate(t, r[1].s.Ports(), func(o *simworker.Options) {
		o.Reply = net.JoinHostPort("127.0.0.1", strconv.Itoa(r[2].s.Ports().Reply)) // and heartbeats, where that says
		o.HeartbeatEvery, o.HeartbeatDelay = 30*time.Millisecond, time.Second
		o.Sync.BatchKeys, o.Sync.Polls = 100, 1000
	})
	state := func() registry.WorkerInfo {
		info, _ := c.nodes[2].Registry().Worker(registry.WorkerRef{Instance: "sim"})
		return info
	}
	w.StoreKeys(simworker.LocalCPU, simKeys(300))
	eventually(t, "its keys", func() bool { return state().Keys == 300 })
	w.LoseNext(1)
	w.StoreKeys(simworker.LocalCPU, []lmcache.Key{1001})
	must(t, flushed(w))
	w.StoreKeys(simworker.LocalCPU, []lmcache.Key{1002})
	eventually(t, "the loss shows", func() bool { return c.nodes[2].Registry().Totals().WantedWorkers == 1 })
	resume := c.nodes[1].hold()
	eventually(t, "its sync has begun", func() bool { return state().SyncState == "syncing" })
	eventually(t, "batches are sent again", func() bool { return w.Stats().Sent.Messages > 2*4+3 })
	if n := c.nodes[2].Registry().Totals().MissingBatches; n != 4 {
		t.Errorf("%d batches are missing while all wait elsewhere, want 4", n)
	}
	resume()
	eventually(t, "the sync is complete", func() bool { return w.Stats().SyncsGood == 1 && state().SyncState == "completed" })
	if info := state(); info.Keys != 302 || info.Locations[0].Lossy || w.Stats().Syncs != 1 {
		t.Errorf("%+v after %d syncs, want 302 keys, whole, after one", info, w.Stats().Syncs)
	}
}
