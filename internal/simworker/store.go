package simworker

import (
	"container/list"
	"maps"
	"slices"
	"sync"

	"github.com/kvctrl/kvctrl/lmcache"
)

// store is what a worker holds: chunks by location, in order of use. Every change is
// told to emit, in the order in which it happens.
//
// Concurrency: any goroutine. emit is called with the lock held and must not block.
type store struct {
	capacity int
	emit     func(location string, kind lmcache.OpKind, key lmcache.Key)

	mu        sync.Mutex
	locations map[string]*shelf
}

// shelf is one location.
type shelf struct {
	chunks map[lmcache.Key]*list.Element // of *chunk
	used   *list.List                    // latest first
}

type chunk struct {
	key    lmcache.Key
	pinned bool
}

func newStore(capacity int, emit func(string, lmcache.OpKind, lmcache.Key)) *store {
	return &store{capacity: capacity, emit: emit, locations: make(map[string]*shelf)}
}

// shelf returns a location, new if need be. Under mu.
func (s *store) shelf(location string) *shelf {
	sh := s.locations[location]
	if sh == nil {
		sh = &shelf{chunks: make(map[lmcache.Key]*list.Element), used: list.New()}
		s.locations[location] = sh
	}
	return sh
}

// put stores chunks; what is there already is only used again. Beyond the capacity the
// longest unused that is not pinned goes; if all are pinned nothing is stored. It
// returns how many are there afterwards.
func (s *store) put(location string, keys []lmcache.Key) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh, n := s.shelf(location), 0
	for _, k := range keys {
		if e := sh.chunks[k]; e != nil {
			sh.used.MoveToFront(e)
			n++
			continue
		}
		if s.capacity > 0 && len(sh.chunks) >= s.capacity && !s.evictOne(location, sh) {
			break
		}
		sh.chunks[k] = sh.used.PushFront(&chunk{key: k})
		s.emit(location, lmcache.Admit, k)
		n++
	}
	return n
}

// evictOne makes room. Under mu.
func (s *store) evictOne(location string, sh *shelf) bool {
	for e := sh.used.Back(); e != nil; e = e.Prev() {
		if !e.Value.(*chunk).pinned {
			s.drop(location, sh, e)
			return true
		}
	}
	return false
}

// drop removes one chunk. Under mu.
func (s *store) drop(location string, sh *shelf, e *list.Element) {
	k := e.Value.(*chunk).key
	sh.used.Remove(e)
	delete(sh.chunks, k)
	s.emit(location, lmcache.Evict, k)
}

// remove takes chunks away, pinned or not.
func (s *store) remove(location string, keys []lmcache.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shelf(location)
	for _, k := range keys {
		if e := sh.chunks[k]; e != nil {
			s.drop(location, sh, e)
		}
	}
}

// replace takes the chunks away and puts them back, as compressing does.
func (s *store) replace(location string, keys []lmcache.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shelf(location)
	for _, k := range keys {
		if e := sh.chunks[k]; e != nil {
			pinned := e.Value.(*chunk).pinned
			s.drop(location, sh, e)
			sh.chunks[k] = sh.used.PushFront(&chunk{key: k, pinned: pinned})
			s.emit(location, lmcache.Admit, k)
		}
	}
}

// clear removes all that is not pinned, and returns how many chunks that were.
func (s *store) clear(location string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh, n := s.shelf(location), 0
	for e := sh.used.Back(); e != nil; {
		prev := e.Prev()
		if !e.Value.(*chunk).pinned {
			s.drop(location, sh, e)
			n++
		}
		e = prev
	}
	return n
}

// prefix returns how many leading keys are there, and pins them if asked to.
func (s *store) prefix(location string, keys []lmcache.Key, pin bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shelf(location)
	for i, k := range keys {
		e := sh.chunks[k]
		if e == nil {
			return i
		}
		if pin {
			e.Value.(*chunk).pinned = true
		}
	}
	return len(keys)
}

// keys returns what a location holds, ascending.
func (s *store) keys(location string) []lmcache.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.shelf(location).chunks))
}

// names returns the locations that have been used, ascending.
func (s *store) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.locations))
}
