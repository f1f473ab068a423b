package fsm

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Every entry of every released version stays readable, and what an encoder
// writes does not change unless its version does.
func TestEntry_Golden(t *testing.T) {
	seen := map[Type]bool{}
	for _, s := range samples() {
		seen[s.typ] = true
		t.Run(s.name, func(t *testing.T) {
			file := filepath.Join("testdata", "entries", fmt.Sprintf("%s.v%d.golden", s.name, versions[s.typ].newest))
			got := s.entry()
			if *update {
				if err := os.WriteFile(file, []byte(hexLines(got)), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := readHex(t, file); hexLines(got) != hexLines(want) {
				t.Errorf("encoded\n%swant\n%s", hexLines(got), hexLines(want))
			}
			for v := versions[s.typ].oldest; v <= versions[s.typ].newest; v++ {
				entry := readHex(t, filepath.Join("testdata", "entries", fmt.Sprintf("%s.v%d.golden", s.name, v)))
				dec, err := Decode(entry)
				if err != nil {
					t.Fatal(err)
				}
				want := s.want
				if v < versions[s.typ].newest && s.before != nil {
					want = s.before
				}
				if dec.Type != s.typ || dec.Version != v || !reflect.DeepEqual(dec.Value, want) {
					t.Errorf("version %d decoded as %+v\nwant %+v", v, dec, want)
				}
			}
		})
	}
	for typ := range versions {
		if !seen[typ] {
			t.Errorf("no golden file for a %s", typ)
		}
	}
}

// hexLines shows bytes as lines of 32.
func hexLines(b []byte) string {
	var s strings.Builder
	for len(b) > 0 {
		n := min(32, len(b))
		fmt.Fprintf(&s, "%x\n", b[:n])
		b = b[n:]
	}
	return s.String()
}

func readHex(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return b
}
