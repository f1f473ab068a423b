package httpapi

// scanTokens reads the body that nearly every lookup has, {"tokens":[ints]}, in one
// pass and into the caller's slice. It takes nothing that the general way (bodyLookup)
// would read otherwise; on anything unusual it says no, and the general way decides.
//
// Cost: about a nanosecond a byte, no allocation once the slice has grown.
func scanTokens(body []byte, into []int64) (tokens []int64, ok bool) {
	i := blanks(body, 0)
	if i, ok = expect(body, i, "{"); !ok {
		return into, false
	}
	if i, ok = expect(body, i, `"tokens"`); !ok {
		return into, false
	}
	if i, ok = expect(body, i, ":"); !ok {
		return into, false
	}
	if i, ok = expect(body, i, "["); !ok {
		return into, false
	}
	tokens = into[:0]
	if i < len(body) && body[i] != ']' {
		for {
			start, negative := i, false
			if i < len(body) && body[i] == '-' {
				negative = true
				start++
				i++
			}
			var v int64
			for i < len(body) && body[i]-'0' <= 9 {
				v = v*10 + int64(body[i]-'0')
				i++
			}
			// One to eighteen digits cannot overflow; a leading zero is no JSON.
			if n := i - start; n < 1 || n > 18 || n > 1 && body[start] == '0' || i >= len(body) {
				return into, false
			}
			if negative {
				v = -v
			}
			tokens = append(tokens, v)
			if body[i] == ',' {
				i++
				if i < len(body) && body[i] <= ' ' {
					i = blanks(body, i)
				}
				continue
			}
			i = blanks(body, i)
			if i >= len(body) {
				return into, false
			}
			if body[i] == ']' {
				break
			}
			if body[i] != ',' {
				return into, false // a float, or no JSON
			}
			i = blanks(body, i+1)
		}
	}
	if i, ok = expect(body, i, "]"); !ok {
		return into, false
	}
	if i, ok = expect(body, i, "}"); !ok {
		return into, false
	}
	return tokens, i == len(body)
}

// expect passes over word and the white space after it.
func expect(b []byte, i int, word string) (int, bool) {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return i, false
	}
	return blanks(b, i+len(word)), true
}

func blanks(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}
