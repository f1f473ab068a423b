package fsm

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// This file holds the building blocks that all entries and snapshot sections
// share: minimal varints, zigzag for signed numbers, length-prefixed strings.
// docs/formats.md, "Building blocks", is the normative text.

func appendUint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

// appendInt writes v as zigzag; binary's own varint is exactly that.
func appendInt(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// appendText writes free text (what a worker or the executor says about an
// event), cut to MaxText at a rune's edge: a long complaint must not make an
// entry that nobody can read.
func appendText(dst []byte, s string) []byte { return appendString(dst, cutText(s)) }

func cutText(s string) string {
	if len(s) > MaxText {
		cut := MaxText
		for cut > MaxText-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut]
	}
	return s
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// cursor reads what the append functions wrote. The first fault sticks, later
// reads give zeros, so that a decoder is a straight list of reads with one look
// at err where a value decides over allocation or a loop.
//
// It never reads beyond its bytes and never allocates by a claimed length: a
// count is held against the bytes that are left first (count).
type cursor struct {
	data []byte // of the whole unit, so that faults can name an offset
	off  int
	err  error
	// newer is set when the fault is a number out of a list that newer builds may
	// have made longer
	newer bool
}

func (c *cursor) left() int { return len(c.data) - c.off }

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("at byte %d: %s", c.off, fmt.Sprintf(format, args...))
	}
}

// failNewer is fail for what a newer build may have written.
func (c *cursor) failNewer(format string, args ...any) {
	if c.err == nil {
		c.newer = true
		c.fail(format, args...)
	}
}

// refusal is the cursor's fault as the codec's word.
func (c *cursor) refusal() *refusal {
	switch {
	case c.err == nil:
		return nil
	case c.newer:
		return refuse(unknown, "%v", c.err)
	}
	return refuse(damaged, "%v", c.err)
}

func (c *cursor) uint() uint64 {
	if c.err != nil {
		return 0
	}
	if c.off < len(c.data) && c.data[c.off] < 0x80 { // most numbers are small
		v := c.data[c.off]
		c.off++
		return uint64(v)
	}
	v, n := binary.Uvarint(c.data[c.off:])
	switch {
	case n <= 0:
		c.fail("number cut off or beyond 64 bits")
		return 0
	case c.data[c.off+n-1] == 0: // n > 1 here: one value, one encoding
		c.fail("number not in its shortest form")
		return 0
	}
	c.off += n
	return v
}

func (c *cursor) int() int64 {
	u := c.uint()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads the number of items that follow, each of which takes at least
// minSize bytes.
func (c *cursor) count(what string, minSize int) int {
	n := c.uint()
	if c.err == nil && n > uint64(c.left()/minSize) {
		c.fail("%d %s of at least %d bytes do not fit in the %d bytes left", n, what, minSize, c.left())
		return 0
	}
	return int(n)
}

// index reads a reference into a table of size n.
func (c *cursor) index(what string, n int) int {
	v := c.uint()
	if c.err == nil && v >= uint64(n) {
		c.fail("%s %d of %d", what, v, n)
	}
	if c.err != nil {
		return 0
	}
	return int(v)
}

func (c *cursor) bytes(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > c.left() {
		c.fail("%d bytes wanted, %d left", n, c.left())
		return nil
	}
	b := c.data[c.off : c.off+n : c.off+n]
	c.off += n
	return b
}

func (c *cursor) byte() byte {
	b := c.bytes(1)
	if c.err != nil {
		return 0
	}
	return b[0]
}

func (c *cursor) bool() bool {
	switch c.byte() {
	case 0:
		return false
	case 1:
		return true
	}
	c.off--
	c.fail("truth value %d, want 0 or 1", c.data[c.off])
	return false
}

// rawString gives the bytes of a string inside the cursor's data.
func (c *cursor) rawString(what string, limit int) []byte {
	n := c.uint()
	if c.err == nil && n > uint64(limit) {
		c.fail("%s of %d bytes, limit %d", what, n, limit)
	}
	if c.err != nil || n > math.MaxInt32 {
		return nil
	}
	return c.bytes(int(n))
}

// name reads an identifier, text free text; both are copies.
func (c *cursor) name(what string) string { return string(c.rawString(what, MaxName)) }
func (c *cursor) text(what string) string { return string(c.rawString(what, MaxText)) }

// end refuses bytes that nothing has read.
func (c *cursor) end() {
	if c.err == nil && c.left() != 0 {
		c.fail("%d bytes left over", c.left())
	}
}
