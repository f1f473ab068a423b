package ingest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// The storm: this many engines with so many chunks each lose their controller's state at
// once, and later all start anew at once.
const (
	stormEngines = 1000
	stormOwn     = 40 // chunks of each alone
	stormShared  = 10 // chunks that all of them hold: a system prompt
)

// TestStorm: a thousand workers nobody knows send a heartbeat at once, each owes a full
// sync and gets it in its turn; then, in mid-sync and with losses, all register anew at
// once. Others' events are visible in time all along, the queue and the memory are
// bounded, and right afterwards what is known of each is what it holds.
func TestStorm(t *testing.T) {
	s := newStorm(t, 2, nil)
	s.quiet(300 * time.Millisecond)
	s.strangers()
	s.lossesAndSyncs()
	s.startAnew()
	s.end()
	for _, p := range s.phases {
		if worst := p.at(1); worst > 5*time.Second {
			t.Errorf("%s: an event of another worker was visible after %v", p.name, worst)
		}
	}
}

// BenchmarkStorm measures how long the events of workers that have nothing to do with it
// take to be visible, in each part of the storm: with a log in memory that takes 2 ms an
// entry, and with a replica of one and its log on disk.
func BenchmarkStorm(b *testing.B) {
	for _, name := range []string{"memory", "disk"} {
		b.Run(name, func(b *testing.B) {
			var onDisk func(*Options)
			if name == "disk" {
				onDisk = func(o *Options) { o.Log = submitter{alone(b, o.Log.(*memLog).FSM)} }
			}
			for b.Loop() {
				s := newStorm(b, 8, onDisk)
				s.quiet(2 * time.Second)
				s.strangers()
				s.lossesAndSyncs()
				s.startAnew()
				s.end()
				for _, p := range s.phases[:len(s.phases)-1] {
					b.ReportMetric(float64(p.at(.99).Microseconds())/1000, p.name+"-p99-ms")
				}
			}
		})
	}
}

// alone is a node of a cluster of one that leads.
func alone(t testing.TB, state *fsm.FSM) *cluster.Node {
	node, err := cluster.Open(t.Context(), cluster.Options{DataDir: t.TempDir(), PeerAddr: "127.0.0.1:0", BootstrapExpect: 1, FSM: state,
		Members: func() []registry.Member { return state.Registry().Members() }})
	must(t, err)
	t.Cleanup(func() { must(t, node.Close(context.Background())) })
	eventually(t, "the node leads", func() bool { return node.Ready() == nil && node.IsLeader() })
	return node
}

type storm struct {
	*rig
	clock   *turned
	engines []*engine
	phases  []*phase
	now     atomic.Pointer[phase]

	cancel   context.CancelFunc
	watching sync.WaitGroup
	before   int64 // heap
	peak     atomic.Int64
}

// phase is a part of the storm, and how long others' events took in it.
type phase struct {
	name  string
	began time.Time
	took  time.Duration

	mu   sync.Mutex
	seen []time.Duration
}

// at is the time within which such a share was visible.
func (p *phase) at(share float64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) == 0 {
		return 0
	}
	slices.Sort(p.seen)
	return p.seen[min(int(share*float64(len(p.seen))), len(p.seen)-1)]
}

func newStorm(t testing.TB, witnesses int, change func(*Options)) *storm {
	s := &storm{clock: new(turned)}
	s.rig = start(t, func(o *Options) {
		o.Now = s.clock.now
		o.Logger = hclog.NewNullLogger()
		o.Log.(*memLog).takes = 2 * time.Millisecond // a good disk's fsync
		if change != nil {
			change(o)
		}
	})
	must(t, s.zctx.SetMaxSockets(4*stormEngines))
	s.engines = s.rig.engines(names("engine-", stormEngines)...)
	s.before = heap()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	t.Cleanup(func() { cancel(); s.watching.Wait() })
	s.begin("quiet")
	for i := range witnesses {
		w := newWitness(s, fmt.Sprint("witness-", i), registry.Key(i+1)<<40)
		s.watching.Go(func() { w.run(ctx) })
	}
	return s
}

// begin begins a part.
func (s *storm) begin(name string) {
	p := &phase{name: name, began: time.Now()}
	if old := s.now.Swap(p); old != nil {
		old.took = time.Since(old.began)
	}
	s.phases = append(s.phases, p)
}

// stormKeys are the keys of an engine: its own, from a number on, and those of all.
func stormKeys(engine, from int) (keys []lmcache.Key) {
	for k := range stormOwn {
		keys = append(keys, lmcache.Key(engine*1000+from+k))
	}
	for k := range stormShared {
		keys = append(keys, lmcache.Key(1<<30+k))
	}
	return keys
}

func (s *storm) quiet(d time.Duration) { <-time.After(d) }

// strangers: everybody is heard of by a heartbeat, all at the same time.
func (s *storm) strangers() {
	s.begin("strangers")
	for i, e := range s.engines {
		for _, k := range stormKeys(i, 0) {
			e.held[k] = true
		}
		e.seq, e.batchKeys = 1000, 20
		e.ask.request(heartbeatMsg(e.name))
	}
	told := 0
	for _, e := range s.engines {
		if ret, ok := e.ask.answer().(*lmcache.HeartbeatRetMsg); !ok {
			s.t.Fatalf("the heartbeat of %s was not answered", e.name)
		} else {
			told += len(ret.Commands)
		}
	}
	if most := s.s.opts.MaxSyncs; told > most {
		s.t.Errorf("%d were asked for a sync at once, want at most %d", told, most)
	}
	if n := s.log.Registry().Totals(); n.WantedWorkers != stormEngines {
		s.t.Errorf("%d workers owe a sync, want all %d", n.WantedWorkers, stormEngines)
	}
}

// lossesAndSyncs: all lose events and go on, and each syncs in its turn, four at a time,
// while the others' events go on.
func (s *storm) lossesAndSyncs() {
	s.begin("syncs")
	for i, e := range s.engines {
		e.operations(lmcache.Evict, true, lmcache.Key(i*1000))
		e.admit(lmcache.Key(i*1000 + 500))
	}
	for group := range slices.Chunk(s.engines, s.s.opts.MaxSyncs) {
		for _, e := range group {
			eventually(s.t, e.name+" is asked for a sync", func() bool {
				s.clock.turn(syncTime)
				return e.beat()
			})
		}
		for _, e := range group {
			e.id++
			e.ask.request(e.startMsg(len(e.held), (len(e.held)+e.batchKeys-1)/e.batchKeys))
		}
		for _, e := range group {
			if ret, ok := e.ask.answer().(*lmcache.FullSyncStartRetMsg); !ok || !ret.Accepted {
				s.t.Fatalf("the sync of %s is refused: %+v", e.name, ret)
			}
			for i, keys := range slices.Collect(slices.Chunk(e.keys(), e.batchKeys)) {
				e.say(e.batchMsg(i, keys))
			}
			e.say(e.endMsg(len(e.held)))
			e.admit(1 << 31) // a chunk that all get meanwhile
		}
		for waiting := slices.Clone(group); len(waiting) > 0; {
			for _, e := range waiting {
				e.ask.request(e.statusMsg())
			}
			waiting = slices.DeleteFunc(waiting, func(e *engine) bool {
				ret, ok := e.ask.answer().(*lmcache.FullSyncStatusRetMsg)
				return ok && ret.CanExitFreeze
			})
		}
		s.peak.Store(max(s.peak.Load(), int64(s.s.Stats().QueueBytes)))
	}
	s.lease(s.t, s.clock)
	s.right("after the syncs")
}

// startAnew: all lose events again, some are in mid-sync, and then all engines are
// restarted at the same time and fill again.
func (s *storm) startAnew() {
	s.begin("restarts")
	for i, e := range s.engines {
		e.operations(lmcache.Evict, true, lmcache.Key(i*1000+1))
		e.admit(lmcache.Key(i*1000 + 501))
	}
	s.engines[0].taken()
	for _, e := range s.engines[:50] {
		s.clock.turn(syncTime)
		if e.beat() {
			if batches, accepted := e.begin(); accepted {
				e.say(e.batchMsg(0, batches[0]))
			}
		}
	}
	if n := s.log.Registry().Totals().SyncingWorkers; n != s.s.opts.MaxSyncs {
		s.t.Errorf("%d workers are in mid-sync, want %d", n, s.s.opts.MaxSyncs)
	}
	for _, e := range s.engines {
		e.ask.request(registerMsg(e.name))
		clear(e.held)
		e.seq = 0
	}
	for i, e := range s.engines {
		if m := e.ask.answer(); m.Type() != "RegisterRetMsg" {
			s.t.Fatalf("the registration of %s was answered with %s", e.name, m.Type())
		}
		e.admit(stormKeys(i, 600)...)
	}
	s.peak.Store(max(s.peak.Load(), int64(s.s.Stats().QueueBytes)))
	s.right("after all were restarted")
	for _, e := range s.engines {
		if e.beat() {
			s.t.Fatalf("%s has lost nothing since it was restarted, and is asked for a sync", e.name)
		}
	}
}

// right checks that what is known of each engine is what it holds.
func (s *storm) right(when string) {
	s.engines[0].taken()
	reg := s.log.Registry()
	totals := reg.Totals()
	if totals.LossyStreams != 0 || totals.WantedWorkers != 0 || totals.SyncingWorkers != 0 {
		s.t.Errorf("%s: %d lossy streams, %d workers owe a sync, %d sync", when, totals.LossyStreams, totals.WantedWorkers, totals.SyncingWorkers)
	}
	holders := make(map[registry.Key]map[registry.StreamRef]bool)
	for _, e := range s.engines {
		if info, _ := reg.Worker(ref(e.name)); info.Keys != int64(len(e.held)) {
			s.t.Fatalf("%s: %d keys are known of %s, it holds %d", when, info.Keys, e.name, len(e.held))
		}
		for k := range e.held {
			k := registry.Key(k)
			if holders[k] == nil {
				holders[k] = make(map[registry.StreamRef]bool)
			}
			holders[k][e.stream()] = true
		}
	}
	for k, want := range holders {
		got := reg.Holders(k)
		if len(got) != len(want) || slices.ContainsFunc(got, func(st registry.StreamRef) bool { return !want[st] }) {
			s.t.Fatalf("%s: key %d is known of %v, %d engines hold it", when, k, got, len(want))
		}
	}
}

func (s *storm) end() {
	s.begin("over")
	s.cancel()
	s.watching.Wait()
	used := heap() - s.before
	st := s.s.Stats()
	for _, p := range s.phases[:len(s.phases)-1] {
		s.t.Logf("%-9s %5.1f s: %5d events of others, visible after: p50 %v, p99 %v, worst %v",
			p.name, p.took.Seconds(), len(p.seen), p.at(.5).Round(10*time.Microsecond), p.at(.99).Round(10*time.Microsecond), p.at(1).Round(10*time.Microsecond))
	}
	keys := s.log.Registry().Totals().Keys
	s.t.Logf("%d engines, %d keys, heap %d KiB more than before (with the log's %d entries in memory), queue at most %d KiB seen, %d syncs asked, %d late answers, %d blocked",
		stormEngines, keys, used>>10, s.log.applied(), s.peak.Load()>>10, st.SyncsAsked, st.LateAnswers, st.Blocked)
	if used > 64<<20 {
		s.t.Errorf("the heap has grown by %d MiB, want at most 64", used>>20)
	}
	if st.LostRecords+st.UndeliveredReplies+st.Refused[RefusedQueueFull] > 0 || st.QueueBytes > st.QueueMaxBytes {
		s.t.Errorf("stats %+v: want nothing lost", st)
	}
}

// witness is a worker beside the storm: it says one event after the other and sees how
// long each takes to be visible.
type witness struct {
	s    *storm
	name string
	sock *zmq.Socket
	key  registry.Key
	seq  int64
}

func newWitness(s *storm, name string, first registry.Key) *witness {
	s.register(name)
	c := s.push()
	return &witness{s: s, name: name, sock: c.sock, key: first}
}

// run is owned by the storm and ends with ctx. It waits for its events.
func (w *witness) run(ctx context.Context) {
	look := time.NewTicker(300 * time.Microsecond)
	defer look.Stop()
	for ctx.Err() == nil {
		p, began := w.s.now.Load(), time.Now()
		w.key++
		if _, err := w.sock.SendMessage(lmcache.Append(nil, opsMsg(w.name, registry.CPULocation, w.seq, lmcache.Key(w.key)))); err != nil {
			w.s.t.Errorf("%s: %v", w.name, err)
			return
		}
		w.seq++
		for len(w.s.log.Registry().Holders(w.key)) == 0 {
			select {
			case <-look.C:
			case <-ctx.Done():
				return
			}
		}
		p.mu.Lock()
		p.seen = append(p.seen, time.Since(began))
		p.mu.Unlock()
		select { // some 100 events a second each
		case <-time.After(3 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
