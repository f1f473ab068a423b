package lmcache

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/zeebo/xxh3"
)

// hashPrefix is what the hash of a chunk continues: NONE_HASH or the value of the
// chunk before.
type hashPrefix struct {
	n        uint64   // an integer; for builtin already its Python hash
	negative bool     // n is the pattern of a negative int64; never with builtin
	size     uint8    // length of digest; 0: it is the integer
	digest   [32]byte // zero beyond size
}

func (p *hashPrefix) bytes() []byte { return p.digest[:p.size] }

// digestOf runs a digest family's function over serialized bytes and gives the
// value in the form in which the next chunk continues it, and its key.
func (f *hashFamily) digestOf(b []byte) (hashPrefix, Key) {
	var p hashPrefix
	if f.hash == hashXXH3 {
		sum := xxh3.Hash128(b)
		binary.BigEndian.PutUint64(p.digest[:8], sum.Hi)
		binary.BigEndian.PutUint64(p.digest[8:16], sum.Lo)
		p.size = 16
	} else {
		p.digest = sha256.Sum256(b)
		p.size = sha256.Size
	}
	switch f.value {
	case valueFirst8: // LMCache from 0.4.6 on
		n := binary.BigEndian.Uint64(p.digest[:8])
		return hashPrefix{n: n}, Key(n)
	case valueLast8: // vLLM's old 64-bit function
		n := binary.BigEndian.Uint64(p.digest[p.size-8 : p.size])
		return hashPrefix{n: n}, Key(n)
	default: // goes on whole; the key is folded as that of a bin on the wire is
		return p, Key(binary.BigEndian.Uint64(p.digest[:8]))
	}
}

// link hashes one chunk after prev. It returns the next prefix, the key, and the
// buffer for the next call.
func (f *hashFamily) link(buf []byte, prev hashPrefix, tokens []int64) (hashPrefix, Key, []byte) {
	if f.hash == hashBuiltin {
		p, key := f.linkBuiltin(prev.n, pyTokensHash(tokens))
		return hashPrefix{n: p}, key, buf
	}
	buf = appendChunk(buf[:0], f.form, prev, tokens, f.extra)
	p, key := f.digestOf(buf)
	return p, key, buf
}

// linkBuiltin is link for the builtin families, from the hash of the tokens.
// A key is a Python integer, so as the next prefix it is reduced again.
func (f *hashFamily) linkBuiltin(prev, tokens uint64) (uint64, Key) {
	key := pyLink(prev, tokens, f.extra)
	return pyIntHash(int64(key)), key
}
