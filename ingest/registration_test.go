package ingest

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// quorum is a log that can be without one: then an attempt waits a moment, as cluster
// does for an election, and is refused.
type quorum struct {
	*memLog
	lost atomic.Bool
}

func (q *quorum) Propose(ctx context.Context, entry []byte) (cluster.Applied, error) {
	if q.lost.Load() {
		select {
		case <-time.After(20 * time.Millisecond):
			return cluster.Applied{}, cluster.ErrNoLeader
		case <-ctx.Done():
			return cluster.Applied{}, context.Cause(ctx)
		}
	}
	return q.memLog.Propose(ctx, entry)
}

// simulate is a simulated LMCache worker of a rig; the test ends it.
func simulate(t *testing.T, p Ports, change func(*simworker.Options)) *simworker.Worker {
	t.Helper()
	o := simworker.Options{Instance: "sim", Port: 9999, Deaf: true, Pull: net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Pull[0])),
		Reply: net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Reply)),
		Sync:  simworker.SyncOptions{Delay: -1, Poll: 20 * time.Millisecond, Pause: -1}}
	if change != nil {
		change(&o)
	}
	w, err := simworker.New(o)
	must(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	must(t, w.Start(ctx))
	t.Cleanup(func() {
		if err := w.Kill(); err != nil {
			t.Errorf("simulated worker: %v", err)
		}
	})
	return w
}

func simKeys(n int) []lmcache.Key {
	keys := make([]lmcache.Key, n)
	for i := range keys {
		keys[i] = lmcache.Key(i + 1)
	}
	return keys
}

// TestRegistration_HeldWithoutAQuorum: no answer before the patience is over, one then,
// by the clock that the server is given; with the default, well before LMCache's 30 s.
func TestRegistration_HeldWithoutAQuorum(t *testing.T) {
	var ahead atomic.Int64
	log := &quorum{memLog: newMemLog()}
	log.lost.Store(true)
	r := start(t, func(o *Options) {
		o.Log = log
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		o.DrainTimeout = 50 * time.Millisecond
	})
	d := r.dealer()
	d.request(registerMsg("i"))
	eventually(t, "the request waits, with its deadline", func() bool { return r.s.routers[0].pending.awaiting() })
	ahead.Store(int64(19 * time.Second))
	must(t, d.sock.SetRcvtimeo(4*deadlineTick))
	if _, err := d.sock.RecvMessageBytes(0); err == nil {
		t.Fatal("answered after 19 s, want held")
	}
	ahead.Store(int64(24 * time.Second))
	must(t, d.sock.SetRcvtimeo(patience))
	if m := d.answer(); m.Type() != "RegisterRetMsg" {
		t.Fatalf("answered with %s", m.Type())
	}
	if st := r.s.Stats(); st.LateAnswers != 1 {
		t.Errorf("%d late answers counted, want 1", st.LateAnswers)
	}
}

// TestRegistration_MadeGoodByItsRecord: a worker that was registered without a quorum goes
// on as any other; when there is one again its registration is in the log before its
// events, and nothing is lost, nor asked for again.
func TestRegistration_MadeGoodByItsRecord(t *testing.T) {
	log := &quorum{memLog: newMemLog()}
	log.lost.Store(true)
	r := start(t, func(o *Options) { o.Log, o.State, o.LogPatience = log, log, 200*time.Millisecond })
	began := time.Now()
	w := simulate(t, r.s.Ports(), func(o *simworker.Options) { o.HeartbeatEvery = 30 * time.Millisecond })
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("registered after %v, before the patience was over", took)
	}
	w.StoreKeys(simworker.LocalCPU, simKeys(1000))
	eventually(t, "its events are taken", func() bool { return r.s.Stats().Admits == 1000 })
	eventually(t, "its heartbeats are answered", func() bool { return w.Stats().Heartbeats > 3 })
	if _, known := log.Registry().Worker(registry.WorkerRef{Instance: "sim"}); known {
		t.Fatal("registered without a quorum")
	}
	log.lost.Store(false)
	eventually(t, "all its keys", func() bool {
		info, _ := log.Registry().Worker(registry.WorkerRef{Instance: "sim"})
		return info.Keys == 1000
	})
	info, _ := log.Registry().Worker(registry.WorkerRef{Instance: "sim"})
	if l := info.Locations[0]; l.Gaps != 0 || l.Lossy || info.SyncState != "none" || w.Stats().Syncs != 0 {
		t.Errorf("%+v in sync state %q after %d syncs, want no gap and no sync", l, info.SyncState, w.Stats().Syncs)
	}
}

// TestRegistration_MadeGoodByAHeartbeat: the replica that answered dies with the record.
// The worker's next heartbeat, at whatever replica has its place, registers it, and a
// full sync brings what it holds.
func TestRegistration_MadeGoodByAHeartbeat(t *testing.T) {
	log := &quorum{memLog: newMemLog()}
	log.lost.Store(true)
	var ports Ports
	serve := func() (stop func()) {
		o := Options{Log: log, State: log, Session: session(), Host: "127.0.0.1", PullPorts: []int{AnyPort}, ReplyPort: AnyPort, HeartbeatPort: AnyPort,
			LogPatience: 100 * time.Millisecond, DrainTimeout: 10 * time.Millisecond}
		if ports.Reply != 0 {
			o.PullPorts, o.ReplyPort, o.HeartbeatPort = ports.Pull, ports.Reply, ports.Heartbeat
		}
		s := New(o)
		must(t, s.Open())
		ports = s.Ports()
		served := make(chan error, 1)
		go func() { served <- s.Serve(context.Background()) }()
		var once sync.Once
		stop = func() {
			once.Do(func() {
				must(t, s.Close())
				must(t, <-served)
			})
		}
		t.Cleanup(stop)
		return stop
	}
	stop := serve()
	w := simulate(t, ports, func(o *simworker.Options) {
		o.HeartbeatEvery, o.AnswerTimeout = 50*time.Millisecond, 500*time.Millisecond
	})
	w.StoreKeys(simworker.LocalCPU, simKeys(500))
	must(t, flushed(w))
	stop() // the queue, with the registration and the events, is given up
	log.lost.Store(false)
	serve()
	eventually(t, "all its keys, after a sync", func() bool {
		info, _ := log.Registry().Worker(registry.WorkerRef{Instance: "sim"})
		return info.Keys == 500 && info.SyncState == "completed" && !info.Locations[0].Lossy
	})
}

func flushed(w *simworker.Worker) error {
	if !w.Flush(patience) {
		return fmt.Errorf("the worker's events do not leave")
	}
	return nil
}

// TestRegistration_QueueIsFull: events and other requests may have filled the queue, a
// registration is held and made good all the same; beyond its own reserve it is answered
// at once.
func TestRegistration_QueueIsFull(t *testing.T) {
	const room = 40
	r := start(t, func(o *Options) { o.MaxBatch, o.MaxQueue, o.MaxPending = 4<<10, 16<<10, room })
	r.register("i")
	r.settled()
	resume := r.log.pause()
	p := r.push()
	for i := range 200 {
		p.parts(opsMsg("i", "L", int64(50*i), make([]lmcache.Key, 50)...))
	}
	eventually(t, "PULL waits", func() bool { return r.s.Stats().Blocked > 0 })
	other := r.dealer() // fills what requests have on top
	for range 10 {
		other.request(&lmcache.FullSyncStartMsg{InstanceID: "i", WorkerID: 1, Location: "L", SyncID: "s", BatchCount: 1})
	}
	eventually(t, "requests are refused", func() bool { st := r.s.Stats(); return st.Reply.Messages == 11 && st.Refused[RefusedQueueFull] > 0 })
	waiting := make([]*client, 10)
	for i := range waiting {
		waiting[i] = r.dealer()
		waiting[i].request(registerMsg(fmt.Sprint("new", i)))
	}
	held := r.s.Stats().Refused[RefusedQueueFull]
	eventually(t, "registrations are held", func() bool { return r.s.Stats().Reply.Messages >= 21 })
	if n := r.s.Stats().Refused[RefusedQueueFull] - held; n != 0 {
		t.Errorf("%d registrations were refused", n)
	}
	for range 10 * room { // until that is full too
		if r.s.queue.add(asRegistration, 0, register, func(outcome) {}) != nil {
			break
		}
	}
	if m := r.dealer().ask(registerMsg("beyond")); m.Type() != "RegisterRetMsg" {
		t.Errorf("beyond the reserve: answered with %s", m.Type())
	}
	resume()
	for i, d := range waiting {
		if m := d.answer(); m.Type() != "RegisterRetMsg" {
			t.Errorf("registration %d was answered with %s", i, m.Type())
		}
		if _, known := r.log.Registry().Worker(ref(fmt.Sprint("new", i))); !known {
			t.Errorf("worker %d was answered and is not registered", i)
		}
	}
}

// TestRegistration_AnsweredWhileTheReplicaStops: what arrives while the queue is drained,
// without a quorum, is read and answered too.
func TestRegistration_AnsweredWhileTheReplicaStops(t *testing.T) {
	r := start(t, func(o *Options) { o.DrainTimeout = 300 * time.Millisecond })
	r.log.pause()
	first := r.dealer()
	first.request(registerMsg("first"))
	eventually(t, "the request waits", func() bool { return r.s.Stats().Reply.Active == 1 })
	later := r.dealer()
	later.ask(&lmcache.BatchedP2PLookupMsg{Hashes: []lmcache.Key{1}}) // connected
	closed := make(chan error, 1)
	go func() { closed <- r.s.Close() }()
	eventually(t, "the routers know", func() bool {
		for _, x := range r.s.routers {
			if x.ended.Load() == 0 {
				return false
			}
		}
		return true
	})
	later.request(registerMsg("later"))
	for name, d := range map[string]*client{"first": first, "later": later} {
		if m := d.answer(); m.Type() != "RegisterRetMsg" {
			t.Errorf("%s: answered with %s", name, m.Type())
		}
	}
	must(t, <-closed)
	// Nobody listens any more: who comes now waits for another replica.
	late, err := r.zctx.NewSocket(zmq.DEALER)
	must(t, err)
	defer late.Close()
	must(t, late.SetImmediate(true))
	must(t, late.SetSndtimeo(50*time.Millisecond))
	must(t, late.SetLinger(0))
	must(t, late.Connect(endpoint(r.s.Ports().Reply)))
	if _, err := late.SendMessage("", lmcache.Append(nil, registerMsg("late"))); err == nil {
		t.Error("a stopped replica takes connections")
	}
}
