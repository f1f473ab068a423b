package registry

import (
	"cmp"
	"slices"
)

// naive is the registry in the plainest words: sets of keys per stream, and every
// question answered by looking at all of them. Lists are in order of registration or
// of first use.
type naive struct {
	instances []*naiveInstance
	gaps      int64
	late      int64
}

type naiveInstance struct {
	id      string
	workers []*naiveWorker
}

type naiveWorker struct {
	ref        WorkerRef
	registered Micros
	peer       string
	adopted    bool
	wanted     string
	streams    []*naiveStream
}

type naiveStream struct {
	location string
	order    int // of first use, among all streams
	keys     map[Key]bool
	stored   bool
	lossy    bool
	gaps     int64
	numbers  []int64 // all there ever were
	writer   SessionID
	missing  map[int64]*naiveHole // numbers that were passed over
	sync     *naiveSync
	synced   string
}

// naiveHole is what numbers that were passed over at one time have in common.
type naiveHole struct {
	made     Micros
	until    Micros
	extended bool
}

type naiveSync struct {
	id      string
	batches int64
	got     map[int64]bool
	keys    map[Key]bool
	evicted map[Key]bool
	ended   bool
	lost    bool
}

func (n *naive) worker(ref WorkerRef) *naiveWorker {
	for _, i := range n.instances {
		for _, w := range i.workers {
			if w.ref == ref {
				return w
			}
		}
	}
	return nil
}

func (n *naive) register(ref WorkerRef, peer string, byHeartbeat bool, at Micros) {
	w := n.worker(ref)
	known := w != nil
	if known && at < w.registered-second {
		return
	}
	if !known {
		w = &naiveWorker{ref: ref}
		at := slices.IndexFunc(n.instances, func(i *naiveInstance) bool { return i.id == ref.Instance })
		if at < 0 {
			at = len(n.instances)
			n.instances = append(n.instances, &naiveInstance{id: ref.Instance})
		}
		n.instances[at].workers = append(n.instances[at].workers, w)
	}
	if known && !byHeartbeat && !w.adopted && len(w.streams) == 0 && at <= w.registered+30*second && w.peer == peer {
		return // said twice
	}
	if peer != "" || !known || !byHeartbeat { // a heartbeat without one is no news
		w.peer = peer
	}
	if !byHeartbeat {
		w.streams, w.wanted, w.adopted, w.registered = nil, "", false, at
	} else if !known {
		w.wanted, w.adopted, w.registered = ReasonReRegistered, true, at
	}
}

func (n *naive) deregister(ref WorkerRef, at Micros) {
	if w := n.worker(ref); w != nil && at < w.registered-second {
		return
	}
	for _, i := range n.instances {
		i.workers = slices.DeleteFunc(i.workers, func(w *naiveWorker) bool { return w.ref == ref })
	}
	n.instances = slices.DeleteFunc(n.instances, func(i *naiveInstance) bool { return len(i.workers) == 0 })
}

var naiveOrder int

func (w *naiveWorker) stream(location string) *naiveStream {
	for _, s := range w.streams {
		if s.location == location {
			return s
		}
	}
	naiveOrder++
	s := &naiveStream{location: location, order: naiveOrder, keys: make(map[Key]bool), missing: make(map[int64]*naiveHole), lossy: w.adopted}
	w.streams = append(w.streams, s)
	return s
}

type naiveOp struct {
	key    Key
	evict  bool
	number int64
}

// message applies one message of operations, said at a time and batched in a session.
// It returns how many came too late.
func (n *naive) message(ref StreamRef, numbered bool, ops []naiveOp, session SessionID, at Micros) (late int) {
	w := n.worker(ref.WorkerRef)
	if w == nil {
		return 0
	}
	s := w.stream(ref.Location)
	gap := false
	for _, op := range ops {
		switch {
		case !numbered || s.unnumbered() && op.number == 0:
		case s.unnumbered(): // it counts after all
			s.numbers, s.writer = append(s.numbers, op.number), session
			w.lose(s)
			gap = true
		default:
			first := len(s.numbers) == 0
			next := int64(0) // where a process begins
			if !first {
				next = s.numbers[len(s.numbers)-1] + 1
			}
			zeros := len(s.numbers) == 1 && s.numbers[0] == 0 && op.number == 0
			if op.number != next && !zeros && !(first && w.adopted) {
				hole := s.missing[op.number]
				if session != s.writer && s.late(op.number, at, w.registered) {
					// Taken after what passed it over: perhaps of the process that lives.
					if at >= w.registered-second && (hole.extended || at >= hole.made) {
						w.lose(s)
					}
					late++
					continue
				}
				s.jump(next, op.number, at)
				w.lose(s)
				gap = gap || !first
			} else if !zeros && session != s.writer && at < w.registered-second {
				w.lose(s) // perhaps of the process before
			}
			s.numbers, s.writer = append(s.numbers, op.number), session
		}
		s.apply(op)
	}
	n.late += int64(late)
	if gap {
		s.gaps++
		n.gaps++
	}
	return late
}

func (w *naiveWorker) lose(s *naiveStream) {
	s.lossy = true
	if s.sync != nil {
		s.sync.lost = true
	} else if s.location == CPULocation && w.wanted == "" {
		w.wanted = ReasonEventsLost
	}
}

// late reports whether a number was passed over before, and its batch overtaken.
func (s *naiveStream) late(number int64, at, registered Micros) bool {
	if at < registered-second {
		return true
	}
	h := s.missing[number]
	if h == nil || at > h.until && h.extended {
		return false
	}
	if at > h.until {
		h.until, h.extended = at+10*second, true
	}
	delete(s.missing, number)
	return true
}

// jump notes that numbers go on elsewhere than with next.
func (s *naiveStream) jump(next, number int64, at Micros) {
	if number < next {
		clear(s.missing)
	}
	hole := &naiveHole{made: at, until: at + 10*second}
	for i := next; i < number; i++ {
		s.missing[i] = hole
	}
}

func (s *naiveStream) unnumbered() bool {
	return len(s.numbers) > 1 && !slices.ContainsFunc(s.numbers, func(n int64) bool { return n != 0 })
}

func (s *naiveStream) apply(op naiveOp) {
	held := len(s.keys)
	sets := []map[Key]bool{s.keys}
	if s.sync != nil {
		sets = append(sets, s.sync.keys)
		s.sync.evicted[op.key] = op.evict
	}
	for _, keys := range sets {
		if op.evict {
			delete(keys, op.key)
		} else {
			keys[op.key] = true
			s.stored = true
		}
	}
	if held > 0 && len(s.keys) == 0 && s.sync == nil && s.location != CPULocation {
		s.lossy = false
	}
}

func (n *naive) syncStart(ref StreamRef, id string, batches, total int64) {
	if w := n.worker(ref.WorkerRef); w != nil {
		s := w.stream(ref.Location)
		switch {
		case s.sync != nil && s.sync.id == id: // said again
			if s.sync.batches != batches {
				s.sync.batches, s.sync.ended, s.sync.lost = batches, false, true
				clear(s.sync.got)
			}
			return
		case s.sync == nil && s.synced == id:
			return
		}
		s.sync = &naiveSync{id: id, batches: batches, got: make(map[int64]bool), keys: make(map[Key]bool), evicted: make(map[Key]bool)}
		s.stored = s.stored || total > 0
		w.wanted = ""
	}
}

// sync applies a batch, or the end when batch is less than 0.
func (n *naive) sync(ref StreamRef, id string, batch int64, keys []Key) {
	w := n.worker(ref.WorkerRef)
	if w == nil {
		return
	}
	i := slices.IndexFunc(w.streams, func(s *naiveStream) bool { return s.location == ref.Location })
	if i < 0 || w.streams[i].sync == nil || w.streams[i].sync.id != id {
		return
	}
	s := w.streams[i]
	y := s.sync
	y.ended = y.ended || batch < 0
	for _, k := range keys {
		s.stored = true
		if !y.evicted[k] {
			y.keys[k] = true
		}
	}
	if batch >= 0 && batch < y.batches {
		y.got[batch] = true
	}
	if y.ended && int64(len(y.got)) == y.batches {
		s.keys, s.synced, s.sync = y.keys, y.id, nil
		if !y.lost {
			s.lossy = false
		} else if s.location == CPULocation && w.wanted == "" {
			w.wanted = ReasonEventsLost
		}
	}
}

func (i *naiveInstance) storing() (out []*naiveWorker) {
	for _, w := range i.workers {
		if slices.ContainsFunc(w.streams, func(s *naiveStream) bool { return s.stored }) {
			out = append(out, w)
		}
	}
	return out
}

// prefix counts the first keys that has says yes to.
func prefix(keys []Key, has func(Key) bool) int {
	if i := slices.IndexFunc(keys, func(k Key) bool { return !has(k) }); i >= 0 {
		return i
	}
	return len(keys)
}

func (n *naive) lookup(keys []Key) []Hit {
	hits := []Hit{}
	for _, i := range n.instances {
		storing := i.storing()
		in := func(location string) func(Key) bool { // "" for any
			return func(k Key) bool {
				for _, w := range storing {
					if !slices.ContainsFunc(w.streams, func(s *naiveStream) bool {
						return s.keys[k] && (location == "" || s.location == location)
					}) {
						return false
					}
				}
				return len(storing) > 0
			}
		}
		hit := Hit{Instance: i.id, Chunks: prefix(keys, in(""))}
		if hit.Chunks == 0 {
			continue
		}
		var first []*naiveStream // those with the first chunk
		for _, w := range i.workers {
			for _, s := range w.streams {
				if s.keys[keys[0]] {
					first = append(first, s)
				}
			}
		}
		slices.SortFunc(first, func(a, b *naiveStream) int { return cmp.Compare(a.order, b.order) })
		var best []int
		for _, s := range first {
			score := []int{prefix(keys, in(s.location)), 1}
			if slices.ContainsFunc(first, func(o *naiveStream) bool { return o.location == s.location && o.lossy }) {
				score[1] = 0
			}
			if slices.Compare(score, best) > 0 {
				best, hit.Location = score, s.location
			}
		}
		for _, w := range storing {
			for _, k := range keys[:hit.Chunks] {
				if !slices.ContainsFunc(w.streams, func(s *naiveStream) bool { return s.keys[k] && !s.lossy }) {
					hit.Lossy = true
				}
			}
		}
		hits = append(hits, hit)
	}
	slices.SortStableFunc(hits, func(a, b Hit) int {
		if a.Lossy != b.Lossy {
			if a.Lossy {
				return 1
			}
			return -1
		}
		return cmp.Compare(b.Chunks, a.Chunks)
	})
	return hits
}

func (n *naive) p2p(asker WorkerRef, keys []Key) (best P2PHit, found bool) {
	var score []int
	for _, i := range n.instances {
		for _, w := range i.workers {
			for _, s := range w.streams {
				hit := P2PHit{i.id, s.location, prefix(keys, func(k Key) bool { return s.keys[k] }), w.peer}
				if i.id == asker.Instance || w.peer == "" || hit.Chunks == 0 {
					continue
				}
				mine := []int{0, 0, 0, hit.Chunks}
				if w.ref.Worker == asker.Worker {
					mine[0] = 1
				}
				if s.location == CPULocation {
					mine[1] = 1
				}
				if !s.lossy {
					mine[2] = 1
				}
				if slices.Compare(mine, score) > 0 {
					best, score, found = hit, mine, true
				}
			}
		}
	}
	return best, found
}
