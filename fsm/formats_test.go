package fsm

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kvctrl/kvctrl/registry"
)

var hexBlock = regexp.MustCompile("(?s)```hex ([a-z-]+)\n(.*?)```")

// docs/formats.md is normative, so its examples must be what the code writes.
func TestFormats_Examples(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "formats.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		"snapshot-header": snapshotHeader{index: 1001, term: 3}.append(nil),
		"snapshot-keys":   section(sectionKeys, appendKey(appendKey(nil, 0x1122334455667788, []uint32{0}), 2, []uint32{0, 300})),
	}
	for _, s := range samples() {
		want[s.name] = s.entry()
	}
	for _, s := range resultSamples() {
		b, err := AppendResult(nil, s.result)
		if err != nil {
			t.Fatal(err)
		}
		want["result-"+s.name] = b
	}
	for _, m := range hexBlock.FindAllSubmatch(text, -1) {
		name := string(m[1])
		var digits strings.Builder
		for line := range strings.Lines(string(m[2])) {
			code, _, _ := strings.Cut(line, "#")
			digits.WriteString(strings.Join(strings.Fields(code), ""))
		}
		got, err := hex.DecodeString(digits.String())
		if err != nil || !bytes.Equal(got, want[name]) {
			t.Errorf("example %q (%v)\n%swant\n%s", name, err, hexLines(got), hexLines(want[name]))
		}
		delete(want, name)
	}
	for name := range want {
		t.Errorf("no example %q", name)
	}
}

// The page's tables say what the code knows.
func TestFormats_Tables(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "formats.md"))
	if err != nil {
		t.Fatal(err)
	}
	newest := uint8(0)
	for typ, v := range versions {
		newest = max(newest, v.newest)
		if row := fmt.Sprintf("| %d | %s | %d | ", typ, v.name, v.newest); !bytes.Contains(text, []byte(row)) {
			t.Errorf("no row %q", row)
		}
	}
	if newest != EntryVersion {
		t.Errorf("EntryVersion is %d, the newest type has %d", EntryVersion, newest)
	}
	for i, k := range eventKinds[1:] {
		if item := fmt.Sprintf("%d %s", i+1, k); !bytes.Contains(text, []byte(item)) {
			t.Errorf("command kind %q is not named", item)
		}
	}
	for i, s := range eventStates[1:] {
		if item := fmt.Sprintf("%d %s", i+1, strings.ReplaceAll(string(s), "_", " ")); !bytes.Contains(bytes.ReplaceAll(text, []byte("\n"), []byte(" ")), []byte(item)) {
			t.Errorf("event state %q is not named", item)
		}
	}
	for _, number := range []string{"at most 524 288 bytes", "at most 1 024", "at most 1 048 576", "At most 1 048 576 bytes", "at most 256"} {
		if !bytes.Contains(text, []byte(number)) {
			t.Errorf("limit %q is not named", number)
		}
	}
	if MaxEntry != 524_288 || MaxName != 1024 || MaxText != 1024 || maxSection != 1_048_576 || MaxResult != 1_048_576 || maxTexts != 256 {
		t.Error("a limit has changed: the page must say so")
	}
}

// Snapshots of every version, and of every version of the state in them, stay readable.
func TestSnapshot_Golden(t *testing.T) {
	for version := oldestStateVersion; version <= stateVersion; version++ {
		want := struct{ workers, events, members int }{3, 3, 3}
		file := filepath.Join("testdata", "snapshots", fmt.Sprintf("small.v%d.%d.golden", SnapshotVersion, version))
		if *update && version == stateVersion {
			f, _ := newFSM(t)
			f.ApplyBatch(writeScript(13, 60))
			if err := os.WriteFile(file, []byte(hexLines(persist(t, f))), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f := New(Options{Registry: registry.Options{Shards: 4}})
		if err := restore(f, readHex(t, file)); err != nil {
			t.Fatal(err)
		}
		reg := f.Registry()
		if w, e, m := len(reg.Workers("")), len(reg.Events(100)), len(reg.Members()); w != want.workers || e != want.events || m != want.members || f.Applied() == 0 {
			t.Errorf("state version %d: %d workers, %d events, %d members at %d, want %+v", version, w, e, m, f.Applied(), want)
		}
	}
}
