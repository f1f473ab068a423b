package promptkeys

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kvctrl/kvctrl/registry"
)

// unknowable are the rows of testdata/chunk-hash.json that auto does not find, and why.
var unknowable = map[string]string{
	"MP mode blake3, full chunks only":                                              "another protocol, with keys of 32 bytes",
	"MP mode blake3, full chunks only tokens=wide":                                  "another protocol, with keys of 32 bytes",
	"sha256 hex strings (0.3.2 and older)":                                          "releases that no worker of a supported controller has",
	"builtin seed0 two-tuple, NONE_HASH=sha256 int (0.3.3 with vLLM before #20511)": "a root of 256 bits, to be named",
}

// TestFind_ReleasedEngines: an engine that holds the keys which released code has made is
// found at the first lookup, whatever release, algorithm and seed.
func TestFind_ReleasedEngines(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "testdata", "chunk-hash.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows map[string][2]json.RawMessage
	if err := json.Unmarshal(raw, &rows); err != nil {
		t.Fatal(err)
	}
	found := 0
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			var keys []json.RawMessage
			if err := json.Unmarshal(row[1], &keys); err != nil {
				t.Fatal(err)
			}
			tokens := make([]int64, 600)
			for i := range tokens {
				if tokens[i] = int64(i); strings.HasSuffix(name, "tokens=wide") {
					n := int64(i)
					tokens[i] = (n*n*n*7919 + n*104729) % 152064
				}
			}
			reg, f := newFleet(t), newFinder(t, Options{})
			ref := registry.WorkerRef{Instance: "engine"}
			reg.Register(registry.Registration{WorkerRef: ref, IP: "127.0.0.1", Port: 1, At: at})
			o := registry.Ops{Stream: registry.StreamRef{WorkerRef: ref, Location: "LocalCPUBackend"}, At: at}
			for _, k := range keys {
				o.Keys = append(o.Keys, wireKey(t, string(k)))
			}
			reg.ApplyOps(o)
			hits := f.Find(reg.Registry, Prompt{Tokens: tokens}).Hits
			if why, not := unknowable[name]; not {
				if len(hits) > 0 {
					t.Errorf("found, although it is %s", why)
				}
				return
			}
			if found++; len(hits) != 1 || hits[0].Instance != "engine" || hits[0].Tokens != 600 {
				t.Errorf("found %+v, want all 600 tokens", hits)
			}
		})
	}
	if want := len(rows) - len(unknowable); found != want || want < 25 {
		t.Errorf("%d rows are to be found, want %d", found, want)
	}
}

// wireKey is a recorded hash as it is kept when it comes over the wire: a number by its 64
// bits, a digest by its first 8 bytes.
func wireKey(t *testing.T, text string) registry.Key {
	t.Helper()
	switch digits, isText := strings.CutPrefix(text, `"`); {
	case isText:
		n, err := strconv.ParseUint(digits[:16], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		return registry.Key(n)
	case strings.HasPrefix(text, "-"):
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return registry.Key(n)
	default:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return registry.Key(n)
	}
}
