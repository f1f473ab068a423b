package lmcache

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// reader reads MessagePack values from a frame. The first fault stays in err;
// after it every method returns a zero value, so callers check once per value.
// Nothing it returns aliases buf, except where a method says so.
type reader struct {
	buf   []byte
	pos   int
	err   *DecodeError
	signs Signs // of all keys read so far
}

// fail records the first fault.
func (r *reader) fail(reason Reason, format string, args ...any) {
	if r.err == nil {
		r.err = &DecodeError{Reason: reason, Detail: fmt.Sprintf(format, args...)}
	}
}

func (r *reader) remaining() int { return len(r.buf) - r.pos }

// lead returns the type byte of the next value and moves past it.
func (r *reader) lead() (byte, bool) {
	if r.err != nil {
		return 0, false
	}
	if r.pos >= len(r.buf) {
		r.fail(ReasonTruncated, "frame ends after %d bytes", len(r.buf))
		return 0, false
	}
	c := r.buf[r.pos]
	r.pos++
	return c, true
}

// take returns the next n bytes, aliasing the frame. n is as declared on the wire
// and may be anything.
func (r *reader) take(n uint64) []byte {
	if r.err != nil {
		return nil
	}
	if n > uint64(r.remaining()) {
		r.fail(ReasonTruncated, "%d bytes declared, %d left in the frame", n, r.remaining())
		return nil
	}
	b := r.buf[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return b
}

// uint reads a big-endian number of 1, 2, 4 or 8 bytes.
func (r *reader) uint(width uint64) uint64 {
	b := r.take(width)
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	case 8:
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// mismatch records that a value of another type was found where want belongs.
func (r *reader) mismatch(want string, c byte) {
	if c == mpReserved {
		r.fail(ReasonSyntax, "byte 0xc1 at %d, which MessagePack does not use", r.pos-1)
		return
	}
	r.fail(ReasonType, "want %s, got %s", want, kind(c))
}

// integer reads an int of any width after its type byte: the 64-bit pattern, and
// whether it is a negative number. ok is false if c starts no int.
func (r *reader) integer(c byte) (bits uint64, negative, ok bool) {
	switch {
	case c < 0x80:
		return uint64(c), false, true
	case c >= 0xe0:
		return uint64(int64(int8(c))), true, true
	}
	switch c {
	case mpUint8, mpUint16, mpUint32, mpUint64:
		return r.uint(1 << (c - mpUint8)), false, true
	case mpInt8:
		bits = uint64(int64(int8(r.uint(1))))
	case mpInt16:
		bits = uint64(int64(int16(r.uint(2))))
	case mpInt32:
		bits = uint64(int64(int32(r.uint(4))))
	case mpInt64:
		bits = r.uint(8)
	default:
		return 0, false, false
	}
	return bits, int64(bits) < 0, true
}

// number reads an int of any width: its 64-bit pattern, and whether it is above
// 2^63-1.
func (r *reader) number() (bits uint64, over bool) {
	c, ok := r.lead()
	if !ok {
		return 0, false
	}
	bits, negative, ok := r.integer(c)
	if !ok {
		r.mismatch("int", c)
		return 0, false
	}
	return bits, bits > math.MaxInt64 && !negative
}

// int64 reads an int of any width. Above 2^63-1 is a range fault: Python takes it,
// but no field of ours that is a number and no key has a use for it.
func (r *reader) int64() int64 {
	bits, over := r.number()
	if over {
		r.fail(ReasonRange, "%d is above 2^63-1", bits)
		return 0
	}
	return int64(bits)
}

// seqNum reads a sequence number. Above 2^63-1 it is taken as 2^63-1 and not
// refused: the keys beside it count, whatever their number.
func (r *reader) seqNum() int64 {
	bits, over := r.number()
	if over {
		return math.MaxInt64
	}
	return int64(bits)
}

func (r *reader) bool() bool {
	c, ok := r.lead()
	if ok && c != mpTrue && c != mpFalse {
		r.mismatch("bool", c)
	}
	return ok && c == mpTrue
}

// float64 reads a float of either width or an int.
func (r *reader) float64() float64 {
	c, ok := r.lead()
	if !ok {
		return 0
	}
	switch c {
	case mpFloat32:
		return float64(math.Float32frombits(uint32(r.uint(4))))
	case mpFloat64:
		return math.Float64frombits(r.uint(8))
	}
	bits, negative, ok := r.integer(c)
	switch {
	case !ok:
		r.mismatch("float", c)
		return 0
	case negative:
		return float64(int64(bits))
	default:
		return float64(bits)
	}
}

// length reads the length that follows a type byte: low bits of a short form
// (fix <= c < fix+size), else 1, 2 or 4 bytes for c = first, first+1, first+2.
// ok is false if c is none of them.
func (r *reader) length(c, fix byte, size int, first, last byte, width uint64) (n uint64, ok bool) {
	if size > 0 && c >= fix && int(c) < int(fix)+size {
		return uint64(c - fix), true
	}
	if c >= first && c <= last {
		return r.uint(width << (c - first)), true
	}
	return 0, false
}

func (r *reader) strLength(c byte) (uint64, bool) { return r.length(c, 0xa0, 32, mpStr8, mpStr32, 1) }
func (r *reader) binLength(c byte) (uint64, bool) { return r.length(c, 0, 0, mpBin8, mpBin32, 1) }
func (r *reader) arrayLength(c byte) (uint64, bool) {
	return r.length(c, 0x90, 16, mpArray16, mpArray32, 2)
}
func (r *reader) mapLength(c byte) (uint64, bool) { return r.length(c, 0x80, 16, mpMap16, mpMap32, 2) }

// strBytes reads a str without checking its UTF-8. The result aliases the frame.
func (r *reader) strBytes() []byte {
	c, ok := r.lead()
	if !ok {
		return nil
	}
	n, ok := r.strLength(c)
	if !ok {
		r.mismatch("str", c)
		return nil
	}
	return r.take(n)
}

// str reads a str. The names of the two backends that report keys are not copied
// but shared: one of them is in nearly every frame.
func (r *reader) str() string {
	b := r.strBytes()
	switch string(b) {
	case "":
		return ""
	case "LocalCPUBackend":
		return "LocalCPUBackend"
	case "LocalDiskBackend":
		return "LocalDiskBackend"
	}
	if !utf8.Valid(b) {
		r.fail(ReasonUTF8, "%s is no UTF-8", quoted(b))
		return ""
	}
	return string(b)
}

// isNil reports whether the next value is nil, and moves past it if so.
func (r *reader) isNil() bool {
	if r.err == nil && r.pos < len(r.buf) && r.buf[r.pos] == mpNil {
		r.pos++
		return true
	}
	return false
}

// arrayHeader reads the start of an array. An array that cannot be in the rest of
// the frame, at one byte an element, is refused here: the length is never trusted.
func (r *reader) arrayHeader() int {
	c, ok := r.lead()
	if !ok {
		return 0
	}
	n, ok := r.arrayLength(c)
	if !ok {
		r.mismatch("array", c)
		return 0
	}
	return r.fits("array", n, 1)
}

// mapHeader reads the start of a map, as arrayHeader does.
func (r *reader) mapHeader() int {
	c, ok := r.lead()
	if !ok {
		return 0
	}
	n, ok := r.mapLength(c)
	if !ok {
		r.mismatch("map", c)
		return 0
	}
	return r.fits("map", n, 2)
}

// fits returns n if n elements of at least size bytes can follow.
func (r *reader) fits(what string, n uint64, size uint64) int {
	if r.err != nil {
		return 0
	}
	if n*size > uint64(r.remaining()) { // n is below 2^32: no overflow
		r.fail(ReasonTruncated, "%s of %d declared, %d bytes left in the frame", what, n, r.remaining())
		return 0
	}
	return int(n)
}
