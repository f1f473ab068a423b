package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"time"
)

// member and object keep the order of a JSON object's keys, which means something in
// layout_info. The other JSON values are nil, bool, string, json.Number and []any.
type member struct {
	key   string
	value any
}

type object []member

func (o object) get(key string) (any, bool) {
	for _, m := range o {
		if m.key == key {
			return m.value, true
		}
	}
	return nil, false
}

// text is a string field, "" when it is no string or not there.
func (o object) text(key string) string {
	v, _ := o.get(key)
	s, _ := v.(string)
	return s
}

func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// parseJSON reads one JSON value.
func parseJSON(b []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	v, err := parseValue(dec)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return v, nil
}

func mustJSON(s string) any {
	v, err := parseJSON([]byte(s))
	if err != nil {
		panic(fmt.Sprintf("bug: expectation %q: %v", s, err))
	}
	return v
}

func parseValue(dec *json.Decoder) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := parseValue(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = dec.Token()
		return list, err
	case json.Delim('{'):
		o := object{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := parseValue(dec)
			if err != nil {
				return nil, err
			}
			o = append(o, member{key.(string), v})
		}
		_, err = dec.Token()
		return o, err
	}
	return tok, nil
}

// comparison collects the differences between a recorded value and an answer.
//
// Placeholders in recorded strings: <uuid> a uuid4 in it, <time> a number of Unix
// seconds of today, <text> any text that is not empty, <any> anything.
type comparison struct {
	superset bool // more keys and items than recorded are fine
	problems []string
}

// differences compares two JSON values.
func differences(want, got any, superset bool) []string {
	c := comparison{superset: superset}
	c.value("$", want, got)
	return c.problems
}

func (c *comparison) fault(path, format string, args ...any) {
	c.problems = append(c.problems, path+": "+fmt.Sprintf(format, args...))
}

func (c *comparison) value(path string, want, got any) {
	switch want := want.(type) {
	case object:
		got, ok := got.(object)
		if !ok {
			c.fault(path, "want an object, got %s", show(got))
			return
		}
		c.object(path, want, got)
	case []any:
		got, ok := got.([]any)
		if !ok {
			c.fault(path, "want a list, got %s", show(got))
			return
		}
		if len(got) < len(want) || (len(got) > len(want) && !c.superset) {
			c.fault(path, "want %d items, got %d: want %s, got %s", len(want), len(got), show(want), show(got))
			return
		}
		for i := range want {
			c.value(fmt.Sprintf("%s[%d]", path, i), want[i], got[i])
		}
	case json.Number:
		n, ok := got.(json.Number)
		if !ok || !sameNumber(want, n) {
			c.fault(path, "want %s, got %s", want, show(got))
		}
	case string:
		c.text(path, want, got)
	default:
		if want != got {
			c.fault(path, "want %s, got %s", show(want), show(got))
		}
	}
}

// ordered are the objects whose order of keys means something to a reader.
var ordered = []string{"$.layout_info", "$.error_codes"}

func (c *comparison) object(path string, want, got object) {
	var order []string
	for _, m := range want {
		v, ok := got.get(m.key)
		if !ok {
			c.fault(path, "no %q in %s", m.key, show(got))
			continue
		}
		order = append(order, m.key)
		c.value(path+"."+m.key, m.value, v)
	}
	var gotOrder []string
	for _, m := range got {
		switch {
		case slices.Contains(order, m.key):
			gotOrder = append(gotOrder, m.key)
		case !c.superset:
			if _, known := want.get(m.key); !known {
				c.fault(path, "%q is not in the recording: %s", m.key, show(m.value))
			}
		}
	}
	if slices.Contains(ordered, path) && !slices.Equal(order, gotOrder) {
		c.fault(path, "want the keys in the order %q, got %q", order, gotOrder)
	}
}

const uuid4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"

func (c *comparison) text(path, want string, got any) {
	switch want {
	case "<any>", "<value>":
		return
	case "<time>":
		n, ok := got.(json.Number)
		f, err := n.Float64()
		age := float64(time.Now().Unix()) - f
		if !ok || err != nil || age < -60 || age > 3600 || !strings.Contains(n.String(), ".") {
			c.fault(path, "want the Unix seconds of now, with a fraction, got %s", show(got))
		}
		return
	case "<text>":
		if s, ok := got.(string); !ok || s == "" {
			c.fault(path, "want a text, got %s", show(got))
		}
		return
	}
	s, ok := got.(string)
	if !ok {
		c.fault(path, "want %q, got %s", want, show(got))
		return
	}
	if !strings.Contains(want, "<uuid>") {
		if s != want {
			c.fault(path, "want %q, got %q", want, s)
		}
		return
	}
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(want), "<uuid>", uuid4) + "$"
	if !regexp.MustCompile(pattern).MatchString(s) {
		c.fault(path, "want %q with a uuid4, got %q", want, s)
	}
}

func sameNumber(a, b json.Number) bool {
	x, _, errX := big.ParseFloat(a.String(), 10, 256, big.ToNearestEven)
	y, _, errY := big.ParseFloat(b.String(), 10, 256, big.ToNearestEven)
	return errX == nil && errY == nil && x.Cmp(y) == 0
}

// show is a value as short JSON.
func show(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%v", v)
	}
	return shorten(string(b), 400)
}

func shorten(s string, most int) string {
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
