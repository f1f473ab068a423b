package ingest

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/lmcache"
)

// exchange is a row of zmq.jsonl: what was sent to LMCache 0.5.6 and what it answered.
// Rows that need HTTP or a clock are played elsewhere.
type exchange struct {
	Name     string
	Scenario string
	Socket   *string
	Request  json.RawMessage
	Reply    json.RawMessage
	Verdict  string
}

// recordedHeartbeat is the heartbeat port of the recording.
const recordedHeartbeat = "127.0.0.1:21300"

// TestVectors_Scenarios plays the recorded conversations of every scenario against a
// fresh server. "contract" answers are the same, the others of the same type at least;
// a "defect" is answered too, which LMCache does not always do.
func TestVectors_Scenarios(t *testing.T) {
	scenarios, order := loadExchanges(t)
	for _, name := range order {
		if name == "reaping" {
			continue // by the clock: see TestLeasePlan
		}
		t.Run(name, func(t *testing.T) {
			r := start(t, func(o *Options) {
				o.MaxSyncs = 100_000 // asked at once, and not one after the other
				if name == "no_heartbeat_port" {
					o.HeartbeatPort = 0
				}
			})
			play(t, r, scenarios[name])
		})
	}
}

func play(t *testing.T, r *rig, rows []exchange) {
	push, reply := r.push(), r.dealer()
	var beat *client
	if r.s.Ports().Heartbeat != 0 {
		beat = r.heartbeat()
	}
	compared := 0
	for _, row := range rows {
		if row.Socket == nil {
			continue // an observation
		}
		switch *row.Socket {
		case "PUSH/PULL":
			messages := r.s.Stats().Pull.Messages
			var parts []json.RawMessage
			must(t, json.Unmarshal(row.Request, &parts))
			var frames [][]byte
			for _, part := range parts {
				frames = append(frames, frameOf(t, part))
			}
			push.raw(frames...)
			eventually(t, row.Name, func() bool { return r.s.Stats().Pull.Messages == messages+uint64(len(frames)) })
			r.settled()
		case "DEALER/ROUTER", "heartbeat DEALER/ROUTER":
			c := reply
			if strings.HasPrefix(*row.Socket, "heartbeat") {
				c = beat
			}
			c.raw(nil, frameOf(t, row.Request))
			got := c.answer()
			r.settled()
			if string(row.Reply) == "null" {
				continue // LMCache's socket was dead: any answer is better
			}
			text := string(row.Reply)
			if r.s.Ports().Heartbeat != 0 {
				text = strings.ReplaceAll(text, recordedHeartbeat, fmt.Sprintf("127.0.0.1:%d", r.s.Ports().Heartbeat))
			}
			want, err := lmcache.Decode([]byte(text))
			must(t, err)
			compared++
			switch {
			case got.Type() != want.Type():
				t.Errorf("%s (%s): answered with %s, LMCache answers with %s", row.Name, row.Verdict, got.Type(), want.Type())
			case row.Verdict == "contract" && !same(got, want):
				t.Errorf("%s: answered with %+v, LMCache answers with %+v", row.Name, got, want)
			}
		default:
			t.Fatalf("%s: unknown socket %q", row.Name, *row.Socket)
		}
	}
	if compared == 0 {
		t.Error("no answer was compared")
	}
}

// same compares answers; the wording of a refusal is free.
func same(got, want lmcache.Message) bool {
	if g, ok := got.(*lmcache.FullSyncStartRetMsg); ok {
		w := want.(*lmcache.FullSyncStartRetMsg)
		return g.SyncID == w.SyncID && g.Accepted == w.Accepted && (g.ErrorMsg == nil) == (w.ErrorMsg == nil)
	}
	return reflect.DeepEqual(got, want)
}

// frameOf is a recorded request as a frame: JSON, which the sockets take as well, or
// the bytes of {"hex": ...}.
func frameOf(t *testing.T, request json.RawMessage) []byte {
	t.Helper()
	var raw struct{ Hex *string }
	must(t, json.Unmarshal(request, &raw))
	if raw.Hex == nil {
		return request
	}
	b, err := hex.DecodeString(*raw.Hex)
	must(t, err)
	return b
}

func loadExchanges(t *testing.T) (byScenario map[string][]exchange, order []string) {
	t.Helper()
	f, err := os.Open("../testdata/zmq.jsonl")
	must(t, err)
	defer f.Close()
	byScenario = make(map[string][]exchange)
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var row exchange
		must(t, json.Unmarshal(lines.Bytes(), &row))
		if byScenario[row.Scenario] == nil {
			order = append(order, row.Scenario)
		}
		byScenario[row.Scenario] = append(byScenario[row.Scenario], row)
	}
	must(t, lines.Err())
	if len(order) < 10 {
		t.Fatalf("%d scenarios, want all of them", len(order))
	}
	return byScenario, order
}

// TestGenerations: workers of every protocol family are heard, side by side.
func TestGenerations(t *testing.T) {
	old := func(m lmcache.Message, gen lmcache.Gen) []byte {
		return lmcache.AppendWith(nil, m, lmcache.Options{Gen: gen, SignedKeys: true})
	}
	admit := func(instance string, key lmcache.Key) *lmcache.KVAdmitMsg {
		return &lmcache.KVAdmitMsg{InstanceID: instance, WorkerID: 1, Key: key, Location: "LocalDiskBackend"}
	}
	r := start(t, nil)
	p := r.push()
	// A (0.3.3) and B (0.3.9): everything on PUSH, distributed_url, one event a message.
	p.raw(old(registerMsg("A"), lmcache.Gen0303))
	p.raw(old(admit("A", 1), lmcache.Gen0303))
	p.raw(old(admit("A", 2), lmcache.Gen0303))
	p.raw(old(registerMsg("B"), lmcache.Gen0309))
	p.raw(old(heartbeatMsg("B"), lmcache.Gen0309))
	p.raw(old(admit("B", 1), lmcache.Gen0309))
	p.raw(old(&lmcache.KVEvictMsg{InstanceID: "B", WorkerID: 1, Key: 1, Location: "LocalDiskBackend"}, lmcache.Gen0309))
	p.raw(old(admit("B", 3), lmcache.Gen0309))
	// C (0.3.10): register and heartbeats on PUSH, disk unbatched with number 0.
	p.parts(heartbeatMsg("C"))
	p.parts(opsMsg("C", "LocalCPUBackend", 0, 1, 2), admit("C", 1), admit("C", 4))
	// D (0.3.12 and later).
	r.register("D")
	p.parts(opsMsg("D", "LocalCPUBackend", 0, 1, 2, 3))
	for instance, want := range map[string]int64{"A": 2, "B": 1, "C": 4, "D": 3} {
		eventually(t, "the events of generation "+instance, func() bool { return r.keys(instance) == want })
	}
	r.settled()
	w, _ := r.log.Registry().Worker(ref("A"))
	if w.PeerInitURL == nil || *w.PeerInitURL != "10.0.0.1:8201" {
		t.Errorf("distributed_url is not the peer's address: %+v", w)
	}
	st := r.s.Stats()
	var bad uint64
	for _, n := range st.BadFrames {
		bad += n
	}
	if bad != 0 || st.Gaps != 0 || st.UnknownRecords != 0 {
		t.Errorf("stats %+v, want no bad frame, no gap in streams without numbers, no unknown worker", st)
	}
	// B asks for peers over REQ.
	c := r.dial(zmq.REQ, r.s.Ports().Reply)
	ret, ok := c.ask(&lmcache.BatchedP2PLookupMsg{Hashes: []lmcache.Key{3}, InstanceID: "B", WorkerID: 1}).(*lmcache.BatchedP2PLookupRetMsg)
	if !ok || ret.LayoutInfo[0].InstanceID != "D" {
		t.Errorf("peer lookup over REQ: %+v, want D", ret)
	}
}
