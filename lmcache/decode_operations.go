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
	for i := range n {
		if op, size := fastOperation(r.buf[r.pos:]); size > 0 {
			r.pos += size
			out = append(out, op)
			continue
		}
		var op KVOp
		readFields(r, r.mapHeader(), &op, operationFields, "")
		if r.err != nil {
			r.err.within(index(i))
			return nil
		}
		out = append(out, op)
	}
	return out
}

// fastOperation reads an operation in the usual form. size 0 means that it is in
// another one, not that it is wrong.
func fastOperation(b []byte) (op KVOp, size int) {
	if len(b) < opWindow {
		return op, 0
	}
	b = b[:opWindow]
	switch string(b[:len(opAdmit)]) {
	case opAdmit:
		op.Kind = Admit
	case opEvict:
		op.Kind = Evict
	default:
		return op, 0
	}
	at := len(opAdmit)
	bits, size := fastInt(b[at : at+9])
	if size == 0 {
		return op, 0
	}
	op.Key = Key(bits)
	at += size
	if string(b[at:at+len(opSeq)]) != opSeq {
		return op, 0
	}
	at += len(opSeq)
	c := b[at]
	bits, size = fastInt(b[at : at+9])
	if size == 0 || c == mpUint64 && int64(bits) < 0 {
		return op, 0
	}
	op.Seq = int64(bits)
	return op, at + size
}

// fastInt reads an int of any width from b, which has the 9 bytes the widest takes.
// size is 0 for other types.
func fastInt(b []byte) (bits uint64, size int) {
	_ = b[8]
	switch c := b[0]; {
	case c < 0x80:
		return uint64(c), 1
	case c == mpUint64 || c == mpInt64:
		return binary.BigEndian.Uint64(b[1:]), 9
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
	num("seq_num", func(op *KVOp) *int64 { return &op.Seq }),
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
