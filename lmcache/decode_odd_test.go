package lmcache

import (
	"encoding/json"
	"testing"
)

// oddRow is a line of wire-odd.jsonl: a frame and what LMCache's decoder makes of it.
type oddRow struct {
	Name      string   `json:"name"`
	FrameHex  string   `json:"frame_hex"`
	FramesHex []string `json:"frames_hex"`
	Decode    *struct {
		OK    bool            `json:"ok"`
		Value json.RawMessage `json:"value"`
	} `json:"decode"`
}

func oddRows(tb testing.TB) []oddRow { return readLines[oddRow](tb, "../testdata/wire-odd.jsonl") }

// refusedOdd are the frames that LMCache takes and we refuse, and why.
var refusedOdd = map[string]struct {
	reason Reason
	why    string
}{
	"worker_id_uint64":            {ReasonRange, "numbers are int64, only keys have the full range"},
	"nested_900":                  {ReasonDepth, "MaxDepth is 128, Python's is its recursion limit"},
	"json_nested_900":             {ReasonDepth, "MaxDepth is 128, Python's is its recursion limit"},
	"json_key_2_64":               {ReasonRange, "integers beyond 64 bits: no sender can make them from a key"},
	"json_key_below_int64":        {ReasonRange, "integers beyond 64 bits: no sender can make them from a key"},
	"json_nan_extra":              {ReasonSyntax, "NaN is no JSON"},
	"json_lone_surrogate":         {ReasonUTF8, "a string that cannot be written back as UTF-8"},
	"json_lone_surrogate_sync_id": {ReasonUTF8, "a string that cannot be written back as UTF-8"},
	"json_utf16":                  {ReasonSyntax, "UTF-16: nobody sends it, and UTF-8 is what RFC 8259 asks for"},
}

// takenOdd are the frames that LMCache refuses and we take, with the value that they
// have here, and why.
var takenOdd = map[string]struct{ value, why string }{
	"bin_for_int": {
		`{"type":"BatchedKVOperationMsg","instance_id":"inst-a","worker_id":0,"location":"LocalCPUBackend","operations":[{"op_type":"admit","key":283686952306183,"seq_num":0}]}`,
		"digests as bin, as workers 0.3.9.post2 to 0.4.5 send them",
	},
	"str_for_key": {
		`{"type":"BatchedKVOperationMsg","instance_id":"inst-a","worker_id":0,"location":"LocalCPUBackend","operations":[{"op_type":"admit","key":6847123751949154252,"seq_num":0}]}`,
		"keys as text, decimal",
	},
	"json_kv_admit_string_key": {
		`{"type":"KVAdmitMsg","instance_id":"mooncake-inst","worker_id":0,"key":6847117284963697620,"location":"mooncake_cpu_ram","seq_num":0}`,
		"keys as text, as external stores send them",
	},
	"field_missing_nullable": {
		`{"type":"RegisterMsg","instance_id":"inst-a","worker_id":0,"ip":"127.0.0.1","port":1,"peer_init_url":null}`,
		"no address for P2P under either name means none",
	},
	"old_register_distributed_url": {
		`{"type":"RegisterMsg","instance_id":"inst-a","worker_id":0,"ip":"10.0.0.1","port":8001,"peer_init_url":"10.0.0.1:8201"}`,
		"workers up to 0.3.9.post2",
	},
	"old_heartbeat_distributed_url": {
		`{"type":"HeartbeatMsg","instance_id":"inst-a","worker_id":0,"ip":"10.0.0.1","port":8001,"peer_init_url":"10.0.0.1:8201"}`,
		"workers up to 0.3.9.post2",
	},
	"json_old_register": {
		`{"type":"RegisterMsg","instance_id":"inst-a","worker_id":0,"ip":"10.0.0.1","port":8001,"peer_init_url":"u"}`,
		"workers up to 0.3.9.post2",
	},
	"old_health_ret": {
		`{"type":"HealthWorkerRetMsg","error_code":0}`,
		"workers of 0.3.3",
	},
}

func TestDecode_OddFrames(t *testing.T) {
	used := map[string]bool{}
	for _, row := range oddRows(t) {
		if row.Decode == nil { // a layout of several frames: the sockets' business
			continue
		}
		t.Run(row.Name, func(t *testing.T) {
			m, err := Decode(unhex(t, row.FrameHex))
			if refused, ok := refusedOdd[row.Name]; ok {
				used[row.Name] = true
				if !row.Decode.OK {
					t.Error("listed as refused by us, but LMCache refuses it too")
				}
				if ReasonOf(err) != refused.reason {
					t.Errorf("error %v, want reason %s", err, refused.reason)
				}
				return
			}
			want := row.Decode.Value
			if taken, ok := takenOdd[row.Name]; ok {
				used[row.Name] = true
				if row.Decode.OK {
					t.Error("listed as taken by us only, but LMCache takes it too")
				}
				want = json.RawMessage(taken.value)
			} else if !row.Decode.OK {
				if err == nil {
					t.Errorf("taken as %+v, and not listed as such", m)
				} else if ReasonOf(err) == "" {
					t.Errorf("error %v is no DecodeError", err)
				}
				return
			}
			if err != nil {
				t.Fatalf("refused (%s): %v", ReasonOf(err), err)
			}
			compareValue(t, m, want, GenCurrent)
		})
	}
	for name := range refusedOdd {
		if !used[name] {
			t.Errorf("refusedOdd lists %s, which is no row", name)
		}
	}
	for name := range takenOdd {
		if !used[name] {
			t.Errorf("takenOdd lists %s, which is no row", name)
		}
	}
}

// TestDecode_OddReasons pins the reason of one frame of each kind.
func TestDecode_OddReasons(t *testing.T) {
	want := map[string]Reason{
		"empty":                     ReasonEmpty,
		"truncated_last_byte":       ReasonTruncated,
		"truncated_half":            ReasonTruncated,
		"truncated_map_header":      ReasonTruncated,
		"truncated_in_tag":          ReasonTruncated,
		"truncated_key_int64":       ReasonTruncated,
		"trailing_nul":              ReasonTrailing,
		"two_messages_in_one_frame": ReasonTrailing,
		"top_nil":                   ReasonType,
		"top_array":                 ReasonType,
		"top_ext":                   ReasonType,
		"top_reserved_c1":           ReasonSyntax,
		"top_empty_map":             ReasonMissingField,
		"tag_missing":               ReasonMissingField,
		"tag_unknown":               ReasonUnknownType,
		"tag_base_class":            ReasonUnknownType,
		"tag_empty":                 ReasonUnknownType,
		"tag_int":                   ReasonType,
		"tag_bin":                   ReasonType,
		"tag_twice_different":       ReasonType,
		"field_missing_operations":  ReasonMissingField,
		"field_missing_worker_ids":  ReasonMissingField,
		"field_name_bin":            ReasonType,
		"field_name_nil":            ReasonType,
		"str_for_int":               ReasonType,
		"float_for_int_whole":       ReasonType,
		"bool_for_int":              ReasonType,
		"nil_for_array":             ReasonType,
		"array_for_map":             ReasonType,
		"op_type_unknown":           ReasonRange,
		"op_type_int":               ReasonType,
		"int_for_bool":              ReasonType,
		"tuple_too_short":           ReasonType,
		"tuple_too_long":            ReasonType,
		"c1_in_extra_field":         ReasonSyntax,
		"unknown_command_type":      ReasonUnknownType,
		"command_tag_key_type":      ReasonMissingField,
		"register_ret_int_value":    ReasonType,
		"huge_array_length":         ReasonTruncated,
		"huge_operations_length":    ReasonTruncated,
		"huge_map_length":           ReasonTruncated,
		"huge_str_length":           ReasonTruncated,
		"huge_bin_length_extra":     ReasonTruncated,
		"map_length_too_small":      ReasonMissingField,
		"map_length_too_big":        ReasonTruncated,
		"nested_1200":               ReasonDepth,
		"nested_1200_maps":          ReasonDepth,
		"utf8_invalid_value":        ReasonUTF8,
		"utf8_invalid_instance_id":  ReasonUTF8,
		"utf8_invalid_tag":          ReasonUTF8,
		"utf8_surrogate":            ReasonUTF8,
		"utf8_overlong":             ReasonUTF8,
		"json_trailing_garbage":     ReasonTrailing,
		"json_two":                  ReasonTrailing,
		"json_truncated":            ReasonTruncated,
		"json_brace":                ReasonTruncated,
		"json_empty_object":         ReasonMissingField,
		"json_single_quotes":        ReasonSyntax,
		"json_comment":              ReasonSyntax,
		"json_trailing_comma":       ReasonSyntax,
		"json_unknown_tag":          ReasonUnknownType,
		"json_float_for_int":        ReasonType,
		"json_exponent_int":         ReasonType,
		"json_int_5000_digits":      ReasonRange,
		"json_invalid_utf8":         ReasonUTF8,
		"json_control_char":         ReasonSyntax,
		"json_nested_100000":        ReasonDepth,
	}
	for _, row := range oddRows(t) {
		if reason, ok := want[row.Name]; ok {
			delete(want, row.Name)
			if _, err := Decode(unhex(t, row.FrameHex)); ReasonOf(err) != reason {
				t.Errorf("%s: error %v (%s), want reason %s", row.Name, err, ReasonOf(err), reason)
			}
		}
	}
	for name := range want {
		t.Errorf("%s is no row", name)
	}
}
