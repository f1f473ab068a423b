package promptkeys

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kvctrl/kvctrl/registry"
)

// learn remembers what has hit.
func (f *Finder) learn(reg *registry.Registry, p Prompt, found []match) {
	now := f.now().UnixMicro()
	for _, hit := range found {
		hit.by.hits.Add(1)
		hit.by.last.Store(now)
	}
	for _, hit := range found {
		c := hit.by
		if len(p.Tokens) < c.size {
			continue // a shorter chunk is no evidence
		}
		if k := f.known.Load(); !k.proven || !slices.Contains(k.use, c) {
			f.take(c, hit.hits[0].Instance)
		}
		for _, h := range hit.hits {
			f.instances.note(reg, h.Instance, c, now)
		}
	}
}

// take puts a candidate in use. When there are too many, the one that has not hit for the
// longest time makes room.
func (f *Finder) take(c *candidate, instance string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.known.Load()
	if old.proven && slices.Contains(old.use, c) {
		return // another lookup was faster
	}
	var use []*candidate
	if old.proven {
		use = append(use, old.use...)
	}
	if len(use) == maxInUse {
		oldest := 0
		for i, u := range use {
			if u.last.Load() < use[oldest].last.Load() {
				oldest = i
			}
		}
		use = slices.Delete(use, oldest, oldest+1)
	}
	k := &known{use: append(use, c), proven: true}
	for _, other := range f.candidates {
		if !slices.Contains(k.use, other) {
			k.rest = append(k.rest, other)
		}
	}
	f.known.Store(k)
	f.found.Add(1)
	log := f.log.Info
	if c.once.Swap(true) {
		log = f.log.Debug // more profiles than are kept in use: no news each time
	}
	log("hash profile found", "profile", c.name, "chunk_size", c.size, "instance", instance, "in_use", len(k.use))
}

const (
	// maxInstances bounds the instances of which is known how they hash.
	maxInstances = 8192
	// sweepEvery spaces the looks for instances that have gone, in microseconds, while
	// the bound is reached.
	sweepEvery = 60_000_000
)

// instances remembers under which candidate each was last found.
//
// Concurrency: any goroutine. Cost: note is a lookup in a map without a lock, unless it is
// news.
type instances struct {
	by    sync.Map // string -> *candidate
	mu    sync.Mutex
	n     int
	swept int64 // registry.Micros
	full  atomic.Uint64
}

func (s *instances) note(reg *registry.Registry, instance string, c *candidate, now int64) {
	if old, ok := s.by.Load(instance); ok && old == c {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.by.Load(instance); !there {
		if s.n == maxInstances && now-s.swept >= sweepEvery {
			s.swept = now
			s.sweep(reg)
		}
		if s.n == maxInstances {
			s.full.Add(1)
			return
		}
		s.n++
	}
	s.by.Store(instance, c)
}

// sweep forgets instances that are not registered any more. s.mu is held.
func (s *instances) sweep(reg *registry.Registry) {
	s.by.Range(func(name, _ any) bool {
		if !reg.Registered(name.(string)) {
			s.by.Delete(name)
			s.n--
		}
		return true
	})
}

func (s *instances) candidate(instance string) *candidate {
	c, ok := s.by.Load(instance)
	if !ok {
		return nil
	}
	return c.(*candidate)
}
