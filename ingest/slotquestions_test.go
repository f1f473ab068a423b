package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// elsewhere is a leader that another replica is.
type elsewhere struct {
	ask func(ctx context.Context, path string, body []byte) ([]byte, error)
}

func (elsewhere) IsLeader() bool { return false }
func (elsewhere) Term() uint64   { return 1 }

func (l elsewhere) AskLeader(ctx context.Context, path string, body []byte) ([]byte, error) {
	return l.ask(ctx, path, body)
}

func answered(a slotAnswer) ([]byte, error) { return json.Marshal(a) }

// owing makes replicas know three members and workers that owe a full sync.
func (c *replicas) owing(names ...string) {
	b := fsm.NewBatch(session())
	for _, name := range names {
		b.Register(registry.Registration{WorkerRef: ref(name), IP: "10.0.0.1", Port: 1, At: micros(time.Now()), ByHeartbeat: true})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.nodes {
		c.commit(fsm.EncodeSetMember(registry.Member{NodeID: fmt.Sprint(id)}))
	}
	c.commit(b.Encode(1, micros(time.Now())))
}

// TestSlots_HoldOverTheWholeCluster: workers that all owe a full sync send heartbeats to
// any replica, start up to 5 s after they were told and take their time, while leaders
// come and go. There are never more than MaxSyncs at the same time, and all get there.
func TestSlots_HoldOverTheWholeCluster(t *testing.T) {
	const workers, most = 40, 3
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			c := newReplicas(t, seed, always)
			c.serve(func(_ int, o *Options) { o.MaxSyncs = most })
			c.elect(0)
			var names []string
			for i := range workers {
				names = append(names, fmt.Sprint("w", i))
			}
			c.owing(names...)
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			for _, n := range c.nodes {
				running.Go(func() { n.server.askSlots(ctx) })
				running.Go(func() { n.server.everySecond(ctx) })
			}
			begin := func(rng *rand.Rand, name string) (told bool) {
				answer := make(chan bool, 1)
				c.nodes[rng.IntN(3)].server.command(ref(name), func(commands []lmcache.HeartbeatCommand) {
					answer <- len(commands) > 0
				})
				return <-answer
			}
			number := uint64(1)
			say := func(put func(*fsm.Batch)) {
				b := fsm.NewBatch(registry.SessionID{9})
				put(b)
				c.mu.Lock()
				defer c.mu.Unlock()
				number++
				c.commit(b.Encode(number, micros(time.Now())))
			}
			var working sync.WaitGroup
			for i, name := range names {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				working.Go(func() {
					for {
						time.Sleep(time.Duration(1000+rng.IntN(3000)) * time.Millisecond)
						if !begin(rng, name) {
							continue
						}
						time.Sleep(time.Duration(rng.IntN(5000)) * time.Millisecond)
						stream := registry.StreamRef{WorkerRef: ref(name), Location: registry.CPULocation}
						say(func(b *fsm.Batch) {
							b.SyncStart(registry.SyncStart{Stream: stream, SyncID: name, BatchCount: 0, At: micros(time.Now())})
						})
						time.Sleep(time.Duration(5000+rng.IntN(10000)) * time.Millisecond)
						say(func(b *fsm.Batch) { b.SyncEnd(registry.SyncEnd{Stream: stream, SyncID: name, At: micros(time.Now())}) })
						return
					}
				})
			}
			changes := make(chan struct{})
			running.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 99))
				for {
					select {
					case <-changes:
						return
					case <-time.After(time.Duration(10000+rng.IntN(50000)) * time.Millisecond):
						c.elect(-1)
						time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
						c.elect(rng.IntN(3))
					}
				}
			})
			peak := 0
			look := make(chan struct{})
			running.Go(func() {
				for {
					select {
					case <-look:
						return
					case <-time.After(100 * time.Millisecond):
						peak = max(peak, c.nodes[0].Registry().Totals().SyncingWorkers)
					}
				}
			})
			began := time.Now()
			working.Wait()
			close(look)
			close(changes)
			cancel()
			running.Wait()
			if peak > most {
				t.Errorf("seed %d: %d workers synced at the same time, want at most %d", seed, peak, most)
			}
			if peak < most {
				t.Errorf("seed %d: never more than %d at the same time", seed, peak)
			}
			asked := uint64(0)
			for _, n := range c.nodes {
				asked += n.server.Stats().SyncsAsked
			}
			if asked != workers {
				t.Errorf("seed %d: %d commands counted, want %d", seed, asked, workers)
			}
			t.Logf("seed %d: %d workers in %v", seed, workers, time.Since(began).Round(time.Second))
		})
	}
}

// TestSlots_ANewLeaderWaits: those whom its predecessor has asked and who have not
// started count for nobody, so a new leader of several replicas asks nobody at first.
func TestSlots_ANewLeaderWaits(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newReplicas(t, 1, always)
	c.serve(func(_ int, o *Options) { o.Now = func() time.Time { return now } })
	c.elect(1)
	c.owing("a", "b")
	leader := c.nodes[1].server
	if a := leader.grant(ref("a")); a.Granted || !a.Full {
		t.Errorf("at once: %+v, want to be asked later", a)
	}
	now = now.Add(termHold)
	if a := leader.grant(ref("a")); !a.Granted || a.Reason != registry.ReasonReRegistered {
		t.Errorf("after %v: %+v, want granted", termHold, a)
	}
	c.elect(1) // again
	if a := leader.grant(ref("b")); a.Granted {
		t.Error("granted at once in its next term")
	}
	if a := leader.grant(ref("a")); !a.Granted {
		t.Error("whom it has asked itself is not asked again")
	}
}

// TestSlots_PausesOutliveTheLeader: how often a worker's syncs were given up is in the log,
// so the next leader makes the same pause.
func TestSlots_PausesOutliveTheLeader(t *testing.T) {
	now := time.Now()
	c := newReplicas(t, 1, always)
	c.serve(func(_ int, o *Options) { o.Now = func() time.Time { return now } })
	c.elect(0)
	c.owing("a", "b")
	now = now.Add(time.Second)
	stream := registry.StreamRef{WorkerRef: ref("a"), Location: registry.CPULocation}
	say := func(entry []byte) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.commit(entry)
	}
	for i := range 3 { // three syncs that nobody ends
		b := fsm.NewBatch(session())
		b.SyncStart(registry.SyncStart{Stream: stream, SyncID: fmt.Sprint(i), BatchCount: 1, At: micros(now)})
		say(b.Encode(1, micros(now)))
		now = now.Add(registrySyncTimeout + time.Second)
		say(fsm.EncodeLease(registry.Lease{At: micros(now)}))
	}
	failed := now
	for _, leader := range []int{1, 2} {
		c.elect(leader)
		s := c.nodes[leader].server
		s.grant(ref("a")) // it sees its term
		now = now.Add(termHold)
		if a := s.grant(ref("a")); a.Granted || a.Full {
			t.Errorf("leader %d after %v: %+v, want a pause for this worker alone", leader, now.Sub(failed), a)
		}
	}
	if a := c.nodes[2].server.grant(ref("b")); !a.Granted {
		t.Errorf("the other worker waits too: %+v", a)
	}
	now = failed.Add(pauseAfter(3) - time.Millisecond)
	if a := c.nodes[2].server.grant(ref("a")); a.Granted {
		t.Errorf("before the pause of %v is over: %+v", pauseAfter(3), a)
	}
	now = failed.Add(pauseAfter(3))
	if a := c.nodes[2].server.grant(ref("a")); !a.Granted || a.Reason != registry.ReasonSyncFailed {
		t.Errorf("after it: %+v, want granted", a)
	}
}

// TestSlots_NobodyAsksForAMoment: after "all taken", and when the leader is silent, the
// questions that wait are answered without asking, and the leader has its peace.
func TestSlots_NobodyAsksForAMoment(t *testing.T) {
	for name, tt := range map[string]struct {
		answer  func() ([]byte, error)
		granted bool
		asked   int
	}{
		"all taken":   {func() ([]byte, error) { return answered(slotAnswer{Full: true}) }, false, 1},
		"silent":      {func() ([]byte, error) { return nil, context.DeadlineExceeded }, false, 1},
		"nonsense":    {func() ([]byte, error) { return []byte("x"), nil }, false, 1},
		"this one no": {func() ([]byte, error) { return answered(slotAnswer{}) }, false, 20},
		"yes":         {func() ([]byte, error) { return answered(slotAnswer{Granted: true, Reason: "r"}) }, true, 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newReplicas(t, 1, always)
				asked := 0
				c.serve(func(_ int, o *Options) {
					o.Leader = elsewhere{func(context.Context, string, []byte) ([]byte, error) { asked++; return tt.answer() }}
				})
				c.owing("a")
				s := c.nodes[2].server
				ctx, cancel := context.WithCancel(context.Background())
				var running sync.WaitGroup
				running.Go(func() { s.askSlots(ctx) })
				defer running.Wait()
				defer cancel()
				round := func() {
					told := make(chan bool, 20)
					for range 20 {
						s.command(ref("a"), func(commands []lmcache.HeartbeatCommand) { told <- len(commands) == 1 })
					}
					for range 20 {
						if <-told != tt.granted {
							t.Errorf("told to sync: %v, want %v", !tt.granted, tt.granted)
						}
					}
				}
				round()
				if asked != tt.asked {
					t.Errorf("the leader was asked %d times, want %d", asked, tt.asked)
				}
				time.Sleep(fullTime)
				if round(); asked != 2*tt.asked {
					t.Errorf("the leader was asked %d times in two rounds, want %d", asked, 2*tt.asked)
				}
			})
		})
	}
}

// TestSlots_ManyQuestionsAreBounded: what cannot be asked soon is answered at once.
func TestSlots_ManyQuestionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReplicas(t, 1, always)
		c.serve(func(_ int, o *Options) {
			o.Leader = elsewhere{func(ctx context.Context, _ string, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }}
		})
		c.owing("a")
		s := c.nodes[2].server
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { s.askSlots(ctx) })
		defer running.Wait()
		defer cancel()
		began := time.Now()
		told := make(chan time.Duration, 1000)
		for range 1000 {
			s.command(ref("a"), func([]lmcache.HeartbeatCommand) { told <- time.Since(began) })
		}
		atOnce, last := 0, time.Duration(0)
		for range 1000 {
			at := <-told
			if at == 0 {
				atOnce++
			}
			last = max(last, at)
		}
		if atOnce < 1000-2*maxSlotQuestions || last > askTimeout {
			t.Errorf("%d of 1000 were told at once, the last after %v, want nearly all, and %v", atOnce, last, askTimeout)
		}
		if n := s.Stats().SlotsUnanswered; n != 1 {
			t.Errorf("%d unanswered questions counted, want 1", n)
		}
	})
}

func TestPeerHandler_SyncSlot(t *testing.T) {
	c := newReplicas(t, 1, always)
	c.serve(func(_ int, o *Options) { o.MaxSyncs = 1 })
	c.elect(0)
	b := fsm.NewBatch(session())
	for _, name := range []string{"a", "b"} {
		b.Register(registry.Registration{WorkerRef: ref(name), IP: "10.0.0.1", Port: 1, At: 1, ByHeartbeat: true})
	}
	c.mu.Lock()
	c.commit(b.Encode(1, 1)) // and no members: there is no other leader to wait for
	c.mu.Unlock()
	for _, tt := range []struct {
		name   string
		node   int
		body   string
		status int
		words  string
	}{
		{"granted", 0, `{"instance":"a","worker":1}`, http.StatusOK, `{"granted":true,"full":false,"reason":"worker_re_registered"}`},
		{"again", 0, `{"instance":"a","worker":1}`, http.StatusOK, `"granted":true`},
		{"all taken", 0, `{"instance":"b","worker":1}`, http.StatusOK, `{"granted":false,"full":true}`},
		{"owes none", 0, `{"instance":"c","worker":1}`, http.StatusOK, `{"granted":false,"full":false}`},
		{"no leader", 1, `{"instance":"a","worker":1}`, http.StatusMisdirectedRequest, "not_leader"},
		{"noise", 0, `{`, http.StatusBadRequest, "invalid"},
		{"nobody", 0, `{}`, http.StatusBadRequest, "0 bytes"},
		{"a long name", 0, `{"instance":"` + strings.Repeat("x", fsm.MaxName+1) + `"}`, http.StatusBadRequest, "1025 bytes"},
	} {
		if status, answer := c.nodes[tt.node].answer(pathSyncSlot, []byte(tt.body)); status != tt.status || !strings.Contains(string(answer), tt.words) {
			t.Errorf("%s: answer %d %s, want %d with %s", tt.name, status, answer, tt.status, tt.words)
		}
	}
}

// TestRouter_HeartbeatWaitsForTheLeader: on a follower the answer to a heartbeat of a
// worker that owes a sync waits for the leader's word, in its place among the answers of
// its connection; nobody else waits.
func TestRouter_HeartbeatWaitsForTheLeader(t *testing.T) {
	asked, word := make(chan slotQuestion, 1), make(chan error)
	r := start(t, func(o *Options) {
		o.Leader = elsewhere{func(ctx context.Context, path string, body []byte) ([]byte, error) {
			if path != pathSyncSlot {
				return nil, nil
			}
			var q slotQuestion
			if err := json.Unmarshal(body, &q); err != nil {
				return nil, err
			}
			asked <- q
			select {
			case err := <-word:
				if err != nil {
					return nil, err
				}
				return answered(slotAnswer{Granted: true, Reason: "because"})
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
	})
	d := r.dealer()
	for round, err := range []error{nil, errors.New("connection reset")} {
		d.request(heartbeatMsg("i"))
		d.request(&lmcache.BatchedP2PLookupMsg{Hashes: []lmcache.Key{1}})
		if q := <-asked; q != (slotQuestion{"i", 1}) {
			t.Fatalf("the leader was asked for %+v", q)
		}
		other := r.dealer()
		for range 3 {
			other.ask(&lmcache.BatchedP2PLookupMsg{Hashes: []lmcache.Key{1}})
		}
		must(t, d.sock.SetRcvtimeo(20*time.Millisecond))
		if _, err := d.sock.RecvMessageBytes(0); err == nil {
			t.Fatal("an answer came before the leader's")
		}
		must(t, d.sock.SetRcvtimeo(patience))
		word <- err
		ret, ok := d.answer().(*lmcache.HeartbeatRetMsg)
		if want := 1 - round; !ok || len(ret.Commands) != want || want == 1 && *ret.Commands[0].Reason != "because" {
			t.Fatalf("heartbeat: %+v, want %d commands", ret, want)
		}
		if m := d.answer(); m.Type() != "BatchedP2PLookupRetMsg" {
			t.Fatalf("then %s", m.Type())
		}
	}
}
