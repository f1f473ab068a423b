package lmcache

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// vectorProfiles maps the rows of testdata/chunk-hash.json, which come out of
// released LMCache code, to profiles. An empty profile: a row without one, and why.
var vectorProfiles = map[string]struct{ profile, excluded string }{
	"builtin NONE_HASH=0 (no vLLM) extra=()":                           {profile: "builtin@0"},
	"builtin NONE_HASH=0 extra=() tokens=wide":                         {profile: "builtin@0"},
	"builtin seed0 py>=3.11 extra=()":                                  {profile: "builtin@seed=0"},
	"builtin seed0 py>=3.11 extra=() tokens=wide":                      {profile: "builtin@seed=0"},
	"builtin seed0 py<=3.10 extra=()":                                  {profile: "builtin@seed=0,py310"},
	"builtin seed123 py>=3.11 extra=()":                                {profile: "builtin@seed=123"},
	"builtin seed123 py<=3.10 extra=() tokens=wide":                    {profile: "builtin@seed=123,py310"},
	"builtin seed0 py>=3.12 extra=None (<=v0.3.12)":                    {profile: "builtin-none@seed=0"},
	"builtin seed0 py>=3.12 extra=None tokens=wide":                    {profile: "builtin-none@seed=0"},
	"builtin NONE_HASH=0 py>=3.12 extra=None (0.3.4..0.3.15, no vLLM)": {profile: "builtin-none@0"},
	"builtin NONE_HASH=0 two-tuple (0.3.3, no vLLM)":                   {profile: "builtin-pair@0"},
	"builtin seed0 py>=3.11 two-tuple (Ascend/fork)":                   {profile: "builtin-pair@seed=0"},
	"sha256_cbor seed\"0\" after #2999":                                {profile: "sha256_cbor@seed=0"},
	"sha256_cbor seed\"0\" after #2999 tokens=wide":                    {profile: "sha256_cbor@seed=0"},
	"sha256_cbor seed\"123\" after #2999":                              {profile: "sha256_cbor@seed=123"},
	"sha256 (pickle) seed\"0\" after #2999":                            {profile: "sha256@seed=0"},
	"sha256 (pickle) seed\"0\" after #2999 tokens=wide":                {profile: "sha256@seed=0"},
	"xxhash_cbor seed\"0\" after #2999":                                {profile: "xxhash_cbor@seed=0"},
	"xxhash_cbor seed\"0\" after #2999 tokens=wide":                    {profile: "xxhash_cbor@seed=0"},
	"xxhash (pickle) seed\"0\" after #2999":                            {profile: "xxhash@seed=0"},
	"xxhash (pickle) seed\"0\" after #2999 tokens=wide":                {profile: "xxhash@seed=0"},
	"sha256_cbor seed\"0\" before #2999, bytes chain, extra=()":        {profile: "sha256_cbor-bytes@seed=0"},
	"sha256 (pickle) seed\"0\" before #2999, bytes chain, extra=()":    {profile: "sha256-bytes@seed=0"},
	"xxhash_cbor seed\"0\" before #2999, bytes chain, extra=()":        {profile: "xxhash_cbor-bytes@seed=0"},
	"sha256_cbor seed\"0\" before #1897, bytes chain, extra=None":      {profile: "sha256_cbor-bytes-none@seed=0"},
	"sha256 (pickle) seed\"0\" before #1897, bytes chain, extra=None":  {profile: "sha256-bytes-none@seed=0"},
	"sha256_cbor_64bit (old vLLM int, low 64) seed\"0\" extra=()":      {profile: "sha256_cbor_64bit@seed=0"},
	"sha256_cbor_64bit (old vLLM int, low 64) seed\"0\" extra=None":    {profile: "sha256_cbor_64bit-none@seed=0"},
	"builtin seed0 two-tuple, NONE_HASH=sha256 int (0.3.3 with vLLM before #20511)": {
		profile: "builtin-pair@int=0x1973e23848344dc43a988a9b478663803cfffe1243480253f9a3cf004b14aa7c"},

	"MP mode blake3, full chunks only":             {excluded: "the MP coordinator's protocol, with keys of 32 bytes, not the cache controller's"},
	"MP mode blake3, full chunks only tokens=wide": {excluded: "the MP coordinator's protocol, with keys of 32 bytes, not the cache controller's"},
	"sha256 hex strings (0.3.2 and older)":         {excluded: "releases that no worker of a supported controller has; no profile"},
}

func TestChain_ReleasedCode(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "testdata", "chunk-hash.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows map[string][2]json.RawMessage
	if err := json.Unmarshal(raw, &rows); err != nil {
		t.Fatal(err)
	}
	for name := range vectorProfiles {
		if _, ok := rows[name]; !ok {
			t.Errorf("no row %q", name)
		}
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			entry, ok := vectorProfiles[name]
			if !ok {
				t.Fatal("row without a profile")
			}
			if entry.profile == "" {
				t.Skip(entry.excluded)
			}
			var want []json.RawMessage
			if err := json.Unmarshal(row[1], &want); err != nil {
				t.Fatal(err)
			}
			tokens := seqTokens(600)
			if strings.HasSuffix(name, "tokens=wide") {
				tokens = wideTokens(600)
			}
			p := mustProfile(t, entry.profile)
			checkNoneHash(t, p, row[0])
			for _, tail := range []bool{true, false} {
				h := mustHasher(t, p, DefaultChunkSize)
				h.Start(tokens, tail)
				wantEnds := []int{256, 512, 600}
				if !tail {
					wantEnds = wantEnds[:2]
				}
				for i, wantEnd := range wantEnds {
					key, end, ok := h.Next()
					if !ok || end != wantEnd {
						t.Fatalf("chunk %d: end %d, %v, want %d, true", i, end, ok, wantEnd)
					}
					checkVector(t, want[i], key, h.prev.bytes())
				}
				if _, _, ok := h.Next(); ok {
					t.Fatal("a chunk too many")
				}
			}
		})
	}
}

// checkVector compares a key, and the whole digest if there is one, with a number
// or a text of hexadecimal digits.
func checkVector(t *testing.T, want json.RawMessage, key Key, digest []byte) {
	t.Helper()
	text := string(want)
	if strings.HasPrefix(text, `"`) {
		wantDigest, err := hex.DecodeString(strings.Trim(text, `"`))
		if err != nil {
			t.Fatal(err)
		}
		if string(digest) != string(wantDigest) {
			t.Errorf("digest %x, want %x", digest, wantDigest)
		}
		if wantKey := Key(binary.BigEndian.Uint64(wantDigest)); key != wantKey {
			t.Errorf("key %#x, want %#x", key, wantKey)
		}
		return
	}
	if len(digest) > 0 {
		t.Errorf("a digest %x goes on, want an integer", digest)
	}
	if strings.HasPrefix(text, "-") {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if int64(key) != n {
			t.Errorf("key %d, want %d", int64(key), n)
		}
		return
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if uint64(key) != n {
		t.Errorf("key %d, want %d", key, n)
	}
}

// checkNoneHash compares the value before the first chunk: for builtin, where only
// its Python hash is kept, by way of an int root.
func checkNoneHash(t *testing.T, p Profile, want json.RawMessage) {
	t.Helper()
	if p.family.hash != hashBuiltin {
		key := Key(p.none.n)
		if p.none.size > 0 {
			key = Key(binary.BigEndian.Uint64(p.none.digest[:8]))
		}
		checkVector(t, want, key, p.none.bytes())
		return
	}
	text, base := string(want), 10
	if strings.HasPrefix(text, `"`) {
		text, base = strings.Trim(text, `"`), 16
	}
	n, ok := new(big.Int).SetString(text, base)
	if !ok {
		t.Fatalf("%s: no integer", want)
	}
	if q := mustProfile(t, p.family.name+"@int="+n.String()); q.none != p.none {
		t.Errorf("NONE_HASH reduces to %d, want %d", p.none.n, q.none.n)
	}
}
