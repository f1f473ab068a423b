package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kvctrl/kvctrl/registry"
)

// reseal gives an entry with one change and a checksum that fits again.
func reseal(entry []byte, change func(body []byte) []byte) []byte {
	return seal(change(append([]byte(nil), entry[:len(entry)-trailerSize]...)))
}

func refusedAs(t testing.TB, entry []byte) *RefusedError {
	t.Helper()
	_, err := Decode(entry)
	checked := Check(entry)
	if fmt.Sprint(err) != fmt.Sprint(checked) {
		t.Errorf("Decode says %v, Check says %v", err, checked)
	}
	var refused *RefusedError
	if err != nil && !errors.As(err, &refused) {
		t.Fatalf("error of type %T: %v", err, err)
	}
	return refused
}

func TestDecode_Refusals(t *testing.T) {
	set := func(at int, v byte) func([]byte) []byte {
		return func(b []byte) []byte { b[at] = v; return b }
	}
	cut := func(n int) func([]byte) []byte {
		return func(b []byte) []byte { return b[:len(b)-n] }
	}
	term := EncodeTermBegin(registry.TermBegin{Term: 3, Node: "n1", At: 1})
	create := EncodeCreateEvent(registry.EventCreate{ID: "e", Kind: registry.CommandClear})
	run := EncodeRunEvent(registry.EventRun{ID: "e"})
	member := EncodeSetMember(registry.Member{NodeID: "n1"})
	batch := func(body ...byte) []byte {
		head := append(appendHeader(nil, TypeWorkerBatch), make([]byte, sessionSize)...)
		return seal(append(append(head, 1, 0), body...))
	}
	// a dictionary of one name, one worker, one stream, then one record
	record := func(body ...byte) []byte {
		return batch(append([]byte{1, 1, 'a', 1, 0, 0, 1, 0, 0, 1}, body...)...)
	}
	for _, c := range []struct {
		name    string
		entry   []byte
		unknown bool
		want    string
	}{
		{"empty", nil, false, "0 bytes"},
		{"too short", term[:7], false, "7 bytes"},
		{"zeros", make([]byte, 64), false, "checksum"},
		{"sealed zeros", seal(make([]byte, 64)), false, "type 0"},
		{"too large", seal(append(appendHeader(nil, TypeTermBegin), make([]byte, MaxEntry)...)), false, "limit 524288"},
		{"unknown type", reseal(term, set(0, 9)), true, "knows the types 1, 2, 3, 4, 5, 6, 7, 8"},
		{"last type that is not ignorable", reseal(term, set(0, 127)), true, "knows the types"},
		{"version 0", reseal(term, set(1, 0)), false, "version 0"},
		{"newer version", reseal(term, set(1, 2)), true, "term begin up to version 1"},
		{"version before the first release", reseal(member, set(1, 1)), false, "set member from version 2 on"},
		{"member flag of a newer build", reseal(member, func(b []byte) []byte { b[len(b)-1] = 2; return b }), true, "flags 00000010"},
		{"other plane", reseal(term, set(2, 1)), true, "plane 1"},
		{"other key width", reseal(term, set(3, 32)), true, "keys of 32 bytes"},
		{"body cut", reseal(term, cut(1)), false, "at byte 8: number cut off"},
		{"body longer", reseal(term, func(b []byte) []byte { return append(b, 0) }), false, "1 bytes left over"},
		{"name over its end", reseal(term, set(5, 100)), false, "100 bytes wanted, 3 left"},
		{"number not shortest", reseal(term, func(b []byte) []byte { return append(b[:len(b)-1], 0x82, 0x00) }), false, "shortest form"},
		{"number beyond 64 bits", reseal(run, func(b []byte) []byte {
			return append(b[:len(b)-1], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)
		}), false, "beyond 64 bits"},
		{"kind 0", reseal(create, set(6, 0)), false, "command kind 0"},
		{"kind of a newer build", reseal(create, set(6, 6)), true, "command kind 6, this build knows 1 to 5"},
		{"long name", EncodeRemoveMember(strings.Repeat("n", MaxName+1)), false, "node of 1025 bytes, limit 1024"},
		{"count beyond bytes", reseal(run, set(7, 5)), false, "5 workers of at least 2 bytes do not fit"},
		{"many names claimed", batch(0xff, 0xff, 0xff, 0x7f, 0), false, "names of at least 1 bytes do not fit"},
		{"worker of no name", batch(0, 1, 0, 0, 0, 0), false, "instance name 0 of 0"},
		{"stream of no worker", batch(0, 0, 1, 0, 0, 0), false, "worker 0 of 0"},
		{"record of no stream", batch(0, 0, 0, 1, recOps, 0, 0, 0), false, "stream 0 of 0"},
		{"record tag 0", record(0, 0, 0), true, "record tag 0x00"},
		{"record tag 7", record(7, 0, 0), true, "record tag 0x07"},
		{"flag of a newer build", record(recDeregister|0x10, 0, 0), true, "record tag 0x13"},
		{"keys beyond bytes", record(recOps, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9), false, "2 keys of at least 8 bytes do not fit in the 9"},
		{"bitmap missing", record(recOps|flagEvicts, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8), false, "1 bytes wanted, 0 left"},
		{"bitmap empty", record(recOps|flagEvicts, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0), false, "bitmap is empty"},
		{"bitmap too wide", record(recOps|flagEvicts, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 3), false, "beyond operation 1"},
		{"records missing", record(recDeregister, 0, 0)[:len(record(recDeregister, 0, 0))-5], false, "checksum"},
		{"truth value", reseal(EncodeLease(registry.Lease{Heard: []registry.Heard{{WorkerRef: workerA}}}), func(b []byte) []byte {
			b[len(b)-2] = 2
			return b
		}), false, "truth value 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := refusedAs(t, c.entry)
			if r == nil {
				t.Fatal("accepted")
			}
			if r.Unknown != c.unknown || !strings.Contains(r.Error(), c.want) {
				t.Errorf("unknown = %v, error %q\nwant %v and %q", r.Unknown, r, c.unknown, c.want)
			}
		})
	}
	if r := refusedAs(t, record(recDeregister, 0, 0)); r != nil {
		t.Errorf("the frame of these cases is itself refused: %v", r)
	}
}

func TestDecode_IgnorableType(t *testing.T) {
	entry := seal([]byte{200, 9, 1, 32, 'x', 'y'})
	dec, err := Decode(entry)
	if err != nil || dec.Type != 200 || dec.Version != 9 || dec.Value != nil {
		t.Errorf("Decode = %+v, %v", dec, err)
	}
	entry[4] ^= 1
	if r := refusedAs(t, entry); r == nil || r.Unknown {
		t.Errorf("damaged ignorable entry: %v", r)
	}
}

// Whatever bit of an entry turns, the entry is refused.
func TestDecode_EveryBitFlip(t *testing.T) {
	for _, s := range samples() {
		entry := s.entry()
		for bit := range 8 * len(entry) {
			entry[bit/8] ^= 1 << (bit % 8)
			if Check(entry) == nil {
				t.Errorf("%s: bit %d of byte %d turned, accepted", s.name, bit%8, bit/8)
			}
			entry[bit/8] ^= 1 << (bit % 8)
		}
		for n := range entry {
			if Check(entry[:n]) == nil {
				t.Errorf("%s: first %d of %d bytes accepted", s.name, n, len(entry))
			}
		}
	}
}

// fill sets every exported field below v to something that is not zero, so that a
// field that an encoder forgets is noticed when it is added.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[registry.Bitmap]() {
			v.SetBytes([]byte{3}) // both keys are evicts
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.String:
		switch v.Type() {
		case reflect.TypeFor[registry.CommandKind]():
			v.SetString(string(registry.CommandPin))
		case reflect.TypeFor[registry.EventState]():
			v.SetString(string(registry.EventFailed))
		default:
			v.SetString(fmt.Sprintf("text-%d", *n))
		}
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n) % 256)
	default:
		panic("fill: " + v.Type().String())
	}
}

func filled[T any]() T {
	var v T
	n := 0
	fill(reflect.ValueOf(&v).Elem(), &n)
	return v
}

func TestEncode_EveryField(t *testing.T) {
	record := func(rec any) func() []byte {
		return func() []byte { return encodeBatch(WorkerBatch{Session: sampleSession, Records: []any{rec}}) }
	}
	ops, sync := filled[registry.Ops](), filled[registry.SyncBatch]()
	ops.Session = registry.SessionID{} // stands once, in front of the records
	for _, c := range []struct {
		want  any
		entry func() []byte
	}{
		{filled[registry.TermBegin](), func() []byte { return EncodeTermBegin(filled[registry.TermBegin]()) }},
		{filled[registry.Lease](), func() []byte { return EncodeLease(filled[registry.Lease]()) }},
		{filled[registry.EventCreate](), func() []byte { return EncodeCreateEvent(filled[registry.EventCreate]()) }},
		{filled[registry.EventRun](), func() []byte { return EncodeRunEvent(filled[registry.EventRun]()) }},
		{filled[registry.EventFinish](), func() []byte { return EncodeFinishEvent(filled[registry.EventFinish]()) }},
		{filled[registry.Member](), func() []byte { return EncodeSetMember(filled[registry.Member]()) }},
		{ops, record(ops)},
		{sync, record(sync)},
		{filled[registry.Registration](), record(filled[registry.Registration]())},
		{filled[registry.SyncStart](), record(filled[registry.SyncStart]())},
		{filled[registry.SyncEnd](), record(filled[registry.SyncEnd]())},
		{filled[Deregistration](), record(filled[Deregistration]())},
	} {
		dec, err := Decode(c.entry())
		if err != nil {
			t.Errorf("%T: %v", c.want, err)
			continue
		}
		got := dec.Value
		if b, ok := got.(WorkerBatch); ok {
			got = b.Records[0]
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%T: got %+v\nwant %+v", c.want, got, c.want)
		}
	}
}

func TestEncodeFinishEvent_CutsText(t *testing.T) {
	long := strings.Repeat("x", MaxText-1) + "é and more"
	dec, err := Decode(EncodeFinishEvent(registry.EventFinish{
		ID: "e", State: registry.EventFailed, Detail: long,
		Workers: []registry.WorkerOutcome{{State: registry.EventFailed, Error: long}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	e, want := dec.Value.(registry.EventFinish), strings.Repeat("x", MaxText-1)
	if e.Detail != want || e.Workers[0].Error != want {
		t.Errorf("cut to %d and %d bytes, want %d: not inside a rune", len(e.Detail), len(e.Workers[0].Error), len(want))
	}
}

func TestEncode_EmptyAndExtreme(t *testing.T) {
	for _, l := range []registry.Lease{
		{},
		{At: -1 << 63, Heard: []registry.Heard{{Any: 1<<63 - 1, Heartbeat: -1 << 63}}, SyncTimeout: -1 << 63},
	} {
		dec, err := Decode(EncodeLease(l))
		if err != nil || !reflect.DeepEqual(dec.Value, l) {
			t.Errorf("lease %+v came back as %+v, %v", l, dec.Value, err)
		}
	}
}

// Numbers are the common varints, and come back.
func TestCursor_Numbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := rapid.Uint64().Draw(t, "u") >> rapid.IntRange(0, 63).Draw(t, "shift")
		i := rapid.Int64().Draw(t, "i") >> rapid.IntRange(0, 63).Draw(t, "shift")
		b := appendUint(nil, u)
		b = appendInt(b, i)
		c := cursor{data: b}
		gotU, gotI := c.uint(), c.int()
		c.end()
		if c.err != nil || gotU != u || gotI != i {
			t.Fatalf("%d, %d read as %d, %d, %v", u, i, gotU, gotI, c.err)
		}
		if n, _ := binary.Uvarint(b); n != u {
			t.Fatalf("not the common varint: %d", n)
		}
	})
}
