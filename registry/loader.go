package registry

import (
	"errors"
	"fmt"

	"github.com/kvctrl/kvctrl/registry/index"
)

// ErrDamaged says that a snapshot contradicts itself.
var ErrDamaged = errors.New("snapshot is damaged")

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// Loader rebuilds a registry from a State and the contents of its index. What comes
// from a disk is not trusted: whatever does not fit is an error that names it.
//
// Concurrency: one goroutine. The registry it builds has no readers before Finish.
type Loader struct {
	reg     *Registry
	holders []*index.Holder[*stream] // by number
	want    []HolderState            // by number
	put     []*index.Holder[*stream] // scratch of Add
	seen    []uint64                 // by number: the Add that last named it
	adds    uint64
}

// NewLoader begins to rebuild. st is not kept.
func NewLoader(st State, opts Options) (*Loader, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("registry options: %w", err)
	}
	l := &Loader{reg: New(opts)}
	if int(st.Holders) > 2*len(st.Workers)*l.reg.opts.MaxLocations {
		return nil, damaged("%d holders for %d workers", st.Holders, len(st.Workers))
	}
	l.holders = make([]*index.Holder[*stream], st.Holders)
	l.want = make([]HolderState, st.Holders)
	l.seen = make([]uint64, st.Holders)
	r := l.reg
	r.now, r.term, r.leader, r.lastNumber = st.Time, st.Term, st.Leader, st.LastNumber
	r.gaps, r.late = st.Gaps, st.Late
	numbers := numberSet{last: st.LastNumber, seen: make(map[uint64]bool)}
	if err := l.loadFleet(&st, &numbers); err != nil {
		return nil, err
	}
	if err := l.loadEvents(&st, &numbers); err != nil {
		return nil, err
	}
	for _, m := range st.Members {
		if _, twice := r.members.find(m.NodeID); twice {
			return nil, damaged("member %q appears twice", m.NodeID)
		}
		r.members.put(m)
	}
	for _, s := range st.Sessions {
		if _, twice := r.sessions[s.ID]; twice {
			return nil, damaged("session %x appears twice", s.ID)
		}
		r.sessions[s.ID] = session{last: s.Last, seen: s.Seen}
	}
	return l, nil
}

// numberSet checks that no number is given twice, nor beyond the last.
type numberSet struct {
	last uint64
	seen map[uint64]bool
}

func (n *numberSet) take(what string, number uint64) error {
	switch {
	case number == 0 || number > n.last:
		return damaged("%s has number %d, the last given is %d", what, number, n.last)
	case n.seen[number]:
		return damaged("%s has number %d, which is another's", what, number)
	}
	n.seen[number] = true
	return nil
}

// Add admits a key for the holders of these numbers. holders is not kept.
func (l *Loader) Add(k Key, holders []uint32) error {
	l.adds++
	l.put = l.put[:0]
	for _, n := range holders {
		if int(n) >= len(l.holders) {
			return damaged("key %016x has holder %d of %d", uint64(k), n, len(l.holders))
		}
		if l.seen[n] == l.adds {
			return damaged("key %016x has holder %d twice", uint64(k), n)
		}
		l.seen[n] = l.adds
		l.put = append(l.put, l.holders[n])
	}
	if len(holders) == 0 {
		return damaged("key %016x has no holder", uint64(k))
	}
	if l.reg.idx.Put(index.Key(k), l.put) != len(holders) {
		return damaged("key %016x appears twice", uint64(k))
	}
	return nil
}

// Finish checks that the index holds what the state says, and returns the registry.
// The loader must not be used after.
func (l *Loader) Finish() (*Registry, error) {
	for i, h := range l.holders {
		if w := l.want[i]; h.Count() != w.Count || h.Sum() != w.Sum {
			return nil, damaged("%q of %q/%d has %d keys with sum %016x, want %d with %016x",
				h.V.location, h.V.worker.ref.Instance, h.V.worker.ref.Worker, h.Count(), h.Sum(), w.Count, w.Sum)
		}
	}
	r := l.reg
	for _, inst := range r.instances {
		inst.publishStoring()
	}
	l.reg = nil
	return r, nil
}
