package fsm

import (
	"encoding/binary"
	"slices"

	"github.com/kvctrl/kvctrl/registry"
)

// Records of a worker batch. A record opens with one byte: the kind in its low
// half, flags in its high half.
const (
	recOps        = 1
	recRegister   = 2
	recDeregister = 3
	recSyncStart  = 4
	recSyncBatch  = 5
	recSyncEnd    = 6

	flagNumbered  = 0x10 // ops: First follows
	flagContinues = 0x20 // ops
	flagEvicts    = 0x40 // ops: an evict bitmap follows the keys

	flagHeartbeat = 0x10 // register
	flagPeerURL   = 0x20 // register: a peer URL follows
)

const sessionSize = len(registry.SessionID{})

// maxUint is the longest varint; a record's fixed part is bounded by a few.
const maxUint = binary.MaxVarintLen64

// Batch builds one worker-batch entry: what workers said, in order. Instances,
// workers and streams are written once and referred to by number, so that an
// operation of a long run costs its key and one bit.
//
// Every method that appends a record returns its number, which is its place in
// BatchResult.Records. It returns -1, and appends nothing, when an identifier is
// longer than MaxName or when the entry would grow beyond MaxEntry: check names
// where messages come in, and flush well before the limit.
//
// Concurrency: one goroutine. Ownership: nothing that is passed in is kept.
type Batch struct {
	session registry.SessionID
	records int
	lastAt  registry.Micros
	body    []byte // the records
	dict    dictionary
	// last stream asked for: runs of one stream come one after the other
	lastStream   registry.StreamRef
	lastStreamID uint64
	haveLast     bool
}

// NewBatch gives an empty batch of this session.
func NewBatch(session registry.SessionID) *Batch {
	return &Batch{session: session}
}

// Reset empties the batch and keeps its memory.
func (b *Batch) Reset() {
	b.records, b.lastAt, b.haveLast = 0, 0, false
	b.body = b.body[:0]
	b.dict.reset()
}

// Records is the number of records so far.
func (b *Batch) Records() int { return b.records }

// Len is the size in bytes that Encode will not exceed.
func (b *Batch) Len() int {
	return headerSize + sessionSize + 3*maxUint + b.dict.len() + len(b.body) + trailerSize
}

// Ops appends a run of operations.
func (b *Batch) Ops(o registry.Ops) int {
	n := len(o.Keys)
	if !b.fits(streamSize(o.Stream)+4*maxUint+8*n+(n+7)/8, o.Stream.Instance, o.Stream.Location) {
		return -1
	}
	stream := b.stream(o.Stream)
	tag := len(b.body)
	b.body = append(b.body, recOps)
	b.body = appendUint(b.body, stream)
	b.at(o.At)
	if o.Numbered {
		b.body[tag] |= flagNumbered
		b.body = appendInt(b.body, o.First)
	}
	if o.Continues {
		b.body[tag] |= flagContinues
	}
	b.keys(o.Keys)
	if evicts(o.Evict, n) {
		b.body[tag] |= flagEvicts
		b.bitmap(o.Evict, n)
	}
	return b.added()
}

// Register appends a registration.
func (b *Batch) Register(r registry.Registration) int {
	url := ""
	if r.PeerInitURL != nil {
		url = *r.PeerInitURL
	}
	if !b.fits(workerSize(r.WorkerRef)+5*maxUint+len(r.IP)+len(url), r.Instance, r.IP, url) {
		return -1
	}
	worker := b.dict.worker(r.WorkerRef)
	tag := len(b.body)
	b.body = append(b.body, recRegister)
	b.body = appendUint(b.body, worker)
	b.at(r.At)
	b.body = appendString(b.body, r.IP)
	b.body = appendInt(b.body, r.Port)
	if r.ByHeartbeat {
		b.body[tag] |= flagHeartbeat
	}
	if r.PeerInitURL != nil {
		b.body[tag] |= flagPeerURL
		b.body = appendString(b.body, url)
	}
	return b.added()
}

// Deregister appends a worker's leave.
func (b *Batch) Deregister(w registry.WorkerRef, at registry.Micros) int {
	if !b.fits(workerSize(w)+2*maxUint, w.Instance) {
		return -1
	}
	worker := b.dict.worker(w)
	b.body = append(b.body, recDeregister)
	b.body = appendUint(b.body, worker)
	b.at(at)
	return b.added()
}

// SyncStart appends the beginning of a full sync.
func (b *Batch) SyncStart(s registry.SyncStart) int {
	if !b.sync(recSyncStart, s.Stream, s.SyncID, s.At, 2*maxUint) {
		return -1
	}
	b.body = appendInt(b.body, s.TotalKeys)
	b.body = appendInt(b.body, s.BatchCount)
	return b.added()
}

// SyncBatch appends one batch of a full sync.
func (b *Batch) SyncBatch(s registry.SyncBatch) int {
	if !b.sync(recSyncBatch, s.Stream, s.SyncID, s.At, 2*maxUint+8*len(s.Keys)) {
		return -1
	}
	b.body = appendInt(b.body, s.BatchID)
	b.keys(s.Keys)
	return b.added()
}

// SyncEnd appends the end of a full sync.
func (b *Batch) SyncEnd(s registry.SyncEnd) int {
	if !b.sync(recSyncEnd, s.Stream, s.SyncID, s.At, maxUint) {
		return -1
	}
	b.body = appendInt(b.body, s.TotalKeys)
	return b.added()
}

// Encode gives the entry. The slice is fresh: raft keeps it. Encoding the same
// batch twice with the same number gives the same bytes, which is how a retry
// applies once.
func (b *Batch) Encode(number uint64, at registry.Micros) []byte {
	out := make([]byte, 0, b.Len())
	out = appendHeader(out, TypeWorkerBatch)
	out = append(out, b.session[:]...)
	out = appendUint(out, number)
	out = appendInt(out, int64(at))
	out = b.dict.append(out, true)
	out = appendUint(out, uint64(b.records))
	out = append(out, b.body...)
	return seal(out)
}

// sync appends what the three sync records begin with.
func (b *Batch) sync(kind byte, s registry.StreamRef, id string, at registry.Micros, rest int) bool {
	if !b.fits(streamSize(s)+3*maxUint+len(id)+rest, s.Instance, s.Location, id) {
		return false
	}
	stream := b.stream(s)
	b.body = append(b.body, kind)
	b.body = appendUint(b.body, stream)
	b.at(at)
	b.body = appendString(b.body, id)
	return true
}

func (b *Batch) added() int {
	b.records++
	return b.records - 1
}

func (b *Batch) fits(size int, names ...string) bool {
	for _, n := range names {
		if len(n) > MaxName {
			return false
		}
	}
	return b.Len()+1+size <= MaxEntry
}

func (b *Batch) stream(s registry.StreamRef) uint64 {
	if !b.haveLast || b.lastStream != s {
		b.lastStream, b.lastStreamID, b.haveLast = s, b.dict.stream(s), true
	}
	return b.lastStreamID
}

// at writes a record's time as the step from the record before.
func (b *Batch) at(t registry.Micros) {
	b.body = appendInt(b.body, int64(t-b.lastAt))
	b.lastAt = t
}

func (b *Batch) keys(keys []registry.Key) {
	b.body = appendUint(b.body, uint64(len(keys)))
	at := len(b.body)
	b.body = slices.Grow(b.body, keyWidth*len(keys))[:at+keyWidth*len(keys)]
	out := b.body[at:]
	for i, k := range keys {
		binary.LittleEndian.PutUint64(out[keyWidth*i:keyWidth*i+keyWidth], uint64(k))
	}
}

// bitmap writes the first n bits; those behind them are zero.
func (b *Batch) bitmap(m registry.Bitmap, n int) {
	at := len(b.body)
	size := (n + 7) / 8
	b.body = slices.Grow(b.body, size)[:at+size]
	out := b.body[at:]
	clear(out[copy(out, m):])
	if n%8 != 0 {
		out[size-1] &= 1<<(n%8) - 1
	}
}

// evicts reports whether one of the first n bits is set.
func evicts(m registry.Bitmap, n int) bool {
	for i, v := range m[:min(len(m), (n+7)/8)] {
		if i == n/8 {
			v &= 1<<(n%8) - 1
		}
		if v != 0 {
			return true
		}
	}
	return false
}

// workerSize and streamSize bound what a reference can add to the dictionary.
func workerSize(w registry.WorkerRef) int { return len(w.Instance) + 3*maxUint }
func streamSize(s registry.StreamRef) int {
	return workerSize(s.WorkerRef) + len(s.Location) + 3*maxUint
}
