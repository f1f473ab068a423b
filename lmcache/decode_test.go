package lmcache

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func ptr[T any](v T) *T { return &v }

func TestDecode_DoesNotAliasFrame(t *testing.T) {
	for _, row := range wireRows(t) {
		frame := unhex(t, row.MsgpackHex)
		m, err := Decode(frame)
		if err != nil {
			continue
		}
		want, err := Decode(slices.Clone(frame))
		if err != nil {
			t.Fatal(err)
		}
		for i := range frame {
			frame[i] = 0xc1
		}
		if !reflect.DeepEqual(m, want) {
			t.Errorf("%s: the message changed with its frame: %+v", row.Name, m)
		}
	}
}

func TestDecode_OlderNames(t *testing.T) {
	const head = `{"type":"RegisterMsg","instance_id":"i","worker_id":0,"ip":"h","port":1`
	tests := []struct {
		name, rest string
		want       *string
	}{
		{"neither", "", nil},
		{"present", `,"peer_init_url":"p"`, ptr("p")},
		{"older", `,"distributed_url":"d"`, ptr("d")},
		{"older nil", `,"distributed_url":null`, nil},
		{"both, older last", `,"peer_init_url":"p","distributed_url":"d"`, ptr("p")},
		{"both, older first", `,"distributed_url":"d","peer_init_url":"p"`, ptr("p")},
		{"both, present one nil", `,"distributed_url":"d","peer_init_url":null`, nil},
		{"older is an unknown field then", `,"peer_init_url":"p","distributed_url":[1]`, ptr("p")},
		{"older twice", `,"distributed_url":"c","distributed_url":"d"`, ptr("d")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Decode([]byte(head + tt.rest + "}"))
			if err != nil {
				t.Fatal(err)
			}
			if got := m.(*RegisterMsg).PeerInitURL; !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestDecode_Defaults(t *testing.T) {
	tests := []struct {
		frame string
		want  Message
	}{
		{`{"type":"MoveWorkerMsg","worker_event_id":"e","old_position":"L","new_position":["u","L"]}`,
			&MoveWorkerMsg{WorkerEventID: "e", OldPosition: "L", NewPosition: [2]string{"u", "L"}, Copy: ptr(true)}},
		{`{"type":"MoveMsg","event_id":"e","old_position":["i","L"],"new_position":["j","L"]}`,
			&MoveMsg{EventID: "e", OldPosition: [2]string{"i", "L"}, NewPosition: [2]string{"j", "L"}, Copy: ptr(false)}},
		{`{"type":"CompressMsg","event_id":"e","instance_id":"i","method":"m","location":"L"}`,
			&CompressMsg{EventID: "e", InstanceID: "i", Method: "m", Location: "L"}},
		{`{"type":"HeartbeatRetMsg"}`, &HeartbeatRetMsg{}},
		{`{"type":"HeartbeatRetMsg","commands":[{"command_type":"full_sync","args":{"a":[1]}}]}`,
			&HeartbeatRetMsg{Commands: []HeartbeatCommand{{CommandType: "full_sync", Args: []byte("\xdf\x00\x00\x00\x01\xa1a\xdd\x00\x00\x00\x01\x01")}}}},
		{`{"type":"FullSyncStatusRetMsg","sync_id":"s","is_complete":true,"global_progress":1,"can_exit_freeze":true}`,
			&FullSyncStatusRetMsg{SyncID: "s", IsComplete: true, GlobalProgress: 1, CanExitFreeze: true}},
	}
	for _, tt := range tests {
		m, err := Decode([]byte(tt.frame))
		if err != nil {
			t.Errorf("%s: %v", tt.frame, err)
		} else if !reflect.DeepEqual(m, tt.want) {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.frame, m, tt.want)
		}
	}
}

func TestDecode_MapsKeepOrderAndLastValue(t *testing.T) {
	m, err := Decode([]byte(`{"type":"LookupRetMsg","event_id":"e","layout_info":{"b":["L",1],"a":["L",2],"b":["M",3]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &LookupRetMsg{EventID: "e", LayoutInfo: []InstanceLayout{{"b", "M", 3}, {"a", "L", 2}}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v, want %+v", m, want)
	}
}

func TestDecode_ErrorText(t *testing.T) {
	tests := []struct{ frame, want string }{
		{"", "frame of no bytes"},
		{`{"type":"NoSuchMsg"}`, `unknown message type "NoSuchMsg"`},
		{`{"type":"ErrorMsg"}`, `ErrorMsg: field error is missing`},
		{`{"type":"ErrorMsg","error":5}`, `ErrorMsg: error: want str, got int`},
		{`{"type":"BatchedKVOperationMsg","operations":[{"op_type":"admit","key":1,"seq_num":0},{"op_type":"touch"}]}`,
			`BatchedKVOperationMsg: operations[1].op_type: want admit or evict, got "touch"`},
		{`{"type":"BatchedKVOperationMsg","operations":[{"op_type":"admit","key":"` + strings.Repeat("k", 60) + `"}]}`,
			`BatchedKVOperationMsg: operations[0].key: no chunk hash in key "` + strings.Repeat("k", 48) + `"... (60 bytes)`},
		{`{"type":"FullSyncBatchMsg","keys":[1,true]}`, `FullSyncBatchMsg: keys[1]: want int, bin or str, got bool`},
		{`{"type":"RegisterMsg","port":18446744073709551615}`, `RegisterMsg: port: 18446744073709551615 is above 2^63-1`},
		{`{"type":"ErrorMsg","error":5x}`, `json has 'x' at byte 28 where ',' or '}' is expected`},
	}
	for _, tt := range tests {
		_, err := Decode([]byte(tt.frame))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s:\n got %v\nwant %s", tt.frame, err, tt.want)
		}
		wrapped := fmt.Errorf("frame 3: %w", err)
		if r := ReasonOf(wrapped); !slices.Contains(Reasons(), r) {
			t.Errorf("%s: reason %q is none of Reasons", tt.frame, r)
		}
	}
	if r := ReasonOf(errors.New("other")); r != "" {
		t.Errorf("reason %q of another error", r)
	}
}

// TestDecode_Depth: the limit is the same for a skipped field in both encodings.
func TestDecode_Depth(t *testing.T) {
	for _, tt := range []struct {
		depth int
		want  Reason
	}{{1, ""}, {MaxDepth - 1, ""}, {MaxDepth, ""}, {MaxDepth + 1, ReasonDepth}, {100_000, ReasonDepth}} {
		packed := "\x83\xa4type\xa8ErrorMsg\xa5error\xa1a\xa1x" + strings.Repeat("\x91", tt.depth-1) + "\x90"
		if _, err := Decode([]byte(packed)); ReasonOf(err) != tt.want {
			t.Errorf("msgpack %d deep: error %v, want reason %q", tt.depth, err, tt.want)
		}
		// In JSON the message itself is the first level.
		text := `{"type":"ErrorMsg","error":"a","x":` + strings.Repeat("[", tt.depth-1) + strings.Repeat("]", tt.depth-1) + "}"
		if tt.depth == 1 {
			text = `{"type":"ErrorMsg","error":"a"}`
		}
		if _, err := Decode([]byte(text)); ReasonOf(err) != tt.want {
			t.Errorf("json %d deep: error %v, want reason %q", tt.depth, err, tt.want)
		}
	}
}

func TestDecode_JSON(t *testing.T) {
	const head = `{"type":"KVAdmitMsg","instance_id":"i","worker_id":0,"location":"L","key":`
	tests := []struct {
		name, key string
		want      Key
		reason    Reason
	}{
		{"zero", `0`, 0, ""},
		{"minus zero", `-0`, 0, ""},
		{"int64 min", `-9223372036854775808`, 1 << 63, ""},
		{"uint64 max", `18446744073709551615`, 1<<64 - 1, ""},
		{"2^64", `18446744073709551616`, 0, ReasonRange},
		{"2^53+1", `9007199254740993`, 9007199254740993, ""},
		{"leading zero", `01`, 0, ReasonSyntax},
		{"fraction", `1.0`, 0, ReasonType},
		{"exponent", `1e3`, 0, ReasonType},
		{"no digits after point", `1.`, 0, ReasonSyntax},
		{"no digits after e", `1e+`, 0, ReasonSyntax},
		{"sign alone", `-`, 0, ReasonSyntax},
		{"beyond float64", `1e999`, 0, ReasonRange},
		{"NaN", `NaN`, 0, ReasonSyntax},
		{"true", `true`, 0, ReasonType},
		{"truth", `truth`, 0, ReasonSyntax},
		{"escapes", `"\u0035\u0046"`, 0x5f, ""},
		{"bad escape", `"\x"`, 0, ReasonSyntax},
		{"short escape", `"\u00"`, 0, ReasonSyntax},
		{"high surrogate alone", `"\ud83d"`, 0, ReasonUTF8},
		{"two high surrogates", `"\ud83d\ud83d"`, 0, ReasonUTF8},
		{"low surrogate alone", `"\ude00"`, 0, ReasonUTF8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := Decode([]byte(head + tt.key + "}"))
			if ReasonOf(err) != tt.reason {
				t.Fatalf("error %v, want reason %q", err, tt.reason)
			}
			if err == nil && m.(*KVAdmitMsg).Key != tt.want {
				t.Errorf("key %d, want %d", m.(*KVAdmitMsg).Key, tt.want)
			}
		})
	}
	m, err := Decode([]byte(`{"type":"ErrorMsg","error":"\"\\\/\b\f\n\r\té\ud83d\ude00` + "\u00e9" + `"}`))
	if err != nil || m.(*ErrorMsg).Error != "\"\\/\b\f\n\r\té😀é" {
		t.Errorf("escapes: %+v, %v", m, err)
	}
}

// TestDecode_Allocation: what is declared is not allocated.
func TestDecode_Allocation(t *testing.T) {
	batch := "\x85\xa4type\xb5BatchedKVOperationMsg\xabinstance_id\xa1i\xa9worker_id\x00\xa8location\xa1L\xaaoperations"
	frames := map[string]string{
		"operations":        batch + "\xdd\xff\xff\xff\xff\x80",
		"operations, long":  batch + "\xdd\x00\x01\x00\x00" + strings.Repeat("\x80", 1<<16),
		"keys":              "\x82\xa4type\xb0FullSyncBatchMsg\xa4keys\xdd\xff\xff\xff\xff\x01",
		"tokens":            "\x82\xa4type\xa9LookupMsg\xa6tokens\xdd\xff\xff\xff\xff\x01",
		"extra_config":      "\x82\xa4type\xaeRegisterRetMsg\xacextra_config\xdf\xff\xff\xff\xff\xa0",
		"extra_config, bad": "\x82\xa4type\xaeRegisterRetMsg\xacextra_config\xdf\x00\x01\x00\x00" + strings.Repeat("\xa0", 1<<17-1) + "\x01",
		"layout_info, long": "\x82\xa4type\xb6BatchedP2PLookupRetMsg\xablayout_info\xdd\x00\x01\x00\x00" + strings.Repeat("\x94\xa0\xa0\x00\xa0", 1<<16),
		"worker_infos":      "\x82\xa4type\xb5QueryWorkerInfoRetMsg\xacworker_infos\xdd\x00\x01\x00\x00" + strings.Repeat("\x01", 1<<16),
		"message":           "\xdf\xff\xff\xff\xff\xa4type\xa8ErrorMsg",
		"string":            "\x82\xa4type\xa8ErrorMsg\xa5error\xdb\xff\xff\xff\xff",
		"json":              `{"type":"LookupMsg","event_id":"","tokens":[` + strings.Repeat("1,", 1<<16) + `1]}`,
		"json, nested":      `{"type":"ErrorMsg","error":"","x":[` + strings.Repeat("[],", 1<<16) + `[]]}`,
	}
	for name, frame := range frames {
		got := allocated(func() { _, _ = Decode([]byte(frame)) })
		if limit := allocLimit(len(frame)); got > limit {
			t.Errorf("%s: %d bytes allocated for a frame of %d, want at most %d", name, got, len(frame), limit)
		}
	}
}

// allocLimit is what Decode may allocate for a frame of n bytes: see its comment,
// with room for the frame itself and for the runtime.
func allocLimit(n int) uint64 { return 64*uint64(n) + 16<<10 }

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestDecode_BatchAllocatesPerMessage(t *testing.T) {
	small, large := Append(nil, batchOf(10)), Append(nil, batchOf(1000))
	count := func(frame []byte) float64 {
		return testing.AllocsPerRun(100, func() {
			if _, err := Decode(frame); err != nil {
				t.Fatal(err)
			}
		})
	}
	if a, b := count(small), count(large); a != b || b > 5 {
		t.Errorf("%v allocations for 10 operations, %v for 1000", a, b)
	}
}

// batchOf is a batch as a worker with a digest algorithm sends it.
func batchOf(n int) *BatchedKVOperationMsg {
	m := &BatchedKVOperationMsg{InstanceID: "vllm-0", WorkerID: 1, Location: "LocalCPUBackend"}
	for i := range n {
		op := KVOp{Key: Key(i) * 0x9e3779b97f4a7c15, Seq: int64(100_000 + i)}
		if i%4 == 3 {
			op.Kind = Evict
		}
		m.Operations = append(m.Operations, op)
	}
	return m
}

// TestDecode_OperationForms: the fast path and the general one agree on every form.
func TestDecode_OperationForms(t *testing.T) {
	ints := []string{"\x07", "\xff", "\xcc\x07", "\xcd\x00\x07", "\xce\x00\x00\x00\x07", "\xcf\x00\x00\x00\x00\x00\x00\x00\x07",
		"\xd0\xf7", "\xd1\xff\xf7", "\xd2\xff\xff\xff\xf7", "\xd3\xff\xff\xff\xff\xff\xff\xff\xf7", "\xd3\x00\x00\x00\x00\x00\x00\x00\x07"}
	pad := strings.Repeat("\x00", opWindow)
	for _, kind := range []string{"admit", "evict"} {
		for _, k := range ints {
			for _, seq := range ints {
				usual := "\x83\xa7op_type\xa5" + kind + "\xa3key" + k + "\xa7seq_num" + seq
				var fast KVOp
				if size := fastOperation([]byte(usual+pad), &fast); size != len(usual) {
					t.Fatalf("%x: fast path takes %d of %d bytes", usual, size, len(usual))
				}
				var general KVOp
				other := "\x83\xa3key" + k + "\xa7seq_num" + seq + "\xa7op_type\xa5" + kind
				r := reader{buf: []byte(other)}
				if readFields(&r, r.mapHeader(), &general, operationFields, ""); r.err != nil {
					t.Fatal(r.err)
				}
				if fast != general {
					t.Errorf("%x: fast path %+v, general path %+v", usual, fast, general)
				}
			}
		}
	}
}

// TestDecode_SeqBeyondInt64: the keys count, on both ways through the decoder.
func TestDecode_SeqBeyondInt64(t *testing.T) {
	const op = "\x83\xa7op_type\xa5admit\xa3key\x07\xa7seq_num\xcf\xff\xff\xff\xff\xff\xff\xff\xff"
	frame := "\x85\xa4type\xb5BatchedKVOperationMsg\xabinstance_id\xa1i\xa9worker_id\x00\xa8location\xa1L\xaaoperations\x93" + op + op + op
	m, err := Decode([]byte(frame))
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range m.(*BatchedKVOperationMsg).Operations {
		if want := (KVOp{Key: 7, Seq: math.MaxInt64}); got != want {
			t.Errorf("operation %d: %+v, want %+v", i, got, want)
		}
	}
	frame = "\x86\xa4type\xaaKVAdmitMsg\xabinstance_id\xa1i\xa9worker_id\x00\xa3key\x07\xa8location\xa1L\xa7seq_num\xcf\xff\xff\xff\xff\xff\xff\xff\xff"
	if m, err = Decode([]byte(frame)); err != nil || m.(*KVAdmitMsg).SeqNum != math.MaxInt64 {
		t.Errorf("single admit: %+v, %v", m, err)
	}
}

func TestAppend_Generations(t *testing.T) {
	register := &RegisterMsg{InstanceID: "i", WorkerID: 1, IP: "10.0.0.1", Port: 8001, PeerInitURL: ptr("h:1")}
	admit := &KVAdmitMsg{InstanceID: "i", WorkerID: 1, Key: Key(1<<64 - 5), Location: "LocalCPUBackend"}
	tests := []struct {
		name string
		m    Message
		o    Options
		want string
	}{
		{"register", register, Options{}, "86a474797065ab52656769737465724d7367ab696e7374616e63655f6964a169a9776f726b65725f696401a26970a831302e302e302e31a4706f7274cd1f41ad706565725f696e69745f75726ca3683a31"},
		{"register 0.3.9", register, Options{Gen: Gen0309}, "86a474797065ab52656769737465724d7367ab696e7374616e63655f6964a169a9776f726b65725f696401a26970a831302e302e302e31a4706f7274cd1f41af64697374726962757465645f75726ca3683a31"},
		{"admit 0.3.9", admit, Options{Gen: Gen0309, SignedKeys: true}, "85a474797065aa4b5641646d69744d7367ab696e7374616e63655f6964a169a9776f726b65725f696401a36b6579fba86c6f636174696f6eaf4c6f63616c4350554261636b656e64"},
		{"health answer 0.3.3", &HealthWorkerRetMsg{ErrorCode: -1}, Options{Gen: Gen0303}, "82a474797065b24865616c7468576f726b65725265744d7367a5616c697665c2"},
	}
	for _, tt := range tests {
		if got := AppendWith([]byte{}, tt.m, tt.o); !bytes.Equal(got, unhex(t, tt.want)) {
			t.Errorf("%s:\n got %x\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestPlaneOf(t *testing.T) {
	tests := []struct {
		m    Message
		want Plane
	}{
		{&RegisterMsg{}, PlaneWorker}, {&FullSyncStatusMsg{}, PlaneWorker}, {&RegisterRetMsg{}, PlaneAnswer},
		{&ClearWorkerMsg{}, PlaneCommand}, {&ClearWorkerRetMsg{}, PlaneCommandAnswer}, {&ClearMsg{}, PlaneOrchestrator},
		{&LookupMsg{}, PlaneOrchestrator}, {&LookupRetMsg{}, PlaneOrchestrator}, {&ErrorMsg{}, PlaneError}, {nil, PlaneUnknown},
	}
	for _, tt := range tests {
		if got := PlaneOf(tt.m); got != tt.want {
			t.Errorf("%T: plane %d, want %d", tt.m, got, tt.want)
		}
		if got := IsOrchestrator(tt.m); got != (tt.want == PlaneOrchestrator) {
			t.Errorf("%T: IsOrchestrator %t", tt.m, got)
		}
	}
	// What the recordings say of each type agrees with the table.
	planes := map[string]Plane{
		"worker->controller": PlaneWorker, "reply controller->worker": PlaneAnswer,
		"controller->worker": PlaneCommand, "reply worker->controller": PlaneCommandAnswer,
		"orchestrator->controller": PlaneOrchestrator, "reply controller->orchestrator": PlaneOrchestrator,
	}
	for _, row := range wireRows(t) {
		name, _, _ := strings.Cut(row.Name, "/")
		if got := typeByName[name].plane; name != "ErrorMsg" && got != planes[row.Direction] {
			t.Errorf("%s: plane %d, recorded direction %q", name, got, row.Direction)
		}
	}
}
