package ingest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

func TestServer_RegisterAnswersWithTheHeartbeatPort(t *testing.T) {
	r := start(t, nil)
	want := []lmcache.StringPair{{Key: "heartbeat_url", Value: fmt.Sprintf("127.0.0.1:%d", r.s.Ports().Heartbeat)}}
	d := r.dealer()
	for range 2 { // the second time as the first
		ret, ok := d.ask(registerMsg("i")).(*lmcache.RegisterRetMsg)
		if !ok || !slices.Equal(ret.ExtraConfig, want) {
			t.Fatalf("answer %+v, want %v", ret, want)
		}
	}
	info, known := r.log.Registry().Worker(ref("i"))
	if !known || info.IP != "10.0.0.1" || info.Port != 8001 || *info.PeerInitURL != "10.0.0.1:8201" {
		t.Errorf("registered as %+v", info)
	}
}

func TestServer_WithoutHeartbeatPort(t *testing.T) {
	r := start(t, func(o *Options) { o.HeartbeatPort = 0 })
	ret, ok := r.dealer().ask(registerMsg("i")).(*lmcache.RegisterRetMsg)
	if !ok || len(ret.ExtraConfig) != 0 {
		t.Fatalf("answer %+v, want an empty extra_config", ret)
	}
	if ret, ok := r.dealer().ask(heartbeatMsg("i")).(*lmcache.HeartbeatRetMsg); !ok || len(ret.Commands) != 0 {
		t.Errorf("heartbeat on the reply port: %+v, want no command", ret)
	}
}

func TestServer_AdvertiseHost(t *testing.T) {
	r := start(t, func(o *Options) { o.AdvertiseHost = "kvctrl.example" })
	ret := r.dealer().ask(registerMsg("i")).(*lmcache.RegisterRetMsg)
	if got, want := ret.ExtraConfig[0].Value, fmt.Sprintf("kvctrl.example:%d", r.s.Ports().Heartbeat); got != want {
		t.Errorf("heartbeat_url %s, want %s", got, want)
	}
}

func TestServer_EventsReachTheRegistry(t *testing.T) {
	r := start(t, nil)
	r.register("i")
	p := r.push()
	p.parts(opsMsg("i", "L", 0, 1, 2, 3), opsMsg("i", "D", 0, 9), opsMsg("i", "L", 3, 4))
	evict := opsMsg("i", "L", 4, 2)
	evict.Operations[0].Kind = lmcache.Evict
	p.parts(evict)
	p.parts(opsMsg("nobody", "L", 0, 1, 2), &lmcache.BatchedKVOperationMsg{InstanceID: "i", WorkerID: 1, Location: "L"})
	eventually(t, "events are applied", func() bool { return r.s.Stats().UnknownOperations == 2 })
	eventually(t, "keys", func() bool { return r.keys("i") == 4 })
	st := r.s.Stats()
	if st.Pull.Messages != 6 || st.Admits != 7 || st.Evicts != 1 || st.UnknownRecords != 1 || st.Gaps != 0 {
		t.Errorf("stats %+v, want 6 messages, 7 admits, 1 evict, 1 unknown record", st)
	}
	if h := r.log.Registry().Holders(2); len(h) != 0 {
		t.Errorf("the evicted key is held by %v", h)
	}
	p.parts(opsMsg("i", "L", 9, 5, 6))
	eventually(t, "the gap is counted", func() bool { return r.s.Stats().Gaps == 1 })
	p.parts(&lmcache.DeRegisterMsg{InstanceID: "i", WorkerID: 1})
	eventually(t, "the worker is gone", func() bool { _, known := r.log.Registry().Worker(ref("i")); return !known })
}

func TestServer_SecondPullPort(t *testing.T) {
	r := start(t, nil)
	r.register("i")
	r.dial(zmq.PUSH, r.s.Ports().Pull[1]).parts(opsMsg("i", "L", 0, 1))
	eventually(t, "the key is there", func() bool { return r.keys("i") == 1 })
}

func TestServer_Heartbeats(t *testing.T) {
	r := start(t, nil)
	commands := func(c *client, m lmcache.Message) []lmcache.HeartbeatCommand {
		t.Helper()
		ret, ok := c.ask(m).(*lmcache.HeartbeatRetMsg)
		if !ok {
			t.Fatal("not answered with HeartbeatRetMsg")
		}
		return ret.Commands
	}
	hb := r.heartbeat()
	got := commands(hb, heartbeatMsg("unknown"))
	if len(got) != 1 || got[0].CommandType != "full_sync" || *got[0].Reason != "worker_re_registered" {
		t.Fatalf("unknown worker: %+v, want full_sync", got)
	}
	if _, known := r.log.Registry().Worker(ref("unknown")); !known {
		t.Error("the unknown worker is not registered")
	}

	r.register("i")
	r.settled()
	entries := r.log.applied()
	if got := commands(hb, heartbeatMsg("i")); len(got) != 0 {
		t.Errorf("known worker: %+v, want no command", got)
	}
	if got := commands(r.dealer(), heartbeatMsg("i")); len(got) != 0 {
		t.Errorf("on the reply port: %+v, want no command", got)
	}
	if n := r.log.applied() - entries; n != 0 {
		t.Errorf("heartbeats of a known worker made %d entries", n)
	}
	if h := r.s.TakeHeard(context.Background()); len(h) != 2 || h[0].Instance != "i" || h[0].Heartbeat == 0 {
		t.Errorf("heard %v", h)
	}

	moved := heartbeatMsg("i")
	moved.Port, moved.PeerInitURL = 9999, nil
	commands(hb, moved)
	eventually(t, "the new port beside the old peer address", func() bool {
		w, _ := r.log.Registry().Worker(ref("i"))
		return w.Port == 9999 && w.PeerInitURL != nil
	})
}

func TestServer_HeartbeatsWithoutALogMakeOneRecord(t *testing.T) {
	r := start(t, func(o *Options) { o.LogPatience = 100 * time.Millisecond })
	resume := r.log.pause()
	hb := r.heartbeat()
	for range 20 {
		if ret, ok := hb.ask(heartbeatMsg("i")).(*lmcache.HeartbeatRetMsg); !ok || len(ret.Commands) != 0 {
			t.Fatalf("answer %+v, want no command while nothing is known", ret)
		}
	}
	resume()
	r.settled()
	if n := r.log.applied(); n != 1 {
		t.Errorf("%d entries for one worker's heartbeats, want 1", n)
	}
	if ret := hb.ask(heartbeatMsg("i")).(*lmcache.HeartbeatRetMsg); len(ret.Commands) != 1 {
		t.Errorf("the sync it owes is not asked for: %+v", ret)
	}
}

func TestServer_AtMostMaxSyncsAtOnce(t *testing.T) {
	clock := new(turned)
	r := start(t, func(o *Options) { o.MaxSyncs, o.Now = 2, clock.now })
	hb := r.heartbeat()
	asked := 0
	for i := range 5 {
		clock.turn(syncTime / 2)
		asked += len(hb.ask(heartbeatMsg(fmt.Sprint(i))).(*lmcache.HeartbeatRetMsg).Commands)
	}
	if asked != 2 || r.s.Stats().SyncsAsked != 2 {
		t.Errorf("%d workers were asked to sync, %d counted, want 2", asked, r.s.Stats().SyncsAsked)
	}
}

// TestServer_HeartbeatOnPullTakesNoSyncSlot: workers up to 0.3.11 cannot be told to
// sync, so nobody must wait for them.
func TestServer_HeartbeatOnPullTakesNoSyncSlot(t *testing.T) {
	r := start(t, func(o *Options) { o.MaxSyncs = 1 })
	r.push().parts(heartbeatMsg("old"), heartbeatMsg("old"))
	eventually(t, "it is registered", func() bool { _, known := r.log.Registry().Worker(ref("old")); return known })
	r.push().parts(heartbeatMsg("old"))
	eventually(t, "its heartbeats are heard", func() bool { return r.s.Stats().Pull.Messages == 3 })
	if ret := r.heartbeat().ask(heartbeatMsg("new")).(*lmcache.HeartbeatRetMsg); len(ret.Commands) != 1 {
		t.Errorf("the new worker is not asked to sync: %+v", ret)
	}
}

func TestServer_P2PLookup(t *testing.T) {
	r := start(t, nil)
	r.register("i")
	r.push().parts(opsMsg("i", "L", 0, 1, 2, 3))
	eventually(t, "keys", func() bool { return r.keys("i") == 3 })
	d := r.dealer()
	for _, tt := range []struct {
		asker string
		keys  []lmcache.Key
		want  lmcache.P2PLayout
	}{
		{"j", []lmcache.Key{1, 2, 9}, lmcache.P2PLayout{InstanceID: "i", Location: "L", HitChunks: 2, PeerInitURL: "10.0.0.1:8201"}},
		{"j", []lmcache.Key{9, 1}, lmcache.P2PLayout{}},
		{"j", nil, lmcache.P2PLayout{}},
		{"i", []lmcache.Key{1}, lmcache.P2PLayout{}},
	} {
		ret, ok := d.ask(&lmcache.BatchedP2PLookupMsg{Hashes: tt.keys, InstanceID: tt.asker}).(*lmcache.BatchedP2PLookupRetMsg)
		if !ok || len(ret.LayoutInfo) != 1 || ret.LayoutInfo[0] != tt.want {
			t.Errorf("%s asks for %v: %+v, want %+v", tt.asker, tt.keys, ret, tt.want)
		}
	}
}

func TestServer_FullSync(t *testing.T) {
	r := start(t, nil)
	r.register("i")
	d, p := r.dealer(), r.push()
	p.parts(opsMsg("i", "L", 0, 1, 2, 3))
	eventually(t, "keys", func() bool { return r.keys("i") == 3 })

	startMsg := &lmcache.FullSyncStartMsg{InstanceID: "nobody", WorkerID: 1, Location: "L", SyncID: "s", TotalKeys: 3, BatchCount: 2}
	if ret := d.ask(startMsg).(*lmcache.FullSyncStartRetMsg); ret.Accepted || ret.SyncID != "s" || ret.ErrorMsg == nil {
		t.Fatalf("unknown worker: %+v, want a refusal", ret)
	}
	startMsg.InstanceID = "i"
	if ret := d.ask(startMsg).(*lmcache.FullSyncStartRetMsg); !ret.Accepted || ret.ErrorMsg != nil {
		t.Fatalf("start: %+v, want accepted", ret)
	}
	status := func() *lmcache.FullSyncStatusRetMsg {
		return d.ask(&lmcache.FullSyncStatusMsg{InstanceID: "i", WorkerID: 1, SyncID: "s"}).(*lmcache.FullSyncStatusRetMsg)
	}
	batch := func(id int64, keys ...lmcache.Key) *lmcache.FullSyncBatchMsg {
		return &lmcache.FullSyncBatchMsg{InstanceID: "i", WorkerID: 1, Location: "L", SyncID: "s", BatchID: id, Keys: keys}
	}
	end := &lmcache.FullSyncEndMsg{InstanceID: "i", WorkerID: 1, Location: "L", SyncID: "s", ActualTotalKeys: 3}
	p.parts(batch(0, 2, 3), end)
	eventually(t, "one batch is missing", func() bool { return slices.Equal(status().MissingBatches, []int64{1}) })
	if st := status(); st.IsComplete || st.SyncID != "s" {
		t.Errorf("status %+v, want incomplete", st)
	}
	// What is sent before the question counts for the answer: the question waits for it.
	p.parts(batch(1, 4))
	eventually(t, "complete", func() bool { st := status(); return st.IsComplete && st.CanExitFreeze && st.GlobalProgress == 1 })
	for key, want := range map[registry.Key]int{1: 0, 2: 1, 3: 1, 4: 1} {
		if got := len(r.log.Registry().Holders(key)); got != want {
			t.Errorf("key %d has %d holders, want %d", key, got, want)
		}
	}
}

func TestServer_FullSyncBatchLargerThanARecord(t *testing.T) {
	r := start(t, nil)
	r.register("i")
	d, p := r.dealer(), r.push()
	keys := make([]lmcache.Key, 3*maxSyncRun+5)
	for i := range keys {
		keys[i] = lmcache.Key(i + 1)
	}
	d.ask(&lmcache.FullSyncStartMsg{InstanceID: "i", WorkerID: 1, Location: "L", SyncID: "s", TotalKeys: int64(len(keys)), BatchCount: 1})
	p.parts(&lmcache.FullSyncBatchMsg{InstanceID: "i", WorkerID: 1, Location: "L", SyncID: "s", Keys: keys},
		&lmcache.FullSyncEndMsg{InstanceID: "i", WorkerID: 1, Location: "L", SyncID: "s"})
	eventually(t, "all keys", func() bool { return r.keys("i") == int64(len(keys)) })
}

func TestServer_LargeMessageIsSplitOverEntries(t *testing.T) {
	r := start(t, nil)
	r.register("i")
	keys := make([]lmcache.Key, 200_000)
	for i := range keys {
		keys[i] = lmcache.Key(uint64(i+1) * 0x9e3779b97f4a7c15)
	}
	r.push().parts(opsMsg("i", "L", 0, keys...))
	eventually(t, "all keys", func() bool { return r.keys("i") == int64(len(keys)) })
	w, _ := r.log.Registry().Worker(ref("i"))
	if l := w.Locations[0]; l.Gaps != 0 || l.NextSeq != int64(len(keys)) {
		t.Errorf("stream %+v, want no gap", l)
	}
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	for i, e := range r.log.entries {
		if len(e) > 320<<10 {
			t.Errorf("entry %d has %d bytes", i, len(e))
		}
	}
}

func TestServer_Refusals(t *testing.T) {
	r := start(t, nil)
	r.register("i")
	r.settled()
	before := r.log.Registry().Digest()
	for _, tt := range []struct {
		port int
		m    lmcache.Message
		want string
	}{
		{r.s.Ports().Reply, &lmcache.DeRegisterMsg{InstanceID: "i", WorkerID: 1}, "Unknown message type: DeRegisterMsg"},
		{r.s.Ports().Reply, &lmcache.ClearMsg{InstanceID: "i"}, "Unknown message type: ClearMsg"},
		{r.s.Ports().Heartbeat, registerMsg("j"), "Expected HeartbeatMsg, got RegisterMsg"},
		{r.s.Ports().Heartbeat, &lmcache.LookupMsg{}, "Expected HeartbeatMsg, got LookupMsg"},
	} {
		if ret, ok := r.dial(zmq.DEALER, tt.port).ask(tt.m).(*lmcache.ErrorMsg); !ok || ret.Error != tt.want {
			t.Errorf("%s: %+v, want %q", tt.m.Type(), ret, tt.want)
		}
	}
	long := registerMsg(strings.Repeat("x", 2000))
	if ret, ok := r.dealer().ask(long).(*lmcache.ErrorMsg); !ok || !strings.Contains(ret.Error, "too long") {
		t.Errorf("an instance id of 2000 bytes: %+v, want a refusal", ret)
	}
	r.push().parts(&lmcache.ClearMsg{EventID: "e", InstanceID: "i", Location: "L"}, &lmcache.ErrorMsg{}, &lmcache.FullSyncStartMsg{InstanceID: "i"},
		opsMsg(strings.Repeat("x", 2000), "L", 0, 1))
	eventually(t, "all is counted", func() bool {
		st := r.s.Stats()
		return st.Refused[RefusedOrchestrator] == 3 && st.Refused[RefusedWrongSocket] == 4 && st.BadFrames[reasonTooLong] == 2
	})
	if r.log.Registry().Digest() != before {
		t.Error("a refused message has changed the state")
	}
}

func TestServer_BadPartLeavesTheOthersAlone(t *testing.T) {
	r := start(t, nil)
	r.register("i")
	p := r.push()
	p.raw(lmcache.Append(nil, opsMsg("i", "L", 0, 1)), []byte{0xc1}, lmcache.Append(nil, opsMsg("i", "L", 1, 2)), nil,
		[]byte(`{"type":`), lmcache.Append(nil, opsMsg("i", "L", 2, 3)))
	eventually(t, "the good parts", func() bool { return r.keys("i") == 3 })
	st := r.s.Stats()
	var bad uint64
	for _, n := range st.BadFrames {
		bad += n
	}
	if bad != 3 || st.BadFrames[lmcache.ReasonEmpty] != 1 || st.Pull.Messages != 6 || st.Gaps != 0 {
		t.Errorf("stats %+v, want 6 parts, 3 of them bad", st)
	}
}

func TestServer_PortInUse(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	log := newMemLog()
	for flag, o := range map[string]Options{
		`(--monitor-ports "pull")`:      {PullPorts: []int{port}},
		`(--monitor-port)`:              {PullPorts: []int{AnyPort, port}},
		`(--monitor-ports "reply")`:     {PullPorts: []int{AnyPort}, ReplyPort: port},
		`(--monitor-ports "heartbeat")`: {PullPorts: []int{AnyPort}, ReplyPort: AnyPort, HeartbeatPort: port},
	} {
		o.Log, o.State, o.Session, o.Host = log, log, session(), "127.0.0.1"
		s := New(o)
		err := s.Open()
		want := fmt.Sprintf("bind tcp://127.0.0.1:%d %s: address already in use", port, flag)
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) {
			t.Errorf("error %v, want %q", err, want)
		}
		must(t, s.Close())
	}
}

func TestServer_LifeWithoutServe(t *testing.T) {
	log := newMemLog()
	s := New(Options{Log: log, State: log, Session: session(), Host: "localhost", PullPorts: []int{AnyPort}})
	if err := s.Open(); err != nil {
		t.Fatal(err)
	}
	if p := s.Ports(); p.Reply != 0 || p.Heartbeat != 0 || len(p.Pull) != 1 || p.Pull[0] == 0 {
		t.Errorf("ports %+v, want a pull port alone", p)
	}
	must(t, s.Close())
	must(t, s.Close())
	if err := s.Serve(context.Background()); err == nil {
		t.Error("Serve after Close has no error")
	}
}

func TestServer_StopDrains(t *testing.T) {
	r := start(t, nil)
	r.register("i")
	resume := r.log.pause()
	r.push().parts(opsMsg("i", "L", 0, 1, 2, 3))
	d := r.dealer()
	d.request(registerMsg("j"))
	eventually(t, "both are taken", func() bool { st := r.s.Stats(); return st.Admits == 3 && st.Reply.Active == 1 })
	closed := make(chan error, 1)
	go func() { closed <- r.s.Close() }()
	resume()
	must(t, <-closed)
	if r.keys("i") != 3 {
		t.Errorf("%d keys after the stop, want 3: what was taken is proposed", r.keys("i"))
	}
	if m := d.answer(); m.Type() != "RegisterRetMsg" {
		t.Errorf("the waiting request was answered with %s", m.Type())
	}
}

func TestServer_StopWithoutALogIsBounded(t *testing.T) {
	r := start(t, func(o *Options) { o.DrainTimeout = 50 * time.Millisecond })
	r.log.pause()
	r.push().parts(opsMsg("i", "L", 0, 1, 2, 3))
	workers := []*client{r.dealer(), r.dealer(), r.dealer()}
	for _, d := range workers {
		d.request(registerMsg("i"))
	}
	eventually(t, "all is taken", func() bool { st := r.s.Stats(); return st.Admits == 3 && st.Reply.Active == 3 })
	must(t, r.s.Close())
	if st := r.s.Stats(); st.LostOperations != 3 {
		t.Errorf("%d operations counted as lost, want 3", st.LostOperations)
	}
	for i, d := range workers { // without an answer they would stay mute for good
		if m := d.answer(); m.Type() != "RegisterRetMsg" {
			t.Errorf("registration %d was answered with %s", i, m.Type())
		}
	}
}
