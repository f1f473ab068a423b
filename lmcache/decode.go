package lmcache

import "unicode/utf8"

// MaxDepth is how many arrays and maps may be inside each other, in a value that is
// skipped or, in JSON, in the whole message. No message of the protocol has more
// than 4; Python's limit is its recursion limit, about 1000.
const MaxDepth = 128

// Decode reads one message, as it comes from any release 0.3.3 to 0.5.6: JSON when
// the first byte is '{', MessagePack otherwise. The result is a pointer to one of
// the message types of this package.
//
// Ownership: the message does not refer to frame.
// Errors: always a *DecodeError. Decode does not panic, whatever the frame holds.
// Cost: linear in len(frame) in time and memory (at most 64 bytes allocated for one
// of the frame); lengths declared in the frame are not trusted. A BatchedKVOperationMsg allocates per message, not per key.
// Concurrency: may be called from any number of goroutines.
func Decode(frame []byte) (Message, error) {
	if len(frame) == 0 {
		return nil, &DecodeError{Reason: ReasonEmpty, Detail: "frame of no bytes"}
	}
	if frame[0] == '{' {
		packed, err := packJSON(frame)
		if err != nil {
			return nil, err
		}
		frame = packed
	}
	r := reader{buf: frame}
	m, err := r.message()
	if err != nil {
		return nil, err
	}
	return m, nil
}

// message reads the one message of the frame. It returns the concrete error type:
// the caller must not let a nil one become an error.
func (r *reader) message() (Message, *DecodeError) {
	n := r.mapHeader()
	if r.err != nil {
		return nil, r.err
	}
	name := r.findTag(n)
	if r.err != nil {
		return nil, r.err
	}
	mt, ok := typeByName[string(name)]
	switch {
	case !ok && !utf8.Valid(name):
		r.fail(ReasonUTF8, "type %s is no UTF-8", quoted(name))
	case !ok:
		r.fail(ReasonUnknownType, "unknown message type %s", quoted(name))
	}
	if r.err != nil {
		return nil, r.err
	}
	m := mt.decode(r, n)
	if r.err == nil && r.remaining() > 0 {
		r.fail(ReasonTrailing, "%d bytes after the message", r.remaining())
	}
	if r.err != nil {
		r.err.Message = mt.name
		return nil, r.err
	}
	if k, ok := m.(keyed); ok {
		k.setKeySigns(r.signs)
	}
	return m, nil
}

// findTag returns the first value of "type" among the n fields that follow, and
// moves back to their start. Every sender known writes it first.
func (r *reader) findTag(n int) []byte {
	start := r.pos
	defer func() { r.pos = start }()
	for ; n > 0; n-- {
		name := r.fieldName()
		if r.err != nil {
			return nil
		}
		if string(name) == "type" {
			tag := r.strBytes()
			if r.err != nil {
				r.err.within("type")
			}
			return tag
		}
		if r.skip(); r.err != nil {
			return nil
		}
	}
	r.fail(ReasonMissingField, "field type is missing")
	return nil
}
