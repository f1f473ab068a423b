package lmcache

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// packJSON turns a frame that is one JSON object (RFC 8259) into MessagePack, so
// that one decoder knows the rules of the fields. Numbers without fraction and
// exponent become ints of the full range -2^63 to 2^64-1, others floats.
//
// It refuses, with everything that is no JSON: invalid UTF-8, a surrogate without
// its other half, integers beyond 64 bits, floats beyond float64 and more than
// MaxDepth containers inside each other. Repeated names are kept: the last counts.
func packJSON(frame []byte) ([]byte, *DecodeError) {
	if !utf8.Valid(frame) {
		return nil, &DecodeError{Reason: ReasonUTF8, Detail: "json is no UTF-8"}
	}
	p := jsonPacker{buf: frame, out: make([]byte, 0, len(frame))}
	p.value(0)
	if p.space(); p.err == nil && p.pos < len(p.buf) {
		p.fail(ReasonTrailing, "%d bytes after the json object", len(p.buf)-p.pos)
	}
	if p.err != nil {
		return nil, p.err
	}
	return p.out, nil
}

// jsonPacker reads JSON from buf at pos and appends it to out.
type jsonPacker struct {
	buf []byte
	pos int
	out []byte
	err *DecodeError // the first fault; after it nothing is read
}

func (p *jsonPacker) fail(reason Reason, format string, args ...any) {
	if p.err == nil {
		p.err = &DecodeError{Reason: reason, Detail: fmt.Sprintf(format, args...)}
	}
}

// unexpected records that want was expected at the current place.
func (p *jsonPacker) unexpected(want string) {
	if p.pos >= len(p.buf) {
		p.fail(ReasonTruncated, "json ends where %s is expected", want)
		return
	}
	c, _ := utf8.DecodeRune(p.buf[p.pos:])
	p.fail(ReasonSyntax, "json has %q at byte %d where %s is expected", c, p.pos, want)
}

// peek returns the current byte, 0 at the end and after a fault: no JSON value
// starts with it.
func (p *jsonPacker) peek() byte {
	if p.err != nil || p.pos >= len(p.buf) {
		return 0
	}
	return p.buf[p.pos]
}

func (p *jsonPacker) space() {
	for p.err == nil && p.pos < len(p.buf) {
		switch p.buf[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// value packs any value; depth containers are open around it.
func (p *jsonPacker) value(depth int) {
	p.space()
	switch c := p.peek(); {
	case c == '{' || c == '[':
		if depth == MaxDepth {
			p.fail(ReasonDepth, "more than %d containers inside each other", MaxDepth)
			return
		}
		p.container(c == '{', depth+1)
	case c == '"':
		p.str()
	case c == '-' || c >= '0' && c <= '9':
		p.number()
	case c == 't':
		p.literal("true", mpTrue)
	case c == 'f':
		p.literal("false", mpFalse)
	case c == 'n':
		p.literal("null", mpNil)
	default:
		p.unexpected("a value")
	}
}

func (p *jsonPacker) literal(text string, packed byte) {
	for i := range len(text) {
		if p.peek() != text[i] {
			p.unexpected(text)
			return
		}
		p.pos++
	}
	p.out = append(p.out, packed)
}

// container packs an object or an array. Its header has the widest form: the number
// of elements is known only at the end.
func (p *jsonPacker) container(object bool, depth int) {
	header, closing := byte(mpArray32), byte(']')
	if object {
		header, closing = mpMap32, '}'
	}
	p.pos++
	at := len(p.out) + 1
	p.out = append(p.out, header, 0, 0, 0, 0)
	n := uint32(0) // cannot overflow: frames of 4 GiB are not read
	for p.err == nil {
		if p.space(); n == 0 && p.peek() == closing {
			break
		}
		if object {
			p.name()
		}
		p.value(depth)
		n++
		if p.space(); p.peek() == closing {
			break
		}
		if p.peek() != ',' {
			p.unexpected("',' or '" + string(closing) + "'")
			return
		}
		p.pos++
	}
	p.pos++
	if p.err == nil {
		binary.BigEndian.PutUint32(p.out[at:], n)
	}
}

// name packs an object's name and reads the colon after it.
func (p *jsonPacker) name() {
	p.space()
	if p.peek() != '"' {
		p.unexpected("a name")
		return
	}
	p.str()
	p.space()
	if p.peek() != ':' {
		p.unexpected("':'")
		return
	}
	p.pos++
}

// digits reads one digit or more.
func (p *jsonPacker) digits() {
	if c := p.peek(); c < '0' || c > '9' {
		p.unexpected("a digit")
		return
	}
	for c := p.peek(); c >= '0' && c <= '9'; c = p.peek() {
		p.pos++
	}
}

// number packs a number.
func (p *jsonPacker) number() {
	start := p.pos
	if p.peek() == '-' {
		p.pos++
	}
	if p.peek() == '0' { // no further digits: 01 is no JSON
		p.pos++
	} else {
		p.digits()
	}
	isInt := true
	if p.peek() == '.' {
		isInt = false
		p.pos++
		p.digits()
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		isInt = false
		p.pos++
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		p.digits()
	}
	if p.err != nil {
		return
	}
	text := p.buf[start:p.pos]
	if isInt {
		p.integer(text)
		return
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsInf(f, 0) {
		p.fail(ReasonRange, "json number %s is beyond float64", quoted(text))
		return
	}
	p.out = appendFloat(p.out, f)
}

// maxIntText is the number of bytes of the longest integers, -2^63 and 2^64-1.
const maxIntText = 20

func (p *jsonPacker) integer(text []byte) {
	if len(text) <= maxIntText {
		if text[0] == '-' {
			if v, err := strconv.ParseInt(string(text), 10, 64); err == nil {
				p.out = appendInt(p.out, v)
				return
			}
		} else if v, err := strconv.ParseUint(string(text), 10, 64); err == nil {
			p.out = appendUint(p.out, v)
			return
		}
	}
	p.fail(ReasonRange, "json integer %s is beyond 64 bits", quoted(text))
}
