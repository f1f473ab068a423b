package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/registry"
)

func TestRead_AsksForFreshness(t *testing.T) {
	for _, c := range []struct {
		query string
		want  cluster.Read
		wait  time.Duration // 0: not bounded by us
	}{
		{"", cluster.Read{}, 0},
		{"?consistency=stale&timeout=1s", cluster.Read{}, 0},
		{"?consistency=linearizable", cluster.Read{Consistency: cluster.Linearizable}, 10 * time.Second},
		{"?consistency=bounded&max_staleness=250ms", cluster.Read{Consistency: cluster.Bounded, MaxStaleness: 250 * time.Millisecond}, 10 * time.Second},
		{"?max_staleness=0.5", cluster.Read{Consistency: cluster.Bounded, MaxStaleness: 500 * time.Millisecond}, 10 * time.Second},
		{"?min_index=42&timeout=2s", cluster.Read{MinIndex: 42}, 2 * time.Second},
		{"?min_index=1&min_index=43", cluster.Read{MinIndex: 43}, 10 * time.Second},
	} {
		for _, path := range []string{"/lookup", "/check_finish", "/query_worker_info", "/controller/workers", "/controller/key-stats", "/instances", "/events", "/admin/digest"} {
			r := newRig(t)
			asked := 0
			r.node.read = func(ctx context.Context, read cluster.Read) (cluster.Freshness, error) {
				d, bounded := ctx.Deadline()
				if read == c.want && (c.wait == 0) != bounded && (!bounded || time.Until(d) > c.wait-time.Second && time.Until(d) <= c.wait) {
					asked++
				}
				return cluster.Freshness{Index: 99, Staleness: 0}, nil
			}
			body := map[string]string{"/lookup": `{"tokens":[1]}`, "/check_finish": `{"event_id":"e"}`, "/query_worker_info": `{"instance_id":"a"}`}[path]
			method := "GET"
			if body != "" {
				method = "POST"
			}
			w := r.send(method, path+c.query, body)
			if w.Code != 200 || asked == 0 {
				t.Errorf("%s%s: %d %s; asked as wanted %d times", path, c.query, w.Code, w.Body, asked)
			}
			if path != "/admin/digest" && w.Header().Get(headerIndex) != "99" || w.Header().Get(headerStaleness) != "0" {
				t.Errorf("%s%s: headers %v", path, c.query, w.Header())
			}
		}
	}
}

func TestRead_BadQuery(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ query, has string }{
		{"consistency=strong", `{"type":"literal_error","loc":["query","consistency"],"msg":"Input should be 'stale', 'bounded' or 'linearizable'","input":"strong","ctx":{"expected":"'stale', 'bounded' or 'linearizable'"}}`},
		{"consistency=bounded", `{"type":"missing","loc":["query","max_staleness"],"msg":"Field required","input":null}`},
		{"consistency=linearizable&max_staleness=1s", `"value_error","loc":["query","max_staleness"]`},
		{"max_staleness=soon", `"time_delta_parsing","loc":["query","max_staleness"]`},
		{"max_staleness=-1s", `"time_delta_parsing","loc":["query","max_staleness"]`},
		{"min_index=x", `{"type":"int_parsing","loc":["query","min_index"],"msg":"Input should be a valid integer, unable to parse string as an integer","input":"x"}`},
		{"min_index=-1", `"greater_than_equal","loc":["query","min_index"]`},
		{"min_index=99999999999999999999", `"int_parsing","loc":["query","min_index"]`},
		{"timeout=1h", `"time_delta_parsing","loc":["query","timeout"]`},
		{"min_index=x&timeout=y&consistency=z", `"literal_error"`},
	} {
		for _, target := range []string{"/controller/key-stats", "/events", "/instances"} {
			w := r.get(target + "?" + c.query)
			if w.Code != 422 || !strings.Contains(w.Body.String(), c.has) {
				t.Errorf("%s?%s: %d %s", target, c.query, w.Code, w.Body)
			}
		}
	}
	w := r.get("/events?min_index=x&timeout=y&consistency=z&limit=0")
	var e struct{ Detail []fault }
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || len(e.Detail) != 4 {
		t.Errorf("%s: want all four faults", w.Body)
	}
}

func TestRead_NotFreshEnough(t *testing.T) {
	for _, c := range []struct {
		err          error
		status       int
		code, has    string
		clientIsGone bool
	}{
		{fmt.Errorf("%w: applied index 3, asked for 9: %w", cluster.ErrStale, context.DeadlineExceeded), 503, "stale", "asked for 9", false},
		{context.DeadlineExceeded, 503, "stale", "", false},
		{cluster.ErrNoLeader, 503, "no_leader", "", false},
		{&cluster.NotLeaderError{Leader: cluster.Leader{NodeID: "n2", URL: "http://n2"}}, 503, "not_leader", "", false},
		{cluster.ErrStopped, 503, "stopping", "", false},
	} {
		r := newRig(t)
		r.node.read = func(_ context.Context, read cluster.Read) (cluster.Freshness, error) {
			if read == (cluster.Read{}) {
				return cluster.Freshness{Index: 3, Staleness: cluster.StalenessUnknown}, nil
			}
			return cluster.Freshness{}, c.err
		}
		w := r.get("/instances?consistency=linearizable")
		if w.Code != c.status || !strings.Contains(w.Body.String(), `"code":"`+c.code+`"`) || !strings.Contains(w.Body.String(), c.has) || w.Header().Get("Retry-After") == "" {
			t.Errorf("%v: %d %s", c.err, w.Code, w.Body)
		}
		// What is known stands in the headers all the same.
		if w.Header().Get(headerIndex) != "3" || w.Header()[headerStaleness][0] != "" {
			t.Errorf("headers %v", w.Header())
		}
	}
}

func TestHeaders_OnEveryAnswer(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct{ method, target, body string }{
		{"GET", "/healthz", ""}, {"GET", "/nothing", ""}, {"GET", "/lookup", ""}, {"POST", "/lookup", "{"}, {"POST", "/lookup/", ""},
		{"POST", "/clear", `{"instance_id":"a","location":"l"}`}, {"GET", "/metrics", ""}, {"GET", "/", ""}, {"HEAD", "/readyz", ""},
	} {
		w := r.send(c.method, c.target, c.body)
		h := w.Header()
		if h.Get(headerNode) != "n1" || h.Get(headerRole) != "leader" || h.Get(headerLeader) != "http://n1:9000" || h.Get(headerIndex) != "7" || h.Get(headerStaleness) != "2" {
			t.Errorf("%s %s: %d %v", c.method, c.target, w.Code, h)
		}
	}
	r.node.follows = true
	if h := r.get("/healthz").Header(); h.Get(headerRole) != "candidate" || h[headerLeader][0] != "" {
		t.Errorf("without a leader: %v", h)
	}
	r.node.leader = cluster.Leader{NodeID: "n2", URL: "http://n2:9000"}
	if h := r.get("/healthz").Header(); h.Get(headerRole) != "follower" || h.Get(headerLeader) != "http://n2:9000" {
		t.Errorf("behind a leader: %v", h)
	}
}

func TestEvents(t *testing.T) {
	r := newRig(t)
	reg := r.state.Registry()
	ref := registry.WorkerRef{Instance: "a", Worker: 1}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	reg.CreateEvent(registry.EventCreate{ID: "Clear/1", Kind: registry.CommandClear, Source: registry.Target{Instance: "a", Location: "L"}, At: 10})
	must(reg.RunEvent(registry.EventRun{ID: "Clear/1", Workers: []registry.WorkerRef{ref}, At: 11}))
	must(reg.FinishEvent(registry.EventFinish{ID: "Clear/1", State: registry.EventDone, NumTokens: 5, At: 12,
		Workers: []registry.WorkerOutcome{{WorkerRef: ref, State: registry.EventDone, NumTokens: 5}}}))
	reg.CreateEvent(registry.EventCreate{ID: "Move2", Kind: registry.CommandMove, Source: registry.Target{Instance: "a", Location: "L"}, Dest: registry.Target{Instance: "b", Location: "M"}, At: 20})

	const first = `{"event_id":"Clear/1","kind":"clear","status":"done","source":{"instance_id":"a","location":"L"},"num_tokens":5,"detail":"","created_us":10,"finished_us":12,` +
		`"workers":[{"instance_id":"a","worker_id":1,"status":"done","num_tokens":5,"error":""}]}`
	const second = `{"event_id":"Move2","kind":"move","status":"pending","source":{"instance_id":"a","location":"L"},"destination":{"instance_id":"b","location":"M"},` +
		`"num_tokens":0,"detail":"","created_us":20,"finished_us":0,"workers":[]}`
	want(t, r.get("/events"), 200, `{"events":[`+second+`,`+first+`]}`)
	want(t, r.get("/events?limit=1"), 200, `{"events":[`+second+`]}`)
	want(t, r.get("/events?limit=1001"), 422, "")
	want(t, r.get("/events?kind=clear"), 200, `{"events":[`+first+`]}`)
	want(t, r.get("/events?kind=move&status=pending"), 200, `{"events":[`+second+`]}`)
	want(t, r.get("/events?status=failed"), 200, `{"events":[]}`)
	want(t, r.get("/events?kind=explode&status="), 422, "")
	want(t, r.get("/events/Clear%2F1"), 200, first)
	want(t, r.get("/events/Clear/1"), 200, first)
	must(reg.FinishEvent(registry.EventFinish{ID: "Move2", State: registry.EventDone, NumTokens: 8, At: 30, Confirm: &registry.Confirmation{Key: 4, Ranks: []int64{0}}}))
	if w := r.get("/events/Move2"); !strings.Contains(w.Body.String(), `"num_tokens":8,"confirmed":"awaited","detail":""`) {
		t.Error(w.Body)
	}
	reg.Lease(registry.Lease{At: 30 + 31_000_000})
	if w := r.get("/events/Move2"); !strings.Contains(w.Body.String(), `"confirmed":"unconfirmed","detail":"instance \"b\" has not reported the moved chunks`) {
		t.Error(w.Body)
	}
	w := r.get("/events/nope")
	want(t, w, 404, "")
	if !strings.Contains(w.Body.String(), `"code":"unknown_event"`) {
		t.Error(w.Body)
	}
	want(t, r.post("/check_finish", `{"event_id":"Clear/1"}`), 200, `{"status":"done"}`)
	want(t, r.post("/check_finish", `{"event_id":"Move2"}`), 200, `{"status":"done"}`)
	want(t, r.post("/check_finish", `{"event_id":""}`), 200, `{"status":"unknown"}`)
}

func TestInstances(t *testing.T) {
	r := newRig(t)
	want(t, r.get("/instances"), 200, `{"instances":[]}`)
	r.register("a", 1)
	r.register("a", 0)
	r.admit("a", 1, "LocalCPUBackend", 1, 2)
	want(t, r.get("/instances"), 200, `{"instances":[{"instance_id":"a","key_count":2,"workers":[`+
		`{"worker_id":1,"ip":"127.0.0.1","port":8001,"peer_init_url":"127.0.0.1:7000","liveness":"alive","sync_state":"none","sync_failures":0,"registration_time":1700000000.25,"last_heartbeat_time":1700000000.25,`+
		`"key_count":2,"locations":[{"location":"LocalCPUBackend","key_count":2,"gaps":0,"lossy":false,"numbered":false}]},`+
		`{"worker_id":0,"ip":"127.0.0.1","port":8000,"peer_init_url":"127.0.0.1:7000","liveness":"alive","sync_state":"none","sync_failures":0,"registration_time":1700000000.25,"last_heartbeat_time":1700000000.25,`+
		`"key_count":0,"locations":[]}]}]}`)
}

func TestQueryWorkerInfo_Order(t *testing.T) {
	r := newRig(t)
	for _, w := range []struct {
		instance string
		worker   int64
	}{{"b", 1}, {"b", 0}, {"a", 7}, {"a", 3}} {
		r.register(w.instance, w.worker)
	}
	for _, c := range []struct{ body, want string }{
		{`{"instance_id":"b"}`, "b0 b1"},
		{`{"instance_id":"b","worker_ids":[]}`, "b0 b1"},
		{`{"instance_id":"b","worker_ids":[1,0,1,9]}`, "b1 b0 b1"},
		{`{"instance_id":"all"}`, "b1 b0 a7 a3"},
		{`{"instance_id":"all","worker_ids":[3,1]}`, "b1 a3"},
		{`{"instance_id":""}`, ""},
		{`{"instance_id":"c","worker_ids":null}`, ""},
	} {
		w := r.post("/query_worker_info", c.body)
		var a struct {
			Infos []struct {
				Instance string `json:"instance_id"`
				Worker   int64  `json:"worker_id"`
			} `json:"worker_infos"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 {
			t.Fatal(w.Code, w.Body)
		}
		var got []string
		for _, i := range a.Infos {
			got = append(got, fmt.Sprint(i.Instance, i.Worker))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %s, want %s", c.body, got, c.want)
		}
	}
	want(t, r.post("/query_worker_info", `{"instance_id":"b","worker_ids":[18446744073709551616]}`), 400, "")
}

func TestSeconds_AlwaysAFraction(t *testing.T) {
	for us, want := range map[seconds]string{0: "0.0", 1_700_000_000_000_000: "1700000000.0", 1_700_000_000_123_456: "1700000000.123456"} {
		b, err := json.Marshal(us)
		if err != nil || string(b) != want {
			t.Errorf("%d: %s, want %s", us, b, want)
		}
	}
}

func TestAdmin(t *testing.T) {
	r := newRig(t)
	r.register("a", 0)
	r.admit("a", 0, "L", 1, 2, 3)
	yes, zero, seven := true, int64(0), uint64(7)
	r.node.status = cluster.Status{NodeID: "n1", Role: "leader", Term: 2, Leader: cluster.Leader{NodeID: "n1", URL: "http://n1:9000"}, CommitIndex: 8, AppliedIndex: 7, LastSnapshotIndex: 5, LogBytes: 4096,
		Nodes: []cluster.NodeStatus{{NodeID: "n1", PeerAddr: "127.0.0.1:9400", URL: "http://n1:9000", Voter: true, Role: "leader", Reachable: &yes, LastContactMS: &zero, AppliedIndex: &seven}}}
	r.node.identity = cluster.Identity{NodeID: "n1", ClusterID: "c1", PeerAddr: "10.0.0.1:9400", URL: "http://n1:9000"}
	want(t, r.get("/admin/status"), 200, `{"node_id":"n1","role":"leader","term":2,"leader":{"node_id":"n1","url":"http://n1:9000"},"commit_index":8,"applied_index":7,"last_snapshot_index":5,"log_bytes":4096,`+
		`"nodes":[{"node_id":"n1","peer_addr":"127.0.0.1:9400","url":"http://n1:9000","voter":true,"role":"leader","reachable":true,"last_contact_ms":0,"applied_index":7}],"workers":1,"keys":3,"cluster_id":"c1","peer_addr":"10.0.0.1:9400","url":"http://n1:9000",`+
		`"hash":{"mode":"fixed","chunk_size":256,"chunk_sizes":[256],"candidates":1,"profiles":[{"name":"builtin@0","chunk_size":256,"in_use":true,"hits":0,"last_hit_us":0,"instances":[],"instance_count":0}]}}`)
	want(t, r.post("/admin/snapshot", ""), 200, `{"last_snapshot_index":5}`)
	want(t, r.post("/admin/snapshot", "{}"), 200, `{"last_snapshot_index":5}`)
	r.node.snapshot = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	w := r.post("/admin/snapshot?timeout=1ms", "")
	want(t, w, 503, "")
	r.node.snapshot = func(context.Context) error { return cluster.ErrStopped }
	want(t, r.post("/admin/snapshot", ""), 503, "")

	w = r.get("/admin/digest") // of an entry later than the one that the request found applied
	want(t, w, 200, `{"index":8,"digest":"`+r.state.Registry().Digest().String()+`"}`)
	if got := w.Header().Get(headerIndex); got != "8" {
		t.Errorf("index %s in the header, want the digest's, 8", got)
	}
	want(t, r.get("/healthz"), 200, `{"status":"alive"}`)
	want(t, r.get("/readyz"), 200, `{"status":"ready"}`)
	r.node.ready = errors.New("catching up")
	w = r.get("/readyz")
	want(t, w, 503, `{"detail":"catching up","code":"not_ready"}`)
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}
