package lmcache

// Gen is a generation of the wire format. Bytes of one message differ between
// generations; Decode needs no Gen.
type Gen uint8

const (
	// GenCurrent is 0.3.10 to 0.5.6.
	GenCurrent Gen = iota
	// Gen0309 is 0.3.4 to 0.3.9.post2: distributed_url instead of peer_init_url, no
	// seq_num in KVAdmitMsg and KVEvictMsg.
	Gen0309
	// Gen0303 is 0.3.3: in addition alive instead of error codes, and a HealthMsg
	// without event_id.
	Gen0303
)

// Options are how a message is written. The zero value is what we send.
type Options struct {
	// Gen is the generation whose fields are written.
	Gen Gen
	// SignedKeys writes keys as int64, as workers with the builtin hash do; otherwise
	// they are written as uint64, as workers with a digest do. A Key does not know.
	SignedKeys bool
}

// Append appends m as MessagePack, byte for byte as msgspec writes it in LMCache
// 0.5.6: shortest forms, fields in the order of declaration, defaults included.
// Concurrency: m may be shared by any number of calls. It panics if m is nil or is
// no message of this package.
func Append(dst []byte, m Message) []byte { return AppendWith(dst, m, Options{}) }

// AppendWith is Append for a sender of another generation, or with other keys.
func AppendWith(dst []byte, m Message, o Options) []byte {
	mt, ok := typeByName[m.Type()]
	if !ok {
		panic("bug: append of unknown message type " + m.Type())
	}
	return mt.append(dst, m, o)
}

// appendFields appends a map: the tag, if there is one, then the fields.
func appendFields[T any](dst []byte, tag string, m *T, fields []field[T], o Options) []byte {
	n := len(fields)
	for i := range fields {
		if old := fields[i].old; old != nil && o.Gen >= old.last && old.name == "" {
			n--
		}
	}
	if tag == "" {
		dst = appendMapHeader(dst, n)
	} else {
		dst = appendMapHeader(dst, n+1)
		dst = appendStr(appendStr(dst, "type"), tag)
	}
	for i := range fields {
		f := &fields[i]
		switch {
		case f.old == nil || o.Gen < f.old.last:
			dst = f.put(appendStr(dst, f.name), m, o)
		case f.old.name != "":
			dst = f.old.put(appendStr(dst, f.old.name), m, o)
		}
	}
	return dst
}
