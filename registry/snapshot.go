package registry

import "github.com/kvctrl/kvctrl/registry/index"

// Snapshot is the registry at one moment: between two entries, when the FSM takes
// it there.
//
// Concurrency: any goroutine, one at a time, beside the writer.
type Snapshot struct {
	state   State // not settled before it is asked for: raft's FSM goroutine takes snapshots
	frozen  *index.Frozen[*stream]
	numbers map[*index.Holder[*stream]]uint32
	emitted []uint32 // scratch of Shard
}

// Snapshot holds the present state fast. Writer only. Release it: until then the
// index keeps what it overwrites.
//
// Cost: it copies the state but the index. Of that only the evicted keys of running
// syncs, 10 000 finished events and tens of thousands of workers are large: single
// milliseconds, and some more in the midst of several syncs (DESIGN.md).
func (r *Registry) Snapshot() *Snapshot {
	r.mu.RLock()
	defer r.mu.RUnlock()
	st, holders := r.capture()
	s := &Snapshot{
		state:   st,
		frozen:  r.idx.Freeze(),
		numbers: make(map[*index.Holder[*stream]]uint32, len(holders)),
	}
	for i, h := range holders {
		s.numbers[h] = uint32(i)
	}
	return s
}

// State returns the state but the index. It must not be changed.
func (s *Snapshot) State() State {
	s.state.settle()
	return s.state
}

// Shards returns how many parts the index has.
func (s *Snapshot) Shards() int { return s.frozen.Shards() }

// Shard gives the keys of a part and their holders, numbered as in State; keys and
// holders in no particular order. The slice is valid during the call only.
func (s *Snapshot) Shard(i int, emit func(k Key, holders []uint32)) {
	s.frozen.Range(i, func(k index.Key, holders []*index.Holder[*stream]) {
		s.emitted = s.emitted[:0]
		for _, h := range holders {
			n, ok := s.numbers[h]
			if !ok {
				panic("bug: a holder of the frozen index belongs to no stream: " + h.V.location)
			}
			s.emitted = append(s.emitted, n)
		}
		emit(Key(k), s.emitted)
	})
}

// Digest returns the digest of the state at the snapshot.
func (s *Snapshot) Digest() Digest { return s.state.Digest() }

// Release lets go of the index. Shard must not be called after.
func (s *Snapshot) Release() { s.frozen.Release() }
