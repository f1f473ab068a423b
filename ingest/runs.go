package ingest

import (
	"math"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// maxRun bounds the operations of one record, to 36 KiB: a message has no upper limit
// of operations, an entry has.
const maxRun = 4096

const (
	// maxSyncRun bounds the keys of one record of a full sync, to 128 KiB. LMCache's
	// workers send 2000.
	maxSyncRun = 1 << 14
	// notAnnounced is a batch number that no sync waits for.
	notAnnounced = -1
)

// runs cuts the operations of a message into records. Its memory is used again: one
// goroutine, and what emit gets is good only until it returns.
type runs struct {
	keys  []registry.Key
	evict registry.Bitmap
}

// cut emits the operations in order, as runs of consecutive sequence numbers; a break,
// or the size, begins a new run, which says that it continues the same message. It
// stops at the first error.
func (c *runs) cut(stream registry.StreamRef, ops []lmcache.KVOp, at registry.Micros, emit func(registry.Ops) error) error {
	for from := 0; from < len(ops); {
		end := from + 1
		for end < len(ops) && end-from < maxRun &&
			ops[end-1].Seq != math.MaxInt64 && ops[end].Seq == ops[end-1].Seq+1 {
			end++
		}
		if err := emit(c.run(stream, ops[from:end], from > 0, at)); err != nil {
			return err
		}
		from = end
	}
	return nil
}

func (c *runs) run(stream registry.StreamRef, ops []lmcache.KVOp, continues bool, at registry.Micros) registry.Ops {
	c.keys = c.keys[:0]
	c.evict = append(c.evict[:0], make([]byte, (len(ops)+7)/8)...)
	for i, op := range ops {
		c.keys = append(c.keys, registry.Key(op.Key))
		if op.Kind == lmcache.Evict {
			c.evict[i>>3] |= 1 << (i & 7)
		}
	}
	return registry.Ops{
		Stream: stream, Keys: c.keys, Evict: c.evict, First: ops[0].Seq, Numbered: true, Continues: continues, At: at,
	}
}

// toKeys appends keys in the registry's type.
func toKeys(dst []registry.Key, keys []lmcache.Key) []registry.Key {
	for _, k := range keys {
		dst = append(dst, registry.Key(k))
	}
	return dst
}
