package registry

import (
	"cmp"
	"slices"

	"github.com/kvctrl/kvctrl/registry/index"
)

// Search finds the instances that hold the beginning of a prompt, chunk by chunk.
//
//	s := reg.NewSearch("")
//	defer s.Close()
//	for _, k := range keys {
//		if !s.Next(k) {
//			break
//		}
//	}
//	hits := s.Hits()
//
// Concurrency: one goroutine; any number of searches beside the writer. It takes no
// lock, so a change that is applied meanwhile may be seen from some chunk on.
//
// Cost: Next allocates nothing once a pooled search has grown to the fleet, and its
// time follows the chunk's holders, not the registered workers. A chunk with the same
// holders as the one before (nearly all in a prompt) costs one probe.
type Search struct {
	reg      *Registry
	only     string // the one instance asked for, when filtered
	filtered bool

	// A step is a run of chunks with the same holders; ends[i] counts the chunks of
	// the steps up to i.
	ends []int
	prev []*index.Holder[*stream]

	instances, workers, streams slotTable

	candidates []candidate
	ranks      []rankRun
	runs       []streamRun
	live       []int32 // candidates that hold all chunks so far
	locations  []locationRun
}

// candidate is an instance that holds the first chunk on some rank.
type candidate struct {
	instance *instance
	storing  []*worker
	covered  int   // storing ranks that hold the present step's chunks
	steps    int   // steps held by all of them
	lossy    bool  // on some rank, one of these is held in streams alone that have lost events
	runs     int32 // first of its streamRuns, -1 at the end
}

// rankRun is a storing rank of a candidate that holds the first chunk.
type rankRun struct {
	worker    *worker
	candidate int32
	steps     int // steps held, in any location
	sound     int // of them, from the first on, held in one that has lost no events
}

// streamRun is one location of a rank that holds the first chunk.
type streamRun struct {
	stream *stream
	next   int32 // of the same candidate
	steps  int   // steps held in this location alone
}

// NewSearch begins a search over one instance, or over all when instance is "". Close
// it.
func (r *Registry) NewSearch(instance string) *Search {
	s := r.searches.Get().(*Search)
	s.only, s.filtered = instance, instance != ""
	return s
}

// Next takes the key of the next chunk and reports whether an instance holds all
// chunks so far. After it has said no, further chunks change nothing.
func (s *Search) Next(k Key) bool {
	if len(s.ends) > 0 && len(s.live) == 0 {
		return false
	}
	holders := s.reg.idx.Holders(index.Key(k))
	step := len(s.ends)
	if step > 0 && same(holders, s.prev) {
		s.ends[step-1]++
		return true
	}
	chunks := 1
	if step > 0 {
		chunks += s.ends[step-1]
	}
	s.ends = append(s.ends, chunks)
	s.prev = s.reg.probe(k, holders, func(st *stream) {
		if step == 0 {
			s.open(st)
		} else {
			s.extend(st, step)
		}
	})
	live := s.live[:0]
	for _, i := range s.live {
		c := &s.candidates[i]
		if c.covered == len(c.storing) {
			c.covered = 0
			c.steps = step + 1
			live = append(live, i)
		}
	}
	s.live = live
	return len(live) > 0
}

// open notes a holder of the first chunk.
func (s *Search) open(st *stream) {
	w := st.worker
	if s.filtered && w.instance.id != s.only {
		return
	}
	ci := s.instances.get(w.instance.slot)
	if ci < 0 {
		storing := *w.instance.storing.Load()
		if !slices.Contains(storing, w) {
			return // not yet published, or gone since
		}
		ci = int32(len(s.candidates))
		s.instances.set(w.instance.slot, int(ci))
		s.candidates = append(s.candidates, candidate{
			instance: w.instance,
			storing:  storing,
			runs:     -1,
		})
		s.live = append(s.live, ci)
	}
	c := &s.candidates[ci]
	ri := s.workers.get(w.slot)
	if ri < 0 {
		if c.instance != w.instance || !slices.Contains(c.storing, w) {
			return // changed hands, or came, since we began
		}
		ri = int32(len(s.ranks))
		s.workers.set(w.slot, len(s.ranks))
		s.ranks = append(s.ranks, rankRun{worker: w, candidate: ci, steps: 1})
		c.covered++
	} else if s.ranks[ri].worker != w {
		return
	}
	s.ranks[ri].vouch(st, 0)
	// What stands at the slot may be of a stream that ended while we looked.
	if i := s.streams.get(st.slot); i < 0 || s.runs[i].stream != st {
		s.streams.set(st.slot, len(s.runs))
		s.runs = append(s.runs, streamRun{stream: st, next: c.runs, steps: 1})
		c.runs = int32(len(s.runs) - 1)
	}
}

// extend notes a holder of a later chunk.
func (s *Search) extend(st *stream, step int) {
	ri := s.workers.get(st.worker.slot)
	if ri < 0 {
		return
	}
	rank := &s.ranks[ri]
	if rank.worker != st.worker {
		return
	}
	if rank.steps == step {
		rank.steps++
		s.candidates[rank.candidate].covered++
	}
	rank.vouch(st, step)
	if i := s.streams.get(st.slot); i >= 0 && s.runs[i].stream == st && s.runs[i].steps == step {
		s.runs[i].steps++
	}
}

// vouch notes that a step is held by a stream, which counts when that is sound.
func (r *rankRun) vouch(st *stream, step int) {
	if r.sound == step && !st.lossy.Load() {
		r.sound++
	}
}

// Hits returns who holds how much, each instance once: the suspect ones after all
// others, then the lossy ones after the sound, then the longest first, then in order of
// registration. The location is the one with the longest run of its own on all storing
// ranks; on ties one that has lost no events, then the first used.
func (s *Search) Hits() []Hit {
	type ranked struct {
		Hit
		class int // 0 is best
	}
	for i := range s.ranks {
		rank := &s.ranks[i]
		if c := &s.candidates[rank.candidate]; rank.sound < c.steps {
			c.lossy = true
		}
	}
	found := make([]ranked, 0, len(s.candidates))
	for i := range s.candidates {
		c := &s.candidates[i]
		if c.steps == 0 {
			continue
		}
		hit := ranked{Hit: Hit{
			Instance: c.instance.id,
			Location: s.location(c),
			Chunks:   s.ends[c.steps-1],
			Suspect:  slices.ContainsFunc(c.storing, func(w *worker) bool { return w.suspect.Load() }),
			Lossy:    c.lossy,
			Order:    c.instance.number,
		}}
		hit.class = hit.Class()
		found = append(found, hit)
	}
	slices.SortFunc(found, func(a, b ranked) int {
		return cmp.Or(
			cmp.Compare(a.class, b.class),
			cmp.Compare(b.Chunks, a.Chunks),
			cmp.Compare(a.Order, b.Order),
		)
	})
	hits := make([]Hit, len(found))
	for i, f := range found {
		hits[i] = f.Hit
	}
	return hits
}

// Class is what comes before a hit's length when hits are put in order: 0 is best, the
// lossy ones come after the sound, the suspect ones after all others.
func (h *Hit) Class() (class int) {
	if h.Suspect {
		class = 2
	}
	if h.Lossy {
		class++
	}
	return class
}

// falseFirst compares two booleans.
func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// locationRun is what a candidate's ranks hold in one location.
type locationRun struct {
	name  string
	first uint64 // number of the first of its streams
	ranks int
	steps int // the fewest of its ranks
	lossy bool
}

func (s *Search) location(c *candidate) string {
	locs := s.locations[:0]
	for i := c.runs; i >= 0; i = s.runs[i].next {
		run := &s.runs[i]
		j := slices.IndexFunc(locs, func(l locationRun) bool { return l.name == run.stream.location })
		if j < 0 {
			j = len(locs)
			locs = append(locs, locationRun{name: run.stream.location, first: run.stream.number, steps: run.steps})
		}
		l := &locs[j]
		l.ranks++
		l.first = min(l.first, run.stream.number)
		l.steps = min(l.steps, run.steps)
		l.lossy = l.lossy || run.stream.lossy.Load()
	}
	s.locations = locs
	own := func(l locationRun) int {
		if l.ranks < len(c.storing) {
			return 0
		}
		return l.steps
	}
	return slices.MinFunc(locs, func(a, b locationRun) int {
		return cmp.Or(cmp.Compare(own(b), own(a)), falseFirst(a.lossy, b.lossy), cmp.Compare(a.first, b.first))
	}).name
}

// Close gives the search back. It must not be used after.
func (s *Search) Close() {
	s.instances.reset()
	s.workers.reset()
	s.streams.reset()
	// Cleared, so that a pooled search keeps no dropped worker alive.
	clear(s.candidates)
	clear(s.ranks)
	clear(s.runs)
	s.ends, s.live, s.prev = s.ends[:0], s.live[:0], nil
	s.candidates, s.ranks, s.runs = s.candidates[:0], s.ranks[:0], s.runs[:0]
	s.reg.searches.Put(s)
}
