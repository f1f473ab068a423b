package lmcache

import (
	"fmt"
	"testing"
)

// BenchmarkChunkHash measures hashing a whole prompt in chunks of 256 tokens, for
// which LMCache's controller is asked in a lookup that hits throughout.
func BenchmarkChunkHash(b *testing.B) {
	for _, name := range []string{
		"builtin@0", "sha256_cbor@seed=0", "sha256@seed=0", "xxhash_cbor@seed=0", "xxhash@seed=0", "sha256_cbor-bytes@seed=0",
	} {
		for _, n := range []int{2048, 32768} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				h := mustHasher(b, mustProfile(b, name), DefaultChunkSize)
				tokens := wideTokens(n)
				h.Start(tokens, true)
				for _, _, ok := h.Next(); ok; _, _, ok = h.Next() { // grows the buffer
				}
				b.ReportAllocs()
				for b.Loop() {
					h.Start(tokens, true)
					for _, _, ok := h.Next(); ok; _, _, ok = h.Next() {
					}
				}
				reportPerToken(b, n)
			})
		}
	}
}

// BenchmarkFirstChunk measures a lookup that misses at once: the first chunk under
// one profile, and under all that "auto" tries.
func BenchmarkFirstChunk(b *testing.B) {
	tokens := wideTokens(2048)
	b.Run("builtin@0", func(b *testing.B) {
		h := mustHasher(b, mustProfile(b, "builtin@0"), DefaultChunkSize)
		b.ReportAllocs()
		for b.Loop() {
			h.Start(tokens, true)
			h.Next()
		}
		reportPerToken(b, DefaultChunkSize)
	})
	b.Run("auto", func(b *testing.B) {
		list := AutoCandidates(nil)
		var first FirstChunk
		first.Reset(tokens[:DefaultChunkSize])
		for i := range list {
			first.Key(&list[i])
		}
		b.ReportAllocs()
		for b.Loop() {
			first.Reset(tokens[:DefaultChunkSize])
			for i := range list {
				first.Key(&list[i])
			}
		}
		b.ReportMetric(float64(len(list)), "profiles")
	})
}

func reportPerToken(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/token")
}
