package lmcache

import "math/bits"

// CPython's hash of integers and tuples (Objects/tupleobject.c and
// Python/pyhash.c, 64-bit builds, 3.8 and newer), as unsigned arithmetic that
// wraps; the result is the bit pattern of Python's signed number. Neither
// depends on PYTHONHASHSEED.
const (
	pyModulus = 1<<61 - 1 // integers are reduced modulo this prime

	pyTupleStart = 2870177450012600261
	pyTupleLane  = 14029467366897019727
	pyTupleMix   = 11400714785074694791
	pyTupleLen   = pyTupleStart ^ 3527539

	pyMinusOne      = ^uint64(0)          // -1 is CPython's sign of an error, so no hash may be it
	pyTupleMinusOne = 1546275796          // what a tuple has instead of -1
	pyEmptyTuple    = 5740354900026072187 // hash(())
	pyNone          = 4238894112          // hash(None) from 3.12 on; before, an address
)

// pyIntHash returns hash(n).
func pyIntHash(n int64) uint64 {
	if u := uint64(n); u < pyModulus {
		return u // all token ids; negative numbers are above as unsigned ones
	}
	return pyIntHashFar(n)
}

// pyIntHashFar is pyIntHash for numbers that need the reduction. It is apart so
// that pyIntHash stays small enough to be inlined.
func pyIntHashFar(n int64) uint64 {
	if n >= 0 {
		return pyUintHash(uint64(n))
	}
	r := -(-uint64(n) % pyModulus)
	if r == pyMinusOne {
		r--
	}
	return r
}

// pyUintHash returns hash(n) for numbers up to 2^64-1.
func pyUintHash(n uint64) uint64 { return n % pyModulus }

// pyMix adds one element, by its hash, to a tuple's accumulator.
func pyMix(acc, lane uint64) uint64 {
	return bits.RotateLeft64(acc+lane*pyTupleLane, 31) * pyTupleMix
}

// pyTupleEnd turns the accumulator of a tuple of n elements into its hash.
func pyTupleEnd(acc uint64, n int) uint64 {
	acc += uint64(n) ^ pyTupleLen
	if acc == pyMinusOne {
		return pyTupleMinusOne
	}
	return acc
}

// pyTokensHash returns hash(tuple(tokens)).
//
// Cost: each element waits for the one before it (add, rotate, multiply: five
// cycles), so this runs at the latency of that chain; reduction and the
// multiplication by pyTupleLane are beside it.
func pyTokensHash(tokens []int64) uint64 {
	acc := uint64(pyTupleStart)
	for _, t := range tokens {
		acc = pyMix(acc, pyIntHash(t))
	}
	return pyTupleEnd(acc, len(tokens))
}

// pyTokensHash4 returns the hashes of four tuples of one length.
//
// Cost: four independent chains fill the cycles that one chain waits, about a
// third of the time of four calls of pyTokensHash.
func pyTokensHash4(a, b, c, d []int64) (ha, hb, hc, hd uint64) {
	n := len(a)
	b, c, d = b[:n], c[:n], d[:n]
	ha, hb, hc, hd = pyTupleStart, pyTupleStart, pyTupleStart, pyTupleStart
	for i := range a {
		ta, tb, tc, td := uint64(a[i]), uint64(b[i]), uint64(c[i]), uint64(d[i])
		if ta|tb|tc|td >= pyModulus { // one test for four; never true for token ids
			ta, tb = pyIntHash(int64(ta)), pyIntHash(int64(tb))
			tc, td = pyIntHash(int64(tc)), pyIntHash(int64(td))
		}
		ha, hb, hc, hd = pyMix(ha, ta), pyMix(hb, tb), pyMix(hc, tc), pyMix(hd, td)
	}
	return pyTupleEnd(ha, n), pyTupleEnd(hb, n), pyTupleEnd(hc, n), pyTupleEnd(hd, n)
}

// pyLink returns hash((prefix, tokens)), hash((prefix, tokens, None)) or
// hash((prefix, tokens, ())), from the hashes of prefix and tokens.
func pyLink(prefix, tokens uint64, extra hashExtra) Key {
	acc := pyMix(pyMix(pyTupleStart, prefix), tokens)
	switch extra {
	case extraEmpty:
		return Key(pyTupleEnd(pyMix(acc, pyEmptyTuple), 3))
	case extraNone:
		return Key(pyTupleEnd(pyMix(acc, pyNone), 3))
	default:
		return Key(pyTupleEnd(acc, 2))
	}
}
