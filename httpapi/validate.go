package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is what a field of a body takes, with pydantic's lax coercions.
type kind uint8

const (
	kindString kind = iota
	kindBool
	kindInts // a list of integers
	kindPair // a list of two strings
	kindAny  // looked at by the handler: a field of ours that LMCache would ignore
)

// field is one field of a body.
type field struct {
	name     string
	kind     kind
	required bool
	nullable bool
	maxChars int            // of a string; 0: any
	maxBytes int            // of a string, or of each of a pair, as UTF-8; 0: any
	pattern  *regexp.Regexp // of a string; nil: any
	doc      string         // for /openapi.json
}

// schema is the fields of a body, in the order in which their faults are told. Other
// fields are ignored.
type schema []field

// values are a body's fields after coercion, in the order of the schema.
type values []value

// value is one field. present is false for one that is absent or null.
type value struct {
	present bool
	null    bool
	str     string
	boolean bool
	ints    []int64
	// large are the integers of ints that do not fit, by their place; they stand in ints
	// reduced as Python's hash would (see reduce).
	large map[int]*big.Int
	pair  [2]string
}

func (v *value) beyond() bool { return len(v.large) > 0 }

// fault is one entry of a 422's detail, in FastAPI's shape.
type fault struct {
	Type  string          `json:"type"`
	Loc   []any           `json:"loc"`
	Msg   string          `json:"msg"`
	Input json.RawMessage `json:"input"`
	Ctx   json.RawMessage `json:"ctx,omitempty"`
}

// faults is a body or a query that does not fit; it becomes a 422.
type faults []fault

func (f faults) Error() string {
	parts := make([]string, len(f))
	for i, x := range f {
		parts[i] = fmt.Sprintf("%v: %s", x.Loc, x.Msg)
	}
	return strings.Join(parts, "; ")
}

const (
	// maxFaults are told of one request: LMCache tells all, a million for a list of a
	// million words.
	maxFaults = 64
	// maxInput is the size in bytes up to which what does not fit is given back.
	maxInput = 2048
)

// parse reads a body. The error is faults or a *senselessError.
func (sc schema) parse(body []byte) (values, error) {
	if len(body) == 0 && !sc.required() {
		return make(values, len(sc)), nil
	}
	if len(body) == 0 {
		return nil, faults{{Type: "missing", Loc: []any{"body"}, Msg: "Field required"}}
	}
	s, err := check(body)
	var syntax *syntaxError
	if errors.As(err, &syntax) {
		return nil, faults{{Type: "json_invalid", Loc: []any{"body", syntax.pos}, Msg: "JSON decode error",
			Input: json.RawMessage("{}"), Ctx: ctxOf("error", syntax.msg)}}
	}
	if err != nil {
		return nil, err
	}
	whole := trimmed(s.buf[s.pos:])
	switch whole[0] {
	case 'n':
		return nil, faults{{Type: "missing", Loc: []any{"body"}, Msg: "Field required"}}
	case '{':
	default:
		return nil, faults{notAnObject(whole)}
	}
	return sc.coerce(whole, sc.spans(s))
}

// required reports whether there is a field that must be given, and so a body.
func (sc schema) required() bool {
	return slices.ContainsFunc(sc, func(f field) bool { return f.required })
}

// ctxOf is a fault's ctx: names and values in turn, in this order.
func ctxOf(pairs ...any) json.RawMessage {
	b := []byte{'{'}
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, pairs[i].(string)), ':')
		switch v := pairs[i+1].(type) {
		case int:
			b = strconv.AppendInt(b, int64(v), 10)
		case string:
			b = appendString(b, v)
		}
	}
	return append(b, '}')
}

func notAnObject(input json.RawMessage) fault {
	return fault{Type: "model_attributes_type", Loc: []any{"body"},
		Msg: "Input should be a valid dictionary or object to extract fields from", Input: input}
}

// spans finds the fields of the object at s. Of a repeated name the last counts.
func (sc schema) spans(s scanner) [][]byte {
	out := make([][]byte, len(sc))
	s.pos++
	for {
		s.space()
		switch s.peek() {
		case '}':
			return out
		case ',':
			s.pos++
			continue
		}
		start := s.pos
		s.str()
		name := s.buf[start:s.pos]
		s.space()
		s.pos++ // the colon
		s.space()
		start = s.pos
		s.value(0)
		if i := sc.index(name); i >= 0 {
			out[i] = s.buf[start:s.pos]
		}
	}
}

func (sc schema) index(rawName []byte) int {
	for i, f := range sc {
		if len(rawName) == len(f.name)+2 && string(rawName[1:len(rawName)-1]) == f.name {
			return i
		}
	}
	if strings.IndexByte(string(rawName), '\\') >= 0 {
		name := text(rawName)
		for i, f := range sc {
			if name == f.name {
				return i
			}
		}
	}
	return -1
}

// coercion gathers the faults of one body.
type coercion struct{ faults faults }

func (c *coercion) fault(f fault) {
	if len(c.faults) < maxFaults {
		c.faults = append(c.faults, f)
	}
}

func (sc schema) coerce(whole []byte, spans [][]byte) (values, error) {
	vs := make(values, len(sc))
	var c coercion
	for i, f := range sc {
		raw := spans[i]
		switch {
		case raw == nil && f.required:
			c.fault(fault{Type: "missing", Loc: []any{"body", f.name}, Msg: "Field required", Input: whole})
		case raw == nil:
		case raw[0] == 'n' && f.nullable:
			vs[i].null = true
		default:
			vs[i] = c.field(f, raw)
			vs[i].present = true
		}
	}
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	return vs, nil
}

func (c *coercion) field(f field, raw []byte) (v value) {
	loc := []any{"body", f.name}
	switch f.kind {
	case kindString:
		v.str = c.string(loc, raw, f)
	case kindBool:
		v.boolean = c.boolean(loc, raw)
	case kindInts:
		v.ints, v.large = c.ints(loc, raw)
	case kindPair:
		v.pair = c.pair(loc, raw, f)
	case kindAny:
		if raw[0] == '"' {
			v.str = text(raw)
		}
	}
	return v
}

func (c *coercion) string(loc []any, raw []byte, f field) string {
	if raw[0] != '"' {
		c.fault(fault{Type: "string_type", Loc: loc, Msg: "Input should be a valid string", Input: raw})
		return ""
	}
	s := text(raw)
	tooLong := func(most int, unit string) {
		c.fault(fault{Type: "string_too_long", Loc: loc, Msg: fmt.Sprintf("String should have at most %d %s", most, unit),
			Input: raw, Ctx: ctxOf("max_length", most)})
	}
	switch {
	case f.maxChars > 0 && utf8.RuneCountInString(s) > f.maxChars:
		tooLong(f.maxChars, "characters")
	case f.maxBytes > 0 && len(s) > f.maxBytes:
		tooLong(f.maxBytes, "bytes")
	case f.pattern != nil && !f.pattern.MatchString(s):
		c.fault(fault{Type: "string_pattern_mismatch", Loc: loc, Msg: fmt.Sprintf("String should match pattern '%s'", f.pattern),
			Input: raw, Ctx: ctxOf("pattern", f.pattern.String())})
	}
	return s
}

func (c *coercion) boolean(loc []any, raw []byte) bool {
	switch raw[0] {
	case 't', 'f':
		return raw[0] == 't'
	case '"':
		if b, ok := boolOf(text(raw)); ok {
			return b
		}
	case '{', '[', 'n':
		c.fault(fault{Type: "bool_type", Loc: loc, Msg: "Input should be a valid boolean", Input: raw})
		return false
	default:
		switch v, err := strconv.ParseFloat(string(raw), 64); {
		case err == nil && v == 0:
			return false
		case err == nil && v == 1:
			return true
		}
	}
	c.fault(fault{Type: "bool_parsing", Loc: loc, Msg: "Input should be a valid boolean, unable to interpret input", Input: raw})
	return false
}

// boolOf reads the words that pydantic takes for a bool.
func boolOf(word string) (b, ok bool) {
	switch strings.ToLower(word) {
	case "1", "true", "t", "yes", "y", "on":
		return true, true
	case "0", "false", "f", "no", "n", "off":
		return false, true
	}
	return false, false
}

func (c *coercion) pair(loc []any, raw []byte, f field) (p [2]string) {
	if raw[0] != '[' {
		c.fault(fault{Type: "tuple_type", Loc: loc, Msg: "Input should be a valid tuple", Input: raw})
		return p
	}
	var items [][]byte
	n := eachElement(raw, func(i int, item []byte) bool {
		if i < 2 {
			items = append(items, item)
		}
		return true
	})
	if n > 2 {
		c.fault(fault{Type: "too_long", Loc: loc, Msg: fmt.Sprintf("Tuple should have at most 2 items after validation, not %d", n),
			Input: raw, Ctx: ctxOf("field_type", "Tuple", "max_length", 2, "actual_length", n)})
		return p
	}
	for i := range p {
		if i >= len(items) {
			c.fault(fault{Type: "missing", Loc: append(loc[:len(loc):len(loc)], i), Msg: "Field required", Input: raw})
			continue
		}
		p[i] = c.string(append(loc[:len(loc):len(loc)], i), items[i], f)
	}
	return p
}

// eachElement calls f for each element of a list until it says no, and returns how
// many it has passed.
func eachElement(list []byte, f func(i int, raw []byte) bool) (n int) {
	s := scanner{buf: list, pos: 1}
	for {
		s.space()
		switch s.peek() {
		case ']':
			return n
		case ',':
			s.pos++
			continue
		}
		start := s.pos
		s.value(0)
		if !f(n, s.buf[start:s.pos]) {
			return n
		}
		n++
	}
}

// trimmed cuts white space at the end; the start has none.
func trimmed(b []byte) []byte {
	for len(b) > 0 {
		switch b[len(b)-1] {
		case ' ', '\t', '\n', '\r':
			b = b[:len(b)-1]
		default:
			return b
		}
	}
	return b
}
