package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kvctrl/kvctrl/internal/testcert"
)

// replica answers requests from a table of bodies by path and keeps what it got.
type replica struct {
	*httptest.Server
	got []string
}

func startReplica(t *testing.T, status int, bodies map[string]string) *replica {
	t.Helper()
	r := &replica{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.got = append(r.got, req.Method+" "+req.URL.RequestURI()+" "+string(b))
		body, ok := bodies[req.URL.Path]
		if !ok {
			t.Errorf("unexpected path %s", req.URL.Path)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	t.Cleanup(r.Close)
	return r
}

// kvctrld runs a command line and returns its exit code and what it printed.
func kvctrld(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = runWith(context.Background(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// deadAddr is an address that refuses connections.
func deadAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func TestVerbs(t *testing.T) {
	const done = `{"event_id":"E1","num_tokens":512}`
	for _, tt := range []struct {
		name  string
		args  []string
		path  string
		body  string
		asked string // what the request holds
		shown []string
	}{
		{"lookup keeps the order", []string{"lookup", "--tokens", "0..2"}, "/lookup",
			`{"event_id":"x","layout_info":{"zz":["LocalCPUBackend",512],"aa":["LocalDiskBackend",256]}}`,
			`{"tokens":[0,1,2]}`, []string{"zz        LocalCPUBackend   512\naa        LocalDiskBackend  256"}},
		{"lookup without a hit", []string{"lookup", "--tokens", "1"}, "/lookup", `{"event_id":"x","layout_info":{}}`, `[1]`, []string{"no instance holds"}},
		{"lookup of one instance", []string{"lookup", "--tokens", "1", "--instance", "i"}, "/lookup", `{"layout_info":{}}`, `"instance_id":"i"`, nil},
		{"lookup raw", []string{"lookup", "--tokens", "1", "--json"}, "/lookup", `{"layout_info":{}}`, `[1]`, []string{`{"layout_info":{}}`}},
		{"clear", []string{"clear", "i"}, "/clear", done, `"location":"LocalCPUBackend"`, []string{"cleared 512 tokens (event E1)"}},
		{"clear of a location", []string{"clear", "i/LocalDiskBackend"}, "/clear", done, `"instance_id":"i","location":"LocalDiskBackend"`, nil},
		{"pin", []string{"pin", "i", "--tokens", "5"}, "/pin", done, `"tokens":[5]`, []string{"pinned 512"}},
		{"compress", []string{"compress", "i", "--tokens", "5"}, "/compress", done, `"method":"cachegen"`, []string{"compressed 512"}},
		{"decompress", []string{"decompress", "i", "--tokens", "5", "--method", "m"}, "/decompress", done, `"method":"m"`, []string{"decompressed 512"}},
		{"move", []string{"move", "a", "b/L", "--tokens", "5", "--copy"}, "/move", done,
			`"new_position":["b","L"],"old_position":["a","LocalCPUBackend"],"should_copy":true,"tokens":[5]`, []string{"moved 512"}},
		{"own event id", []string{"clear", "i", "--event-id", "mine"}, "/clear", done, `"event_id":"mine"`, nil},
		{"not waited for", []string{"clear", "i", "--wait=false"}, "/clear", `{"event_id":"E1"}`, `/clear?wait=false `, []string{"event E1 is under way"}},
		{"deadline", []string{"clear", "i", "--deadline", "90s"}, "/clear", done, `/clear?timeout=1m30s `, []string{"cleared 512"}},
		{"lookup of an age", []string{"lookup", "--tokens", "1", "--max-staleness", "250ms"}, "/lookup", `{"layout_info":{}}`, `/lookup?max_staleness=250ms `, nil},
		{"lookup of what is committed", []string{"lookup", "--tokens", "1", "--consistency", "linearizable"}, "/lookup", `{"layout_info":{}}`, `/lookup?consistency=linearizable `, nil},
		{"health", []string{"health", "i"}, "/health", `{"error_codes":{"0":0,"1":-1001}}`, `"instance_id":"i"`, []string{"1       -1001"}},
		{"health by rank", []string{"health", "i"}, "/health", `{"error_codes":{"10":0,"2":0}}`, `"i"`, []string{"2       0\n10      0"}},
		{"health of nobody", []string{"health", "i"}, "/health", `{"error_codes":{}}`, `"i"`, []string{`instance "i" is not known`}},
		{"check-finish", []string{"check-finish", "E1"}, "/check_finish", `{"status":"done"}`, `"event_id":"E1"`, []string{"done"}},
		{"workers", []string{"workers", "a b"}, "/controller/workers", `{"workers":[{"instance_id":"a b","worker_id":1,"ip":"1.2.3.4","port":5,"peer_init_url":null,"registration_time":0.5,"key_count":7}]}`,
			"instance_id=a+b", []string{"a b", "1.2.3.4:5", "1970-01-01T00:00:00.500Z", "7"}},
		{"instances", []string{"instances"}, "/instances", `{"instances":[{"instance_id":"i","workers":[{"worker_id":0,"liveness":"alive","sync_state":"none","locations":[{"location":"L","key_count":3,"gaps":1,"lossy":true}]},{"worker_id":1,"liveness":"suspect","sync_state":"unrepaired","sync_failures":2}]}]}`,
			"GET", []string{"alive", "yes", "suspect", "unrepaired (2 failed)"}},
		{"events", []string{"events"}, "/events", `{"events":[{"event_id":"E1","kind":"clear","status":"done","num_tokens":5,"created_us":1000,"finished_us":31000,"source":{"instance_id":"i","location":"L"}}]}`, "GET", []string{"E1", "clear", "i/L ", "done", "1970-01-01T00:00:00.001Z", " 30ms"}},
		{"a move that has arrived", []string{"events", "E1"}, "/events/E1", `{"event_id":"E1","kind":"move","status":"done","confirmed":"confirmed","source":{"instance_id":"a","location":"L"},"destination":{"instance_id":"b","location":"M"}}`,
			"GET", []string{"E1: move on a/L -> b/M is done", "instance b has reported the chunks"}},
		{"events of a kind", []string{"events", "--kind", "move", "--status", "failed", "--limit", "5"}, "/events", `{"events":[]}`, "/events?kind=move&limit=5&status=failed ", []string{"CREATED"}},
		{"a move", []string{"events"}, "/events", `{"events":[{"event_id":"E1","kind":"move","confirmed":"awaited","source":{"instance_id":"a","location":"L"},"destination":{"instance_id":"b","location":"M"}}]}`, "GET", []string{"a/L -> b/M", " awaited "}},
		{"names that are commands to a terminal", []string{"events"}, "/events", `{"events":[{"event_id":"a\nb\tc\u001b[31m \"d\" é"}]}`, "GET", []string{`a\nb\tc\x1b[31m "d" é `}},
		{"one event", []string{"events", "E1"}, "/events/E1", `{"event_id":"E1","kind":"clear","status":"partial","detail":"words","workers":[{"instance_id":"i","worker_id":0,"status":"failed","error":"why"}]}`,
			"GET", []string{"partial", "words", "why"}},
		{"join", []string{"join", "--node-id", "n3", "--peer-addr", "h3:9400", "--url", "h3:9000/"}, "/admin/join", `{"node_id":"n3","voter":false,"changed":true}`,
			`{"node_id":"n3","peer_addr":"h3:9400","url":"http://h3:9000","voter":true}`, []string{`node "n3" is in the cluster; it votes once it has caught up`}},
		{"join without a vote", []string{"join", "--node-id", "n3", "--peer-addr", "h3:9400", "--url", "http://h3:9000", "--no-vote"}, "/admin/join", `{"node_id":"n3","voter":false,"changed":true}`,
			`"voter":false`, []string{"node \"n3\" is in the cluster\n"}},
		{"join by the replica's own URL", []string{"join", "--node-id", "n3", "--peer-addr", "h3:9400"}, "/admin/join", `{"node_id":"n3","voter":true,"changed":true}`,
			`{"node_id":"n3","peer_addr":"h3:9400","voter":true}`, nil},
		{"join again", []string{"join", "--node-id", "n3", "--peer-addr", "h3:9400", "--url", "http://h3:9000"}, "/admin/join", `{"node_id":"n3","voter":true,"changed":false}`, "n3", []string{"as asked for"}},
		{"leave", []string{"leave", "n3"}, "/admin/leave", `{"node_id":"n3"}`, `{"force":false,"node_id":"n3"}`, []string{`node "n3" has left`}},
		{"leave by force", []string{"leave", "n3", "--force"}, "/admin/leave", `{"node_id":"n3"}`, `"force":true`, nil},
		{"transfer", []string{"transfer"}, "/admin/transfer", `{"leader":{"node_id":"n2"}}`, `{}`, []string{`node "n2" leads`}},
		{"transfer to one", []string{"transfer", "n2"}, "/admin/transfer", `{"leader":{"node_id":"","url":""}}`, `"node_id":"n2"`, []string{"not known yet"}},
		{"snapshot", []string{"snapshot"}, "/admin/snapshot", `{"last_snapshot_index":9}`, "POST", []string{"index 9"}},
		{"status", []string{"status"}, "/admin/status", `{"node_id":"n1","cluster_id":"c9","term":2,"commit_index":10,"leader":{"node_id":"n1"},"nodes":[{"node_id":"n1","voter":true,"role":"leader","reachable":true,"applied_index":8},{"node_id":"n2","role":"follower","reachable":false,"last_contact_ms":70},{"node_id":"n3"}],"workers":3,"keys":4}`,
			"GET", []string{"leader", "follower (no vote)", "no contact for 70 ms", "not known here", "cluster c9, as replica n1", "3 workers, 4 keys"}},
		{"status of a finder", []string{"status"}, "/admin/status", `{"node_id":"n1","leader":{"node_id":"n1"},"hash":{"mode":"auto","chunk_size":256,"profiles":[` +
			`{"name":"builtin@seed=0","chunk_size":256,"in_use":true,"hits":12,"last_hit_us":1700000000000000,"instances":["a","b","c","d","e","f","g","h","i"],"instance_count":11},` +
			`{"name":"xxhash@seed=0","chunk_size":64,"in_use":false,"hits":1,"last_hit_us":1600000000000000,"instances":[],"instance_count":0}]}}`,
			"GET", []string{"hash auto; found by the lookups at replica n1", "builtin@seed=0", "  12 ", "a, b, c, d, e, f, g, h and 3 more", "xxhash@seed=0 (not of late)"}},
		{"status of a finder that has found nothing", []string{"status"}, "/admin/status", `{"node_id":"n1","leader":{"node_id":"n1"},"hash":{"mode":"auto","chunk_size":256,"profiles":[]}}`,
			"GET", []string{"hash auto, chunks of 256 tokens: no lookup has hit at replica n1 yet"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startReplica(t, 200, map[string]string{tt.path: tt.body})
			code, out, errs := kvctrld(append(tt.args, "--addr", r.URL)...)
			if code != 0 {
				t.Fatalf("exit %d: %s", code, errs)
			}
			if len(r.got) != 1 || !strings.Contains(r.got[0], tt.asked) {
				t.Errorf("asked %q, want %q in it", r.got, tt.asked)
			}
			for _, want := range tt.shown {
				if !strings.Contains(out, want) {
					t.Errorf("printed\n%s\nwant %q in it", out, want)
				}
			}
		})
	}
}

// Every command carries an id made by the client, so that asking another replica
// cannot carry it out twice.
func TestCommands_CarryAnEventID(t *testing.T) {
	r := startReplica(t, 200, map[string]string{"/clear": `{"event_id":"E","num_tokens":1}`})
	for range 2 {
		if code, _, errs := kvctrld("clear", "i", "--addr", r.URL); code != 0 {
			t.Fatal(errs)
		}
	}
	ids := map[string]bool{}
	for _, g := range r.got {
		var body struct {
			ID string `json:"event_id"`
		}
		if err := json.Unmarshal([]byte(g[strings.Index(g, "{"):]), &body); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(body.ID, "Clear") {
			t.Errorf("event id %q", body.ID)
		}
		ids[body.ID] = true
	}
	if len(ids) != 2 {
		t.Errorf("ids %v, want two different", ids)
	}
}

func TestClient_NextAddress(t *testing.T) {
	good := startReplica(t, 200, map[string]string{"/clear": `{"event_id":"E","num_tokens":1}`, "/lookup": `{"layout_info":{}}`})
	away := startReplica(t, 503, map[string]string{"/clear": `{"detail":"no leader","code":"no_leader"}`, "/lookup": `{"detail":"no leader","code":"no_leader"}`})
	refusing := startReplica(t, 404, map[string]string{"/clear": `{"detail":"no worker of instance \"i\"","code":"unknown_instance"}`})
	for _, tt := range []struct {
		name string
		addr string
		code int
		text string
	}{
		{"the first is down", deadAddr(t) + "," + good.URL, 0, ""},
		{"the first has no leader", away.URL + "," + good.URL, 0, ""},
		{"a refusal after a lost answer tells both", hungUp(t) + "," + refusing.URL, 1, "no answer"},
		{"a refusal is final", refusing.URL + "," + good.URL, 1, `no worker of instance "i" (404 unknown_instance)`},
		{"nobody", deadAddr(t) + "," + deadAddr(t), 1, "connection refused"},
		{"no leader anywhere", away.URL, 1, "no leader (503 no_leader)"},
		{"no address", " , ", 2, "no address"},
		{"no URL", "http://", 2, "want a URL"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, _, errs := kvctrld("clear", "i", "--addr", tt.addr)
			if code != tt.code || !strings.Contains(errs, tt.text) {
				t.Errorf("exit %d, %q; want %d with %q", code, errs, tt.code, tt.text)
			}
		})
	}
}

// hungUp is an address where every connection is closed.
func hungUp(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(s.Close)
	return s.URL
}

// TestClient_Words: what went wrong is said once, and in words.
func TestClient_Words(t *testing.T) {
	dead := deadAddr(t)
	if _, _, errs := kvctrld("status", "--addr", dead); strings.Count(errs, strings.TrimPrefix(dead, "http://")) != 2 { // ours and the dialler's
		t.Errorf("nobody there: %q", errs)
	}
	bad := startReplica(t, 422, map[string]string{"/lookup": `{"detail":[{"type":"missing","loc":["query","max_staleness"],"msg":"Field required","input":null},{"type":"int_type","loc":["body","tokens",0],"msg":"Not so\u001b[2J","input":null}]}`})
	if code, _, errs := kvctrld("lookup", "--tokens", "1", "--addr", bad.URL); code != 1 || errs != "kvctrld: "+"query max_staleness: Field required; body tokens 0: Not so\\x1b[2J (422)\n" {
		t.Errorf("exit %d, %q", code, errs)
	}
	hold := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	defer slow.Close()
	defer close(hold)
	// One that certainly did nothing does not change that the other may have.
	away := startReplica(t, 503, map[string]string{"/clear": `{"detail":"no leader","code":"no_leader"}`})
	if _, _, errs := kvctrld("clear", "i", "--timeout", "50ms", "--addr", slow.URL+","+away.URL); !strings.Contains(errs, "it may still be carried out") {
		t.Errorf("%q", errs)
	}
	if _, _, errs := kvctrld("clear", "i", "--addr", dead+","+away.URL); strings.Contains(errs, "carried out") {
		t.Errorf("%q", errs)
	}
	code, _, errs := kvctrld("clear", "i", "--event-id", "mine", "--timeout", "50ms", "--addr", slow.URL)
	if code != 1 || errs != "kvctrld: event \"mine\": "+slow.URL+": no answer within 50ms: it may still be carried out: kvctrld events tells\n" {
		t.Errorf("exit %d, %q", code, errs)
	}
}

func TestStatus_NoLeaderIsAFailure(t *testing.T) {
	r := startReplica(t, 200, map[string]string{"/admin/status": `{"leader":{"node_id":"","url":""},"nodes":[]}`})
	for _, args := range [][]string{{"status"}, {"status", "--json"}} {
		code, out, errs := kvctrld(append(args, "--addr", r.URL)...)
		if code != 1 || !strings.Contains(errs, "no leader") || len(args) == 1 && !strings.Contains(out, "in no cluster yet") {
			t.Errorf("%v: exit %d, %q, %q", args, code, out, errs)
		}
	}
}

// TestClient_TLS: replicas that want a certificate of their clients get one.
func TestClient_TLS(t *testing.T) {
	url, files := startTLS(t, `{"event_id":"E","num_tokens":1}`)
	cert, key := files.cert, files.key
	t.Setenv("KVCTRL_CACERT", files.ca)
	for _, tt := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"--cert", cert, "--key", key}, 0, ""},
		{nil, 1, "certificate required"},
		{[]string{"--cert", cert}, 2, "go together"},
		{[]string{"--cacert", key}, 2, "no certificate in it"},
		{[]string{"--cacert", "/nonexistent"}, 2, "/nonexistent"},
		{[]string{"--cert", key, "--key", key}, 2, "with key"},
	} {
		code, _, errs := kvctrld(append([]string{"clear", "i", "--addr", url}, tt.args...)...)
		if code != tt.code || !strings.Contains(errs, tt.text) {
			t.Errorf("%v: exit %d, %q; want %d with %q", tt.args, code, errs, tt.code, tt.text)
		}
	}
}

// startTLS starts what gives one answer to whoever shows a certificate of the same
// authority as its own.
func startTLS(t *testing.T, answer string) (url string, files tlsFiles) {
	t.Helper()
	ca := testcert.New(t, "test")
	files.ca = ca.File
	files.cert, files.key = ca.Leaf()
	security, err := files.config()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, answer)
	}))
	r.TLS = &tls.Config{Certificates: security.Certificates, ClientCAs: security.RootCAs, ClientAuth: tls.RequireAndVerifyClientCert}
	r.Config.ErrorLog = log.New(io.Discard, "", 0)
	r.StartTLS()
	t.Cleanup(r.Close)
	return r.URL, files
}

func TestCommandLine_Faults(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"lookup", "--tokens", "x"}, 2, `token "x"`},
		{[]string{"lookup", "--tokens", "3..1"}, 2, "first..last"},
		{[]string{"lookup", "--tokens", "0..99999999"}, 2, "more than"},
		{[]string{"lookup", "--tokens", "@/nonexistent"}, 2, "nonexistent"},
		{[]string{"lookup", "--tokens", "[1,"}, 2, "tokens"},
		{[]string{"lookup"}, 2, "\"tokens\" not set; see kvctrld lookup --help"},
		{[]string{"move", "a", "--tokens", "1"}, 2, "received 1"},
		{[]string{"status", "extra"}, 2, "extra"},
		{[]string{"join"}, 2, `"node-id", "peer-addr" not set`},
		{[]string{"join", "--node-id", "a", "--peer-addr", "b:1", "--url", "ftp://c"}, 2, "--url: \"ftp://c\" is no REST address"},
		{[]string{"leave"}, 2, "received 0"},
		{[]string{"transfer", "a", "b"}, 2, "received 2"},
		{[]string{"serve", "--nope"}, 2, "--nope"},
		{[]string{"serve", "prot=1"}, 2, `unknown setting "prot"; the nearest is "port"`},
		{[]string{"simulate", "--pull", "a,b"}, 2, "want one of each"},
		{[]string{"nonsense"}, 2, "nonsense"},
	} {
		code, _, errs := kvctrld(tt.args...)
		if code != tt.code || !strings.Contains(errs, tt.text) {
			t.Errorf("%q: exit %d, %q; want %d with %q", tt.args, code, errs, tt.code, tt.text)
		}
	}
}

func TestReadTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("[1, -2, 3]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for arg, want := range map[string][]int64{
		"1,2 3":    {1, 2, 3},
		"5..7,-1":  {5, 6, 7, -1},
		"":         {},
		"@" + file: {1, -2, 3},
		"-":        {8, 9},
	} {
		got, err := readTokens(arg, strings.NewReader("8\n9\n"))
		if err != nil {
			t.Errorf("%q: %v", arg, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", arg, diff)
		}
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := kvctrld("version")
	if code != 0 || !strings.Contains(out, "log entry format") || !strings.Contains(out, "go1.") {
		t.Errorf("exit %d: %s", code, out)
	}
}
