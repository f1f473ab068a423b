package lmcache

import "strconv"

// field is one field of a map on the wire: how it is read into and written from a
// T. The fields of a message stand in the order in which LMCache declares and
// writes them; decoder and encoder both work from that one list.
type field[T any] struct {
	name string
	// optional: may be missing when decoding.
	optional bool
	// missing sets a default that is not the zero value; nil if there is none.
	missing func(m *T)
	get     func(r *reader, m *T)
	put     func(dst []byte, m *T, o Options) []byte
	// old is the form this field has in earlier releases, nil if it is the same.
	old *oldField[T]
}

// oldField is what earlier releases have in a field's place: another name, and
// perhaps another type, or, with an empty name, nothing.
type oldField[T any] struct {
	last Gen // the newest generation that has this form
	name string
	get  func(r *reader, m *T)
	put  func(dst []byte, m *T, o Options) []byte
}

// withDefault makes a field one that may be missing.
func withDefault[T any](f field[T]) field[T] {
	f.optional = true
	return f
}

// newerThan makes a field one that generations up to last do not have at all.
func newerThan[T any](last Gen, f field[T]) field[T] {
	f.optional = true
	f.old = &oldField[T]{last: last}
	return f
}

// renamed says that up to generation last was had the place of f.
func renamed[T any](last Gen, was, f field[T]) field[T] {
	f.old = &oldField[T]{last: last, name: was.name, get: was.get, put: was.put}
	return f
}

func str[T any](name string, p func(*T) *string) field[T] {
	return field[T]{
		name: name,
		get:  func(r *reader, m *T) { *p(m) = r.str() },
		put:  func(dst []byte, m *T, _ Options) []byte { return appendStr(dst, *p(m)) },
	}
}

func num[T any](name string, p func(*T) *int64) field[T] {
	return field[T]{
		name: name,
		get:  func(r *reader, m *T) { *p(m) = r.int64() },
		put:  func(dst []byte, m *T, _ Options) []byte { return appendInt(dst, *p(m)) },
	}
}

// seqNum is num for a sequence number.
func seqNum[T any](p func(*T) *int64) field[T] {
	f := num("seq_num", p)
	f.get = func(r *reader, m *T) { *p(m) = r.seqNum() }
	return f
}

func boolean[T any](name string, p func(*T) *bool) field[T] {
	return field[T]{
		name: name,
		get:  func(r *reader, m *T) { *p(m) = r.bool() },
		put:  func(dst []byte, m *T, _ Options) []byte { return appendBool(dst, *p(m)) },
	}
}

func float[T any](name string, p func(*T) *float64) field[T] {
	return field[T]{
		name: name,
		get:  func(r *reader, m *T) { *p(m) = r.float64() },
		put:  func(dst []byte, m *T, _ Options) []byte { return appendFloat(dst, *p(m)) },
	}
}

// nilable is a field that may be nil on the wire, and is a nil pointer then.
func nilable[T, V any](name string, p func(*T) **V, get func(*reader) V, put func([]byte, V) []byte) field[T] {
	return field[T]{
		name: name,
		get: func(r *reader, m *T) {
			if r.isNil() {
				*p(m) = nil
				return
			}
			v := get(r)
			*p(m) = &v
		},
		put: func(dst []byte, m *T, _ Options) []byte {
			v := *p(m)
			if v == nil {
				return appendNil(dst)
			}
			return put(dst, *v)
		},
	}
}

func nilableStr[T any](name string, p func(*T) **string) field[T] {
	return nilable(name, p, (*reader).str, appendStr)
}

func nilableBool[T any](name string, p func(*T) **bool) field[T] {
	return nilable(name, p, (*reader).bool, appendBool)
}

// defaultBool is a nilable bool that has a default when it is missing (not when it
// is nil).
func defaultBool[T any](def bool, name string, p func(*T) **bool) field[T] {
	f := withDefault(nilableBool(name, p))
	f.missing = func(m *T) { v := def; *p(m) = &v }
	return f
}

func nilableNums[T any](name string, p func(*T) **[]int64) field[T] {
	return nilable(name, p, (*reader).int64s, appendInts)
}

func tokens[T any](name string, p func(*T) *[]Token) field[T] {
	return field[T]{
		name: name,
		get:  func(r *reader, m *T) { *p(m) = r.tokens() },
		put:  func(dst []byte, m *T, _ Options) []byte { return appendTokens(dst, *p(m)) },
	}
}

func nilableTokens[T any](name string, p func(*T) **[]Token) field[T] {
	return nilable(name, p, (*reader).tokens, appendTokens)
}

func nums[T any](name string, p func(*T) *[]int64) field[T] {
	return field[T]{
		name: name,
		get:  func(r *reader, m *T) { *p(m) = r.int64s() },
		put:  func(dst []byte, m *T, _ Options) []byte { return appendInts(dst, *p(m)) },
	}
}

func key[T any](name string, p func(*T) *Key) field[T] {
	return field[T]{
		name: name,
		get:  func(r *reader, m *T) { *p(m) = r.key() },
		put:  func(dst []byte, m *T, o Options) []byte { return appendKey(dst, *p(m), o) },
	}
}

func keys[T any](name string, p func(*T) *[]Key) field[T] {
	return field[T]{
		name: name,
		get:  func(r *reader, m *T) { *p(m) = r.keys() },
		put: func(dst []byte, m *T, o Options) []byte {
			dst = appendArrayHeader(dst, len(*p(m)))
			for _, k := range *p(m) {
				dst = appendKey(dst, k, o)
			}
			return dst
		},
	}
}

// pair is a tuple of two strings.
func pair[T any](name string, p func(*T) *[2]string) field[T] {
	return field[T]{
		name: name,
		get: func(r *reader, m *T) {
			if r.tuple(2) {
				*p(m) = [2]string{r.str(), r.str()}
			}
		},
		put: func(dst []byte, m *T, _ Options) []byte {
			dst = appendArrayHeader(dst, 2)
			return appendStr(appendStr(dst, p(m)[0]), p(m)[1])
		},
	}
}

// list is an array of E. size is the least number of bytes an E has on the wire.
func list[T, E any](name string, size int, p func(*T) *[]E,
	get func(*reader, *E), put func([]byte, *E, Options) []byte) field[T] {
	return field[T]{
		name: name,
		get:  func(r *reader, m *T) { *p(m) = readList(r, size, get) },
		put: func(dst []byte, m *T, o Options) []byte {
			dst = appendArrayHeader(dst, len(*p(m)))
			for i := range *p(m) {
				dst = put(dst, &(*p(m))[i], o)
			}
			return dst
		},
	}
}

// dict is a map that is kept as a list of E, in the order of the wire. id tells
// when two entries have the same key: the last one wins, in the place of the first.
func dict[T, E any, K comparable](name string, size int, p func(*T) *[]E, id func(*E) K,
	get func(*reader, *E), put func([]byte, *E, Options) []byte) field[T] {
	return field[T]{
		name: name,
		get:  func(r *reader, m *T) { *p(m) = readDict(r, size, id, get) },
		put: func(dst []byte, m *T, o Options) []byte {
			dst = appendMapHeader(dst, len(*p(m)))
			for i := range *p(m) {
				dst = put(dst, &(*p(m))[i], o)
			}
			return dst
		},
	}
}

// structs is a list of untagged maps with the given fields.
func structs[T, E any](name string, size int, p func(*T) *[]E, fields []field[E]) field[T] {
	return list(name, size, p,
		func(r *reader, e *E) { readFields(r, r.mapHeader(), e, fields, "") },
		func(dst []byte, e *E, o Options) []byte { return appendFields(dst, "", e, fields, o) })
}

// tuple reads the start of an array of exactly n elements.
func (r *reader) tuple(n int) bool {
	if got := r.arrayHeader(); r.err == nil && got != n {
		r.fail(ReasonType, "want array of length %d, got length %d", n, got)
	}
	return r.err == nil
}

// room returns for how many of n declared elements to allocate: as many as can be
// there if each has at least size bytes.
func (r *reader) room(n, size int) int { return min(n, r.remaining()/size) }

// readList reads an array. Empty ones are nil.
func readList[E any](r *reader, size int, get func(*reader, *E)) []E {
	n := r.arrayHeader()
	if n == 0 {
		return nil
	}
	out := make([]E, 0, r.room(n, size))
	for i := range n {
		var zero E
		out = append(out, zero)
		if get(r, &out[i]); r.err != nil {
			r.err.within(index(i))
			return nil
		}
	}
	return out
}

// readDict reads a map. Empty ones are nil.
func readDict[E any, K comparable](r *reader, size int, id func(*E) K, get func(*reader, *E)) []E {
	n := r.mapHeader()
	if n == 0 {
		return nil
	}
	out := make([]E, 0, r.room(n, size))
	var places map[K]int // made for the second entry: one is the usual number
	for i := range n {
		var zero E
		out = append(out, zero)
		last := &out[len(out)-1]
		if get(r, last); r.err != nil {
			r.err.within(index(i))
			return nil
		}
		if n == 1 {
			break
		}
		if places == nil {
			places = make(map[K]int)
		}
		if at, dup := places[id(last)]; dup {
			out[at] = *last
			out = out[:len(out)-1]
		} else {
			places[id(last)] = len(out) - 1
		}
	}
	return out
}

func index(i int) string { return "[" + strconv.Itoa(i) + "]" }

// int64s reads an array of ints. Empty ones are nil.
func (r *reader) int64s() []int64 {
	n := r.arrayHeader()
	if n == 0 {
		return nil
	}
	out := make([]int64, n)
	for i := range out {
		if out[i] = r.int64(); r.err != nil {
			r.err.within(index(i))
			return nil
		}
	}
	return out
}

func appendInts(dst []byte, v []int64) []byte {
	dst = appendArrayHeader(dst, len(v))
	for _, n := range v {
		dst = appendInt(dst, n)
	}
	return dst
}
