package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kvctrl/kvctrl/registry"
)

type resultSample struct {
	name   string
	result any
}

// resultSamples are shown in docs/formats.md and kept under testdata/results.
func resultSamples() []resultSample {
	full := "64 locations are the most"
	return []resultSample{
		{"batch", BatchResult{Records: []RecordResult{
			{Register: registry.RegisterResult{Known: true}},
			{},
			{Ops: registry.OpsResult{Gap: true}},
			{Ops: registry.OpsResult{Late: 300}},
			{Ops: registry.OpsResult{Refused: full}},
			{SyncStart: registry.SyncStartResult{Accepted: true}},
			{SyncStart: registry.SyncStartResult{Reason: full}},
			{Sync: registry.SyncResult{Complete: true}},
			{Deregistered: true},
		}}},
		{"refused", &RefusedError{Index: 300, Type: 9, Version: 1, Unknown: true, Reason: "not known", advice: "upgrade"}},
	}
}

// Every result of every released version stays readable.
func TestResult_Golden(t *testing.T) {
	for _, s := range resultSamples() {
		file := filepath.Join("testdata", "results", fmt.Sprintf("%s.v%d.golden", s.name, ResultVersion))
		got, err := AppendResult(nil, s.result)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, []byte(hexLines(got)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want := readHex(t, file); !bytes.Equal(got, want) {
			t.Errorf("%s: encoded\n%swant\n%s", s.name, hexLines(got), hexLines(want))
		}
	}
}

func mustResult(t testing.TB, result any) any {
	t.Helper()
	b, err := AppendResult([]byte("before"), result)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeResult(bytes.TrimPrefix(b, []byte("before")))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestResult_EveryField(t *testing.T) {
	for _, want := range []BatchResult{
		{Records: filled[BatchResult]().Records},
		{Duplicate: true},
		{Records: []RecordResult{}},
		resultSamples()[0].result.(BatchResult),
	} {
		if got := mustResult(t, want); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
	}
}

// What the registry answers comes back, one truth at a time: no two share a bit.
func TestResult_EveryFieldAlone(t *testing.T) {
	var walk func(v reflect.Value, path string, root *RecordResult)
	walk = func(v reflect.Value, path string, root *RecordResult) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i), path+"."+v.Type().Field(i).Name, root)
			}
			return
		case reflect.Bool:
			v.SetBool(true)
		case reflect.String:
			v.SetString(path)
		case reflect.Int:
			v.SetInt(7)
		default:
			t.Fatalf("%s is of kind %s: give it an encoding", path, v.Kind())
		}
		want := BatchResult{Records: []RecordResult{{}, *root}}
		if got := mustResult(t, want); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v", path, got)
		}
		v.SetZero()
	}
	var r RecordResult
	walk(reflect.ValueOf(&r).Elem(), "", &r)
}

func TestResult_Errors(t *testing.T) {
	refused := resultSamples()[1].result.(*RefusedError)
	for _, err := range []error{
		errors.New("no such event"),
		errors.New(""),
		refused,
		fmt.Errorf("apply: %w", refused),
	} {
		got, ok := mustResult(t, err).(*RemoteError)
		if !ok || got.Error() != err.Error() {
			t.Errorf("%v came back as %v", err, got)
		}
		var want, back *RefusedError
		if errors.As(err, &want) != errors.As(got, &back) || !reflect.DeepEqual(back, want) {
			t.Errorf("%v: refused %+v, want %+v", err, back, want)
		}
	}
	long := strings.Repeat("x", MaxText-1) + "é and more"
	if got := mustResult(t, errors.New(long)).(*RemoteError).Words; got != long[:MaxText-1] {
		t.Errorf("cut to %d bytes", len(got))
	}
	for _, result := range []any{nil, []string{"e1"}, registry.EventCreateResult{}} {
		if b, err := AppendResult([]byte("x"), result); err == nil || string(b) != "x" {
			t.Errorf("%T has no encoding, got %q, %v", result, b, err)
		}
	}
}

// The answer to a batch is bounded whatever it was refused for.
func TestResult_TextsAreBounded(t *testing.T) {
	var r BatchResult
	name := strings.Repeat("n", MaxText)
	for i := range 1000 {
		r.Records = append(r.Records, RecordResult{Ops: registry.OpsResult{Refused: fmt.Sprintf("%04d %s", i, name)}})
	}
	got := mustResult(t, r).(BatchResult)
	for i := range got.Records {
		want := r.Records[i].Ops.Refused[:MaxText]
		if i >= maxTexts-1 {
			want = moreTexts
		}
		if got.Records[i].Ops.Refused != want {
			t.Fatalf("record %d: %.40q, want %.40q", i, got.Records[i].Ops.Refused, want)
		}
	}
	// the largest entry has no more records than this, each with one text at most
	for len(r.Records) < MaxEntry/3 {
		r.Records = append(r.Records, r.Records[:min(1000, MaxEntry/3-len(r.Records))]...)
	}
	if b, err := AppendResult(nil, r); err != nil || len(b) > MaxResult {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestResult_Small(t *testing.T) {
	b, err := AppendResult(nil, BatchResult{Records: make([]RecordResult, 100)})
	if err != nil || len(b) != 105 {
		t.Errorf("100 records that went well: %d bytes, %v", len(b), err)
	}
}

func TestDecodeResult_Refusals(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "1 bytes wanted, 0 left"},
		{"version 0", []byte{0, 1}, "version 0, this build reads version 1"},
		{"newer version", []byte{2, 1, 0, 0, 0}, "version 2, this build reads version 1"},
		{"kind 0", []byte{1, 0}, "kind 0"},
		{"kind 4", []byte{1, 4}, "kind 4"},
		{"no kind", []byte{1}, "1 bytes wanted, 0 left"},
		{"flag", []byte{1, 1, 2, 0, 0}, "flags 00000010"},
		{"records beyond bytes", []byte{1, 1, 0, 0, 2, 0}, "2 records of at least 1 bytes do not fit in the 1"},
		{"many records claimed", []byte{1, 1, 0, 0, 0xff, 0xff, 0xff, 0x7f}, "do not fit"},
		{"texts beyond bytes", []byte{1, 1, 0, 3, 1, 'x', 0, 0}, "3 texts of at least 2 bytes do not fit"},
		{"too many texts", append([]byte{1, 1, 0, 0x81, 0x02}, bytes.Repeat([]byte{1, 'x'}, 257)...), "257 texts, limit 256"},
		{"empty text", []byte{1, 1, 0, 1, 0, 0}, "text is empty"},
		{"text too long", append([]byte{1, 2, 0x81, 0x08}, make([]byte, 1025)...), "error of 1025 bytes, limit 1024"},
		{"text of no place", []byte{1, 1, 0, 0, 1, 4}, "1 bytes wanted|text 0 of 0|number cut off"},
		{"text out of place", []byte{1, 1, 0, 1, 1, 'x', 1, 4, 1}, "text 1 of 1"},
		{"unknown bit", []byte{1, 1, 0, 0, 1, 0x80, 0x40}, "result bits 2000"},
		{"none late", []byte{1, 1, 0, 0, 1, 0x80, 0x08, 0}, "0 late operations, want 1 to 65536"},
		{"all too late", []byte{1, 1, 0, 0, 1, 0x80, 0x08, 0x81, 0x80, 0x04}, "65537 late operations"},
		{"bits not shortest", []byte{1, 1, 0, 0, 1, 0x81, 0}, "shortest form"},
		{"duplicate with records", []byte{1, 1, 1, 0, 1, 0}, "a duplicate has 0 texts and 1 records"},
		{"left over", []byte{1, 1, 1, 0, 0, 0}, "1 bytes left over"},
		{"too large", make([]byte, MaxResult+1), "limit 1048576"},
	} {
		got, err := DecodeResult(c.b)
		if err == nil {
			t.Errorf("%s: accepted as %+v", c.name, got)
			continue
		}
		ok := false
		for w := range strings.SplitSeq(c.want, "|") {
			ok = ok || strings.Contains(err.Error(), w)
		}
		if !ok || got != nil || !strings.HasPrefix(err.Error(), "result") {
			t.Errorf("%s: %v, %v\nwant %s", c.name, got, err, c.want)
		}
	}
	for _, s := range resultSamples() {
		b, _ := AppendResult(nil, s.result)
		for n := range b {
			if got, err := DecodeResult(b[:n]); err == nil {
				t.Errorf("%s: first %d of %d bytes accepted as %+v", s.name, n, len(b), got)
			}
		}
	}
}

func TestResult_RoundTrip(t *testing.T) {
	text := rapid.SampledFrom([]string{"", "", "no", "full", strings.Repeat("é", 600)})
	flag := rapid.Bool()
	record := rapid.Custom(func(t *rapid.T) RecordResult {
		return RecordResult{
			Register:     registry.RegisterResult{Known: flag.Draw(t, "known"), Refused: text.Draw(t, "refused")},
			Ops:          registry.OpsResult{Unknown: flag.Draw(t, "unknown"), Gap: flag.Draw(t, "gap"), Late: rapid.IntRange(0, 300).Draw(t, "late"), Refused: text.Draw(t, "refused")},
			SyncStart:    registry.SyncStartResult{Accepted: flag.Draw(t, "accepted"), Reason: text.Draw(t, "reason")},
			Sync:         registry.SyncResult{Ignored: flag.Draw(t, "ignored"), Complete: flag.Draw(t, "complete")},
			Deregistered: flag.Draw(t, "deregistered"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		r := BatchResult{Records: rapid.SliceOf(record).Draw(t, "records")}
		want := BatchResult{Records: append([]RecordResult{}, r.Records...)}
		for i := range want.Records {
			for _, f := range resultTexts(&want.Records[i]) {
				*f.text = cutText(*f.text)
			}
		}
		b, err := AppendResult(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeResult(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, %v", got, err)
		}
	})
}

// FuzzDecodeResult: what is accepted is small in memory and means the same when it is
// written again.
func FuzzDecodeResult(f *testing.F) {
	for _, s := range resultSamples() {
		b, _ := AppendResult(nil, s.result)
		f.Add(b)
	}
	b, _ := AppendResult(nil, errors.New("no"))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		before := allocated()
		got, err := DecodeResult(b)
		// a record of one byte becomes one of a hundred
		if n, bound := allocated()-before, uint64(1<<20+200*len(b)); n > bound {
			t.Errorf("%d bytes allocated for a result of %d, bound %d", n, len(b), bound)
		}
		if err != nil {
			if got != nil {
				t.Fatalf("%v with %v", got, err)
			}
			return
		}
		again := got
		if e, ok := got.(*RemoteError); ok && e.refused == nil {
			again = errors.New(e.Words)
		}
		b2, err := AppendResult(nil, again)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeResult(b2)
		if err != nil || !reflect.DeepEqual(back, got) {
			t.Fatalf("%+v written again is %+v, %v", got, back, err)
		}
	})
}
