package lmcache

import (
	"encoding/binary"
	"math/bits"
)

// sipGen is the pair of SipHash round counts of a Python generation. It matters
// for NONE_HASH only: the one string that a builtin profile hashes.
type sipGen struct{ compress, finish int }

// Python moved from SipHash-2-4 to SipHash-1-3 with release 3.11.
func sipPy310() sipGen { return sipGen{2, 4} }
func sipPy311() sipGen { return sipGen{1, 3} }

// pySeedKey returns the SipHash key that CPython derives from PYTHONHASHSEED=seed
// (lcg_urandom in Python/bootstrap_hash.c).
func pySeedKey(seed uint32) (k0, k1 uint64) {
	if seed == 0 {
		return 0, 0
	}
	var key [16]byte
	x := seed
	for i := range key {
		x = x*214013 + 2531011
		key[i] = byte(x >> 16)
	}
	return binary.LittleEndian.Uint64(key[:8]), binary.LittleEndian.Uint64(key[8:])
}

// pyBytesHash returns Python's hash of a string from the bytes in which CPython
// stores it: for ASCII, and only ASCII is hashed here, the text itself.
func pyBytesHash(b []byte, k0, k1 uint64, gen sipGen) uint64 {
	if len(b) == 0 {
		return 0 // Python's rule, not SipHash's
	}
	h := sipHash(b, k0, k1, gen)
	if h == pyMinusOne {
		h--
	}
	return h
}

// sipHash is SipHash with 64 bits of output.
func sipHash(b []byte, k0, k1 uint64, gen sipGen) uint64 {
	v0, v1 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d
	v2, v3 := k0^0x6c7967656e657261, k1^0x7465646279746573
	rounds := func(n int) {
		for range n {
			v0 += v1
			v2 += v3
			v1 = bits.RotateLeft64(v1, 13) ^ v0
			v3 = bits.RotateLeft64(v3, 16) ^ v2
			v0 = bits.RotateLeft64(v0, 32)
			v2 += v1
			v0 += v3
			v1 = bits.RotateLeft64(v1, 17) ^ v2
			v3 = bits.RotateLeft64(v3, 21) ^ v0
			v2 = bits.RotateLeft64(v2, 32)
		}
	}
	block := func(m uint64) {
		v3 ^= m
		rounds(gen.compress)
		v0 ^= m
	}
	n := len(b)
	for ; len(b) >= 8; b = b[8:] {
		block(binary.LittleEndian.Uint64(b))
	}
	var tail [8]byte
	copy(tail[:], b)
	block(binary.LittleEndian.Uint64(tail[:]) | uint64(n)<<56)
	v2 ^= 0xff
	rounds(gen.finish)
	return v0 ^ v1 ^ v2 ^ v3
}
