package ingest

import (
	"slices"

	"github.com/kvctrl/kvctrl/registry"
)

// syncStart begins a sync, unless it is the start of one that has begun before, or should
// have.
func (n *naive) syncStart(r registry.SyncStart) {
	w := n.worker(r.Stream.WorkerRef)
	if w == nil || r.BatchCount < 0 || r.BatchCount > registry.MaxSyncBatches {
		return
	}
	if r.At < w.registered-second {
		return // late: of an earlier process
	}
	s := n.stream(w, r.Stream.Location)
	switch y := s.sync; {
	case y != nil && y.id == r.SyncID:
		n.count["sync starts said again"]++
		if y.batches != r.BatchCount {
			panic("an engine lies about its batches")
		}
		return
	case y != nil && r.At < y.started-second:
		n.count["sync starts late"]++
		return
	case y != nil:
		n.count["syncs replaced"]++
	case s.ended.id != "" && (s.ended.id == r.SyncID || r.At < s.ended.at-second):
		n.count["sync starts after the end"]++
		return
	}
	n.count["sync starts"]++
	s.blind = false
	s.sync = &naiveSync{id: r.SyncID, started: r.At, batches: r.BatchCount, got: make(map[int64]bool),
		keys: make(map[registry.Key]bool), evicted: make(map[registry.Key]bool)}
	next := int64(0)
	if len(s.numbers) > 0 {
		next = s.numbers[len(s.numbers)-1] + 1
	}
	s.sync.unsure = n.unsure(r.SyncID, next)
	s.stored = s.stored || r.TotalKeys > 0
	w.wanted = ""
}

// running is the stream whose sync has this id.
func (n *naive) running(ref registry.StreamRef, id string) *naiveStream {
	w := n.worker(ref.WorkerRef)
	if w == nil {
		return nil
	}
	i := slices.IndexFunc(w.streams, func(s *naiveStream) bool { return s.location == ref.Location && s.sync != nil && s.sync.id == id })
	if i < 0 {
		return nil
	}
	return w.streams[i]
}

// syncPart applies a batch.
func (n *naive) syncPart(ref registry.StreamRef, id string, batch int64, keys []registry.Key, at registry.Micros) {
	s := n.running(ref, id)
	if s == nil {
		return
	}
	for _, k := range keys {
		s.stored = true
		if !s.sync.evicted[k] {
			s.sync.keys[k] = true
		}
	}
	if batch >= 0 && batch < s.sync.batches {
		s.sync.got[batch] = true
	}
	n.complete(ref, s, at)
}

// complete ends a sync that has all it waits for.
func (n *naive) complete(ref registry.StreamRef, s *naiveStream, at registry.Micros) {
	y, w := s.sync, n.worker(ref.WorkerRef)
	if !y.ended || int64(len(y.got)) < y.batches {
		return
	}
	s.keys, s.unsure, s.synced, s.sync = y.keys, y.unsure, true, nil
	s.ended.id, s.ended.at = y.id, at
	w.failures, w.failed = 0, 0
	n.count["syncs complete"]++
	if y.lost {
		n.count["syncs complete, events lost"]++
	}
	if len(y.evicted) > 0 {
		n.count["syncs complete, events meanwhile"]++
	}
	switch {
	case !y.lost:
		s.lossy = false
	case s.location == registry.CPULocation:
		w.want(registry.ReasonEventsLost)
	}
}
