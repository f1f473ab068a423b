package lmcache

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
)

// key reads a chunk hash in any form a release gives it: int64 (builtin hash),
// uint64 (folded digest), bin (unfolded digest, 0.3.9.post2 to 0.4.5), or str (what
// external stores send).
func (r *reader) key() Key {
	c, ok := r.lead()
	if !ok {
		return 0
	}
	if bits, negative, ok := r.integer(c); ok {
		r.signs |= signsOf(bits, negative)
		return Key(bits)
	}
	if n, ok := r.binLength(c); ok {
		b := r.take(n)
		if r.err == nil && len(b) < 8 {
			r.fail(ReasonRange, "a key of %d bytes, want 8 or more", len(b))
		}
		if r.err != nil {
			return 0
		}
		r.signs |= SignBin
		return Key(binary.BigEndian.Uint64(b))
	}
	if n, ok := r.strLength(c); ok {
		b := r.take(n)
		if r.err != nil {
			return 0
		}
		k, signs, ok := parseKey(b)
		if !ok {
			r.fail(ReasonRange, "no chunk hash in key %s", quoted(b))
		}
		r.signs |= signs
		return k
	}
	r.mismatch("int, bin or str", c)
	return 0
}

// signsOf returns what an integer key tells about its hash.
func signsOf(bits uint64, negative bool) Signs {
	switch {
	case negative:
		return SignNegative
	case bits > math.MaxInt64:
		return SignUnsigned
	}
	return 0
}

// keys reads an array of keys. Empty ones are nil.
func (r *reader) keys() []Key {
	n := r.arrayHeader()
	if n == 0 {
		return nil
	}
	out := make([]Key, n)
	for i := range out {
		if r.remaining() >= 9 {
			if bits, size := fastInt(r.buf[r.pos:]); size > 0 {
				if int64(bits) < 0 {
					r.signs |= signsOf(bits, r.buf[r.pos] != mpUint64)
				}
				r.pos += size
				out[i] = Key(bits)
				continue
			}
		}
		if out[i] = r.key(); r.err != nil {
			r.err.within(index(i))
			return nil
		}
	}
	return out
}

func appendKey(dst []byte, k Key, o Options) []byte {
	if o.SignedKeys {
		return appendInt(dst, int64(k))
	}
	return appendUint(dst, uint64(k))
}

// maxKeyText bounds a key given as text. A model's name is a path of at most a few
// hundred bytes; the rest is below 200.
const maxKeyText = 4096

// parseKey finds the chunk hash in a key given as text, either the hash alone or
// one of LMCache's CacheEngineKey strings:
//
//	[format@]model@world_size@worker_id@hash[@dtype][@layer][@tag%value...]
//
// The model's name may hold '@', so the hash is found by what stands before it (two
// decimal numbers) and after it (a dtype and a layer at most).
func parseKey(b []byte) (Key, Signs, bool) {
	if len(b) > maxKeyText {
		return 0, 0, false
	}
	fields := strings.Split(string(b), "@")
	for len(fields) > 1 && strings.Contains(fields[len(fields)-1], "%") {
		fields = fields[:len(fields)-1]
	}
	if len(fields) == 1 {
		return parseHash(fields[0])
	}
	// At least one field is the model, so the numbers start at 1.
	for i := 1; i+2 < len(fields); i++ {
		if !isCount(fields[i]) || !isCount(fields[i+1]) || !isKeyTail(fields[i+3:]) {
			continue
		}
		if k, signs, ok := parseHash(fields[i+2]); ok {
			return k, signs, true
		}
	}
	return 0, 0, false
}

// isCount says whether s can be a world size, a rank or a layer.
func isCount(s string) bool {
	if s == "" || len(s) > 5 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// isKeyTail says whether the fields can stand behind the hash: dtype, layer, both
// or none.
func isKeyTail(fields []string) bool {
	if len(fields) > 0 && isDtype(fields[0]) {
		fields = fields[1:]
	}
	return len(fields) == 0 || len(fields) == 1 && isCount(fields[0])
}

// isDtype says whether s can be a dtype ("bfloat16", "fp8_e4m3fn") and is no hash:
// every dtype's name has a letter beyond f.
func isDtype(s string) bool {
	beyondHex := false
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'g' && c <= 'z':
			beyondHex = true
		case c >= 'a' && c <= 'f', c >= '0' && c <= '9', c == '_', c == '.':
		default:
			return false
		}
	}
	return beyondHex
}

// parseHash reads a chunk hash as text, in the forms of the releases:
//   - hex of a 64-bit number without padding, with '-' before a negative one;
//   - decimal (0.3.3 to 0.3.5). All but one in 1800 of such 64-bit numbers have more
//     than 16 digits, which no hex form has; a shorter one is taken for hex;
//   - hex of a whole digest of 16 or 32 bytes, of which the first 8 count.
func parseHash(s string) (Key, Signs, bool) {
	digits, negative := strings.CutPrefix(s, "-")
	switch n := len(digits); {
	case n == 0 || digits[0] == '+' || digits[0] == '-' || strings.Contains(digits, "_"):
		return 0, 0, false
	case n <= 16:
		return parseBits(digits, 16, negative)
	case n <= 20:
		return parseBits(digits, 10, negative)
	case (n == 32 || n == 64) && !negative && isHex(digits):
		k, _, ok := parseBits(digits[:16], 16, false)
		return k, SignBin, ok
	}
	return 0, 0, false
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// parseBits reads a number of -2^63 to 2^64-1 as a 64-bit pattern.
func parseBits(digits string, base int, negative bool) (Key, Signs, bool) {
	v, err := strconv.ParseUint(digits, base, 64)
	if err != nil || negative && v > 1<<63 {
		return 0, 0, false
	}
	negative = negative && v > 0
	if negative {
		v = -v
	}
	return Key(v), signsOf(v, negative), true
}
