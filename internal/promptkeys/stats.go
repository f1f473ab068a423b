package promptkeys

import (
	"cmp"
	"slices"

	"github.com/kvctrl/kvctrl/registry"
)

// maxListed bounds the instances that are named for one profile.
const maxListed = 64

// Stats are the finder's figures since the process began.
type Stats struct {
	Auto       bool
	ChunkSizes []int
	Candidates int    // profiles at chunk sizes that lookups may try
	Found      uint64 // times that a profile was put in use
	ProbesHit  uint64 // lookups that tried the candidates not in use, and found one
	ProbesMiss uint64 // … and found none
	// Unremembered counts the finds of instances beyond the number that is remembered.
	Unremembered uint64
	// Profiles are those that have hit, and those in use: the last that has hit first.
	Profiles []ProfileStats
}

// ProfileStats are one candidate's figures.
type ProfileStats struct {
	Profile   string
	ChunkSize int
	InUse     bool            // lookups begin with it; a fixed one always is
	Hits      uint64          // lookups that found something under it
	LastHit   registry.Micros // 0: never
	// Instances are the registered ones that were last found under it, by name, the
	// first 64 of Found.
	Instances []string
	Found     int
}

// Stats returns the figures. Instances that have gone from the registry are forgotten.
//
// Cost: some microseconds for every hundred instances; for people and scrapes.
func (f *Finder) Stats(reg *registry.Registry) Stats {
	s := Stats{
		Auto: f.auto, ChunkSizes: slices.Clone(f.sizes), Candidates: len(f.candidates), Found: f.found.Load(),
		ProbesHit: f.probes[probeHit].Load(), ProbesMiss: f.probes[probeMiss].Load(), Unremembered: f.instances.full.Load(),
	}
	by := f.instances.names(reg)
	k := f.known.Load()
	for _, c := range f.candidates {
		inUse := k.proven && slices.Contains(k.use, c)
		p := ProfileStats{Profile: c.name, ChunkSize: c.size, InUse: inUse, Hits: c.hits.Load(), LastHit: registry.Micros(c.last.Load())}
		if !p.InUse && p.Hits == 0 {
			continue
		}
		names := by[c]
		slices.Sort(names)
		p.Found, p.Instances = len(names), names[:min(len(names), maxListed)]
		s.Profiles = append(s.Profiles, p)
	}
	slices.SortStableFunc(s.Profiles, func(a, b ProfileStats) int { return cmp.Compare(b.LastHit, a.LastHit) })
	return s
}

// HasFound reports whether any lookup has found anything since the process began.
func (f *Finder) HasFound() bool {
	return slices.ContainsFunc(f.candidates, func(c *candidate) bool { return c.hits.Load() > 0 })
}

// ProfileOf is the profile under which an instance was last found.
func (f *Finder) ProfileOf(instance string) (profile string, chunkSize int, ok bool) {
	c := f.instances.candidate(instance)
	if c == nil {
		return "", 0, false
	}
	return c.name, c.size, true
}

// names are the registered instances by candidate.
func (s *instances) names(reg *registry.Registry) map[*candidate][]string {
	s.mu.Lock()
	s.sweep(reg)
	s.mu.Unlock()
	out := map[*candidate][]string{}
	s.by.Range(func(name, c any) bool {
		out[c.(*candidate)] = append(out[c.(*candidate)], name.(string))
		return true
	})
	return out
}
