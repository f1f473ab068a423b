package lmcache

import "encoding/binary"

// An operation as every release writes it: a map of three fields in this order.
const (
	opAdmit  = "\x83\xa7op_type\xa5admit\xa3key"
	opEvict  = "\x83\xa7op_type\xa5evict\xa3key"
	opSeq    = "\xa7seq_num"
	opSize   = len(opAdmit) + 1 + len(opSeq) + 1 // the shortest such operation
	opWindow = opSize + 8 + 8                    // the longest: both numbers of 9 bytes
)

// operations reads the operations of a batch, allocating once. The usual form is
// read by comparing whole heads; every other form, and the last operations of a
// frame, where the window would reach beyond its end, goes the general way.
func (r *reader) operations() []KVOp {
	n := r.arrayHeader()
	if n == 0 {
		return nil
	}
	out := make([]KVOp, 0, r.room(n, opSize))
	var op KVOp
	for i := range n {
		if size := fastOperation(r.buf[r.pos:], &op); size > 0 {
			if int64(op.Key) < 0 {
				r.signs |= signsOf(uint64(op.Key), r.buf[r.pos+len(opAdmit)] != mpUint64)
			}
			r.pos += size
			out = append(out, op)
			continue
		}
		op = KVOp{}
		readFields(r, r.mapHeader(), &op, operationFields, "")
		if r.err != nil {
			r.err.within(index(i))
			return nil
		}
		out = append(out, op)
	}
	return out
}

// The heads as little-endian words: comparing words takes half the time of comparing
// strings, and this is the code through which every key passes.
const (
	opWord0      = 0x83 | 0xa7<<8 | 'o'<<16 | 'p'<<24 | '_'<<32 | 't'<<40 | 'y'<<48 | 'p'<<56
	opWord1Admit = 'e' | 0xa5<<8 | 'a'<<16 | 'd'<<24 | 'm'<<32 | 'i'<<40 | 't'<<48 | 0xa3<<56
	opWord1Evict = 'e' | 0xa5<<8 | 'e'<<16 | 'v'<<24 | 'i'<<32 | 'c'<<40 | 't'<<48 | 0xa3<<56
	opWord2      = 'k' | 'e'<<8 | 'y'<<16 // and 8 bits of the key
	opWordSeq    = 0xa7 | 's'<<8 | 'e'<<16 | 'q'<<24 | '_'<<32 | 'n'<<40 | 'u'<<48 | 'm'<<56
)

// fastOperation reads an operation in the usual form and returns its size. 0 means
// that it is in another one, not that it is wrong.
func fastOperation(b []byte, op *KVOp) int {
	if len(b) < opWindow {
		return 0
	}
	if binary.LittleEndian.Uint64(b) != opWord0 || binary.LittleEndian.Uint32(b[16:])&0xffffff != opWord2 {
		return 0
	}
	kind := Admit
	switch binary.LittleEndian.Uint64(b[8:]) {
	case opWord1Admit:
	case opWord1Evict:
		kind = Evict
	default:
		return 0
	}
	at := len(opAdmit)
	key, size := fastInt(b[at:])
	if size == 0 {
		return 0
	}
	at += size
	if binary.LittleEndian.Uint64(b[at:]) != opWordSeq {
		return 0
	}
	at += len(opSeq)
	seq, size := fastInt(b[at:])
	if size == 0 || int64(seq) < 0 && b[at] == mpUint64 {
		return 0
	}
	*op = KVOp{Kind: kind, Key: Key(key), Seq: int64(seq)}
	return at + size
}

// fastInt reads an int of any width from b, which has the 9 bytes the widest takes.
// size is 0 for other types.
func fastInt(b []byte) (bits uint64, size int) {
	switch c := b[0]; {
	case c == mpUint64 || c == mpInt64:
		return binary.BigEndian.Uint64(b[1:9]), 9
	case c < 0x80:
		return uint64(c), 1
	case c == mpUint32:
		return uint64(binary.BigEndian.Uint32(b[1:])), 5
	case c == mpUint16:
		return uint64(binary.BigEndian.Uint16(b[1:])), 3
	case c == mpUint8:
		return uint64(b[1]), 2
	case c >= 0xe0:
		return uint64(int64(int8(c))), 1
	case c == mpInt32:
		return uint64(int64(int32(binary.BigEndian.Uint32(b[1:])))), 5
	case c == mpInt16:
		return uint64(int64(int16(binary.BigEndian.Uint16(b[1:])))), 3
	case c == mpInt8:
		return uint64(int64(int8(b[1]))), 2
	}
	return 0, 0
}

// operationFields is an operation in full generality. The struct is untagged.
var operationFields = []field[KVOp]{
	{
		name: "op_type",
		get:  func(r *reader, op *KVOp) { op.Kind = r.opKind() },
		put:  func(dst []byte, op *KVOp, _ Options) []byte { return appendStr(dst, op.Kind.String()) },
	},
	key("key", func(op *KVOp) *Key { return &op.Key }),
	seqNum(func(op *KVOp) *int64 { return &op.Seq }),
}

func (r *reader) opKind() OpKind {
	b := r.strBytes()
	switch string(b) {
	case "admit":
		return Admit
	case "evict":
		return Evict
	}
	r.fail(ReasonRange, "want admit or evict, got %s", quoted(b))
	return 0
}

func appendOperations(dst []byte, ops []KVOp, o Options) []byte {
	dst = appendArrayHeader(dst, len(ops))
	for i := range ops {
		dst = append(dst, opHead(ops[i].Kind)...)
		dst = appendKey(dst, ops[i].Key, o)
		dst = append(dst, opSeq...)
		dst = appendInt(dst, ops[i].Seq)
	}
	return dst
}

func opHead(k OpKind) string {
	if k == Admit {
		return opAdmit
	}
	return opEvict
}
