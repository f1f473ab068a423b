package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

type betterAnswer struct {
	status int
	body   string // canonical; "" for any
}

// better says what is answered where LMCache's own answer is judged a defect and not an
// error, or where the interface asks for something else than the recording.
var better = map[string]betterAnswer{
	// A missing content type is taken as JSON, as FastAPI did until late 2026.
	"empty: /lookup content type: no content type": {200, `{"event_id":"Lookup<uuid>","layout_info":{}}`},
	"fleet: lookup no content type":                {200, `{"event_id":"Lookup<uuid>","layout_info":{"tp1-a":["LocalCPUBackend",1]}}`},

	// An event that nobody knows is a fact, not a failure.
	"empty: /check_finish nobody registered": {200, `{"status":"unknown"}`},
	"empty: /check_finish extra field":       {200, `{"status":"unknown"}`},
	"fleet: check_finish of a real event":    {200, `{"status":"unknown"}`},

	"empty: /query_instance nobody registered": {404, ""},
	"empty: /query_instance extra field":       {404, ""},
	"fleet: query_instance unknown":            {404, ""},
	"fleet: query_instance with port":          {404, ""},
	"fleet: query_instance empty":              {404, ""},

	"empty: /lookup body: NaN":            {422, `{"detail":[{"type":"json_invalid","loc":["body",11],"msg":"JSON decode error","input":{},"ctx":{"error":"Expecting value"}}]}`},
	"empty: /lookup body: Infinity":       {422, `{"detail":[{"type":"json_invalid","loc":["body",11],"msg":"JSON decode error","input":{},"ctx":{"error":"Expecting value"}}]}`},
	"empty: /lookup body: lone surrogate": {400, ""},

	// Every rank that stores anything must hold a chunk.
	"fleet: lookup ranks disagree": {200, `{"event_id":"Lookup<uuid>","layout_info":{"tp2-b":["LocalDiskBackend",256]}}`},
	// tp2-b's first chunk is on one of its two ranks, nop2p-c has the second chunk only.
	"fleet: lookup chunks at two instances in turn": {200, `{"event_id":"Lookup<uuid>","layout_info":{}}`},

	"fleet: move old flag name copy": {200, `{"event_id":"Move<uuid>","num_tokens":600}`},
	"fleet: move TP=1 to TP=2":       {409, ""},
	"fleet: move TP=2 to TP=1":       {409, ""},
	// Judged for its location; it is TP=2 to TP=1 as well.
	"fleet: move other location": {409, ""},
}

// betterFor is what is wanted of a row instead of what was recorded.
func betterFor(name string) (betterAnswer, bool) {
	// LMCache takes any answer that has num_tokens, and negative ones. othertype-h
	// answers everything as if it were pinned.
	switch {
	case name == "fleet: pin othertype-h":
		return betterAnswer{200, `{"event_id":"Pin<uuid>","num_tokens":5}`}, true
	case strings.HasSuffix(name, " othertype-h") && !strings.Contains(name, "health"), strings.HasSuffix(name, " negtokens-l") && !strings.Contains(name, "health"):
		return betterAnswer{502, ""}, true
	}
	b, listed := better[name]
	return b, listed
}

// statusOf says which status a recorded 500 becomes.
var statusOf = map[string]int{
	"The number of tokens": 404, // an unknown instance, unless the ranks disagree (below)
	"Operation '":          502,
	"MessagePack data":     502,
	"Expected `":           502,
	"can't serialize":      400,
	"Src worker":           409,
}

var disagreeing = []string{"uneven-e"}

// judge compares an answer with the recorded one by the row's verdict.
func judge(t *testing.T, r *row, w *httptest.ResponseRecorder) {
	t.Helper()
	got := w.Body.String()
	if b, listed := betterFor(r.Name); listed {
		if w.Code != b.status || b.body != "" && canonical(t, []byte(got)) != b.body {
			t.Errorf("%d %s\nwant %d %s", w.Code, got, b.status, b.body)
		}
		if b.status >= 400 && b.status != 422 {
			wantProblem(t, got)
		}
		return
	}
	recorded := *r.Response.Status
	switch r.Verdict {
	case "optional":
		if w.Code >= 500 {
			t.Errorf("%d %s", w.Code, got)
		}
		return
	case "defect":
		if recorded != 500 {
			t.Fatalf("a defect that is no error: say in better what is wanted instead of %d %s", recorded, r.Response.Body)
		}
		if want := statusFor(t, r); w.Code != want {
			t.Errorf("%d %s, want %d for %s", w.Code, got, want, r.Response.Body)
		}
		wantProblem(t, got)
		return
	}
	if w.Code != recorded {
		t.Fatalf("%d %s\nwant %d %s", w.Code, got, recorded, r.Response.Body)
	}
	if allow := r.Response.Headers["allow"]; allow != "" && w.Header().Get("Allow") != allow {
		t.Errorf("Allow is %q, want %q", w.Header().Get("Allow"), allow)
	}
	if to := r.Response.Headers["location"]; to != "" && w.Header().Get("Location") != strings.Replace(to, "<host>", "example.com", 1) {
		t.Errorf("Location is %q, want %q", w.Header().Get("Location"), to)
	}
	if ct := r.Response.ContentType; ct != "" && w.Header().Get("Content-Type") != ct {
		t.Errorf("content type %q, want %q", w.Header().Get("Content-Type"), ct)
	}
	switch {
	case strings.HasPrefix(r.Request.Path, "/metrics"):
		judgeMetrics(t, r, got)
	case r.Request.Method == http.MethodHead || recorded == http.StatusTemporaryRedirect:
		// No body in the recording.
	case r.Verdict == "superset":
		judgeSuperset(t, r, got)
	case r.Verdict == "shape" && recorded != http.StatusUnprocessableEntity:
		var e struct{ Detail string }
		if err := json.Unmarshal([]byte(got), &e); err != nil || e.Detail == "" {
			t.Errorf("%s: want a detail in words", got)
		}
	default: // contract, and 422 to the letter
		if have, want := canonical(t, []byte(got)), canonical(t, r.Response.Body); have != want {
			t.Errorf("%s\nwant %s", have, want)
		}
	}
}

func statusFor(t *testing.T, r *row) int {
	t.Helper()
	var e struct{ Detail string }
	if err := json.Unmarshal(r.Response.Body, &e); err != nil {
		t.Fatal(err)
	}
	if e.Detail == "" { // every failing /decompress: as the same /compress
		for _, other := range recordedRows(t) {
			if other.Name == strings.Replace(r.Name, "decompress", "compress", 1) && other.Name != r.Name {
				return statusFor(t, &other)
			}
		}
	}
	for _, instance := range disagreeing {
		if strings.Contains(r.Name, instance) {
			return 502
		}
	}
	for prefix, status := range statusOf {
		if strings.HasPrefix(e.Detail, prefix) {
			return status
		}
	}
	t.Fatalf("no status for %q", e.Detail)
	return 0
}

// wantProblem checks the shape of our own errors.
func wantProblem(t *testing.T, body string) {
	t.Helper()
	var e struct{ Detail, Code string }
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Detail == "" || e.Code == "" {
		t.Errorf("%s: want detail and code (%v)", body, err)
	}
}

// judgeSuperset wants what is named to be named, with the same value.
func judgeSuperset(t *testing.T, r *row, got string) {
	t.Helper()
	type answer struct {
		Layout map[string]json.RawMessage `json:"layout_info"`
	}
	var have, want answer
	if err := json.Unmarshal([]byte(got), &have); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(r.Response.Body, &want); err != nil {
		t.Fatal(err)
	}
	for instance, place := range want.Layout {
		if canonical(t, have.Layout[instance]) != canonical(t, place) {
			t.Errorf("%s: want %q: %s", got, instance, place)
		}
	}
}

// judgeMetrics wants LMCache's gauges with their help, type, label and value. The
// sockets' figures are the workers' side of the recording, which is not replayed here.
func judgeMetrics(t *testing.T, r *row, got string) {
	t.Helper()
	var lines []string
	if err := json.Unmarshal(r.Response.Body, &lines); err != nil {
		var families struct{ Families []string }
		if err := json.Unmarshal(r.Response.Body, &families); err != nil {
			t.Fatal(err)
		}
		for _, f := range families.Families {
			if !strings.HasPrefix(f, "python_") && !strings.Contains(got, "# TYPE "+f+" ") {
				t.Errorf("no family %s", f)
			}
		}
		return
	}
	have := map[string]bool{}
	values := map[string]float64{}
	for _, line := range strings.Split(got, "\n") {
		have[line] = true
		if name, v, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				continue // a label value with a space
			}
			values[name] = f
		}
	}
	for _, line := range lines {
		if strings.HasPrefix(line, "#") {
			if !have[line] {
				t.Errorf("no line %q", line)
			}
			continue
		}
		name, v, _ := strings.Cut(line, " ")
		want, err := strconv.ParseFloat(v, 64)
		if err != nil {
			t.Fatal(err)
		}
		f, there := values[name]
		if !there {
			t.Errorf("no series %q", name)
		}
		if f != want && !strings.Contains(name, "_socket_") {
			t.Errorf("%s is %v, want %v", name, f, want)
		}
	}
}

// send makes the recorded request.
func (r *row) send(t testing.TB, h http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequest(r.Request.Method, "http://example.com/", strings.NewReader(r.body(t)))
	path, query, _ := strings.Cut(r.Request.Path, "?")
	req.URL.Path, req.URL.RawQuery, req.RequestURI = path, query, r.Request.Path
	if strings.Contains(path, "%") {
		if u, err := req.URL.Parse(path); err == nil {
			req.URL.Path = u.Path
		}
	}
	for k, v := range r.Request.Headers {
		req.Header.Set(k, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

// TestRecorded_Empty replays what LMCache's controller answered before any worker had
// registered.
func TestRecorded_Empty(t *testing.T) {
	rig := newRig(t)
	rows := 0
	for _, r := range recordedRows(t) {
		if r.Scenario != "empty" {
			continue
		}
		rows++
		t.Run(fmt.Sprintf("%03d %s", r.Step, r.Name), func(t *testing.T) { judge(t, &r, r.send(t, rig.s.Handler())) })
	}
	if rows != 237 {
		t.Errorf("%d rows, want 237", rows)
	}
}
