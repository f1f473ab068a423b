package lmcache

import (
	"fmt"
	"slices"
)

// DefaultChunkSize is LMCache's default chunk size, in tokens.
const DefaultChunkSize = 256

// aheadChunks is how many chunks a builtin Hasher hashes at a time after the
// first one: see pyTokensHash4.
const aheadChunks = 4

// Hasher computes the keys of one prompt after another under one profile and
// chunk size, chunk by chunk, so that a lookup can stop at the first miss:
//
//	h.Start(tokens, true)
//	for key, end, ok := h.Next(); ok; key, end, ok = h.Next() {
//		// key stands for tokens[:end]
//	}
//
// Concurrency: one goroutine at a time. A Hasher is cheap to keep in a pool.
//
// Cost: NewHasher allocates the Hasher. Builtin profiles allocate nothing after
// that; digest profiles keep one buffer of up to 10 bytes for a token of a chunk,
// grown when a longer chunk first comes.
type Hasher struct {
	family    hashFamily
	none      hashPrefix
	chunkSize int

	tokens []int64 // of the current prompt
	pos    int     // tokens hashed so far
	tail   bool
	prev   hashPrefix

	ahead  [aheadChunks]uint64 // builtin: hashes of coming chunks' token tuples
	nAhead int                 // how many of them are still to come, at the end of ahead

	buf []byte // digests: the serialized chunk
}

// NewHasher returns a Hasher that has no prompt yet.
//
// Errors: what Validate says of the chunk size.
func (p Profile) NewHasher(chunkSize int) (*Hasher, error) {
	if err := p.Validate(chunkSize); err != nil {
		return nil, err
	}
	return &Hasher{family: p.family, none: p.none, chunkSize: chunkSize}, nil
}

// Start begins a prompt, whatever came of the one before. With tail, a shorter
// last chunk counts as a chunk (LMCache's own controller always has it so, workers
// since 0.3.11 do not); without, it is dropped.
//
// Ownership: tokens is read until the next Start and never written or copied.
func (h *Hasher) Start(tokens []int64, tail bool) {
	h.tokens, h.tail = tokens, tail
	h.pos, h.nAhead = 0, 0
	h.prev = h.none
}

// Next hashes the next chunk and returns its key and the number of tokens up to
// its end: key stands for tokens[:end]. After the last chunk it returns false,
// with end the number of tokens hashed.
//
// Cost: O(chunk). From the second chunk on, builtin profiles work on four chunks
// at a time and answer the next three calls from that: a lookup that stops there
// has hashed up to three chunks too many, in the time of one.
func (h *Hasher) Next() (key Key, end int, ok bool) {
	n := min(h.chunkSize, len(h.tokens)-h.pos)
	if n <= 0 || n < h.chunkSize && !h.tail {
		return 0, h.pos, false
	}
	if h.family.hash == hashBuiltin {
		h.prev.n, key = h.family.linkBuiltin(h.prev.n, h.tokensHash(n))
	} else {
		h.prev, key, h.buf = h.family.link(h.buf, h.prev, h.tokens[h.pos:h.pos+n])
	}
	h.pos += n
	return key, h.pos, true
}

// tokensHash returns Python's hash of the coming n tokens as a tuple. A tuple's
// hash does not depend on the chunks before it, so that hashing ahead is possible.
func (h *Hasher) tokensHash(n int) uint64 {
	if h.nAhead > 0 {
		v := h.ahead[aheadChunks-h.nAhead]
		h.nAhead--
		return v
	}
	full := (len(h.tokens) - h.pos) / h.chunkSize
	if h.pos == 0 || full < 2 { // most misses end at the first chunk
		return pyTokensHash(h.tokens[h.pos : h.pos+n])
	}
	chunk := func(i int) []int64 {
		// With fewer than four chunks left the last is hashed several times over,
		// which still takes less time than two of them one after the other.
		from := h.pos + min(i, full-1)*h.chunkSize
		return h.tokens[from : from+h.chunkSize]
	}
	a, b, c, d := pyTokensHash4(chunk(0), chunk(1), chunk(2), chunk(3))
	h.nAhead = min(full, aheadChunks) - 1
	// Only the first min(full, 4) are wanted; they go to the end of ahead.
	switch h.nAhead {
	case 1:
		h.ahead[3] = b
	case 2:
		h.ahead[2], h.ahead[3] = b, c
	default:
		h.ahead[1], h.ahead[2], h.ahead[3] = b, c, d
	}
	return a
}

// Chain returns the keys of all chunks of a prompt, for tests and tools; a lookup
// uses a Hasher. tail is that of Start.
//
// Panics where Validate refuses the chunk size.
func (p Profile) Chain(tokens []int64, chunkSize int, tail bool) []Key {
	h, err := p.NewHasher(chunkSize)
	if err != nil {
		panic(fmt.Sprintf("bug: chain: %v", err))
	}
	keys := make([]Key, 0, len(tokens)/chunkSize+1)
	h.Start(tokens, tail)
	for key, _, ok := h.Next(); ok; key, _, ok = h.Next() {
		keys = append(keys, key)
	}
	return keys
}

// FirstChunk hashes the first chunk of one prompt under many profiles, which is
// how the right profile is found. The zero value is ready for Reset.
//
// Concurrency: one goroutine at a time. Cost: all builtin profiles together hash
// the tokens once; all digest profiles of a serialization write them once, and each
// runs its digest over the whole. Three buffers of a chunk are kept.
type FirstChunk struct {
	tokens  []int64
	hashed  bool
	hash    uint64 // Python's, of tokens as a tuple
	written [formPickle + 1]bool
	body    [formPickle + 1][]byte // the serialized tokens, by form
	buf     []byte
}

// Reset takes another chunk. Ownership: tokens is read until the next Reset.
func (f *FirstChunk) Reset(tokens []int64) {
	f.tokens, f.hashed = tokens, false
	clear(f.written[:])
}

// Key returns the first key of a chain under p. The chunk size is the length of
// the chunk; p.Validate must have accepted it.
func (f *FirstChunk) Key(p *Profile) Key {
	form := p.family.form
	if p.family.hash == hashBuiltin {
		if !f.hashed {
			f.hash, f.hashed = pyTokensHash(f.tokens), true
		}
		return pyLink(p.none.n, f.hash, p.family.extra)
	}
	if !f.written[form] {
		body := slices.Grow(f.body[form][:0], maxTokenBytes*len(f.tokens))
		f.body[form], f.written[form] = appendBody(body, form, f.tokens), true
	}
	b := appendBefore(f.buf[:0], form, p.none, len(f.tokens), p.family.extra)
	b = append(b, f.body[form]...)
	f.buf = appendAfter(b, form, len(f.tokens), p.family.extra)
	_, key := p.family.digestOf(f.buf)
	return key
}
