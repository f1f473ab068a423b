package e2e

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The recorded worker ports are 21400 and up; the heartbeat port was 21300.
const (
	recordedBase      = 21400
	recordedHeartbeat = "127.0.0.1:21300"
	portsOfAFleet     = 40
)

// row is a line of rest.jsonl or zmq.jsonl.
type row struct {
	Name, Scenario, Setup, Verdict, Note string
	Step                                 int

	rest *restRow // of rest.jsonl
	zmq  *zmqRow  // of zmq.jsonl
}

type restRow struct {
	Request struct {
		Method, Path string
		Headers      map[string]string
		Body         *string
		BodyHex      string `json:"body_hex"`
	}
	Response struct {
		Status      *int
		ContentType *string `json:"content_type"`
		Headers     map[string]string
		Body        json.RawMessage
	}
	WorkersReceived json.RawMessage `json:"workers_received"`
}

type zmqRow struct {
	Socket   *string
	Request  json.RawMessage
	Reply    json.RawMessage
	Observed json.RawMessage
}

// body is the request's body, nil for none.
func (r *restRow) body(t *testing.T) []byte {
	t.Helper()
	if r.Request.Body != nil {
		return []byte(*r.Request.Body)
	}
	b, err := hex.DecodeString(r.Request.BodyHex)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// recorded is the answer's body as a value.
func (r *restRow) recorded(t *testing.T) any {
	t.Helper()
	v, err := parseJSON(r.Response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// loadRows returns the rows by scenario, each in the order of its steps, and the
// scenarios in the order of the files.
func loadRows(t *testing.T) (map[string][]*row, []string) {
	t.Helper()
	rows := map[string][]*row{}
	var scenarios []string
	for _, file := range []string{"rest.jsonl", "zmq.jsonl"} {
		eachLine(t, file, func(line []byte) {
			r := &row{}
			unmarshal(t, line, r)
			if file == "rest.jsonl" {
				r.rest = &restRow{}
				unmarshal(t, line, r.rest)
			} else {
				r.zmq = &zmqRow{}
				unmarshal(t, line, r.zmq)
			}
			if rows[r.Scenario] == nil {
				scenarios = append(scenarios, r.Scenario)
			}
			rows[r.Scenario] = append(rows[r.Scenario], r)
		})
	}
	for _, of := range rows {
		sort.Slice(of, func(i, j int) bool { return of[i].Step < of[j].Step })
	}
	return rows, scenarios
}

func eachLine(t *testing.T, file string, do func([]byte)) {
	t.Helper()
	f, err := os.Open(vector(t, file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		do(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func vector(t *testing.T, file string) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "testdata", file)
}

func unmarshal(t *testing.T, b []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", shorten(string(b), 200), err)
	}
}

// fleetWorker is a worker of fleets.json.
type fleetWorker struct {
	Instance string `json:"instance_id"`
	Worker   int64  `json:"worker_id"`
	Offset   int    `json:"port_offset"`
	Listen   bool
	Replies  map[string]struct {
		Msg    json.RawMessage
		Hex    *string
		Silent bool
		DelayS float64 `json:"delay_s"`
	}
}

// scripts are the worker's answers, with their delays scaled.
func (w fleetWorker) scripts(t *testing.T, scale float64) map[string]scripted {
	t.Helper()
	out := map[string]scripted{}
	for kind, r := range w.Replies {
		s := scripted{silent: r.Silent, delay: time.Duration(r.DelayS * scale * float64(time.Second))}
		var err error
		switch {
		case r.Hex != nil:
			s.frame, err = hex.DecodeString(*r.Hex)
		case r.Msg != nil:
			s.frame, err = pack(mustJSON(string(r.Msg)))
		}
		if err != nil {
			t.Fatal(err)
		}
		out[kind] = s
	}
	return out
}

func loadFleets(t *testing.T) map[string][]fleetWorker {
	t.Helper()
	b, err := os.ReadFile(vector(t, "fleets.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Fleets map[string]struct{ Workers []fleetWorker }
	}
	unmarshal(t, b, &file)
	out := map[string][]fleetWorker{}
	for name, f := range file.Fleets {
		out[name] = f.Workers
	}
	return out
}

// relocate puts recorded ports where they are in this run: numbers under "port" and
// the heartbeat address.
func relocate(v any, base int, heartbeat string) any {
	switch v := v.(type) {
	case object:
		out := make(object, len(v))
		for i, m := range v {
			out[i] = member{m.key, relocate(m.value, base, heartbeat)}
			n, ok := m.value.(json.Number)
			if !ok || m.key != "port" {
				continue
			}
			if port, err := n.Int64(); err == nil && port >= recordedBase && port < recordedBase+portsOfAFleet {
				out[i].value = json.Number(strconv.Itoa(base + int(port) - recordedBase))
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = relocate(v[i], base, heartbeat)
		}
		return out
	case string:
		return strings.ReplaceAll(v, recordedHeartbeat, heartbeat)
	}
	return v
}
