package httpapi

import (
	"math"
	"math/big"
	"strconv"
	"strings"
)

// ints coerces a list of integers. Those that an int64 cannot hold stand there reduced,
// and by their place in large.
func (c *coercion) ints(loc []any, raw []byte) (out []int64, large map[int]*big.Int) {
	if raw[0] != '[' {
		c.fault(fault{Type: "list_type", Loc: loc, Msg: "Input should be a valid list", Input: raw})
		return nil, nil
	}
	if out, end, usual := scanInts(raw, 0, make([]int64, 0, len(raw)/8)); usual && end == len(raw) {
		return out, nil
	}
	out = make([]int64, 0, len(raw)/8)
	eachElement(raw, func(i int, item []byte) bool {
		v, n, bad := integer(item)
		if bad != nil {
			bad.Loc = append(loc[:len(loc):len(loc)], i)
			bad.Input = item
			c.fault(*bad)
			return len(c.faults) < maxFaults
		}
		out = append(out, v)
		if n != nil {
			if large == nil {
				large = make(map[int]*big.Int)
			}
			large[i] = n
		}
		return true
	})
	return out, large
}

// integer coerces one value as pydantic does. One that an int64 cannot hold comes
// reduced, and whole as large. bad has neither place nor input yet.
func integer(raw []byte) (v int64, large *big.Int, bad *fault) {
	switch raw[0] {
	case 't':
		return 1, nil, nil
	case 'f':
		return 0, nil, nil
	case '"':
		v, large, ok := intOfText(text(raw))
		if !ok {
			return 0, nil, &fault{Type: "int_parsing", Msg: intParsing}
		}
		return v, large, nil
	case 'n', '[', '{':
		return 0, nil, &fault{Type: "int_type", Msg: "Input should be a valid integer"}
	}
	if v, ok := plainInt(raw); ok {
		return v, nil, nil
	}
	if isInteger(raw) {
		v, large = bigInt(string(raw))
		return v, large, nil
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	switch {
	case err != nil || f != math.Trunc(f):
		return 0, nil, &fault{Type: "int_from_float", Msg: "Input should be a valid integer, got a number with a fractional part"}
	case f > -(1<<63) && f < 1<<63:
		return int64(f), nil, nil
	}
	return 0, nil, &fault{Type: "int_parsing_size", Msg: "Unable to parse input string as an integer, exceeded maximum size"}
}

const intParsing = "Input should be a valid integer, unable to parse string as an integer"

// plainInt reads up to 18 digits with an optional minus: what nearly every token is.
func plainInt(raw []byte) (v int64, ok bool) {
	digits := raw
	if raw[0] == '-' {
		digits = raw[1:]
	}
	if len(digits) == 0 || len(digits) > 18 {
		return 0, false
	}
	for _, c := range digits {
		if !isDigit(c) {
			return 0, false
		}
		v = v*10 + int64(c-'0')
	}
	if raw[0] == '-' {
		v = -v
	}
	return v, true
}

func isInteger(raw []byte) bool {
	for i, c := range raw {
		if !isDigit(c) && !(i == 0 && c == '-') {
			return false
		}
	}
	return true
}

// bigInt reads an integer of any length that check lets pass. One that an int64 cannot
// hold comes reduced, and whole as large.
func bigInt(digits string) (v int64, large *big.Int) {
	if v, err := strconv.ParseInt(digits, 10, 64); err == nil {
		return v, nil
	}
	n, _ := new(big.Int).SetString(digits, 10)
	return reduce(n), n
}

// reduce gives an integer that Python hashes like n: |n| modulo 2^61-1, with n's sign.
func reduce(n *big.Int) int64 {
	return new(big.Int).Rem(n, big.NewInt(1<<61-1)).Int64()
}

// intOfText reads an integer the way pydantic reads a text: white space around it,
// a sign, underscores between digits, a fraction of zeros.
func intOfText(s string) (v int64, large *big.Int, ok bool) {
	s = strings.TrimSpace(s)
	if len(s) > maxDigits {
		return 0, nil, false
	}
	if whole, zeros, dot := strings.Cut(s, "."); dot && strings.Trim(zeros, "0") == "" {
		s = whole
	}
	if strings.Contains(s, "_") {
		bare := strings.TrimLeft(s, "+-")
		if strings.HasPrefix(bare, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") {
			return 0, nil, false
		}
		s = strings.ReplaceAll(s, "_", "")
	}
	s, plus := strings.CutPrefix(s, "+")
	digits, minus := strings.CutPrefix(s, "-")
	if plus && minus || digits == "" {
		return 0, nil, false
	}
	for _, c := range []byte(digits) {
		if !isDigit(c) {
			return 0, nil, false
		}
	}
	v, large = bigInt(s)
	return v, large, true
}
