package httpapi

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of a body beyond its size. Within them nothing is allocated for what is only
// looked at: a body of ten million empty lists costs its own bytes.
const (
	// maxDepth of containers inside each other. No body has more than three.
	maxDepth = 64
	// maxDigits of an integer are Python's limit (sys.int_info), the only one LMCache
	// has for token ids.
	maxDigits = 4300
)

// syntaxError is a body that is no JSON. LMCache answers it with 422 and the place.
type syntaxError struct {
	pos int    // in characters, as Python counts
	msg string // in the words of Python's json module
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at character %d", e.msg, e.pos) }

// senselessError is a body that LMCache answers with 400: what no JSON parser of
// theirs or ours takes, though its grammar may be right.
type senselessError struct{ why string }

func (e *senselessError) Error() string { return e.why }

// scanner walks over JSON (RFC 8259) without building anything. Faults come in the
// words and at the places of Python's json module, whose answers LMCache's are.
//
// After check has accepted the buffer, the other methods cannot fail on syntax.
type scanner struct {
	buf []byte
	pos int
	err error // the first fault; after it nothing is read
}

// check reads the whole buffer as one JSON value. A byte order mark is skipped, as
// Python does.
func check(body []byte) (scanner, error) {
	if !utf8.Valid(body) {
		return scanner{}, &senselessError{"the body is not valid UTF-8"}
	}
	if len(body) >= 3 && body[0] == 0xef && body[1] == 0xbb && body[2] == 0xbf {
		body = body[3:]
	}
	s := scanner{buf: body}
	s.space()
	start := s.pos
	s.value(0)
	s.space()
	if s.err == nil && s.pos < len(s.buf) {
		s.fail("Extra data", s.pos)
	}
	if s.err != nil {
		return scanner{}, s.err
	}
	return scanner{buf: body, pos: start}, nil
}

func (s *scanner) fail(msg string, at int) {
	if s.err == nil {
		s.err = &syntaxError{pos: utf8.RuneCount(s.buf[:at]), msg: msg}
	}
}

func (s *scanner) refuse(format string, args ...any) {
	if s.err == nil {
		s.err = &senselessError{fmt.Sprintf(format, args...)}
	}
}

// peek is the current byte, 0 at the end: no JSON value has one outside of strings.
func (s *scanner) peek() byte {
	if s.pos < len(s.buf) {
		return s.buf[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	s.pos = blanks(s.buf, s.pos)
}

// value passes over one value; depth containers are open around it.
func (s *scanner) value(depth int) {
	switch c := s.peek(); {
	case c == '{' || c == '[':
		if depth == maxDepth {
			s.refuse("more than %d lists and objects inside each other", maxDepth)
			return
		}
		if c == '{' {
			s.object(depth + 1)
		} else {
			s.array(depth + 1)
		}
	case c == '"':
		s.str()
	case c == '-' || isDigit(c):
		s.number()
	case c == 't':
		s.literal("true")
	case c == 'f':
		s.literal("false")
	case c == 'n':
		s.literal("null")
	default:
		s.fail("Expecting value", s.pos)
	}
}

func (s *scanner) literal(word string) {
	if len(s.buf)-s.pos < len(word) || string(s.buf[s.pos:s.pos+len(word)]) != word {
		s.fail("Expecting value", s.pos)
		return
	}
	s.pos += len(word)
}

func (s *scanner) array(depth int) {
	s.pos++
	if s.space(); s.peek() == ']' {
		s.pos++
		return
	}
	for s.err == nil {
		s.value(depth)
		s.space()
		if s.more(']') {
			continue
		}
		return
	}
}

func (s *scanner) object(depth int) {
	s.pos++
	if s.space(); s.peek() == '}' {
		s.pos++
		return
	}
	for s.err == nil {
		if s.peek() != '"' {
			s.fail("Expecting property name enclosed in double quotes", s.pos)
			return
		}
		s.str()
		s.space()
		if s.err == nil && s.peek() != ':' {
			s.fail("Expecting ':' delimiter", s.pos)
		}
		if s.err != nil {
			return
		}
		s.pos++
		s.space()
		s.value(depth)
		s.space()
		if s.more('}') {
			continue
		}
		return
	}
}

// more is called after an element: at a comma it moves to the next element.
func (s *scanner) more(closing byte) bool {
	if s.err != nil {
		return false
	}
	switch s.peek() {
	case ',':
		s.pos++
		s.space()
		return true
	case closing:
		s.pos++
	default:
		s.fail("Expecting ',' delimiter", s.pos)
	}
	return false
}

// number passes over a number. What follows a number that is too long for the grammar
// (01, 1., 1e) is left for the caller to stumble over, as in Python.
func (s *scanner) number() {
	start := s.pos
	if s.peek() == '-' {
		s.pos++
	}
	switch {
	case s.peek() == '0':
		s.pos++
	case isDigit(s.peek()):
		s.digits()
	default:
		s.fail("Expecting value", start)
		return
	}
	integer := true
	if s.peek() == '.' && s.pos+1 < len(s.buf) && isDigit(s.buf[s.pos+1]) {
		integer = false
		s.pos++
		s.digits()
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		end := s.pos
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if isDigit(s.peek()) {
			integer = false
			s.digits()
		} else {
			s.pos = end
		}
	}
	if integer && s.pos-start <= maxDigits {
		return
	}
	text := s.buf[start:s.pos]
	switch {
	case integer:
		s.refuse("a number of more than %d digits", maxDigits)
	case tooLarge(text):
		s.refuse("a number beyond 64-bit floating point")
	}
}

// tooLarge reports whether a number is infinite as a float64. Few digits and no
// exponent cannot be, which spares parsing nearly all.
func tooLarge(text []byte) bool {
	if len(text) < 300 {
		exponent := false
		for _, c := range text {
			exponent = exponent || c == 'e' || c == 'E'
		}
		if !exponent {
			return false
		}
	}
	_, err := strconv.ParseFloat(string(text), 64)
	return err != nil
}

func (s *scanner) digits() {
	i, b := s.pos, s.buf
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	s.pos = i
}

// str passes over a string.
func (s *scanner) str() {
	open := s.pos
	s.pos++
	for s.pos < len(s.buf) {
		switch c := s.buf[s.pos]; {
		case c == '"':
			s.pos++
			return
		case c == '\\':
			if !s.escape(open) {
				return
			}
		case c < 0x20:
			s.fail("Invalid control character at", s.pos)
			return
		default:
			s.pos++
		}
	}
	s.fail("Unterminated string starting at", open)
}

// escape passes over an escape sequence, both halves of a surrogate pair as one.
func (s *scanner) escape(open int) bool {
	if s.pos+1 >= len(s.buf) {
		s.fail("Unterminated string starting at", open)
		return false
	}
	switch s.buf[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return true
	case 'u':
		r, ok := hex4(s.buf, s.pos+2)
		if !ok {
			s.fail("Invalid \\uXXXX escape", s.pos+1)
			return false
		}
		if utf16.IsSurrogate(r) {
			low, ok := lowHalf(s.buf, s.pos+6)
			if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
				s.refuse("a text with half a surrogate pair")
				return false
			}
			s.pos += 6
		}
		s.pos += 6
		return true
	}
	s.fail("Invalid \\escape", s.pos)
	return false
}

func lowHalf(b []byte, at int) (rune, bool) {
	if at+1 >= len(b) || b[at] != '\\' || b[at+1] != 'u' {
		return 0, false
	}
	return hex4(b, at+2)
}

func hex4(b []byte, at int) (r rune, ok bool) {
	if at+4 > len(b) {
		return 0, false
	}
	for _, c := range b[at : at+4] {
		switch {
		case isDigit(c):
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// text decodes a string literal that check has accepted.
func text(raw []byte) string {
	raw = raw[1 : len(raw)-1]
	plain := true
	for _, c := range raw {
		plain = plain && c != '\\'
	}
	if plain {
		return string(raw)
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			out = append(out, raw[i])
			continue
		}
		i++
		switch raw[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, _ := hex4(raw, i+1)
			i += 4
			if utf16.IsSurrogate(r) {
				low, _ := hex4(raw, i+3)
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default: // " \ /
			out = append(out, raw[i])
		}
	}
	return string(out)
}
