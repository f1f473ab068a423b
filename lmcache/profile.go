package lmcache

import (
	"errors"
	"fmt"
	"strings"
)

// Profile says how a worker computes its chunk hashes: function, shape of the
// hashed object, what of a digest is the value, and NONE_HASH, the value before
// the first chunk. The chunk size is apart. Profiles are immutable and
// comparable; the zero Profile is none at all. ParseProfile makes them.
type Profile struct {
	family hashFamily
	root   string     // canonical, as in the name
	none   hashPrefix // NONE_HASH
}

// The properties in which families differ.
type (
	hashFunc  uint8
	hashForm  uint8
	hashExtra uint8
	hashValue uint8
)

const (
	hashBuiltin hashFunc = iota + 1 // CPython's hash
	hashSHA256
	hashXXH3 // 128 bits, seed 0
)

const (
	formNone hashForm = iota // builtin hashes objects
	formCBOR
	formPickle
)

const (
	extraEmpty  hashExtra = iota // (prefix, tokens, ()): LMCache from 0.4.1 on
	extraNone                    // (prefix, tokens, None): 0.3.4 to 0.3.15
	extraAbsent                  // (prefix, tokens): 0.3.3 and forks
)

const (
	valueFirst8 hashValue = iota // the first 8 bytes, big-endian: LMCache from 0.4.6 on
	valueLast8                   // the last 8 bytes, big-endian: vLLM's old 64-bit function
	valueWhole                   // the digest: before 0.4.6
)

// hashFamily is the first part of a profile's name. The zero family is none.
type hashFamily struct {
	name  string
	hash  hashFunc
	form  hashForm
	extra hashExtra
	value hashValue
}

// families returns all families, in the order of documentation. LMCache's own
// option names are those without a suffix.
func families() []hashFamily {
	return []hashFamily{
		{"builtin", hashBuiltin, formNone, extraEmpty, valueFirst8},
		{"builtin-none", hashBuiltin, formNone, extraNone, valueFirst8},
		{"builtin-pair", hashBuiltin, formNone, extraAbsent, valueFirst8},
		{"sha256_cbor", hashSHA256, formCBOR, extraEmpty, valueFirst8},
		{"sha256", hashSHA256, formPickle, extraEmpty, valueFirst8},
		{"xxhash_cbor", hashXXH3, formCBOR, extraEmpty, valueFirst8},
		{"xxhash", hashXXH3, formPickle, extraEmpty, valueFirst8},
		{"sha256_cbor-bytes", hashSHA256, formCBOR, extraEmpty, valueWhole},
		{"sha256-bytes", hashSHA256, formPickle, extraEmpty, valueWhole},
		{"xxhash_cbor-bytes", hashXXH3, formCBOR, extraEmpty, valueWhole},
		{"xxhash-bytes", hashXXH3, formPickle, extraEmpty, valueWhole},
		{"sha256_cbor-bytes-none", hashSHA256, formCBOR, extraNone, valueWhole},
		{"sha256-bytes-none", hashSHA256, formPickle, extraNone, valueWhole},
		{"xxhash_cbor-bytes-none", hashXXH3, formCBOR, extraNone, valueWhole},
		{"xxhash-bytes-none", hashXXH3, formPickle, extraNone, valueWhole},
		{"sha256_cbor_64bit", hashSHA256, formCBOR, extraEmpty, valueLast8},
		{"sha256_cbor_64bit-none", hashSHA256, formCBOR, extraNone, valueLast8},
	}
}

func familyNamed(name string) (hashFamily, bool) {
	for _, f := range families() {
		if f.name == name {
			return f, true
		}
	}
	return hashFamily{}, false
}

// ParseProfile reads a profile's name, family@root:
//
//   - family: builtin, builtin-none, builtin-pair; sha256_cbor, sha256,
//     xxhash_cbor, xxhash, each also with -bytes or -bytes-none;
//     sha256_cbor_64bit, sha256_cbor_64bit-none.
//   - root: 0 (workers without vLLM; builtin only), seed=TEXT (workers with vLLM
//     and PYTHONHASHSEED=TEXT), seed=N,py310 (the same on Python 3.8 to 3.10;
//     builtin only), int=N (any other NONE_HASH, decimal or 0x and hexadecimal).
//
// Errors: what cannot be reproduced is refused with the reason, and what to write
// or set instead.
func ParseProfile(name string) (Profile, error) {
	fam, root, hasRoot := strings.Cut(name, "@")
	f, known := familyNamed(fam)
	if !known {
		return Profile{}, fmt.Errorf("hash profile %q: unknown family %q: one of %s", name, fam, familyNames())
	}
	if !hasRoot || root == "" {
		return Profile{}, fmt.Errorf("hash profile %q: %w", name, f.noRootError())
	}
	p, err := f.parseRoot(root)
	if err != nil {
		return Profile{}, fmt.Errorf("hash profile %q: %w", name, err)
	}
	return p, nil
}

func familyNames() string {
	var names []string
	for _, f := range families() {
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}

// String returns the canonical name, which ParseProfile reads back to an equal
// Profile; "none" for the zero Profile.
func (p Profile) String() string {
	if p.family.hash == 0 {
		return "none"
	}
	return p.family.name + "@" + p.root
}

// maxPickleChunk is the largest chunk size, in tokens, of a pickle family. From 64
// KiB on Python's pickler begins a second frame; at 5 bytes for a token that is a
// little above 13 000 tokens.
const maxPickleChunk = 13000

// Validate says whether chunks of chunkSize tokens can be hashed under p.
func (p Profile) Validate(chunkSize int) error {
	switch {
	case p.family.hash == 0:
		return errors.New("no hash profile: name one, such as builtin@0")
	case chunkSize < 1:
		return fmt.Errorf("hash profile %q: chunk size %d: must be 1 or more; LMCache's default is %d",
			p, chunkSize, DefaultChunkSize)
	case p.family.form == formPickle && chunkSize > maxPickleChunk:
		return fmt.Errorf("hash profile %q: chunk size %d is above %d, where Python's pickle splits into frames: "+
			"use smaller chunks or a _cbor algorithm on the workers", p, chunkSize, maxPickleChunk)
	}
	return nil
}
