package fsm

import (
	"bytes"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kvctrl/kvctrl/registry"
)

// drawRecords draws what workers may say, over few names so that they repeat.
func drawRecords(t *rapid.T) []any {
	name := rapid.SampledFrom([]string{"", "vllm-0", "vllm-1", "LocalCPUBackend", "x\xff\x00y", strings.Repeat("n", MaxName)})
	number := rapid.OneOf(rapid.Int64Range(-2, 300), rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64}))
	worker := rapid.Custom(func(t *rapid.T) registry.WorkerRef {
		return registry.WorkerRef{Instance: name.Draw(t, "instance"), Worker: number.Draw(t, "worker")}
	})
	stream := rapid.Custom(func(t *rapid.T) registry.StreamRef {
		return registry.StreamRef{WorkerRef: worker.Draw(t, "worker"), Location: name.Draw(t, "location")}
	})
	keys := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) registry.Key { return registry.Key(rapid.Uint64().Draw(t, "key")) }), 0, 40)
	at := rapid.Custom(func(t *rapid.T) registry.Micros { return registry.Micros(number.Draw(t, "at")) })
	record := rapid.Custom(func(t *rapid.T) any {
		switch rapid.IntRange(0, 8).Draw(t, "kind") {
		case 0:
			r := registry.Registration{WorkerRef: worker.Draw(t, "w"), IP: name.Draw(t, "ip"), Port: number.Draw(t, "port"),
				At: at.Draw(t, "at"), ByHeartbeat: rapid.Bool().Draw(t, "hb")}
			if rapid.Bool().Draw(t, "p2p") {
				url := name.Draw(t, "url")
				r.PeerInitURL = &url
			}
			return r
		case 1:
			return Deregistration{WorkerRef: worker.Draw(t, "w"), At: at.Draw(t, "at")}
		case 2:
			return registry.SyncStart{Stream: stream.Draw(t, "s"), SyncID: name.Draw(t, "id"), TotalKeys: number.Draw(t, "n"),
				BatchCount: number.Draw(t, "n"), At: at.Draw(t, "at")}
		case 3:
			return registry.SyncBatch{Stream: stream.Draw(t, "s"), SyncID: name.Draw(t, "id"), BatchID: number.Draw(t, "n"),
				Keys: keys.Draw(t, "keys"), At: at.Draw(t, "at")}
		case 4:
			return registry.SyncEnd{Stream: stream.Draw(t, "s"), SyncID: name.Draw(t, "id"), TotalKeys: number.Draw(t, "n"), At: at.Draw(t, "at")}
		}
		o := registry.Ops{Stream: stream.Draw(t, "s"), Keys: keys.Draw(t, "keys"), Numbered: rapid.Bool().Draw(t, "numbered"),
			Continues: rapid.Bool().Draw(t, "continues"), At: at.Draw(t, "at")}
		// shorter and longer than the keys, bits beyond them set
		o.Evict = registry.Bitmap(rapid.SliceOfN(rapid.Byte(), 0, 7).Draw(t, "evict"))
		if o.Numbered {
			o.First = number.Draw(t, "first")
		}
		return o
	})
	return rapid.SliceOfN(record, 0, 12).Draw(t, "records")
}

// sameRecord compares by meaning: a bitmap by its bits, no keys as no keys.
func sameRecord(a, b any) bool {
	switch x := a.(type) {
	case registry.Ops:
		y, ok := b.(registry.Ops)
		if !ok || len(x.Keys) != len(y.Keys) {
			return false
		}
		for i := range x.Keys {
			if x.Keys[i] != y.Keys[i] || x.Evict.Has(i) != y.Evict.Has(i) {
				return false
			}
		}
		x.Keys, y.Keys, x.Evict, y.Evict = nil, nil, nil, nil
		return reflect.DeepEqual(x, y)
	case registry.SyncBatch:
		if y, ok := b.(registry.SyncBatch); ok && len(x.Keys) == 0 && len(y.Keys) == 0 {
			x.Keys, y.Keys = nil, nil
			return reflect.DeepEqual(x, y)
		}
	}
	return reflect.DeepEqual(a, b)
}

func TestBatch_RoundTrip(t *testing.T) {
	// used again from case to case: what a batch says does not depend on what it said
	batches := map[registry.SessionID]*Batch{sampleSession: NewBatch(sampleSession), {}: NewBatch(registry.SessionID{})}
	rapid.Check(t, func(t *rapid.T) {
		session := rapid.SampledFrom([]registry.SessionID{sampleSession, {}}).Draw(t, "session")
		b := batches[session]
		b.Reset()
		records := drawRecords(t)
		for i, r := range records {
			if n := addRecord(b, r); n != i {
				t.Fatalf("record %d got number %d", i, n)
			}
		}
		number, at := rapid.Uint64().Draw(t, "number"), registry.Micros(rapid.Int64().Draw(t, "at"))
		entry := b.Encode(number, at)
		if len(entry) > b.Len() || b.Records() != len(records) {
			t.Fatalf("%d bytes, Len %d; %d records, want %d", len(entry), b.Len(), b.Records(), len(records))
		}
		if again := b.Encode(number, at); !bytes.Equal(entry, again) || &entry[0] == &again[0] {
			t.Fatal("encoded again: other bytes, or the same memory")
		}
		dec, err := Decode(entry)
		if err != nil {
			t.Fatal(err)
		}
		got := dec.Value.(WorkerBatch)
		if got.Session != session || got.Number != number || got.At != at || len(got.Records) != len(records) {
			t.Fatalf("head %v %d %d, %d records", got.Session, got.Number, got.At, len(got.Records))
		}
		for i := range records {
			if !sameRecord(records[i], got.Records[i]) {
				t.Fatalf("record %d: %+v\nwas %+v", i, got.Records[i], records[i])
			}
		}
		if err := Check(entry); err != nil {
			t.Fatalf("decoded, but Check says %v", err)
		}
	})
}

// A stream's number is one batch's: after Reset it is given anew.
func TestBatch_ResetForgetsStreams(t *testing.T) {
	b := NewBatch(sampleSession)
	b.Ops(registry.Ops{Stream: streamB})
	b.Ops(registry.Ops{Stream: streamA})
	b.Reset()
	b.Ops(registry.Ops{Stream: streamA})
	dec, err := Decode(b.Encode(1, 1))
	if err != nil {
		t.Fatal(err)
	}
	if got := dec.Value.(WorkerBatch).Records[0].(registry.Ops).Stream; got != streamA {
		t.Errorf("stream %+v, want %+v", got, streamA)
	}
}

// What encoder and decoder keep between entries has a bound.
func TestDictionary_KeepsLittle(t *testing.T) {
	var d dictionary
	var in interner
	for i := range 2 * maxInterned {
		name := strconv.Itoa(i)
		d.name(name)
		if in.string([]byte(name)) != name {
			t.Fatalf("%q came back as another text", name)
		}
	}
	if n := len(in.strings); n > maxInterned {
		t.Errorf("%d texts remembered, want at most %d", n, maxInterned)
	}
	if d.reset(); d.names.ids != nil {
		t.Errorf("the map of %d names is kept for the next entry", 2*maxInterned)
	}
}

func someKeys(n int) []registry.Key {
	keys := make([]registry.Key, n)
	x := uint64(1)
	for i := range keys {
		x = x*6364136223846793005 + 1442695040888963407
		keys[i] = registry.Key(x)
	}
	return keys
}

// The design promises 8 to 9 bytes an operation.
func TestBatch_Size(t *testing.T) {
	everyThird := make(registry.Bitmap, 125)
	for i := 0; i < 1000; i += 3 {
		everyThird[i/8] |= 1 << (i % 8)
	}
	ops := registry.Ops{Stream: streamA, Keys: someKeys(1000), Numbered: true, First: 123456, At: sampleAt}
	for _, c := range []struct {
		name  string
		evict registry.Bitmap
		want  int
	}{
		{"admits", nil, 8080},
		{"admits and evicts", everyThird, 8080 + 125},
	} {
		b := NewBatch(sampleSession)
		ops.Evict = c.evict
		b.Ops(ops)
		if got := len(b.Encode(1000, sampleAt)); got != c.want {
			t.Errorf("1 000 %s: %d bytes, want %d", c.name, got, c.want)
		}
	}
	// a run of the same stream in the same batch pays no names
	b := NewBatch(sampleSession)
	b.Ops(ops)
	one := len(b.Encode(1000, sampleAt))
	b.Ops(ops)
	if got := len(b.Encode(1000, sampleAt)) - one; got != 8000+125+8 {
		t.Errorf("a second run of 1 000: %d bytes, want 8133", got)
	}
}

func TestBatch_Limits(t *testing.T) {
	long := strings.Repeat("n", MaxName+1)
	for name, rec := range map[string]any{
		"ops instance":     registry.Ops{Stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: long}}},
		"ops location":     registry.Ops{Stream: registry.StreamRef{Location: long}},
		"ops keys":         registry.Ops{Keys: make([]registry.Key, MaxEntry/8)},
		"register":         registry.Registration{WorkerRef: registry.WorkerRef{Instance: long}},
		"register ip":      registry.Registration{IP: long},
		"register url":     registry.Registration{PeerInitURL: &long},
		"deregister":       Deregistration{WorkerRef: registry.WorkerRef{Instance: long}},
		"sync start":       registry.SyncStart{SyncID: long},
		"sync batch":       registry.SyncBatch{Stream: registry.StreamRef{Location: long}},
		"sync batch keys":  registry.SyncBatch{Keys: make([]registry.Key, MaxEntry/8)},
		"sync end":         registry.SyncEnd{SyncID: long},
		"sync end stream ": registry.SyncEnd{Stream: registry.StreamRef{Location: long}},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBatch(sampleSession)
			b.Deregister(workerA, 1)
			before := b.Encode(1, 1)
			if n := addRecord(b, rec); n != -1 {
				t.Fatalf("record number %d, want -1", n)
			}
			if !bytes.Equal(before, b.Encode(1, 1)) {
				t.Error("a refused record changed the batch")
			}
		})
	}
}

// A batch that is filled until it refuses is an entry that Check passes.
func TestBatch_FillsUpToMaxEntry(t *testing.T) {
	b := NewBatch(sampleSession)
	for i := int64(0); ; i++ {
		s := registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: strings.Repeat("i", int(i%7)), Worker: i}, Location: "l"}
		if b.Ops(registry.Ops{Stream: s, Keys: someKeys(int(i % 50)), At: sampleAt + registry.Micros(i)}) < 0 {
			break
		}
	}
	entry := b.Encode(math.MaxUint64, math.MinInt64)
	if len(entry) > MaxEntry || len(entry) < MaxEntry-600 {
		t.Errorf("%d bytes", len(entry))
	}
	if err := Check(entry); err != nil {
		t.Error(err)
	}
}

func TestBatch_EncodeAllocatesOnce(t *testing.T) {
	b := NewBatch(sampleSession)
	keys := someKeys(1000)
	fillBatch := func() {
		b.Reset()
		for range 10 {
			b.Ops(registry.Ops{Stream: streamA, Keys: keys, At: sampleAt})
			b.Ops(registry.Ops{Stream: streamB, Keys: keys, At: sampleAt})
		}
	}
	fillBatch()
	if n := testing.AllocsPerRun(20, fillBatch); n != 0 {
		t.Errorf("filling a batch again allocates %v times, want 0", n)
	}
	if n := testing.AllocsPerRun(20, func() { b.Encode(1, 1) }); n != 1 {
		t.Errorf("Encode allocates %v times, want 1: the entry", n)
	}
}
