package lmcache

import "unicode/utf8"

// skip moves past the next value, whatever it is. Strings in it are not checked,
// as msgspec does not either.
func (r *reader) skip() { r.skipValue(MaxDepth, false) }

// skipStrict is skip for a value that is kept: strings in it must be UTF-8.
func (r *reader) skipStrict() { r.skipValue(MaxDepth, true) }

func (r *reader) skipValue(depth int, strict bool) {
	c, ok := r.lead()
	if !ok {
		return
	}
	if c < 0x80 || c >= 0xe0 {
		return
	}
	if n, ok := r.strLength(c); ok {
		if b := r.take(n); strict && !utf8.Valid(b) {
			r.fail(ReasonUTF8, "%s is no UTF-8", quoted(b))
		}
		return
	}
	if n, ok := r.mapLength(c); ok {
		r.skipMany(2*r.fits("map", n, 2), depth, strict)
		return
	}
	if n, ok := r.arrayLength(c); ok {
		r.skipMany(r.fits("array", n, 1), depth, strict)
		return
	}
	if n, ok := r.binLength(c); ok {
		r.take(n)
		return
	}
	switch {
	case c == mpNil || c == mpFalse || c == mpTrue:
	case c == mpFloat32:
		r.take(4)
	case c == mpFloat64:
		r.take(8)
	case c >= mpUint8 && c <= mpUint64:
		r.take(1 << (c - mpUint8))
	case c >= mpInt8 && c <= mpInt64:
		r.take(1 << (c - mpInt8))
	case c >= mpFixExt1 && c <= mpFixExt16:
		r.take(1 + 1<<(c-mpFixExt1))
	case c >= mpExt8 && c <= mpExt32:
		r.take(1 + r.uint(1<<(c-mpExt8)))
	default:
		r.mismatch("value", c)
	}
}

// skipMany skips the n values of a container, with room for depth levels, its own
// included.
func (r *reader) skipMany(n, depth int, strict bool) {
	if depth == 0 {
		r.fail(ReasonDepth, "more than %d containers inside each other", MaxDepth)
	}
	for ; n > 0 && r.err == nil; n-- {
		r.skipValue(depth-1, strict)
	}
}
