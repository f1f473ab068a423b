package lmcache

import (
	"encoding/binary"
	"math"
	"slices"
)

// The two serializations that vLLM's digest functions run over: canonical CBOR
// (RFC 8949, what cbor2 writes with canonical=True) and pickle protocol 5 (what
// CPython's C pickler writes). Only what a chunk needs: a tuple of a prefix
// (integer or bytes), a tuple of integers and, mostly, () or None; and for
// NONE_HASH one text.

const (
	cborUint   = 0 << 5
	cborNegint = 1 << 5
	cborBytes  = 2 << 5
	cborText   = 3 << 5
	cborArray  = 4 << 5
	cborNull   = 0xf6
)

// maxTokenBytes is the most that one token takes in either serialization:
// pickle's LONG1, a length and eight bytes.
const maxTokenBytes = 10

// maxHeadBytes bounds everything in a chunk's serialization but the tokens.
const maxHeadBytes = 80

// appendChunk appends the serialization of (prefix, tokens, extra).
func appendChunk(b []byte, form hashForm, prefix hashPrefix, tokens []int64, extra hashExtra) []byte {
	b = slices.Grow(b, maxHeadBytes+maxTokenBytes*len(tokens))
	b = appendBefore(b, form, prefix, len(tokens), extra)
	b = appendBody(b, form, tokens)
	return appendAfter(b, form, len(tokens), extra)
}

// A chunk's serialization has three parts, of which the tokens' is the same under every
// prefix and extra: see FirstChunk. For pickle b must be empty before.

func appendBefore(b []byte, form hashForm, prefix hashPrefix, tokens int, extra hashExtra) []byte {
	if form == formPickle {
		return appendPickleBefore(b, prefix, tokens)
	}
	return appendCBORBefore(b, prefix, tokens, extra)
}

// appendBody needs room for maxTokenBytes each.
func appendBody(b []byte, form hashForm, tokens []int64) []byte {
	if form == formPickle {
		return appendPickleTokens(b, tokens)
	}
	return appendCBORTokens(b, tokens)
}

func appendAfter(b []byte, form hashForm, tokens int, extra hashExtra) []byte {
	if form == formPickle {
		return appendPickleAfter(b, tokens, extra)
	}
	return appendCBORAfter(b, extra)
}

// appendLabel appends the serialization of a text of up to 255 bytes.
func appendLabel(b []byte, form hashForm, text string) []byte {
	if form == formPickle {
		b = append(openPickle(b), 0x8c, byte(len(text))) // SHORT_BINUNICODE
		return closePickle(append(append(b, text...), pickleMemo))
	}
	return append(appendCBORHead(b, cborText, uint64(len(text))), text...)
}

func appendCBORBefore(b []byte, prefix hashPrefix, tokens int, extra hashExtra) []byte {
	switch {
	case extra == extraAbsent:
		b = append(b, cborArray|2)
	default:
		b = append(b, cborArray|3)
	}
	switch {
	case prefix.size > 0:
		b = append(appendCBORHead(b, cborBytes, uint64(prefix.size)), prefix.bytes()...)
	case prefix.negative:
		b = appendCBORHead(b, cborNegint, ^prefix.n)
	default:
		b = appendCBORHead(b, cborUint, prefix.n)
	}
	return appendCBORHead(b, cborArray, uint64(tokens))
}

func appendCBORTokens(b []byte, tokens []int64) []byte {
	n := len(b)
	b = b[:n+maxTokenBytes*len(tokens)]
	for _, t := range tokens {
		u := uint64(t)
		if u-256 >= 1<<32-256 {
			n = len(appendCBORInt(b[:n], t))
			continue
		}
		// Nearly all tokens, in two or four bytes, without a branch: their widths
		// follow no pattern, and a wrong guess costs more than all the rest.
		wide := (math.MaxUint16 - u) >> 63
		b[n] = cborUint | 25 + byte(wide)
		binary.BigEndian.PutUint32(b[n+1:n+5], uint32(u<<(16*(1-wide))))
		n += 3 + 2*int(wide)
	}
	return b[:n]
}

func appendCBORAfter(b []byte, extra hashExtra) []byte {
	switch extra {
	case extraEmpty:
		b = append(b, cborArray)
	case extraNone:
		b = append(b, cborNull)
	}
	return b
}

func appendCBORInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendCBORHead(b, cborNegint, ^uint64(n))
	}
	return appendCBORHead(b, cborUint, uint64(n))
}

// appendCBORHead appends a major type and its argument in the shortest form.
func appendCBORHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= math.MaxUint8:
		return append(b, major|24, byte(n))
	case n <= math.MaxUint16:
		return append(b, major|25, byte(n>>8), byte(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, major|27), n)
	}
}

const (
	pickleFrameHead = 9    // FRAME and its length
	pickleMemo      = 0x94 // MEMOIZE: the pickler remembers every object but numbers, None and ()
	pickleStop      = 0x2e
)

// openPickle appends the start of a pickle that is one frame. closePickle needs
// it at offset 0.
func openPickle(b []byte) []byte {
	return append(b, 0x80, 5, 0x95, 0, 0, 0, 0, 0, 0, 0, 0)
}

func closePickle(b []byte) []byte {
	b = append(b, pickleStop)
	binary.LittleEndian.PutUint64(b[3:], uint64(len(b)-2-pickleFrameHead))
	return b
}

func appendPickleBefore(b []byte, prefix hashPrefix, tokens int) []byte {
	b = openPickle(b)
	switch {
	case prefix.size > 0:
		b = append(append(b, 0x43, prefix.size), prefix.bytes()...) // SHORT_BINBYTES
		b = append(b, pickleMemo)
	case !prefix.negative && prefix.n > math.MaxInt64:
		b = binary.LittleEndian.AppendUint64(append(b, 0x8a, 9), prefix.n)
		b = append(b, 0)
	default:
		b = appendPickleInt(b, int64(prefix.n))
	}

	if tokens > 3 {
		b = append(b, 0x28) // MARK
	}
	return b
}

func appendPickleTokens(b []byte, tokens []int64) []byte {
	n := len(b)
	b = b[:n+maxTokenBytes*len(tokens)]
	for _, t := range tokens {
		u := uint64(t)
		if u-256 >= 1<<31-256 {
			n = len(appendPickleInt(b[:n], t))
			continue
		}
		wide := (math.MaxUint16 - u) >> 63 // no branch, as in CBOR
		b[n] = 0x4d - 3*byte(wide)         // BININT2 or BININT
		binary.LittleEndian.PutUint32(b[n+1:n+5], uint32(u))
		n += 3 + 2*int(wide)
	}
	return b[:n]
}

func appendPickleAfter(b []byte, tokens int, extra hashExtra) []byte {
	switch tokens {
	case 0:
		b = append(b, 0x29) // EMPTY_TUPLE, not remembered
	case 1, 2, 3:
		b = append(b, 0x84+byte(tokens), pickleMemo) // TUPLE1 to TUPLE3
	default:
		b = append(b, 0x74, pickleMemo) // TUPLE
	}

	switch extra {
	case extraEmpty:
		b = append(b, 0x29, 0x87, pickleMemo)
	case extraNone:
		b = append(b, 0x4e, 0x87, pickleMemo)
	default:
		b = append(b, 0x86, pickleMemo)
	}
	return closePickle(b)
}

// appendPickleInt appends n in the form that CPython's pickler chooses.
func appendPickleInt(b []byte, n int64) []byte {
	switch {
	case n >= 0 && n <= math.MaxUint8:
		return append(b, 0x4b, byte(n)) // BININT1
	case n >= 0 && n <= math.MaxUint16:
		return append(b, 0x4d, byte(n), byte(n>>8)) // BININT2
	case n >= math.MinInt32 && n <= math.MaxInt32:
		return binary.LittleEndian.AppendUint32(append(b, 0x4a), uint32(n)) // BININT
	}
	size := 5 // LONG1: two's complement, as short as keeps the sign
	for ; size < 8 && n>>(8*size-1) != n>>63; size++ {
	}
	b = append(b, 0x8a, byte(size))
	for i := range size {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}
