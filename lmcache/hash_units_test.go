package lmcache

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strings"
	"testing"
)

func TestPyHash_Tuples(t *testing.T) {
	tests := []struct {
		tokens []int64
		want   int64
	}{
		{[]int64{}, 5740354900026072187},
		{[]int64{0}, -8753497827991233192},
		{[]int64{1, 2, 3}, 529344067295497451},
		{[]int64{-1}, 8078679518589016365},
	}
	for _, tt := range tests {
		if got := int64(pyTokensHash(tt.tokens)); got != tt.want {
			t.Errorf("hash of tuple %v: %d, want %d", tt.tokens, got, tt.want)
		}
		a, b, c, d := pyTokensHash4(tt.tokens, tt.tokens, tt.tokens, tt.tokens)
		if int64(a) != tt.want || b != a || c != a || d != a {
			t.Errorf("hash of four tuples %v: %d, %d, %d, %d, want %d", tt.tokens, a, b, c, d, tt.want)
		}
	}
	if got := int64(pyLink(pyEmptyTuple, pyEmptyTuple, extraAbsent)); got != 9028247024705308198 {
		t.Errorf("hash of ((), ()): %d", got)
	}
}

// No tuple is known whose accumulator ends as -1, so this is the end alone.
func TestPyHash_TupleIsNeverMinusOne(t *testing.T) {
	const n = 3
	ends := uint64(n) ^ uint64(pyTupleLen)
	if got := pyTupleEnd(pyMinusOne-ends, n); got != pyTupleMinusOne {
		t.Errorf("got %d, want %d", got, uint64(pyTupleMinusOne))
	}
}

func TestPyHash_Integers(t *testing.T) {
	tests := []struct {
		root string // of an int root, which takes any width
		want int64
	}{
		{"0", 0}, {"1", 1}, {"-1", -2}, {"-2", -2},
		{"2305843009213693950", 2305843009213693950}, // 2^61-2
		{"2305843009213693951", 0},
		{"2305843009213693952", 1},
		{"-2305843009213693951", 0},
		{"-2305843009213693952", -2},
		{"-9223372036854775808", -4},
		{"9223372036854775808", 4},
		{"18446744073709551615", 7},
		{"0x8000000000000000000000000000000000000000000000000000000000000000", 2048}, // 2^255
		{"-0x8000000000000000000000000000000000000000000000000000000000000000", -2048},
	}
	for _, tt := range tests {
		if got := int64(mustProfile(t, "builtin@int="+tt.root).none.n); got != tt.want {
			t.Errorf("hash of %s: %d, want %d", tt.root, got, tt.want)
		}
	}
	if got := pyUintHash(math.MaxUint64); got != 7 {
		t.Errorf("hash of 2^64-1: %d, want 7", got)
	}
}

// storedText gives the bytes in which CPython keeps a text: 1, 2 or 4 to a character.
func storedText(s string) []byte {
	width, chars := 1, []rune(s)
	for _, c := range chars {
		switch {
		case c > 0xffff:
			width = 4
		case c > 0xff:
			width = max(width, 2)
		}
	}
	var b []byte
	for _, c := range chars {
		b = append(b, binary.LittleEndian.AppendUint32(nil, uint32(c))[:width]...)
	}
	return b
}

func TestPyHash_Texts(t *testing.T) {
	tests := []struct {
		seed         uint32
		text         string
		py310, py311 int64 // 0: not known
	}{
		{0, "0", -5282990986457227702, 5313149338359954478},
		{0, "123", -8431602076339693759, -720260156515788369},
		{0, "abcdefg", -6651368143851290504, 7904145750247929094},
		{0, "abcdefgh", -1847705707669741165, 4574395652268504554},
		{0, "é", 4954367630624915103, 6047309291227476195},
		{0, "€", -7838577127164893040, -5529981157763016009},
		{0, "😀", 2694534307785527896, -3536540696076613844},
		{123, "123", 5058693379651968498, -6197052367682486848},
		{1, "1", 0, -3509053104883717537},
		{4294967295, "0", 0, -7823853590095853671},
		{0, "00", 0, -592153562366921230},
	}
	for _, tt := range tests {
		k0, k1 := pySeedKey(tt.seed)
		b := storedText(tt.text)
		if got := int64(pyBytesHash(b, k0, k1, sipPy311())); got != tt.py311 {
			t.Errorf("3.11, seed %d: hash of %q is %d, want %d", tt.seed, tt.text, got, tt.py311)
		}
		if got := int64(pyBytesHash(b, k0, k1, sipPy310())); tt.py310 != 0 && got != tt.py310 {
			t.Errorf("3.10, seed %d: hash of %q is %d, want %d", tt.seed, tt.text, got, tt.py310)
		}
	}
	for _, gen := range []sipGen{sipPy310(), sipPy311()} {
		if got := pyBytesHash(nil, 1, 2, gen); got != 0 {
			t.Errorf("hash of the empty text: %d, want 0", got)
		}
	}
}

func TestAppendChunk_Bytes(t *testing.T) {
	wholePrefix := hashPrefix{size: 4, digest: [32]byte{0, 1, 2, 3}}
	tests := []struct {
		name   string
		form   hashForm
		prefix hashPrefix
		tokens []int64
		extra  hashExtra
		want   string
	}{
		{"cbor 64-bit prefix", formCBOR, hashPrefix{n: 5313149338359954478}, []int64{0, 1, 2}, extraEmpty,
			"83 1b 49bc192c478bfc2e 83 00 01 02 80"},
		{"cbor widths", formCBOR, hashPrefix{}, []int64{300, 70000, 1}, extraEmpty,
			"83 00 83 19012c 1a00011170 01 80"},
		{"cbor negative prefix", formCBOR, hashPrefix{n: ^uint64(0), negative: true}, []int64{1}, extraNone,
			"83 20 81 01 f6"},
		{"cbor bytes prefix", formCBOR, wholePrefix, []int64{1, 2}, extraNone, "83 44 00010203 82 01 02 f6"},
		{"cbor pair", formCBOR, hashPrefix{}, []int64{}, extraAbsent, "82 00 80"},
		{"cbor limits of the forms", formCBOR, hashPrefix{},
			[]int64{23, 24, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, -24, -25, -256, -257, math.MinInt64}, extraEmpty,
			"83 00 8d 17 1818 18ff 190100 19ffff 1a00010000 1affffffff 1b0000000100000000 37 3818 38ff 390100 3b7fffffffffffffff 80"},
		{"pickle widths", formPickle, hashPrefix{}, []int64{300, 70000, 1}, extraEmpty,
			"8005 95 1200000000000000 4b00 4d2c01 4a70110100 4b01 8794 29 8794 2e"},
		{"pickle negative prefix", formPickle, hashPrefix{n: ^uint64(0), negative: true}, []int64{1}, extraNone,
			"8005 95 0d00000000000000 4affffffff 4b01 8594 4e 8794 2e"},
		{"pickle prefix from 2^63 up", formPickle, hashPrefix{n: 9223372036854775813}, []int64{7, 8, 9, 2147483648}, extraEmpty,
			"8005 95 1f00000000000000 8a09050000000000008000 28 4b07 4b08 4b09 8a050000008000 7494 29 8794 2e"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := appendChunk(nil, tt.form, tt.prefix, tt.tokens, tt.extra)
			if want := mustHex(t, tt.want); !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
		})
	}
}

func TestAppendLabel_Bytes(t *testing.T) {
	tests := []struct {
		form hashForm
		text string
		want string
	}{
		{formCBOR, "0", "61 30"},
		{formCBOR, "", "60"},
		{formPickle, "0", "8005 95 0500000000000000 8c0130 94 2e"},
		{formPickle, "", "8005 95 0400000000000000 8c00 94 2e"},
	}
	for _, tt := range tests {
		if got, want := appendLabel(nil, tt.form, tt.text), mustHex(t, tt.want); !bytes.Equal(got, want) {
			t.Errorf("form %d, %q: got %x, want %x", tt.form, tt.text, got, want)
		}
	}
}

// 256 tokens are the everyday array head.
func TestAppendChunk_CBORArrayHead(t *testing.T) {
	got := appendChunk(nil, formCBOR, hashPrefix{}, make([]int64, 256), extraEmpty)
	if want := mustHex(t, "83 00 990100"); !bytes.HasPrefix(got, want) {
		t.Errorf("begins with %x, want %x", got[:5], want)
	}
}

// A chunk fits the buffer that is grown once for it, and a pickle of the largest
// chunk its one frame, with token ids below 2^31.
func TestAppendChunk_Sizes(t *testing.T) {
	tokens := make([]int64, maxPickleChunk)
	for i := range tokens {
		tokens[i] = math.MaxInt32
	}
	prefix := hashPrefix{size: 32}
	if n := len(appendChunk(nil, formPickle, prefix, tokens, extraEmpty)); n >= 64<<10 {
		t.Errorf("a pickle of %d tokens has %d bytes, not below 64 KiB", len(tokens), n)
	}
	for i := range tokens {
		tokens[i] = math.MinInt64
	}
	for _, form := range []hashForm{formCBOR, formPickle} {
		if n, most := len(appendChunk(nil, form, prefix, tokens, extraEmpty)), maxHeadBytes+maxTokenBytes*len(tokens); n > most {
			t.Errorf("form %d: %d bytes, more than %d", form, n, most)
		}
	}
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
