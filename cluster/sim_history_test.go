package cluster

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sort"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// history is what all replicas of a simulated cluster together have applied, and
// what its clients were told. It fails the test at the moment when two replicas
// differ.
type history struct {
	t        testing.TB
	failures atomic.Int64

	mu      sync.Mutex
	entries []historyEntry // by index - 1; raft's own entries leave a gap
	firsts  []firstApplied // in the order of both
	batches map[batchID]uint64
	acked   uint64 // the highest index of an entry that a client knows to be applied
	lastAck time.Time
	gap     time.Duration // the longest between two acknowledgements since watchGap
	leaders map[uint64]string
	counts  historyCounts
}

// historyCounts say what a run has seen, so that a test can tell that it has
// tested something.
type historyCounts struct {
	applied, duplicates, digests, terms             int
	restores, keptStates                            int
	acked, retried, events, finished                int
	reads, refusedReads, bounded, stale, staleKnown int
	staleness                                       time.Duration // the largest bound among those that were known
}

type historyEntry struct {
	data   []byte // nil: nobody has applied a command there
	term   uint64
	digest *registry.Digest
}

// firstApplied says when an index was first applied anywhere. It was committed then,
// and not long before.
type firstApplied struct {
	index uint64
	when  time.Time
}

// batchID is a worker batch as a client knows it.
type batchID struct {
	session registry.SessionID
	number  uint64
}

func newHistory(t testing.TB) *history {
	return &history{t: t, batches: map[batchID]uint64{}, leaders: map[uint64]string{}}
}

// failf fails the test, and says so a few times only: one divergence shows at every
// index after it.
func (h *history) failf(format string, args ...any) {
	h.t.Helper()
	if h.failures.Add(1) > 20 {
		h.t.Fail()
		return
	}
	h.t.Errorf("at %v: %s", time.Since(simStart).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

// simStart is when every bubble's clock begins.
var simStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// at gives the place of an index. It needs mu.
func (h *history) at(index uint64) *historyEntry {
	for uint64(len(h.entries)) < index {
		h.entries = append(h.entries, historyEntry{})
	}
	return &h.entries[index-1]
}

// applied notes that a replica has applied an entry and what came of it.
func (h *history) applied(node string, log *raft.Log, result any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.at(log.Index)
	if log.Index > h.last() {
		h.firsts = append(h.firsts, firstApplied{log.Index, time.Now()})
	}
	if log.Type != raft.LogCommand {
		return
	}
	if e.data == nil {
		e.data, e.term = log.Data, log.Term
		h.counts.applied++
	} else if !bytes.Equal(e.data, log.Data) || e.term != log.Term {
		h.failf("%s applies at index %d an entry of term %d, another replica one of term %d: the logs diverge", node, log.Index, log.Term, e.term)
	}
	id, ok := parseBatch(log.Data)
	if !ok {
		return
	}
	res, ok := result.(fsm.BatchResult)
	if !ok {
		h.failf("%s answers the batch at index %d with %v", node, log.Index, result)
		return
	}
	where, known := h.batches[id]
	switch {
	case res.Duplicate && (!known || where >= log.Index):
		h.failf("%s takes batch %d at index %d for a duplicate of one that nobody has applied", node, id.number, log.Index)
	case res.Duplicate:
		h.counts.duplicates++
	case known && where != log.Index:
		h.failf("%s applies batch %d at index %d, and it was applied at index %d", node, id.number, log.Index, where)
	default:
		h.batches[id] = log.Index
	}
}

// parseBatch reads session and number of a worker batch (docs/formats.md).
func parseBatch(entry []byte) (id batchID, ok bool) {
	const header = 4
	if len(entry) < header+len(id.session) || fsm.Type(entry[0]) != fsm.TypeWorkerBatch {
		return id, false
	}
	k := copy(id.session[:], entry[header:])
	id.number, k = binary.Uvarint(entry[header+k:])
	return id, k > 0
}

// digest notes the state's digest after an index.
func (h *history) digest(node string, index uint64, d registry.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.at(index); e.digest == nil {
		e.digest = &d
	} else if *e.digest != d {
		h.failf("%s has digest %s after index %d, another replica %s", node, d, index, e.digest)
	}
	h.counts.digests++
}

// digestAfter gives the digest that was noted after an index.
func (h *history) digestAfter(index uint64) registry.Digest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return *h.at(index).digest
}

// ack notes what a client was told. It must be what was applied there.
func (h *history) ack(node string, entry []byte, a Applied) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked = max(h.acked, a.Index)
	h.gap = max(h.gap, time.Since(h.lastAck))
	h.lastAck = time.Now()
	h.counts.acked++
	if e := h.at(a.Index); !bytes.Equal(e.data, entry) {
		h.failf("%s acknowledged an entry at index %d, where another one was applied", node, a.Index)
	}
}

// watchGap begins to measure the longest time without an acknowledgement, which the
// returned function tells.
func (h *history) watchGap() (longest func() time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gap, h.lastAck = 0, time.Now()
	return func() time.Duration {
		h.mu.Lock()
		defer h.mu.Unlock()
		return max(h.gap, time.Since(h.lastAck))
	}
}

// ackedIndex is what a linearizable read that begins now must see.
func (h *history) ackedIndex() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.acked
}

// last is the highest index applied anywhere. It needs mu.
func (h *history) last() uint64 {
	if len(h.firsts) == 0 {
		return 0
	}
	return h.firsts[len(h.firsts)-1].index
}

// appliedBefore is the highest index that some replica had applied before then.
func (h *history) appliedBefore(then time.Time) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := sort.Search(len(h.firsts), func(k int) bool { return !h.firsts[k].when.Before(then) })
	if k == 0 {
		return 0
	}
	return h.firsts[k-1].index
}

// leads notes that a node has become leader of a term.
func (h *history) leads(node string, term uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if other, ok := h.leaders[term]; ok && other != node {
		h.failf("%s and %s both lead term %d", other, node, term)
	}
	h.leaders[term] = node
	h.counts.terms = len(h.leaders)
}

// count changes the counts.
func (h *history) count(f func(*historyCounts)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.counts)
}

func (h *history) seen() historyCounts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

// replay gives the state of a replica that was there from the first entry to the
// given one and never restored a snapshot.
func (h *history) replay(upTo uint64) *fsm.FSM {
	h.mu.Lock()
	defer h.mu.Unlock()
	f := fsm.New(simFSMOptions)
	for i, e := range h.entries[:upTo] {
		if e.data != nil {
			f.Apply(&raft.Log{Type: raft.LogCommand, Index: uint64(i + 1), Term: e.term, Data: e.data})
		}
	}
	return f
}

// recorder is the real state machine of one life of a replica, whose steps go into
// the history.
type recorder struct {
	*fsm.FSM
	node string
	h    *history

	// of raft's FSM goroutine
	last  uint64
	again uint64 // up to here entries may come once more, behind an old snapshot
}

var simFSMOptions = fsm.Options{Registry: registry.Options{Shards: 4}}

func newRecorder(node string, h *history) *recorder {
	return &recorder{FSM: fsm.New(simFSMOptions), node: node, h: h}
}

// checkpoint reports whether the digest after an entry is compared: after every
// lease (by which tests mark a place), after what begins a term, and now and then.
func checkpoint(log *raft.Log) bool {
	if log.Type != raft.LogCommand || len(log.Data) == 0 {
		return false
	}
	t := fsm.Type(log.Data[0])
	return t == fsm.TypeLease || t == fsm.TypeTermBegin || log.Index%64 == 0
}

func (r *recorder) ApplyBatch(logs []*raft.Log) []any {
	out := make([]any, 0, len(logs))
	for begin := 0; begin < len(logs); {
		end := begin
		for end < len(logs) && !checkpoint(logs[end]) {
			end++
		}
		end = min(end+1, len(logs))
		part := logs[begin:end]
		results := r.FSM.ApplyBatch(part)
		for i, log := range part {
			if log.Index <= r.last {
				if log.Index > r.again || results[i] != nil {
					r.h.failf("%s applies index %d after %d, result %v", r.node, log.Index, r.last, results[i])
				}
				continue
			}
			r.last = log.Index
			r.h.applied(r.node, log, results[i])
		}
		if checkpoint(part[len(part)-1]) {
			index, d := r.FSM.Digest()
			r.h.digest(r.node, index, d)
		}
		out = append(out, results...)
		begin = end
	}
	return out
}

func (r *recorder) Apply(log *raft.Log) any { return r.ApplyBatch([]*raft.Log{log})[0] }

func (r *recorder) Restore(from io.ReadCloser) error {
	was := r.FSM.Stats().Restores
	if err := r.FSM.Restore(from); err != nil {
		r.h.failf("%s cannot restore: %v", r.node, err)
		return err
	}
	index, d := r.FSM.Digest()
	switch {
	case index < r.last:
		r.h.failf("%s goes back from index %d to a snapshot at %d", r.node, r.last, index)
	case r.FSM.Stats().Restores == was: // older than the state: what comes next it has
		r.again = index
		r.h.count(func(c *historyCounts) { c.keptStates++ })
		return nil
	}
	r.last = index
	r.h.digest(r.node, index, d)
	r.h.count(func(c *historyCounts) { c.restores++ })
	return nil
}
