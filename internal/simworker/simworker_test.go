package simworker_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	zmq "github.com/pebbe/zmq4"
	"go.uber.org/goleak"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/ingest"
	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memLog is a log of one replica in memory.
type memLog struct {
	*fsm.FSM
	mu    sync.Mutex
	index uint64
}

func (l *memLog) Propose(_ context.Context, entry []byte) (cluster.Applied, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index++
	return cluster.Applied{Index: l.index,
		Result: l.Apply(&raft.Log{Index: l.index, Term: 1, Type: raft.LogCommand, Data: entry})}, nil
}

// controller is the real worker-facing side over a memLog.
type controller struct {
	t   *testing.T
	s   *ingest.Server
	log *memLog
}

func startController(t *testing.T) *controller {
	t.Helper()
	log := &memLog{FSM: fsm.New(fsm.Options{})}
	s := ingest.New(ingest.Options{Log: log, State: log, Session: registry.SessionID{1}, Host: "127.0.0.1",
		PullPorts: []int{ingest.AnyPort}, ReplyPort: ingest.AnyPort, HeartbeatPort: ingest.AnyPort})
	must(t, s.Open())
	served := make(chan error, 1)
	go func() { served <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		must(t, s.Close())
		must(t, <-served)
	})
	return &controller{t, s, log}
}

func (c *controller) endpoint() simworker.Endpoint {
	p := c.s.Ports()
	return simworker.Endpoint{Pull: addr(p.Pull[0]), Reply: addr(p.Reply)}
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// worker starts a worker of instance name, rank 0.
func (c *controller) worker(name string, change func(*simworker.Options)) *simworker.Worker {
	c.t.Helper()
	e := c.endpoint()
	o := simworker.Options{Instance: name, Pull: e.Pull, Reply: e.Reply, Sync: quickSync}
	if change != nil {
		change(&o)
	}
	w, err := simworker.New(o)
	must(c.t, err)
	must(c.t, w.Start(context.Background()))
	c.t.Cleanup(func() { must(c.t, w.Stop()) })
	return w
}

var quickSync = simworker.SyncOptions{Delay: -1, Poll: 10 * time.Millisecond, Pause: -1, Retry: 10 * time.Millisecond, BatchKeys: 3}

func (c *controller) info(w *simworker.Worker) registry.WorkerInfo {
	i, _ := c.log.Registry().Worker(registry.WorkerRef{Instance: w.Instance(), Worker: w.Rank()})
	return i
}

// agrees waits until the controller knows exactly what the worker holds in its CPU
// cache, without a gap.
func (c *controller) agrees(ws ...*simworker.Worker) {
	c.t.Helper()
	for _, w := range ws {
		ref := registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: w.Instance(), Worker: w.Rank()}, Location: simworker.LocalCPU}
		eventually(c.t, fmt.Sprintf("the controller knows what %s holds", w), func() bool {
			keys := w.Holds(simworker.LocalCPU)
			var known int64
			for _, l := range c.info(w).Locations {
				if l.Location == simworker.LocalCPU {
					known = l.Keys
				}
			}
			return known == int64(len(keys)) && !slices.ContainsFunc(keys, func(k lmcache.Key) bool {
				return !slices.Contains(c.log.Registry().Holders(registry.Key(k)), ref)
			})
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for deadline := time.After(10 * time.Second); !ok(); {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("not within 10s: %s", what)
		}
	}
}

func tokens(from, n int) []int64 {
	out := make([]int64, n)
	for i := range out {
		out[i] = int64(from + i)
	}
	return out
}

func ptr[T any](v T) *T { return &v }

// command sends one to a worker's port, as a controller does.
func command(t *testing.T, w *simworker.Worker, kind zmq.Type, frame []byte, wait time.Duration) (lmcache.Message, []byte, error) {
	t.Helper()
	sock, err := zmq.NewSocket(kind)
	must(t, err)
	defer sock.Close()
	must(t, sock.SetLinger(0))
	must(t, sock.SetRcvtimeo(wait))
	must(t, sock.Connect("tcp://"+addr(w.Port())))
	if kind == zmq.DEALER {
		_, err = sock.SendMessage("", frame)
	} else {
		_, err = sock.SendMessage(frame)
	}
	must(t, err)
	answer, err := sock.RecvMessageBytes(0)
	if err != nil {
		return nil, nil, err
	}
	raw := answer[len(answer)-1]
	m, err := lmcache.Decode(raw)
	return m, raw, err
}

func do(t *testing.T, w *simworker.Worker, m lmcache.Message) lmcache.Message {
	t.Helper()
	ret, _, err := command(t, w, zmq.REQ, lmcache.Append(nil, m), 10*time.Second)
	must(t, err)
	return ret
}

func TestWorker_RegistersStoresEvicts(t *testing.T) {
	c := startController(t)
	w := c.worker("a", func(o *simworker.Options) { o.Capacity = 5 })
	if got := c.info(w); got.IP != "127.0.0.1" || got.Port != int64(w.Port()) || got.PeerInitURL != nil {
		t.Errorf("registered as %+v, want 127.0.0.1:%d without a peer address", got, w.Port())
	}
	if got, want := w.HeartbeatURL(), addr(c.s.Ports().Heartbeat); got != want {
		t.Errorf("heartbeat url %s, want %s", got, want)
	}
	if got := w.Store(tokens(0, 1000)); got != 768 {
		t.Errorf("stored %d tokens of 1000, want the three full chunks", got)
	}
	c.agrees(w)
	// The keys are LMCache's own: recorded for tokens 0 to 599.
	want := uint64(3131758554629441992)
	if !slices.Contains(w.Holds(simworker.LocalCPU), lmcache.Key(want)) {
		t.Error("the first chunk's key is not the one LMCache computes")
	}
	w.Store(tokens(5000, 4*256)) // the two longest unused of the first prompt go
	c.agrees(w)
	if n := len(w.Holds(simworker.LocalCPU)); n != 5 {
		t.Errorf("%d chunks, capacity 5", n)
	}
	w.StoreKeys(simworker.LocalDisk, []lmcache.Key{1, 2})
	w.Evict(simworker.LocalDisk, []lmcache.Key{1, 9})
	eventually(t, "disk is known", func() bool { return c.info(w).Keys == 6 })
	for _, l := range c.info(w).Locations {
		if l.Gaps != 0 || !l.Numbered {
			t.Errorf("stream %+v, want numbers without a gap", l)
		}
	}
	w.Deregister()
	eventually(t, "the worker has left", func() bool { return c.log.Registry().Totals().Workers == 0 })
}

func TestWorker_Commands(t *testing.T) {
	c := startController(t)
	var peers simworker.Peers
	a := c.worker("a", func(o *simworker.Options) { o.Peers = &peers })
	b := c.worker("b", func(o *simworker.Options) { o.Peers = &peers })
	alone := c.worker("alone", nil)
	prompt := tokens(0, 4*256)
	a.Store(prompt)
	alone.Store(prompt)
	asked := lmcache.TokensOf(prompt...)
	move := func(to *simworker.Worker, location string, tokens *[]lmcache.Token, keep *bool) lmcache.Message {
		url := "nowhere:1"
		if to.PeerInitURL() != nil {
			url = *to.PeerInitURL()
		}
		return &lmcache.MoveWorkerMsg{WorkerEventID: "e", OldPosition: simworker.LocalCPU,
			NewPosition: [2]string{url, location}, Tokens: tokens, Copy: keep}
	}
	for _, tt := range []struct {
		name string
		w    *simworker.Worker
		m    lmcache.Message
		want lmcache.Message
		a, b int // chunks afterwards
	}{
		{"health", a, &lmcache.HealthWorkerMsg{}, &lmcache.HealthWorkerRetMsg{}, 4, 0},
		{"copy", a, move(b, simworker.LocalCPU, &asked, ptr(true)), &lmcache.MoveWorkerRetMsg{NumTokens: 1024}, 4, 4},
		{"clear", b, &lmcache.ClearWorkerMsg{Location: simworker.LocalCPU}, &lmcache.ClearWorkerRetMsg{NumTokens: 1024}, 4, 0},
		{"clear of disk", a, &lmcache.ClearWorkerMsg{Location: simworker.LocalDisk}, &lmcache.ClearWorkerRetMsg{}, 4, 0},
		{"move", a, move(b, simworker.LocalCPU, ptr(asked[:600]), nil), &lmcache.MoveWorkerRetMsg{NumTokens: 512}, 2, 2},
		{"move of nothing", a, move(b, simworker.LocalCPU, &asked, nil), &lmcache.MoveWorkerRetMsg{}, 2, 2},
		{"move to disk", a, move(b, simworker.LocalDisk, &asked, nil), &lmcache.ErrorMsg{Error: "Worker error: Only support moving to cpu for now."}, 2, 2},
		{"move without tokens", a, move(b, simworker.LocalCPU, nil, nil), &lmcache.ErrorMsg{Error: "Worker error: "}, 2, 2},
		{"move without P2P", alone, move(b, simworker.LocalCPU, &asked, nil), &lmcache.ErrorMsg{Error: "Worker error: 'P2PBackend'"}, 2, 2},
		{"move to nobody", b, move(alone, simworker.LocalCPU, &asked, nil), &lmcache.ErrorMsg{Error: "Worker error: no peer at nowhere:1"}, 2, 2},
		{"pin", b, &lmcache.PinWorkerMsg{Location: simworker.LocalCPU, Tokens: asked}, &lmcache.PinWorkerRetMsg{NumTokens: 512}, 2, 2},
		{"clear of pinned", b, &lmcache.ClearWorkerMsg{Location: simworker.LocalCPU}, &lmcache.ClearWorkerRetMsg{}, 2, 2},
		{"compress", b, &lmcache.CompressWorkerMsg{Method: "cachegen", Location: simworker.LocalCPU, Tokens: &asked}, &lmcache.CompressWorkerRetMsg{NumTokens: 512}, 2, 2},
		{"decompress by an unknown method", b, &lmcache.DecompressWorkerMsg{Method: "zip", Location: simworker.LocalCPU, Tokens: &asked}, &lmcache.DecompressWorkerRetMsg{}, 2, 2},
		{"compress without tokens", b, &lmcache.CompressWorkerMsg{Method: "cachegen"}, &lmcache.ErrorMsg{Error: "Worker error: "}, 2, 2},
		{"no command", a, &lmcache.CheckFinishWorkerMsg{}, &lmcache.ErrorMsg{Error: "Unknown message: CheckFinishWorkerMsg"}, 2, 2},
	} {
		if got := do(t, tt.w, tt.m); fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", tt.want) {
			t.Errorf("%s: %#v, want %#v", tt.name, got, tt.want)
		}
		if na, nb := len(a.Holds(simworker.LocalCPU)), len(b.Holds(simworker.LocalCPU)); na != tt.a || nb != tt.b {
			t.Errorf("%s: %d and %d chunks afterwards, want %d and %d", tt.name, na, nb, tt.a, tt.b)
		}
	}
	c.agrees(a, b, alone)
	hit, err := a.Lookup(context.Background(), a.Chunks(prompt))
	if err != nil || hit.InstanceID != "b" || hit.HitChunks != 2 || hit.PeerInitURL != *b.PeerInitURL() {
		t.Errorf("peer lookup: %+v, %v, want two chunks at b", hit, err)
	}
	if n := len(b.Received()); n != 7 {
		t.Errorf("%d commands recorded at b, want 7", n)
	}
}

func TestWorker_Script(t *testing.T) {
	c := startController(t)
	w := c.worker("a", func(o *simworker.Options) {
		o.Script = map[string]simworker.Scripted{
			"ClearWorkerMsg":  {Message: &lmcache.ClearWorkerRetMsg{NumTokens: 600}},
			"PinWorkerMsg":    {Raw: []byte{0xc1}},
			"HealthWorkerMsg": {Silent: true},
			"*":               {Message: &lmcache.ErrorMsg{Error: "no such location"}},
		}
	})
	if got, ok := do(t, w, &lmcache.ClearWorkerMsg{}).(*lmcache.ClearWorkerRetMsg); !ok || got.NumTokens != 600 {
		t.Errorf("clear: %+v, want the scripted 600", got)
	}
	if got, ok := do(t, w, &lmcache.MoveWorkerMsg{}).(*lmcache.ErrorMsg); !ok || got.Error != "no such location" {
		t.Errorf("move: %+v, want the script for any", got)
	}
	if _, raw, err := command(t, w, zmq.DEALER, lmcache.Append(nil, &lmcache.PinWorkerMsg{}), 10*time.Second); err == nil || string(raw) != "\xc1" {
		t.Errorf("pin: % x, %v, want the scripted byte", raw, err)
	}
	if _, _, err := command(t, w, zmq.REQ, lmcache.Append(nil, &lmcache.HealthWorkerMsg{}), 50*time.Millisecond); err == nil {
		t.Error("health was answered")
	}
	w.Script("HealthWorkerMsg", simworker.Scripted{Delay: time.Millisecond})
	if got := do(t, w, &lmcache.HealthWorkerMsg{}); got.Type() != "HealthWorkerRetMsg" {
		t.Errorf("health after the script changed: %s", got.Type())
	}
	if got, _, err := command(t, w, zmq.REQ, []byte("garbage"), 10*time.Second); err != nil || got.Type() != "ErrorMsg" {
		t.Errorf("garbage: %v, %v, want ErrorMsg", got, err)
	}
	types := []string{}
	for _, r := range w.Received() {
		if r.Message != nil {
			types = append(types, r.Message.Type())
		} else {
			types = append(types, string(r.Raw))
		}
	}
	want := []string{"ClearWorkerMsg", "MoveWorkerMsg", "PinWorkerMsg", "HealthWorkerMsg", "HealthWorkerMsg", "garbage"}
	if !slices.Equal(types, want) {
		t.Errorf("received %v, want %v", types, want)
	}
}

func TestWorker_FullSyncAfterALoss(t *testing.T) {
	c := startController(t)
	var round sync.Map
	w := c.worker("a", func(o *simworker.Options) {
		o.HeartbeatEvery, o.HeartbeatDelay = 5*time.Millisecond, time.Millisecond
		o.BatchOps = 1                       // every event a message of its own
		o.Sync.Lose = func(batch int) bool { // one batch is lost once: it is asked for again
			_, before := round.LoadOrStore(batch, true)
			return batch == 1 && !before
		}
	})
	w.Store(tokens(0, 10*256))
	c.agrees(w)
	w.LoseNext(2)
	w.Store(tokens(90000, 3*256))
	eventually(t, "the loss was noticed and made good", func() bool { st := w.Stats(); return st.SyncsGood == 1 && st.Sent.Lost == 2 })
	c.agrees(w)
	eventually(t, "the worker stores again", func() bool { return !w.Frozen() })
	if l := c.info(w).Locations[0]; l.Lossy {
		t.Errorf("stream %+v is still lossy", l)
	}
	w.Store(tokens(70000, 256))
	c.agrees(w)
}

func TestWorker_KnownAgainByItsHeartbeat(t *testing.T) {
	c := startController(t)
	w := c.worker("a", func(o *simworker.Options) { o.HeartbeatEvery, o.HeartbeatDelay = 5*time.Millisecond, time.Millisecond })
	w.Store(tokens(0, 10*256))
	c.agrees(w)
	w.Deregister() // as good as a controller that has lost its state
	eventually(t, "it is known again and has synced", func() bool { return w.Stats().SyncsGood >= 1 })
	c.agrees(w)
}

func TestFleet_SameSeedSameChunks(t *testing.T) {
	holds := func(seed uint64) (out []string) {
		c := startController(t)
		f, err := simworker.NewFleet(simworker.FleetOptions{Instances: 3, Ranks: 2, Seed: seed,
			Endpoints: []simworker.Endpoint{c.endpoint()}, Worker: simworker.Options{Capacity: 40, ChunkSize: 16, Sync: quickSync}})
		must(t, err)
		must(t, f.Start(context.Background()))
		for range 60 {
			f.Step()
		}
		if !f.Flush(10 * time.Second) {
			t.Error("events are left")
		}
		c.agrees(f.Workers()...)
		if n := c.log.Registry().Totals(); n.Instances != 3 || n.Workers != 6 || n.Gaps != 0 {
			t.Errorf("totals %+v, want 3 instances, 6 workers, no gap", n)
		}
		for _, w := range f.Workers() {
			keys := w.Holds(simworker.LocalCPU)
			if len(keys) == 0 || len(keys) > 40 {
				t.Errorf("%s holds %d chunks, capacity 40", w, len(keys))
			}
			out = append(out, fmt.Sprint(w, keys))
		}
		must(t, f.Restart(context.Background(), 1, 0))
		if n := len(f.Worker(1, 0).Holds(simworker.LocalCPU)); n != 0 {
			t.Errorf("%d chunks after the restart", n)
		}
		c.agrees(f.Workers()...)
		must(t, f.Stop())
		return out
	}
	first := holds(7)
	if again := holds(7); !slices.Equal(first, again) {
		t.Error("the same seed gives other chunks")
	}
	if other := holds(8); slices.Equal(first, other) {
		t.Error("another seed gives the same chunks")
	}
}

func TestFleet_Run(t *testing.T) {
	c := startController(t)
	f, err := simworker.NewFleet(simworker.FleetOptions{Instances: 2, Seed: 1, Parallel: 2, Endpoints: []simworker.Endpoint{c.endpoint()},
		Worker: simworker.Options{ChunkSize: 16, HeartbeatEvery: 5 * time.Millisecond, Sync: quickSync}})
	must(t, err)
	must(t, f.Start(context.Background()))
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); f.Run(ctx, 2000) }()
	eventually(t, "events and heartbeats", func() bool { st := f.Stats(); return st.Sent.Operations > 200 && st.Heartbeats > 4 })
	cancel()
	<-ran
	must(t, f.Stop())
}

func TestOptions_Refusals(t *testing.T) {
	for name, o := range map[string]simworker.Options{
		"no name":         {Pull: "x:1", Reply: "x:2"},
		"deaf, no port":   {Instance: "a", Pull: "x:1", Reply: "x:2", Deaf: true},
		"unknown profile": {Instance: "a", Pull: "x:1", Reply: "x:2", Profile: "md5@0"},
	} {
		if _, err := simworker.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := simworker.NewFleet(simworker.FleetOptions{}); err == nil {
		t.Error("a fleet without an endpoint has no error")
	}
}

func TestWorker_NobodyAnswers(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0") // accepts and says nothing
	must(t, err)
	defer l.Close()
	w, err := simworker.New(simworker.Options{Instance: "a", Pull: l.Addr().String(), Reply: l.Addr().String(), AnswerTimeout: 50 * time.Millisecond})
	must(t, err)
	if err := w.Start(context.Background()); err == nil {
		t.Error("a worker that is not answered has started")
	}
	must(t, w.Stop())
}
