package lmcache

// AutoCandidates returns the profiles that "auto" tries, the most likely first,
// each chain of keys once. Seeds are further values of PYTHONHASHSEED in use: they
// come before the guesses, in the order given. One that a family cannot have
// (for builtin: no number) is left out there.
//
// The order: builtin without vLLM; builtin with the seeds of LMCache's own
// documentation (0 and 123), then with common ones (1 and 42), each for both
// Python generations; the folded digests with the same seeds; builtin of older
// releases; last, unfolded and old 64-bit digests, only with given and documented
// seeds, because they are rare and each costs a digest on a miss.
//
// Determinism: the list depends on seeds alone. Cost: some 70 digests; call it
// once and keep the list.
func AutoCandidates(seeds []string) []Profile {
	known := append(append([]string(nil), seeds...), "0", "123")
	all := append(append([]string(nil), known...), "1", "42")

	var c candidates
	c.add("builtin@0")
	c.addSeeds(all, "builtin")
	c.addSeeds(all, "sha256_cbor", "sha256", "xxhash_cbor", "xxhash")
	c.add("builtin-none@0")
	c.addSeeds(all, "builtin-none")
	c.add("builtin-pair@0")
	c.addSeeds(all, "builtin-pair")
	c.addSeeds(known, "sha256_cbor-bytes", "sha256-bytes", "xxhash_cbor-bytes", "xxhash-bytes")
	c.addSeeds(known, "sha256_cbor-bytes-none", "sha256-bytes-none", "xxhash_cbor-bytes-none", "xxhash-bytes-none")
	c.addSeeds(known, "sha256_cbor_64bit", "sha256_cbor_64bit-none")
	return c.list
}

type candidates struct{ list []Profile }

// addSeeds adds every family under every seed, seed by seed: a fleet has one seed.
func (c *candidates) addSeeds(seeds []string, families ...string) {
	for _, seed := range seeds {
		for _, f := range families {
			c.add(f + "@seed=" + seed)
			if f == "builtin" || f == "builtin-pair" {
				c.add(f + "@seed=" + seed + py310Suffix)
			}
		}
	}
}

// add adds a profile unless it is refused or gives the same keys as one before it.
func (c *candidates) add(name string) {
	p, err := ParseProfile(name)
	if err != nil {
		return
	}
	for _, q := range c.list {
		if p.family == q.family && p.none == q.none {
			return
		}
	}
	c.list = append(c.list, p)
}

// Signs is a set of facts about the keys that an instance has sent, each of which
// rules profiles out. They show on the wire only: a Key no longer has them.
type Signs uint8

const (
	SignNegative Signs = 1 << iota // an integer below 0
	SignUnsigned                   // an integer from 2^63 up
	SignBin                        // bytes
)

// Fits says whether keys with these signs can come from p. If no profile fits, the
// instance's workers differ from each other, and the signs say nothing.
func (p Profile) Fits(seen Signs) bool {
	switch {
	case p.family.hash == hashBuiltin:
		return seen&^SignNegative == 0
	case p.family.value == valueWhole:
		return seen&^SignBin == 0
	default:
		return seen&^SignUnsigned == 0
	}
}
