package fsm

import (
	"encoding/binary"

	"github.com/kvctrl/kvctrl/registry"
)

// batchHead is what stands before a worker batch's records.
type batchHead struct {
	session registry.SessionID
	number  uint64
	at      registry.Micros
	records int
}

// record is one record of a worker batch; kind says which field is meant.
type record struct {
	kind       byte
	ops        registry.Ops
	register   registry.Registration
	deregister Deregistration
	syncStart  registry.SyncStart
	syncBatch  registry.SyncBatch
	syncEnd    registry.SyncEnd
}

// decoder holds the memory that decoding needs again and again: the dictionary,
// the keys of one record, one record. What next gives is good until the next
// call.
type decoder struct {
	tables tables
	keys   []registry.Key
	rec    record
	lastAt registry.Micros
}

// openBatch reads up to the first record.
func (d *decoder) openBatch(c *cursor) batchHead {
	var h batchHead
	copy(h.session[:], c.bytes(sessionSize))
	h.number = c.uint()
	h.at = registry.Micros(c.int())
	d.tables.read(c, true)
	h.records = c.count("records", 3)
	d.lastAt = 0
	return h
}

// checkBatch reads all records and keeps nothing: after it, reading them again
// cannot fail. It does not touch the keys, so it costs a few nanoseconds a record.
func (d *decoder) checkBatch(c cursor) *refusal {
	h := d.openBatch(&c)
	for range h.records {
		if c.err != nil {
			break
		}
		d.next(&c, false)
	}
	c.end()
	return c.refusal()
}

// next reads one record; without keys it skips over them.
func (d *decoder) next(c *cursor, keys bool) *record {
	tagAt := c.off
	tag := c.byte()
	kind, flags := tag&0x0f, tag&0xf0
	if c.err == nil && (kind == 0 || int(kind) >= len(recordFlags) || flags&^recordFlags[kind] != 0) {
		c.off = tagAt
		c.failNewer("record tag 0x%02x is not known", tag)
	}
	if c.err != nil {
		return &d.rec
	}
	r := &d.rec
	r.kind = kind
	switch kind {
	case recOps:
		o := &r.ops
		o.Stream = d.tables.stream(c)
		o.At = d.at(c)
		o.Numbered, o.Continues = flags&flagNumbered != 0, flags&flagContinues != 0
		o.First = 0
		if o.Numbered {
			o.First = c.int()
		}
		n := d.readKeys(c, keys)
		o.Keys, o.Evict = d.keys, nil
		if flags&flagEvicts != 0 {
			o.Evict = readBitmap(c, n)
		}
	case recRegister:
		g := &r.register
		g.WorkerRef = d.tables.worker(c)
		g.At = d.at(c)
		g.IP = c.name("ip")
		g.Port = c.int()
		g.ByHeartbeat = flags&flagHeartbeat != 0
		g.PeerInitURL = nil
		if flags&flagPeerURL != 0 {
			url := c.name("peer url")
			g.PeerInitURL = &url
		}
	case recDeregister:
		r.deregister.WorkerRef = d.tables.worker(c)
		r.deregister.At = d.at(c)
	case recSyncStart:
		s := &r.syncStart
		s.Stream, s.At, s.SyncID = d.sync(c)
		s.TotalKeys, s.BatchCount = c.int(), c.int()
	case recSyncBatch:
		s := &r.syncBatch
		s.Stream, s.At, s.SyncID = d.sync(c)
		s.BatchID = c.int()
		d.readKeys(c, keys)
		s.Keys = d.keys
	case recSyncEnd:
		s := &r.syncEnd
		s.Stream, s.At, s.SyncID = d.sync(c)
		s.TotalKeys = c.int()
	}
	return r
}

// recordFlags is, by kind, which flags a record may carry.
var recordFlags = [...]byte{
	recOps:        flagNumbered | flagContinues | flagEvicts,
	recRegister:   flagHeartbeat | flagPeerURL,
	recDeregister: 0,
	recSyncStart:  0,
	recSyncBatch:  0,
	recSyncEnd:    0,
}

func (d *decoder) sync(c *cursor) (registry.StreamRef, registry.Micros, string) {
	return d.tables.stream(c), d.at(c), c.name("sync id")
}

func (d *decoder) at(c *cursor) registry.Micros {
	d.lastAt += registry.Micros(c.int())
	return d.lastAt
}

// readKeys puts the keys into d.keys, or only skips them, and gives their number.
func (d *decoder) readKeys(c *cursor, want bool) int {
	n := c.count("keys", keyWidth)
	raw := c.bytes(n * keyWidth)
	d.keys = d.keys[:0]
	if c.err != nil {
		return 0
	}
	if !want {
		return n
	}
	if cap(d.keys) < n {
		d.keys = make([]registry.Key, n)
	}
	d.keys = d.keys[:n]
	for i := range d.keys {
		d.keys[i] = registry.Key(binary.LittleEndian.Uint64(raw[keyWidth*i : keyWidth*i+keyWidth]))
	}
	return n
}

// readBitmap gives the bitmap where it lies; bits beyond n must be zero, and one
// below it must not, for then the flag would not stand.
func readBitmap(c *cursor, n int) registry.Bitmap {
	b := registry.Bitmap(c.bytes((n + 7) / 8))
	switch {
	case c.err != nil:
		return nil
	case n%8 != 0 && b[len(b)-1]>>(n%8) != 0:
		c.fail("evict bitmap has bits beyond operation %d", n)
	case !evicts(b, n):
		c.fail("evict bitmap is empty")
	}
	return b
}
