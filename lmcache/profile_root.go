package lmcache

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"unicode/utf8"
)

// py310Suffix marks the Python generation up to 3.10 in a seed root.
const py310Suffix = ",py310"

// maxLabelBytes bounds PYTHONHASHSEED as a text. CPython itself starts with at
// most ten digits or "random"; the bound keeps pickle in its short form.
const maxLabelBytes = 255

// noRootError says why a family alone is no profile.
func (f *hashFamily) noRootError() error {
	if f.hash == hashBuiltin {
		return fmt.Errorf("no root: write %[1]s@0 for workers without vLLM, or %[1]s@seed=N for workers with vLLM "+
			"and PYTHONHASHSEED=N; with vLLM and PYTHONHASHSEED unset every worker starts from random bytes "+
			"and no key can be reproduced", f.name)
	}
	return fmt.Errorf("no seed: with PYTHONHASHSEED unset every worker starts from random bytes and no key can be "+
		"reproduced: set it to one value on all workers and write %s@seed=VALUE", f.name)
}

// parseRoot makes the profile of a family and the part of the name after "@".
func (f *hashFamily) parseRoot(root string) (Profile, error) {
	kind, text, hasText := strings.Cut(root, "=")
	switch {
	case root == "0" && f.hash == hashBuiltin:
		return Profile{family: *f, root: "0"}, nil
	case root == "0":
		return Profile{}, fmt.Errorf("without vLLM there is no digest function and the workers are on builtin: "+
			"write builtin@0, or %s@seed=TEXT for workers with vLLM and PYTHONHASHSEED=TEXT", f.name)
	case kind == "seed" && hasText && f.hash == hashBuiltin:
		return f.builtinSeed(text)
	case kind == "seed" && hasText:
		return f.digestSeed(text)
	case kind == "int" && hasText:
		return f.intRoot(text)
	}
	return Profile{}, fmt.Errorf("root %q: must be 0, seed=TEXT, seed=N,py310 or int=N", root)
}

// builtinSeed is the root of workers with vLLM: Python's hash, under the seed, of
// the text of the seed. "0" and "00" are one seed and two texts.
func (f *hashFamily) builtinSeed(root string) (Profile, error) {
	gen := sipPy311()
	text, old := strings.CutSuffix(root, py310Suffix)
	if old {
		gen = sipPy310()
	}
	switch {
	case old && f.extra == extraNone:
		return Profile{}, errors.New("before Python 3.12 None is hashed by its address, different in every process, " +
			"and no key can be reproduced: use Python 3.12 or LMCache 0.4.1 or newer on the workers")
	case text == "random":
		return Profile{}, errors.New("with PYTHONHASHSEED=random every worker hashes differently and no key can be " +
			"reproduced: set it to one number on all workers")
	}
	var seed uint64
	if text != "" { // an empty variable is no seed, and the hash of "" is 0 under any
		var err error
		if seed, err = strconv.ParseUint(text, 10, 32); err != nil || strings.HasPrefix(text, "+") {
			return Profile{}, fmt.Errorf("seed %q: must be a number from 0 to 4294967295, as for PYTHONHASHSEED, "+
				"and may be followed by %s", text, py310Suffix)
		}
		if len(text) > maxLabelBytes {
			return Profile{}, fmt.Errorf("seed of %d digits: must have at most %d", len(text), maxLabelBytes)
		}
	}
	k0, k1 := pySeedKey(uint32(seed))
	lane := pyIntHash(int64(pyBytesHash([]byte(text), k0, k1, gen)))
	return Profile{family: *f, root: "seed=" + root, none: hashPrefix{n: lane}}, nil
}

// digestSeed is the root of workers with vLLM: the family's own function over the
// text in PYTHONHASHSEED, which need not be a number.
func (f *hashFamily) digestSeed(text string) (Profile, error) {
	switch {
	case strings.HasSuffix(text, py310Suffix):
		return Profile{}, fmt.Errorf("digests are the same on every Python: leave off %s", py310Suffix)
	case len(text) > maxLabelBytes:
		return Profile{}, fmt.Errorf("seed of %d bytes: must have at most %d", len(text), maxLabelBytes)
	case !utf8.ValidString(text):
		return Profile{}, fmt.Errorf("seed %q: must be UTF-8", text)
	}
	none, _ := f.digestOf(appendLabel(nil, f.form, text))
	return Profile{family: *f, root: "seed=" + text, none: none}, nil
}

// intRoot is any other NONE_HASH, such as the 256-bit integer of LMCache 0.3.3
// under an early vLLM. A digest family hashes the integer itself, so that it must
// have 64 bits; Python's hash reduces any width.
func (f *hashFamily) intRoot(text string) (Profile, error) {
	n, ok := parseInt(text)
	if !ok || n.BitLen() > 256 {
		return Profile{}, fmt.Errorf("int %q: must be an integer of at most 256 bits, decimal or 0x and hexadecimal", text)
	}
	root := "int=" + n.String()
	if f.hash != hashBuiltin {
		switch {
		case n.IsUint64():
			return Profile{family: *f, root: root, none: hashPrefix{n: n.Uint64()}}, nil
		case n.IsInt64():
			return Profile{family: *f, root: root, none: hashPrefix{n: uint64(n.Int64()), negative: true}}, nil
		}
		return Profile{}, fmt.Errorf("int %s: must be from -2^63 to 2^64-1 with a digest family", n)
	}
	if n.Sign() == 0 {
		root = "0"
	}
	// The remainder keeps the sign, as Python's hash of an integer does.
	rem := new(big.Int).Rem(n, big.NewInt(pyModulus))
	return Profile{family: *f, root: root, none: hashPrefix{n: pyIntHash(rem.Int64())}}, nil
}

// parseInt reads [-]digits or [-]0xdigits.
func parseInt(text string) (*big.Int, bool) {
	digits, negative := strings.CutPrefix(text, "-")
	base := 10
	if hex, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = hex, 16
	}
	// SetString would take a second sign. 100 characters are more than 256 bits in
	// either base: longer ones are not worth parsing.
	if digits == "" || len(digits) > 100 || strings.ContainsAny(digits, "+-") {
		return nil, false
	}
	n, ok := new(big.Int).SetString(digits, base)
	if ok && negative {
		n.Neg(n)
	}
	return n, ok
}
