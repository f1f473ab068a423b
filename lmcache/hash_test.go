package lmcache

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func mustProfile(tb rapid.TB, name string) Profile {
	tb.Helper()
	p, err := ParseProfile(name)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func mustHasher(tb rapid.TB, p Profile, chunkSize int) *Hasher {
	tb.Helper()
	h, err := p.NewHasher(chunkSize)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// seqTokens and wideTokens are the token sets of the vectors; wide needs 1-, 2- and
// 4-byte encodings.
func seqTokens(n int) []int64 {
	tokens := make([]int64, n)
	for i := range tokens {
		tokens[i] = int64(i)
	}
	return tokens
}

func wideTokens(n int) []int64 {
	tokens := make([]int64, n)
	for i := range tokens {
		k := int64(i)
		tokens[i] = (k*k*k*7919 + k*104729) % 152064
	}
	return tokens
}

// allProfiles has every family at least once.
func allProfiles(tb rapid.TB) []Profile {
	tb.Helper()
	list := AutoCandidates([]string{"", "seven", "77"})
	for _, f := range families() {
		list = append(list, mustProfile(tb, f.name+"@int=-7"))
	}
	return list
}

func drawTokens(t *rapid.T, maxLen int) []int64 {
	token := rapid.OneOf(
		rapid.Int64Range(0, 200000),
		rapid.Int64Range(-10, 300),
		rapid.Int64(),
		rapid.SampledFrom([]int64{-2, -1, pyModulus - 1, pyModulus, pyModulus + 1, -pyModulus, -pyModulus - 1,
			math.MaxInt32, math.MaxInt32 + 1, math.MaxUint32, math.MaxUint32 + 1, math.MinInt32, math.MinInt32 - 1,
			math.MinInt64, math.MaxInt64}),
	)
	return rapid.SliceOfN(token, 0, maxLen).Draw(t, "tokens")
}

// naiveChain is the definition of a chain: one chunk after the other, no hashing
// ahead, no kept buffer.
func naiveChain(p Profile, tokens []int64, chunkSize int, tail bool) (keys []Key, ends []int) {
	prev := p.none
	for pos := 0; pos < len(tokens); pos += chunkSize {
		end := min(pos+chunkSize, len(tokens))
		if end-pos < chunkSize && !tail {
			break
		}
		var key Key
		prev, key, _ = p.family.link(nil, prev, tokens[pos:end])
		keys, ends = append(keys, key), append(ends, end)
	}
	return keys, ends
}

// A Hasher gives the chain of the definition, whatever prompts it had before and
// wherever they were left.
func TestHasher_NextFollowsDefinition(t *testing.T) {
	profiles := allProfiles(t)
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(profiles).Draw(t, "profile")
		size := rapid.IntRange(1, 9).Draw(t, "chunk size")
		h := mustHasher(t, p, size)
		for range rapid.IntRange(1, 3).Draw(t, "prompts") {
			tokens := drawTokens(t, 80)
			tail := rapid.Bool().Draw(t, "tail")
			keys, ends := naiveChain(p, tokens, size, tail)
			stop := rapid.IntRange(0, len(keys)+1).Draw(t, "stop after")
			h.Start(tokens, tail)
			for i := range stop {
				key, end, ok := h.Next()
				switch {
				case i == len(keys):
					want := 0
					if i > 0 {
						want = ends[i-1]
					}
					if ok || key != 0 || end != want {
						t.Fatalf("after the last chunk: got %v, %d, %v, want 0, %d, false", key, end, ok, want)
					}
				case !ok || key != keys[i] || end != ends[i]:
					t.Fatalf("chunk %d of %d: got %v, %d, %v, want %v, %d, true", i, len(keys), key, end, ok, keys[i], ends[i])
				}
			}
			got := p.Chain(tokens, size, tail)
			if len(got) != len(keys) {
				t.Fatalf("Chain: %d keys, want %d", len(got), len(keys))
			}
			for i := range got {
				if got[i] != keys[i] {
					t.Fatalf("Chain: key %d is %v, want %v", i, got[i], keys[i])
				}
			}
		}
	})
}

// The keys of a prompt begin with those of each of its beginnings, and the first
// key does not depend on how it is asked for.
func TestHasher_PrefixSharesKeys(t *testing.T) {
	profiles := allProfiles(t)
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(profiles).Draw(t, "profile")
		size := rapid.IntRange(1, 9).Draw(t, "chunk size")
		tokens := drawTokens(t, 80)
		cut := rapid.IntRange(0, len(tokens)).Draw(t, "cut")
		whole, part := p.Chain(tokens, size, true), p.Chain(tokens[:cut], size, false)
		for i := range part {
			if part[i] != whole[i] {
				t.Fatalf("key %d of the first %d tokens is %v, of the whole prompt %v", i, cut, part[i], whole[i])
			}
		}
		if len(tokens) > 0 {
			var first FirstChunk
			first.Reset(tokens[:min(size, len(tokens))])
			if key := first.Key(&p); key != whole[0] {
				t.Fatalf("FirstChunk: %v, want %v", key, whole[0])
			}
		}
	})
}

// FirstChunk keeps nothing of one chunk or profile that shows in the next.
func TestFirstChunk_ManyProfiles(t *testing.T) {
	var first FirstChunk
	for _, tokens := range [][]int64{seqTokens(256), wideTokens(100), {-1}} {
		first.Reset(tokens)
		for _, p := range allProfiles(t) {
			if got, want := first.Key(&p), p.Chain(tokens, len(tokens), false)[0]; got != want {
				t.Errorf("%v, %d tokens: %v, want %v", p, len(tokens), got, want)
			}
		}
	}
	tokens, list := wideTokens(256), allProfiles(t)
	if n := testing.AllocsPerRun(5, func() {
		first.Reset(tokens)
		for i := range list {
			first.Key(&list[i])
		}
	}); n != 0 {
		t.Errorf("%v allocations for a chunk, want none once the buffers have grown", n)
	}
}

// pyIntHash is remainder with the sign of the dividend, and no -1.
func TestPyIntHash_EqualsBigArithmetic(t *testing.T) {
	m := big.NewInt(pyModulus)
	rapid.Check(t, func(t *rapid.T) {
		for _, n := range append(drawTokens(t, 50), rapid.Int64().Draw(t, "n")) {
			want := new(big.Int).Rem(big.NewInt(n), m).Int64()
			if want == -1 {
				want = -2
			}
			if got := int64(pyIntHash(n)); got != want {
				t.Fatalf("hash(%d) = %d, want %d", n, got, want)
			}
		}
	})
}

func TestHasher_AllocatesNothing(t *testing.T) {
	tokens := wideTokens(3000)
	for _, p := range allProfiles(t) {
		h := mustHasher(t, p, DefaultChunkSize)
		run := func() {
			h.Start(tokens, true)
			for _, _, ok := h.Next(); ok; _, _, ok = h.Next() {
			}
		}
		run() // grows the buffer of digests
		if n := testing.AllocsPerRun(5, run); n != 0 {
			t.Errorf("%v: %v allocations for a prompt, want none", p, n)
		}
	}
}

func TestHasher_NoChunks(t *testing.T) {
	p := mustProfile(t, "builtin@0")
	tests := []struct {
		name   string
		tokens []int64
		tail   bool
		want   int
	}{
		{"nil", nil, true, 0},
		{"empty", []int64{}, true, 0},
		{"short, tail counts", seqTokens(255), true, 1},
		{"short, tail dropped", seqTokens(255), false, 0},
		{"exact, tail counts", seqTokens(256), true, 1},
		{"exact, tail dropped", seqTokens(256), false, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := len(p.Chain(tt.tokens, DefaultChunkSize, tt.tail)); got != tt.want {
				t.Errorf("%d keys, want %d", got, tt.want)
			}
		})
	}
}
