package httpapi

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/kvctrl/kvctrl/registry"
)

// row is one recorded request to LMCache's controller.
type row struct {
	Name     string
	Scenario string
	Setup    string
	Step     int
	Verdict  string
	Note     string
	Request  struct {
		Method  string
		Path    string
		Headers map[string]string
		Body    *string
		BodyHex string `json:"body_hex"`
	}
	Response struct {
		Status      *int
		ContentType string `json:"content_type"`
		Headers     map[string]string
		Body        json.RawMessage
	}
	Received []struct {
		Instance string `json:"instance_id"`
		Worker   int64  `json:"worker_id"`
		Message  any
	} `json:"workers_received"`
}

func (r *row) body(t testing.TB) string {
	t.Helper()
	if r.Request.BodyHex != "" {
		b, err := hex.DecodeString(r.Request.BodyHex)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if r.Request.Body == nil {
		return ""
	}
	return *r.Request.Body
}

func recordedRows(t testing.TB) []row {
	t.Helper()
	f, err := os.Open("../testdata/rest.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var rows []row
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r row
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.UseNumber()
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 511 {
		t.Fatalf("%d rows, want 511", len(rows))
	}
	return rows
}

// fleetFile is testdata/fleets.json.
type fleetFile struct {
	WorkerPortBase int64 `json:"worker_port_base"`
	Fleets         map[string]struct {
		Workers []fleetWorker
		Events  []struct {
			Instance string `json:"instance_id"`
			Worker   int64  `json:"worker_id"`
			Location string
			Ops      [][3]any
		}
	}
}

type fleetWorker struct {
	Instance    string `json:"instance_id"`
	Worker      int64  `json:"worker_id"`
	IP          string
	PortOffset  int64   `json:"port_offset"`
	PeerInitURL *string `json:"peer_init_url"`
	Listen      bool
	Replies     map[string]struct {
		Msg    any
		Hex    string
		Silent bool
	}
}

func loadFleets(t testing.TB) fleetFile {
	t.Helper()
	raw, err := os.ReadFile("../testdata/fleets.json")
	if err != nil {
		t.Fatal(err)
	}
	var f fleetFile
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	return f
}

// load registers a fleet and applies its events.
func (f fleetFile) load(t testing.TB, reg *registry.Registry, name string) {
	t.Helper()
	for _, w := range f.Fleets[name].Workers {
		reg.Register(registry.Registration{WorkerRef: registry.WorkerRef{Instance: w.Instance, Worker: w.Worker}, IP: w.IP,
			Port: f.WorkerPortBase + w.PortOffset, PeerInitURL: w.PeerInitURL, At: 1_700_000_000_000_000})
	}
	for _, e := range f.Fleets[name].Events {
		stream := registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: e.Instance, Worker: e.Worker}, Location: e.Location}
		for _, op := range e.Ops {
			var key int64
			var unsigned uint64
			if _, err := fmt.Sscan(op[1].(json.Number).String(), &key); err == nil {
				unsigned = uint64(key)
			} else if _, err := fmt.Sscan(op[1].(json.Number).String(), &unsigned); err != nil {
				t.Fatal(err)
			}
			seq, err := op[2].(json.Number).Int64()
			if err != nil {
				t.Fatal(err)
			}
			ops := registry.Ops{Stream: stream, Keys: []registry.Key{registry.Key(unsigned)}, First: seq, Numbered: true, At: 1_700_000_000_000_000}
			if op[0] == "evict" {
				ops.Evict = registry.Bitmap{1}
			}
			reg.ApplyOps(ops)
		}
	}
}

var (
	uuidPattern  = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)
	timesPattern = regexp.MustCompile(`"(registration_time|last_heartbeat_time)":[0-9]+\.[0-9]+`)
)

// canonical writes JSON compactly, in its own order, with the recording's placeholders
// where values differ from run to run.
func canonical(t testing.TB, raw []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		t.Fatalf("no JSON: %v: %s", err, raw)
	}
	d := json.NewDecoder(&b)
	d.UseNumber()
	var out strings.Builder
	writeOrdered(t, d, &out)
	s := uuidPattern.ReplaceAllString(out.String(), "<uuid>")
	return timesPattern.ReplaceAllString(s, `"$1":"<time>"`)
}

func writeOrdered(t testing.TB, d *json.Decoder, out *strings.Builder) {
	tok, err := d.Token()
	if err != nil {
		t.Fatal(err)
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(tok); err != nil {
			t.Fatal(err)
		}
		out.Write(bytes.TrimSpace(b.Bytes()))
		return
	}
	out.WriteString(delim.String())
	for i := 0; d.More(); i++ {
		if i > 0 {
			out.WriteByte(',')
		}
		writeOrdered(t, d, out)
		if delim == '{' {
			out.WriteByte(':')
			writeOrdered(t, d, out)
		}
	}
	if tok, err = d.Token(); err != nil {
		t.Fatal(err)
	}
	out.WriteString(tok.(json.Delim).String())
}
