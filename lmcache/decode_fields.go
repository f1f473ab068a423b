package lmcache

// readFields reads n fields of a map into m. tag is the value that a field "type"
// must have, "" for nested maps, where a field of that name is an unknown one.
// Fields may come in any order; unknown ones are skipped; of two with one name the
// last counts. A field's present name has precedence over its older one.
func readFields[T any](r *reader, n int, m *T, fields []field[T], tag string) {
	var seen, seenOld uint32
	next := 0 // where the field is if the sender keeps the order
	for ; n > 0 && r.err == nil; n-- {
		name := r.fieldName()
		if r.err != nil {
			return
		}
		if tag != "" && string(name) == "type" {
			r.sameTag(tag)
			continue
		}
		i, old := findField(fields, next, name)
		switch {
		case i < 0, old && seen&(1<<i) != 0:
			r.skip()
			continue
		case old:
			seenOld |= 1 << i
			fields[i].old.get(r, m)
		default:
			seen |= 1 << i
			fields[i].get(r, m)
		}
		if r.err != nil {
			r.err.within(string(name))
			return
		}
		next = i + 1
	}
	if r.err != nil {
		return
	}
	for i := range fields {
		if (seen|seenOld)&(1<<i) != 0 {
			continue
		}
		if !fields[i].optional {
			r.fail(ReasonMissingField, "field %s is missing", fields[i].name)
			return
		}
		if fields[i].missing != nil {
			fields[i].missing(m)
		}
	}
}

// findField returns the place of the field with the given name, -1 if there is
// none, and whether it is the older name.
func findField[T any](fields []field[T], next int, name []byte) (i int, old bool) {
	if next < len(fields) && fields[next].name == string(name) {
		return next, false
	}
	for i := range fields {
		f := &fields[i]
		switch {
		case f.name == string(name):
			return i, false
		case f.old != nil && f.old.name != "" && f.old.name == string(name):
			return i, true
		}
	}
	return -1, false
}

// fieldName reads the key of a map that is a struct. It aliases the frame, and need
// not be UTF-8: an unknown name is nobody's business.
func (r *reader) fieldName() []byte {
	c, ok := r.lead()
	if !ok {
		return nil
	}
	n, ok := r.strLength(c)
	if !ok {
		r.mismatch("str as field name", c)
		return nil
	}
	return r.take(n)
}

// sameTag reads a message's type again. msgspec refuses a second one that differs.
func (r *reader) sameTag(tag string) {
	if b := r.strBytes(); r.err == nil && string(b) != tag {
		r.fail(ReasonType, "type given twice, also as %s", quoted(b))
	}
}
