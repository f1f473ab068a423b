package cluster

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var peerBlock = regexp.MustCompile("(?ms)^```peer (\\S+)\n(.*?)^```")

// The examples of docs/formats.md are what is sent, and its codes are all there are.
func TestHello_Formats(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "formats.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{
		"hello":  append([]byte{streamRaft}, hello{ClusterID: "c1", NodeID: "n1", PeerAddr: "host1:9400", Wanted: "n2"}.frame()...),
		"answer": welcome{Code: helloWrongNode, NodeID: "n3", ClusterID: "c1", Words: `this is node "n3", not`}.frame(),
	}
	for _, m := range peerBlock.FindAllSubmatch(text, -1) {
		var digits strings.Builder
		for line := range strings.Lines(string(m[2])) {
			code, _, _ := strings.Cut(line, "#")
			digits.WriteString(strings.Join(strings.Fields(code), ""))
		}
		got, err := hex.DecodeString(digits.String())
		if name := string(m[1]); err != nil || !bytes.Equal(got, want[name]) {
			t.Errorf("example %q (%v)\n% x\nwant\n% x", name, err, got, want[name])
		}
		delete(want, string(m[1]))
	}
	for name := range want {
		t.Errorf("no example %q", name)
	}
	for _, code := range []string{helloMalformed, helloVersionOther, helloWrongNode, helloSameNode, helloWrongCluster, helloNoCluster, helloNotExpected, helloFull} {
		if !bytes.Contains(text, []byte("| "+code+" |")) {
			t.Errorf("code %q is not named", code)
		}
	}
	if maxHello != 1024 || maxPeerAddr != 512 || helloVersion != 1 || maxPeerBody != 64<<10 {
		t.Error("a limit has changed: the page must say so")
	}
}

// No bytes from a stranger do more than be refused.
func FuzzHello(f *testing.F) {
	f.Add(hello{ClusterID: "c", NodeID: "n1", PeerAddr: "a:1", Wanted: "n2"}.frame())
	f.Add(welcome{Code: helloFull, NodeID: "n1", Words: "no"}.frame())
	f.Add([]byte{0, 1, 1})
	f.Add([]byte{4, 0, 1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := readHelloFrame(bytes.NewReader(b))
		if err != nil {
			if len(b) > maxHello+2 && !errors.Is(err, errHelloSize) {
				t.Errorf("%d bytes are too few: %v", len(b), err)
			}
			return
		}
		if h, refused := parseHello(frame); refused == nil {
			again, refused := parseHello(h.frame()[2:])
			if refused != nil || again != h {
				t.Errorf("%+v is read back as %+v, %v", h, again, refused)
			}
		} else if refused.Code == "" || refused.Words == "" {
			t.Errorf("refused without a word: %+v", refused)
		}
		if w, err := parseWelcome(frame); err == nil {
			if again, err := parseWelcome(w.frame()[2:]); err != nil || again != w {
				t.Errorf("%+v is read back as %+v, %v", w, again, err)
			}
		}
	})
}
