package lmcache

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// wireRow is a line of wire.jsonl: a message as the real classes encode it.
type wireRow struct {
	Name       string          `json:"name"`
	Version    string          `json:"lmcache_version"`
	Direction  string          `json:"direction"`
	Value      json.RawMessage `json:"value"`
	MsgpackHex string          `json:"msgpack_hex"`
	JSONHex    string          `json:"json_hex"`
}

func (r wireRow) gen() Gen {
	switch r.Version {
	case "0.5.6":
		return GenCurrent
	case "0.3.9.post2", "0.3.6":
		return Gen0309
	case "0.3.3":
		return Gen0303
	}
	panic("unknown version " + r.Version)
}

// readLines decodes a file of one JSON value per line.
func readLines[T any](tb testing.TB, path string) []T {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var out []T
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			tb.Fatalf("%s line %d: %v", path, len(out)+1, err)
		}
		out = append(out, v)
	}
	if err := lines.Err(); err != nil {
		tb.Fatal(err)
	}
	return out
}

func wireRows(tb testing.TB) []wireRow { return readLines[wireRow](tb, "../testdata/wire.jsonl") }

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// otherValues are rows in which Decode takes one value for another. See DESIGN.md,
// deviations.
var otherValues = map[string]struct{ recorded, here string }{
	"BatchedKVOperationMsg/seq_big": {"18446744073709551615", "9223372036854775807"},
}

// otherBytes are rows that Append cannot write as recorded, with what is lost.
var otherBytes = map[string]string{
	"BatchedKVOperationMsg/seq_big":     "a sequence number above 2^63-1 is taken as 2^63-1",
	"BatchedKVOperationMsg/ops_300":     "keys of both signs in one message: a Key has no sign",
	"BatchedP2PLookupMsg/many":          "keys of both signs in one message: a Key has no sign",
	"FullSyncBatchMsg/signed_unsigned":  "keys of both signs in one message: a Key has no sign",
	"FullSyncStatusRetMsg/int_progress": "an int in the float field: it is written as a float",
}

func TestWire_DecodeAndAppend(t *testing.T) {
	seen := map[string]bool{}
	unused := map[string]bool{}
	for name := range otherValues {
		unused[name] = true
	}
	for name := range otherBytes {
		unused[name] = true
	}
	for _, row := range wireRows(t) {
		t.Run(row.Name+"@"+row.Version, func(t *testing.T) {
			frames := map[string][]byte{"msgpack": unhex(t, row.MsgpackHex)}
			if row.JSONHex != "" {
				frames["json"] = unhex(t, row.JSONHex)
			}
			for encoding, frame := range frames {
				m, err := Decode(frame)
				if err != nil {
					t.Fatalf("%s: %v", encoding, err)
				}
				if want := strings.Split(row.Name, "/")[0]; m.Type() != want {
					t.Fatalf("%s: type %s, want %s", encoding, m.Type(), want)
				}
				seen[m.Type()] = true
				want := row.Value
				if other, ok := otherValues[row.Name]; ok {
					if want = bytes.ReplaceAll(want, []byte(other.recorded), []byte(other.here)); bytes.Equal(want, row.Value) {
						t.Errorf("%s is not in the row", other.recorded)
					}
				}
				compareValue(t, m, want, row.gen())
				if !bytes.Equal(Append(nil, m), Append(nil, redecode(t, m))) {
					t.Errorf("%s: encoded and decoded, the message is another one", encoding)
				}
				if want := frames["msgpack"]; !slices.ContainsFunc([]bool{false, true}, func(signed bool) bool {
					o := Options{Gen: row.gen(), SignedKeys: signed}
					return bytes.Equal(AppendWith([]byte("x"), m, o), append([]byte("x"), want...))
				}) {
					if otherBytes[row.Name] == "" {
						t.Errorf("%s:\n got %x\nwant %x", encoding, AppendWith(nil, m, Options{Gen: row.gen()}), want)
					}
					delete(unused, row.Name)
				}
			}
		})
	}
	for name := range unused {
		t.Errorf("%s is listed as an exception and is none", name)
	}
	for _, mt := range messageTypes {
		if !seen[mt.name] {
			t.Errorf("no row of type %s", mt.name)
		}
	}
	if len(messageTypes) != 51 || len(typeByName) != 51 {
		t.Errorf("%d types with %d names, want the 51 of 0.5.6", len(messageTypes), len(typeByName))
	}
}

func redecode(t *testing.T, m Message) Message {
	t.Helper()
	again, err := Decode(Append(nil, m))
	if err != nil {
		t.Fatalf("decode of encoded %+v: %v", m, err)
	}
	return again
}

// compareValue compares a message with its recorded value. The message is rendered
// by the names of its Go fields, so that it does not depend on the tables under test.
func compareValue(t *testing.T, m Message, recorded json.RawMessage, gen Gen) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(recorded))
	dec.UseNumber()
	var want map[string]any
	if err := dec.Decode(&want); err != nil {
		t.Fatal(err)
	}
	got := renderStruct(reflect.ValueOf(m).Elem())
	got["type"] = m.Type()
	adaptOld(got, gen)
	if g, w := canonical(got), canonical(want); g != w {
		t.Errorf("decoded value differs\n got %s\nwant %s", g, w)
	}
}

// adaptOld changes a rendered message into what an earlier release calls the same.
func adaptOld(v map[string]any, gen Gen) {
	if gen >= Gen0309 {
		infos, _ := v["worker_infos"].([]any)
		for _, i := range append(infos, v) {
			i := i.(map[string]any)
			if url, ok := i["peer_init_url"]; ok {
				i["distributed_url"] = url
				delete(i, "peer_init_url")
			}
		}
		delete(v, "seq_num")
	}
	if gen >= Gen0303 {
		if code, ok := v["error_code"]; ok {
			v["alive"] = code == "0"
			delete(v, "error_code")
		}
		if codes, ok := v["error_codes"].(map[string]any); ok {
			v["alive"] = codes["0"] == "0"
			delete(v, "error_codes")
		}
		if v["type"] == "HealthMsg" {
			delete(v, "event_id")
		}
	}
}

var wordEnd = regexp.MustCompile(`([a-z0-9])([A-Z])|([A-Z])([A-Z][a-z])`)

func snake(name string) string {
	name = strings.ReplaceAll(name, "IDs", "Ids")
	return strings.ToLower(wordEnd.ReplaceAllString(name, "${1}${3}_${2}${4}"))
}

func renderStruct(v reflect.Value) map[string]any {
	out := map[string]any{}
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.Name != "KeySigns" {
			out[snake(f.Name)] = render(v.Field(i))
		}
	}
	return out
}

// render turns a value into what encoding/json with UseNumber makes of it, with all
// numbers as text.
func render(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case Key:
		return strconv.FormatUint(uint64(x), 10)
	case Token:
		return x.String()
	case KVOp:
		return map[string]any{"op_type": x.Kind.String(), "key": render(reflect.ValueOf(x.Key)), "seq_num": fmt.Sprint(x.Seq)}
	case P2PLayout:
		return []any{x.InstanceID, x.Location, fmt.Sprint(x.HitChunks), x.PeerInitURL}
	case []StringPair:
		out := map[string]any{}
		for _, p := range x {
			out[p.Key] = p.Value
		}
		return out
	case []InstanceLayout:
		out := map[string]any{}
		for _, l := range x {
			out[l.InstanceID] = []any{l.Location, fmt.Sprint(l.Tokens)}
		}
		return out
	case []WorkerCode:
		out := map[string]any{}
		for _, c := range x {
			out[fmt.Sprint(c.WorkerID)] = fmt.Sprint(c.Code)
		}
		return out
	case []byte: // args of a heartbeat command
		if x == nil {
			return nil
		}
		r := reader{buf: x}
		return renderPacked(&r)
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return render(v.Elem())
	case reflect.Slice, reflect.Array:
		out := []any{}
		for i := range v.Len() {
			out = append(out, render(v.Index(i)))
		}
		return out
	case reflect.Struct:
		return renderStruct(v)
	case reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Float64:
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	}
	return v.Interface()
}

// renderPacked renders any MessagePack value that JSON can hold.
func renderPacked(r *reader) any {
	c := r.buf[r.pos]
	switch kind(c) {
	case "map":
		out := map[string]any{}
		for n := r.mapHeader(); n > 0; n-- {
			name := r.str()
			out[name] = renderPacked(r)
		}
		return out
	case "array":
		out := []any{}
		for n := r.arrayHeader(); n > 0; n-- {
			out = append(out, renderPacked(r))
		}
		return out
	case "str":
		return r.str()
	case "int":
		return strconv.FormatInt(r.int64(), 10)
	case "float":
		return strconv.FormatFloat(r.float64(), 'g', -1, 64)
	case "bool":
		return r.bool()
	}
	r.skip()
	return nil
}

// canonical renders a JSON value as text, numbers by value: keys of both signs as
// the 64-bit pattern they have in common.
func canonical(v any) string {
	b, err := json.Marshal(plain("", v))
	if err != nil {
		panic(err)
	}
	return string(b)
}

func plain(name string, v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range x {
			out[k] = plain(k, e)
		}
		return out
	case []any:
		out := []any{}
		for _, e := range x {
			out = append(out, plain(name, e))
		}
		return out
	case json.Number:
		return plain(name, string(x))
	case string:
		isKey := name == "key" || name == "keys" || name == "hashes"
		if i, err := strconv.ParseInt(x, 10, 64); err == nil && isKey {
			return strconv.FormatUint(uint64(i), 10)
		}
		if f, err := strconv.ParseFloat(x, 64); err == nil && math.Abs(f) < 1<<53 {
			return strconv.FormatFloat(f, 'f', -1, 64)
		}
	}
	return v
}
