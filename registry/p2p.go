package registry

import (
	"cmp"

	"github.com/kvctrl/kvctrl/registry/index"
)

// peerSearch is the pooled scratch of a P2PLookup.
type peerSearch struct {
	streams slotTable
	runs    []peerRun
	live    []int32
}

// peerRun is a location of one worker that holds the first chunk.
type peerRun struct {
	stream *stream
	url    string
	lossy  bool // it has lost events
	chunks int
}

// P2PLookup finds the peer that can serve most of a prompt's beginning to asker: one
// location of one worker of another instance, with a peer address. False when there
// is none.
//
// A suspect worker is never named: its peer would wait for it. What is of use to the
// asker comes first: its own rank (another rank's chunks are of other heads, unless the
// model stores on rank 0 alone), then the CPU cache (peers serve from nothing else), then
// streams that have lost no events. Of these the longest run, then the one registered
// first.
//
// Concurrency: any goroutine, no lock. Cost: no allocation but for growing the
// pooled scratch.
func (r *Registry) P2PLookup(asker WorkerRef, keys []Key) (P2PHit, bool) {
	s := r.peerSearches.Get().(*peerSearch)
	defer r.putPeerSearch(s)
	var prev []*index.Holder[*stream]
	for n, k := range keys {
		holders := r.idx.Holders(index.Key(k))
		if n > 0 && same(holders, prev) {
			for _, i := range s.live {
				s.runs[i].chunks++
			}
			continue
		}
		prev = r.probe(k, holders, func(st *stream) {
			if n == 0 {
				s.open(st, asker.Instance)
			} else {
				s.extend(st, n)
			}
		})
		if !s.keep(n + 1) {
			break
		}
	}
	best := -1
	for i := range s.runs {
		if best < 0 || s.better(i, best, asker.Worker) {
			best = i
		}
	}
	if best < 0 {
		return P2PHit{}, false
	}
	run := &s.runs[best]
	return P2PHit{
		Instance:    run.stream.worker.instance.id,
		Location:    run.stream.location,
		Chunks:      run.chunks,
		PeerInitURL: run.url,
	}, true
}

func (s *peerSearch) open(st *stream, askerInstance string) {
	if st.worker.instance.id == askerInstance || st.worker.suspect.Load() {
		return
	}
	if i := s.streams.get(st.slot); i >= 0 && s.runs[i].stream == st {
		return // met a second time
	}
	url := st.worker.peer.Load()
	if url == nil || *url == "" {
		return
	}
	s.streams.set(st.slot, len(s.runs))
	s.live = append(s.live, int32(len(s.runs)))
	s.runs = append(s.runs, peerRun{stream: st, url: *url, lossy: st.lossy.Load(), chunks: 1})
}

func (s *peerSearch) extend(st *stream, n int) {
	if i := s.streams.get(st.slot); i >= 0 && s.runs[i].stream == st && s.runs[i].chunks == n {
		s.runs[i].chunks++
	}
}

// keep leaves those in live that hold n chunks, and reports whether there are any.
func (s *peerSearch) keep(n int) bool {
	live := s.live[:0]
	for _, i := range s.live {
		if s.runs[i].chunks == n {
			live = append(live, i)
		}
	}
	s.live = live
	return len(live) > 0
}

func (s *peerSearch) better(i, j int, rank int64) bool {
	a, b := &s.runs[i], &s.runs[j]
	aw, bw := a.stream.worker, b.stream.worker
	return cmp.Or(
		falseFirst(aw.ref.Worker != rank, bw.ref.Worker != rank),
		falseFirst(a.stream.location != CPULocation, b.stream.location != CPULocation),
		falseFirst(a.lossy, b.lossy),
		cmp.Compare(b.chunks, a.chunks),
		cmp.Compare(aw.instance.number, bw.instance.number),
		cmp.Compare(aw.number, bw.number),
		cmp.Compare(a.stream.number, b.stream.number),
	) < 0
}

func (r *Registry) putPeerSearch(s *peerSearch) {
	s.streams.reset()
	clear(s.runs)
	s.runs, s.live = s.runs[:0], s.live[:0]
	r.peerSearches.Put(s)
}
