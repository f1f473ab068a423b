package lmcache

// Key is the 64-bit pattern of a chunk hash, whatever form it had on the wire
// (int64, uint64, or the first eight bytes of a bin, big-endian).
type Key uint64

// Message is one protocol message. Its wire tag is the name of its Go type.
type Message interface {
	// Type returns the value of the message's "type" field.
	Type() string
}

// WorkerID is a worker's rank within its instance.
type WorkerID = int64

// OpKind tells an admit from an evict.
type OpKind uint8

const (
	Admit OpKind = iota
	Evict
)

// String returns the operation's name on the wire.
func (k OpKind) String() string {
	if k == Admit {
		return "admit"
	}
	return "evict"
}

// KVOp is one operation of a BatchedKVOperationMsg.
type KVOp struct {
	Kind OpKind
	Key  Key
	Seq  int64
}
