package promptkeys

import (
	"cmp"
	"slices"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// commonSizes are the chunk sizes that a survey tries besides the given ones.
func commonSizes() []int { return []int{256, 16, 32, 64, 128, 512, 1024, 2048} }

// Finding is what one candidate finds of a prompt.
type Finding struct {
	Profile   string
	ChunkSize int
	// Tried says that lookups try it, InUse that they do so first. What they do not try
	// (another profile than the fixed one, another chunk size) is listed when it hits.
	Tried, InUse bool
	FullChunks   int            // of the prompt
	Chunks       int            // that the instance with the most holds
	Hits         []registry.Hit // of the instance asked for, or of all
	Evicted      bool           // nobody holds the first chunk, and somebody did: see registry.WasEvicted
}

// othersOf are the profiles at the given and at common sizes that are not candidates.
func othersOf(profiles []lmcache.Profile, sizes []int, candidates []*candidate) []*candidate {
	all := slices.Clone(sizes)
	for _, n := range commonSizes() {
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return slices.DeleteFunc(candidatesOf(profiles, all), func(c *candidate) bool {
		return slices.ContainsFunc(candidates, func(t *candidate) bool { return t.profile == c.profile && t.size == c.size })
	})
}

// Survey tries every candidate, also those that a lookup would not: first the profiles in
// use, the last that has hit first, then the others that lookups try, in their order, then
// what hits besides. It learns nothing.
//
// Cost: a first chunk under every profile at every common chunk size, about 0.5 ms, and
// the chunks that are held.
func (f *Finder) Survey(reg *registry.Registry, p Prompt) []Finding {
	k := f.known.Load()
	use := slices.SortedStableFunc(slices.Values(k.use), func(a, b *candidate) int { return cmp.Compare(b.last.Load(), a.last.Load()) })
	out := make([]Finding, 0, len(f.candidates))
	for _, c := range use {
		found := c.survey(reg, p)
		found.Tried, found.InUse = true, k.proven
		out = append(out, found)
	}
	for _, c := range k.rest {
		found := c.survey(reg, p)
		found.Tried = true
		out = append(out, found)
	}
	for _, c := range f.others {
		if len(p.Tokens) < c.size {
			continue
		}
		if found := c.survey(reg, p); found.Chunks > 0 {
			out = append(out, found)
		}
	}
	return out
}

func (c *candidate) survey(reg *registry.Registry, p Prompt) Finding {
	found := Finding{Profile: c.name, ChunkSize: c.size, FullChunks: len(p.Tokens) / c.size}
	if len(p.Tokens) == 0 || !c.takes(p) {
		return found
	}
	var first registry.Key
	first, found.Hits = c.search(reg, p)
	found.Evicted = len(found.Hits) == 0 && reg.WasEvicted(first) && !reg.Held(first)
	for _, h := range found.Hits {
		found.Chunks = max(found.Chunks, h.Chunks)
	}
	return found
}
