package index

import "math/bits"

// Key is a chunk's key. Keys may be anything, small sequential numbers included.
type Key = uint64

// mix spreads a key over 64 bits (the finalizer of splitmix64). It is one to one,
// and every bit of the key moves about half of the bits of the result.
func mix(k uint64) uint64 {
	k ^= k >> 30
	k *= 0xbf58476d1ce4e5b9
	k ^= k >> 27
	k *= 0x94d049bb133111eb
	return k ^ k>>31
}

// KeySum is a key's share of Holder.Sum. It is fixed: digests depend on it.
// Two rounds with a constant between them, so that the sum has nothing in common
// with where a key lies in the index.
func KeySum(k Key) uint64 { return mix(mix(k) + 0x9e3779b97f4a7c15) }

// scale maps a hash to [0, n) by its upper bits, keeping its order; n need not be
// a power of two.
func scale(hash uint64, n int) int {
	hi, _ := bits.Mul64(hash, uint64(n))
	return int(hi)
}
