package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
)

// badRequest is a request and the error it must get.
type badRequest struct {
	name         string
	method, path string
	contentType  string // "" is JSON, "-" none
	body         string
	status       int
	words        string // in the answer's body
}

// posts are the POST endpoints with a body, and one that fits.
var posts = []struct{ path, body, firstField string }{
	{"/lookup", `{"tokens":[1,2,3]}`, "tokens"},
	{"/clear", `{"instance_id":"good","location":"LocalCPUBackend"}`, "instance_id"},
	{"/pin", `{"instance_id":"good","location":"LocalCPUBackend","tokens":[1]}`, "instance_id"},
	{"/compress", `{"instance_id":"good","method":"cachegen","location":"LocalCPUBackend"}`, "instance_id"},
	{"/decompress", `{"instance_id":"good","method":"cachegen","location":"LocalCPUBackend"}`, "instance_id"},
	{"/move", `{"old_position":["good","LocalCPUBackend"],"new_position":["pair","LocalCPUBackend"]}`, "old_position"},
	{"/health", `{"instance_id":"good"}`, "instance_id"},
	{"/check_finish", `{"event_id":"used"}`, "event_id"},
	{"/query_instance", `{"event_id":"e","ip":"127.0.0.1"}`, "event_id"},
	{"/query_worker_info", `{"instance_id":"good"}`, "instance_id"},
}

// badRequests are the cases of single requests: every POST endpoint with the faults that
// any body may have, then each one's own.
func badRequests() []badRequest {
	var list []badRequest
	for _, p := range posts {
		list = append(list,
			badRequest{p.path + " broken JSON", "POST", p.path, "", p.body[:len(p.body)-1], 422, "json_invalid"},
			badRequest{p.path + " no body", "POST", p.path, "", "", 422, "Field required"},
			badRequest{p.path + " a list", "POST", p.path, "", "[" + p.body + "]", 422, "model_attributes_type"},
			badRequest{p.path + " null", "POST", p.path, "", "null", 422, "Field required"},
			badRequest{p.path + " no fields", "POST", p.path, "", "{}", 422, `"` + p.firstField + `"`},
			badRequest{p.path + " first field is a number", "POST", p.path, "", `{"` + p.firstField + `":7}`, 422, `"` + p.firstField + `"`},
			badRequest{p.path + " invalid UTF-8", "POST", p.path, "", p.body[:len(p.body)-1] + ",\"x\":\"\xff\xfe\"}", 400, "not valid UTF-8"},
			badRequest{p.path + " as text", "POST", p.path, "text/plain", p.body, 422, "model_attributes_type"},
			badRequest{p.path + " too large", "POST", p.path, "", p.body[:len(p.body)-1] + `,"x":"` + strings.Repeat("x", maxBadBody) + `"}`, 413, "--max-body"},
			badRequest{p.path + " by GET", "GET", p.path, "", "", 405, "Method Not Allowed"},
		)
	}
	post := func(name, path, body string, status int, words string) {
		list = append(list, badRequest{name, "POST", path, "", body, status, words})
	}
	get := func(name, path string, status int, words string) {
		list = append(list, badRequest{name, "GET", path, "-", "", status, words})
	}
	json := func(name, body string, status int, words string) { post("JSON: "+name, "/lookup", body, status, words) }
	json("a word", `tokens`, 422, "Expecting value")
	json("single quotes", `{'tokens':[1]}`, 422, "double quotes")
	json("comma at the end", `{"tokens":[1],}`, 422, "json_invalid")
	json("comma at the end of the list", `{"tokens":[1,]}`, 422, "json_invalid")
	json("a comment", `{"tokens":[1]/* one */}`, 422, "json_invalid")
	json("two objects", `{"tokens":[1]}{"tokens":[1]}`, 422, "Extra data")
	json("NaN", `{"tokens":[NaN]}`, 422, "Expecting value")
	json("Infinity", `{"tokens":[1],"x":Infinity}`, 422, "Expecting value")
	json("leading zero", `{"tokens":[01]}`, 422, "json_invalid")
	json("hexadecimal", `{"tokens":[0x1]}`, 422, "json_invalid")
	json("control character", "{\"tokens\":[1],\"x\":\"\x01\"}", 422, "Invalid control character")
	json("bad escape", `{"tokens":[1],"x":"\q"}`, 422, "json_invalid")
	json("half a surrogate pair", `{"tokens":[1],"x":"\ud800"}`, 400, "surrogate")
	json("a number beyond a float", `{"tokens":[1],"x":1e999}`, 400, "64-bit")
	json("a number of 5000 digits", `{"tokens":[`+strings.Repeat("9", 5000)+`]}`, 400, "digits")
	json("10000 lists inside each other", `{"tokens":`+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)+`}`, 400, "inside each other")
	json("5000 objects inside each other", strings.Repeat(`{"tokens":`, 5_000), 400, "inside each other")
	json("UTF-16", "\xff\xfe{\x00\"\x00", 400, "not valid UTF-8")
	json("MessagePack", "\x81\xa6tokens\x93\x01\x02\x03", 400, "not valid UTF-8")
	json("zeros", strings.Repeat("\x00", 1000), 422, "json_invalid")
	post("lookup: tokens null", "/lookup", `{"tokens":null}`, 422, "list_type")
	post("lookup: tokens a text", "/lookup", `{"tokens":"1,2,3"}`, 422, "list_type")
	post("lookup: tokens an object", "/lookup", `{"tokens":{"0":1}}`, 422, "list_type")
	post("lookup: a token a word", "/lookup", `{"tokens":[1,"two"]}`, 422, "int_parsing")
	post("lookup: a token a fraction", "/lookup", `{"tokens":[1.5]}`, 422, "fractional part")
	post("lookup: a token null", "/lookup", `{"tokens":[null]}`, 422, "int_type")
	post("lookup: a token a list", "/lookup", `{"tokens":[[1]]}`, 422, "int_type")
	post("lookup: 5000 bad tokens", "/lookup", `{"tokens":[`+strings.Repeat(`"x",`, 5000)+`1]}`, 422, "int_parsing")
	post("lookup: an unknown consistency", "/lookup?consistency=sometimes", `{"tokens":[1]}`, 422, "linearizable")
	post("lookup: bounded without a bound", "/lookup?consistency=bounded", `{"tokens":[1]}`, 422, "max_staleness")
	post("lookup: a bound without bounded", "/lookup?consistency=stale&max_staleness=1s", `{"tokens":[1]}`, 422, "consistency=bounded")
	post("lookup: a bound of no duration", "/lookup?consistency=bounded&max_staleness=soon", `{"tokens":[1]}`, 422, "duration")
	post("lookup: an index below zero", "/lookup?min_index=-1", `{"tokens":[1]}`, 422, "greater than or equal to 0")
	post("lookup: an index of letters", "/lookup?min_index=last", `{"tokens":[1]}`, 422, "int_parsing")
	post("lookup: an index to come", "/lookup?min_index=999999999&timeout=50ms", `{"tokens":[1]}`, 503, "stale")
	post("lookup: a timeout of a day", "/lookup?min_index=1&timeout=24h", `{"tokens":[1]}`, 422, "timeout")
	post("clear: an unknown instance", "/clear", `{"instance_id":"nobody","location":"LocalCPUBackend"}`, 404, `no worker of instance \"nobody\"`)
	post("clear: an instance without a name", "/clear", `{"instance_id":"","location":"LocalCPUBackend"}`, 404, "unknown_instance")
	post("clear: location null", "/clear", `{"instance_id":"good","location":null}`, 422, "string_type")
	post("clear: a location of 2000 bytes", "/clear", `{"instance_id":"good","location":"`+strings.Repeat("x", 2000)+`"}`, 422, "string_too_long")
	post("clear: an instance of 2000 bytes", "/clear", `{"instance_id":"`+strings.Repeat("x", 2000)+`","location":"LocalCPUBackend"}`, 404, "unknown_instance")
	post("clear: an event id of 129 bytes", "/clear", `{"instance_id":"good","location":"LocalCPUBackend","event_id":"`+strings.Repeat("x", 129)+`"}`, 422, "at most 128")
	post("clear: an event id that is a number", "/clear", `{"instance_id":"good","location":"LocalCPUBackend","event_id":5}`, 422, "string_type")
	post("clear: an event id of another command", "/clear", `{"instance_id":"good","location":"LocalCPUBackend","event_id":"used"}`, 409, "choose a new id")
	post("clear: a timeout of nothing", "/clear?timeout=0", `{"instance_id":"good","location":"LocalCPUBackend"}`, 422, "greater than 0")
	post("clear: a timeout below nothing", "/clear?timeout=-1s", `{"instance_id":"good","location":"LocalCPUBackend"}`, 422, "timeout")
	post("clear: a timeout in words", "/clear?timeout=long", `{"instance_id":"good","location":"LocalCPUBackend"}`, 422, "duration")
	post("clear: wait perhaps", "/clear?wait=perhaps", `{"instance_id":"good","location":"LocalCPUBackend"}`, 422, "bool_parsing")
	post("pin: no tokens", "/pin", `{"instance_id":"good","location":"LocalCPUBackend"}`, 422, `"tokens"`)
	post("pin: tokens null", "/pin", `{"instance_id":"good","location":"LocalCPUBackend","tokens":null}`, 422, "list_type")
	post("pin: a token beyond 64 bits", "/pin", `{"instance_id":"good","location":"LocalCPUBackend","tokens":[18446744073709551616]}`, 400, "beyond 64 bits")
	post("pin: an event id with other tokens", "/pin", `{"instance_id":"good","location":"LocalCPUBackend","tokens":[1],"event_id":"used"}`, 409, "choose a new id")
	post("compress: no method", "/compress", `{"instance_id":"good","location":"LocalCPUBackend"}`, 422, `"method"`)
	post("compress: a location of 2000 bytes", "/compress", `{"instance_id":"good","method":"m","location":"`+strings.Repeat("x", 2000)+`"}`, 422, "string_too_long")
	post("move: one place", "/move", `{"old_position":["good"],"new_position":["pair","LocalCPUBackend"]}`, 422, `"missing"`)
	post("move: three places", "/move", `{"old_position":["good","a","b"],"new_position":["pair","LocalCPUBackend"]}`, 422, "too_long")
	post("move: a place in words", "/move", `{"old_position":"good","new_position":["pair","LocalCPUBackend"]}`, 422, "tuple_type")
	post("move: a place of numbers", "/move", `{"old_position":[1,2],"new_position":["pair","LocalCPUBackend"]}`, 422, "string_type")
	post("move: a location of 2000 bytes", "/move", `{"old_position":["good","LocalCPUBackend"],"new_position":["pair","`+strings.Repeat("x", 2000)+`"]}`, 422, "string_too_long")
	post("move: copy perhaps", "/move", `{"old_position":["good","a"],"new_position":["pair","b"],"should_copy":"perhaps"}`, 422, "bool_parsing")
	post("move: an unknown source", "/move", `{"old_position":["nobody","a"],"new_position":["good","b"]}`, 404, "unknown_instance")
	post("move: an unknown destination", "/move", `{"old_position":["good","a"],"new_position":["nobody","b"]}`, 404, "unknown_instance")
	post("move: unequal ranks", "/move", `{"old_position":["good","LocalCPUBackend"],"new_position":["pair","LocalCPUBackend"]}`, 409, "as many on both sides")
	post("move: onto itself", "/move", `{"old_position":["pair","LocalCPUBackend"],"new_position":["pair","LocalCPUBackend"]}`, 409, "are both")
	post("move: to a worker without P2P", "/move", `{"old_position":["good","LocalDiskBackend"],"new_position":["good","LocalCPUBackend"]}`, 409, "peer_init_url")
	post("health: instance a list", "/health", `{"instance_id":["good"]}`, 422, "string_type")
	post("query_instance: an unknown address", "/query_instance", `{"event_id":"e","ip":"10.9.8.7"}`, 404, "10.9.8.7")
	post("query_worker_info: ids of letters", "/query_worker_info", `{"instance_id":"good","worker_ids":["a"]}`, 422, "int_parsing")
	post("query_worker_info: an id beyond 64 bits", "/query_worker_info", `{"instance_id":"good","worker_ids":[99999999999999999999]}`, 400, "beyond 64 bits")
	get("events: limit 0", "/events?limit=0", 422, "1 to 1000")
	get("events: limit 1001", "/events?limit=1001", 422, "1 to 1000")
	get("events: limit -1", "/events?limit=-1", 422, "1 to 1000")
	get("events: limit of letters", "/events?limit=all", 422, "int_parsing")
	get("events: an unknown one", "/events/nothing", 404, "unknown_event")
	get("events: a path upwards", "/events/..%2f..%2fetc%2fpasswd", 404, "unknown_event")
	get("workers: a rank of letters", "/controller/workers?instance_id=good&worker_id=first", 422, "int_parsing")
	get("workers: an unknown instance", "/controller/workers?instance_id=nobody", 404, "nobody")
	get("workers: an unknown rank", "/controller/workers?instance_id=good&worker_id=7", 404, "not found")
	get("digest: an unknown consistency", "/admin/digest?consistency=none", 422, "linearizable")
	get("log level: a word", "/loglevel?logger_name=kvctrl&level=loud", 400, "Invalid log level: loud")
	get("threads: an id of letters", "/threads?thread_id=main", 422, "int_parsing")
	get("periodic threads: an unknown level", "/periodic-threads?level=highest", 400, "highest")
	get("periodic threads: an unknown one", "/periodic-threads/lost", 404, "lost")
	get("path: unknown", "/nope", 404, "Not Found")
	get("path: two slashes", "//metrics", 404, "Not Found")
	get("path: upwards", "/../../etc/passwd", 404, "Not Found")
	get("path: a zero byte", "/%00", 404, "Not Found")
	get("path: 8000 bytes", "/"+strings.Repeat("a", 8000), 404, "Not Found")
	get("path: admin alone", "/admin", 404, "Not Found")
	get("path: snapshot by GET", "/admin/snapshot", 405, "Method Not Allowed")
	post("path: uploaded code", "/run_script", `print("hello")`, 404, "Not Found")
	post("path: health of the process by POST", "/healthz", "{}", 405, "Method Not Allowed")
	post("snapshot: a timeout in words", "/admin/snapshot?timeout=long", "", 422, "duration")
	for _, method := range []string{"PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD", "BREW"} {
		list = append(list, badRequest{"method: " + method, method, "/lookup", "", "", 405, ""})
	}
	list = append(list,
		badRequest{"type: form", "POST", "/lookup", "application/x-www-form-urlencoded", "tokens=1", 422, "model_attributes_type"},
		badRequest{"type: multipart", "POST", "/lookup", "multipart/form-data; boundary=x", "--x--", 422, "model_attributes_type"},
		badRequest{"type: nonsense", "POST", "/lookup", ";;;", `{"tokens":[1]}`, 422, "model_attributes_type"},
		badRequest{"type: gzip of JSON", "POST", "/lookup", "application/gzip", "\x1f\x8b\x08", 422, "model_attributes_type"},
	)
	return list
}

func badREST(t *testing.T, b *badBench) {
	for _, r := range badRequests() {
		b.try(t, r.name, false, func(t *testing.T) { r.check(t, b) })
	}
	b.try(t, "a client that leaves before the answer", false, func(t *testing.T) { b.leaveEarly(t) })
}

func (r badRequest) check(t *testing.T, b *badBench) {
	t.Helper()
	req, err := http.NewRequest(r.method, b.r.URL(""), strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = r.path // as it is written here
	switch r.contentType {
	case "":
		req.Header.Set("Content-Type", "application/json")
	case "-":
	default:
		req.Header.Set("Content-Type", r.contentType)
	}
	resp, err := b.c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != r.status || !strings.Contains(string(answer), r.words) {
		t.Errorf("answered %d %s, want %d with %q", resp.StatusCode, shorten(string(answer), 500), r.status, r.words)
	}
	if len(answer) > 64<<10 {
		t.Errorf("the error has %d bytes", len(answer))
	}
	if resp.Header.Get("X-Kvctrl-Node") == "" {
		t.Error("no header X-Kvctrl-Node")
	}
	if r.status == http.StatusMethodNotAllowed && resp.Header.Get("Allow") == "" {
		t.Error("405 without Allow")
	}
	if r.status == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	if r.method == http.MethodHead || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		return
	}
	var problem struct {
		Detail any `json:"detail"`
	}
	if err := json.Unmarshal(answer, &problem); err != nil {
		t.Errorf("answered %s: %v", shorten(string(answer), 500), err)
	}
}

// leaveEarly hangs up on a command that waits for a hung worker: the command goes on by
// itself, and its end is that of a worker that did not answer.
func (b *badBench) leaveEarly(t *testing.T) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, b.r.URL("/lookup?min_index=999999999&timeout=20s"), strings.NewReader(`{"tokens":[1]}`))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextWithCancel(t)
	wrote := make(chan struct{})
	trace := &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { close(wrote) }}
	failed := make(chan error, 1)
	go func() { // ends with ctx
		resp, err := b.c.http.Do(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
		if err == nil {
			resp.Body.Close()
		}
		failed <- err
	}()
	<-wrote
	cancel()
	if err := <-failed; err == nil {
		t.Error("a request with nothing to answer was answered")
	}
}

// badWorkers are workers whose answers to commands are of no use. Their commands are
// events; nothing else changes.
func badWorkers(t *testing.T, b *badBench) {
	const location = simworker.LocalCPU
	unused := FreePorts(t, 1)
	for _, c := range []struct {
		name   string
		worker simworker.Options
		script simworker.Scripted
		status int
		words  string
	}{
		{name: "silent", script: simworker.Scripted{Silent: true}, status: 504, words: "did not answer"},
		{name: "not there", worker: simworker.Options{Port: unused, Deaf: true}, status: 504, words: "unreachable"},
		{name: "answers with an error", script: simworker.Scripted{Message: &lmcache.ErrorMsg{Error: "out of order"}}, status: 502, words: "out of order"},
		{name: "answers with a long error", script: simworker.Scripted{Message: &lmcache.ErrorMsg{Error: strings.Repeat("ä", 100_000)}}, status: 502, words: "ää"},
		{name: "answers another command", script: simworker.Scripted{Message: &lmcache.PinWorkerRetMsg{NumTokens: 5}}, status: 502, words: "PinWorkerRetMsg"},
		{name: "answers a count below zero", script: simworker.Scripted{Message: &lmcache.ClearWorkerRetMsg{NumTokens: -5}}, status: 502, words: "-5"},
		{name: "answers no bytes", script: simworker.Scripted{Raw: []byte{}}, status: 502, words: "bad_answer"},
		{name: "answers garbage", script: simworker.Scripted{Raw: []byte("\xc1\xc1\xc1")}, status: 502, words: "bad_answer"},
		{name: "answers half a message", script: simworker.Scripted{Raw: []byte("\x82\xa4type")}, status: 502, words: "bad_answer"},
		{name: "answers a megabyte of zeros", script: simworker.Scripted{Raw: make([]byte, 1<<20)}, status: 502, words: "bad_answer"},
	} {
		b.try(t, c.name, true, func(t *testing.T) {
			c.worker.Instance = "bad"
			w := b.worker(t, c.worker)
			w.Script("*", c.script)
			status, answer, err := b.c.post("/clear?timeout=300ms", map[string]any{"instance_id": "bad", "location": location})
			if err != nil {
				t.Fatal(err)
			}
			if status != c.status || !strings.Contains(string(answer), c.words) {
				t.Errorf("answered %d %s, want %d with %q", status, shorten(string(answer), 500), c.status, c.words)
			}
			if len(answer) > 8<<10 {
				t.Errorf("the error has %d bytes", len(answer))
			}
			var said struct {
				EventID string `json:"event_id"`
				Status  string `json:"status"`
			}
			if err := json.Unmarshal(answer, &said); err != nil {
				t.Fatal(err)
			}
			if e, known, err := b.c.event(said.EventID); err != nil || !known || e.Status != said.Status || e.Status == "done" {
				t.Errorf("answered event %q as %s; /events says %v %+v: %v", said.EventID, said.Status, known, e, err)
			}
			began := time.Now()
			status, answer, err = b.c.post("/health?timeout=300ms", map[string]any{"instance_id": "bad"})
			if err != nil || status != 200 && status != 504 {
				t.Errorf("health is answered %d %s: %v", status, answer, err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("health took %s with a timeout of 300ms", took)
			}
			b.leave(t, w)
			b.settle(t)
		})
	}
	// Addresses that no command can be sent to.
	for _, c := range []struct {
		name string
		ip   string
		port int64
	}{
		{"an address of words", "not an address", 9}, {"an address without a host", "", 9}, {"an address with a port", "127.0.0.1:80", 9}, {"port 0", "127.0.0.1", 0},
		{"port 70000", "127.0.0.1", 70000}, {"a port below zero", "127.0.0.1", -1}, {"a port of 63 bits", "127.0.0.1", 1<<63 - 1},
		{"an address of brackets", "[[]]", 9}, {"an address with a zero byte", "127.0.0.1\x00", 9}, {"a path", "/etc/passwd", 9},
	} {
		b.try(t, c.name, true, func(t *testing.T) {
			a := b.asker(t, b.r.ReplyAddr())
			m, err := a.ask([]byte{}, lmcache.Append(nil, &lmcache.RegisterMsg{InstanceID: "bad", IP: c.ip, Port: c.port}))
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := m.(*lmcache.RegisterRetMsg); !ok {
				if e, ok := m.(*lmcache.ErrorMsg); !ok || e.Error == "" {
					t.Errorf("the registration is answered %s", m.Type())
				}
				return
			}
			status, answer, err := b.c.post("/clear?timeout=300ms", map[string]any{"instance_id": "bad", "location": location})
			if err != nil || status != 502 && status != 504 || !strings.Contains(string(answer), `worker \"bad\"/0`) {
				t.Errorf("answered %d %s: %v, want 502 or 504 that names the worker", status, answer, err)
			}
			if status, answer, err = b.c.post("/health?timeout=300ms", map[string]any{"instance_id": "bad"}); err != nil || status != 504 {
				t.Errorf("health is answered %d %s: %v, want 504", status, answer, err)
			}
			b.push(t, lmcache.Append(nil, &lmcache.DeRegisterMsg{InstanceID: "bad", IP: c.ip, Port: c.port}))
			Eventually(t, 20*time.Second, "the worker to be gone", func() error {
				views, err := b.c.workers()
				if _, known := views["bad/0"]; err == nil && known {
					err = fmt.Errorf("it is still there")
				}
				return err
			})
			b.settle(t)
		})
	}
}
