package ingest

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/kvctrl/kvctrl/lmcache"
)

// oddFrame is a row of wire-odd.jsonl: a frame that is broken, odd or on the wrong
// socket, and what LMCache 0.5.6 makes of it.
type oddFrame struct {
	Name   string
	Frame  *string  `json:"frame_hex"`
	Frames []string `json:"frames_hex"`
	Live   map[string]struct {
		Loop    string
		Reply   *struct{ Type string }
		KeysNow *int64 `json:"keys_now"`
	}
}

func loadOdd(t *testing.T) []oddFrame {
	t.Helper()
	f, err := os.Open("../testdata/wire-odd.jsonl")
	must(t, err)
	defer f.Close()
	var rows []oddFrame
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var row oddFrame
		must(t, json.Unmarshal(lines.Bytes(), &row))
		rows = append(rows, row)
	}
	must(t, lines.Err())
	if len(rows) < 150 {
		t.Fatalf("%d rows, want all of them", len(rows))
	}
	return rows
}

// frames returns the row's message as a DEALER (with a delimiter) or PUSH sends it.
func (o oddFrame) frames(t *testing.T, delimiter bool) [][]byte {
	t.Helper()
	texts := o.Frames
	if o.Frame != nil {
		texts = []string{*o.Frame}
	}
	var out [][]byte
	if delimiter && o.Frame != nil {
		out = append(out, nil)
	}
	for _, s := range texts {
		b, err := hex.DecodeString(s)
		must(t, err)
		out = append(out, b)
	}
	return out
}

// fleet registers the two workers that LMCache was recorded with.
func (r *rig) fleet() {
	r.t.Helper()
	d := r.dealer()
	for _, instance := range []string{"inst-a", "inst-b"} {
		m := registerMsg(instance)
		m.WorkerID, m.IP, m.Port, m.PeerInitURL = 0, "127.0.0.1", 1, nil
		if ret := d.ask(m); ret.Type() != "RegisterRetMsg" {
			r.t.Fatal(ret)
		}
	}
}

// TestWireOdd_Routers sends every odd frame to both ROUTER sockets. Each is answered
// exactly once where LMCache answers, with the type it answers with; the socket goes on
// afterwards; what was not taken has changed nothing.
func TestWireOdd_Routers(t *testing.T) {
	for socket, dial := range map[string]func(*rig) *client{"reply": (*rig).dealer, "heartbeat": (*rig).heartbeat} {
		t.Run(socket, func(t *testing.T) {
			r := start(t, nil)
			r.fleet()
			c := dial(r)
			probe := heartbeatMsg("inst-b") // no row changes this worker
			probe.WorkerID, probe.IP, probe.Port, probe.PeerInitURL = 0, "127.0.0.1", 1, nil
			for _, row := range loadOdd(t) {
				want, recorded := row.Live[socket]
				if !recorded {
					continue // a row of PULL alone
				}
				r.settled()
				before := r.log.Registry().Digest()
				c.raw(row.frames(t, true)...)
				c.request(probe)
				answered := c.answer()
				answers := 1
				if row.Name != "layout_no_delimiter" && row.Name != "layout_only_delimiter" {
					// The probe's answer comes second.
					if m := c.answer(); m.Type() != "HeartbeatRetMsg" {
						t.Fatalf("%s: the socket answers the next request with %s", row.Name, m.Type())
					}
					answers = 2
				}
				if want.Reply != nil && (answers != 2 || answered.Type() != want.Reply.Type) && !slices.Contains(understood, row.Name) {
					t.Errorf("%s: answered with %s, LMCache answers with %s", row.Name, answered.Type(), want.Reply.Type)
				}
				if answered.Type() == "ErrorMsg" && answered.(*lmcache.ErrorMsg).Error == "" {
					t.Errorf("%s: an ErrorMsg without a word", row.Name)
				}
				r.settled()
				if answered.Type() == "ErrorMsg" && r.log.Registry().Digest() != before {
					t.Errorf("%s: refused, and yet the state has changed", row.Name)
				}
			}
		})
	}
}

// TestWireOdd_Pull sends every odd frame to PULL: what LMCache admits is admitted,
// what it cannot decode changes nothing, and the socket goes on, which LMCache's does
// not.
func TestWireOdd_Pull(t *testing.T) {
	r := start(t, nil)
	p := r.push()
	for _, row := range loadOdd(t) {
		want, recorded := row.Live["pull"]
		if !recorded {
			continue // a row of the ROUTERs alone
		}
		r.fleet() // registered anew: no keys
		r.settled()
		before, bad := r.log.Registry().Digest(), r.badFrames()
		messages := r.s.Stats().Pull.Messages
		frames := row.frames(t, false)
		p.raw(frames...)
		probe := opsMsg("inst-b", "probe", 0, 77)
		probe.WorkerID = 0
		eventually(t, row.Name+" is taken", func() bool { return r.s.Stats().Pull.Messages == messages+uint64(len(frames)) })
		r.settled()
		keys := r.log.Registry().Totals().Keys
		switch {
		case want.Loop == "ends" && r.badFrames() > bad && len(frames) == 1:
			if r.log.Registry().Digest() != before {
				t.Errorf("%s: a bad frame has changed the state", row.Name)
			}
		case want.KeysNow != nil && keys < *want.KeysNow && !slices.Contains(pythonOnly, row.Name):
			t.Errorf("%s: %d keys, LMCache has %d", row.Name, keys, *want.KeysNow)
		}
		p.parts(probe)
		eventually(t, "the socket goes on after "+row.Name, func() bool { return len(r.log.Registry().Holders(77)) == 1 })
	}
}

func (r *rig) badFrames() (n uint64) {
	for _, k := range r.s.Stats().BadFrames {
		n += k
	}
	return n
}

// The rows where we differ from LMCache 0.5.6 by intent.
var (
	// understood are requests that LMCache refuses: the fields of older releases, and
	// addresses that it cannot connect to, which is no reason not to hear a worker.
	understood = []string{
		"field_missing_nullable", "old_register_distributed_url", "old_heartbeat_distributed_url", "json_old_register",
		"register_port_negative", "register_ip_not_an_address",
	}
	// pythonOnly is what only Python's JSON parser takes, and nobody sends.
	pythonOnly = []string{
		"json_key_2_64", "json_key_below_int64", "json_nan_extra", "json_lone_surrogate", "json_utf16", "json_nested_900",
	}
)
