package lmcache

import (
	"unicode/utf16"
	"unicode/utf8"
)

// str packs a string.
func (p *jsonPacker) str() {
	p.pos++
	var text []byte // what was read until the last escape
	start := p.pos
	for {
		if p.pos >= len(p.buf) {
			p.fail(ReasonTruncated, "json ends within a string")
			return
		}
		switch c := p.buf[p.pos]; {
		case c == '"':
			piece := p.buf[start:p.pos]
			p.pos++
			if text != nil {
				piece = append(text, piece...)
			}
			p.out = appendStr(p.out, string(piece))
			return
		case c == '\\':
			text = append(text, p.buf[start:p.pos]...)
			text = p.escape(text)
			if p.err != nil {
				return
			}
			start = p.pos
		case c < 0x20:
			p.fail(ReasonSyntax, "json has control character 0x%02x in a string at byte %d", c, p.pos)
			return
		default:
			p.pos++
		}
	}
}

// escape appends the character of the escape that starts at the current place.
func (p *jsonPacker) escape(text []byte) []byte {
	p.pos++
	c := p.peek()
	p.pos++
	switch c {
	case '"', '\\', '/':
		return append(text, c)
	case 'b':
		return append(text, '\b')
	case 'f':
		return append(text, '\f')
	case 'n':
		return append(text, '\n')
	case 'r':
		return append(text, '\r')
	case 't':
		return append(text, '\t')
	case 'u':
		r := p.hex4()
		if utf16.IsSurrogate(r) {
			var low rune
			if p.pos+1 < len(p.buf) && p.buf[p.pos] == '\\' && p.buf[p.pos+1] == 'u' {
				p.pos += 2
				low = p.hex4()
			}
			r = utf16.DecodeRune(r, low)
			if r == utf8.RuneError {
				p.fail(ReasonUTF8, "json has a surrogate without its other half before byte %d", p.pos)
			}
		}
		return utf8.AppendRune(text, r)
	}
	p.pos--
	p.unexpected("an escaped character")
	return text
}

// hex4 reads the four digits of a \u escape.
func (p *jsonPacker) hex4() rune {
	var r rune
	for range 4 {
		c := p.peek()
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			p.unexpected("a hex digit")
			return 0
		}
		r = r<<4 | rune(c)
		p.pos++
	}
	return r
}
