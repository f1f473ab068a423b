package promptkeys

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// candidate is a profile at a chunk size, with its idle hashers and what has come of it.
type candidate struct {
	profile lmcache.Profile
	name    string // of profile
	size    int    // tokens in a chunk
	sizeAt  int    // where the size stands in the finder's list
	builtin bool   // Python's hash: takes integers of any size
	hashers sync.Pool

	hits atomic.Uint64 // lookups
	last atomic.Int64  // registry.Micros of the last hit
	once atomic.Bool   // it has been in use before
}

// candidatesOf pairs profiles with the sizes that they take (pickle families end at 13 000
// tokens), size by size: the first is the likeliest.
func candidatesOf(profiles []lmcache.Profile, sizes []int) []*candidate {
	var list []*candidate
	for at, size := range sizes {
		for _, p := range profiles {
			if p.Validate(size) != nil {
				continue
			}
			c := &candidate{profile: p, name: p.String(), size: size, sizeAt: at}
			c.builtin = strings.HasPrefix(c.name, "builtin")
			c.hashers.New = func() any {
				h, err := p.NewHasher(size)
				if err != nil {
					panic("bug: hasher of a validated profile: " + err.Error())
				}
				return h
			}
			list = append(list, c)
		}
	}
	return list
}

// takes reports whether the profile can hash the prompt.
func (c *candidate) takes(p Prompt) bool { return !p.Beyond || c.builtin }

// search hashes chunk by chunk and asks for each before it hashes the next. It returns the
// first chunk's key too.
func (c *candidate) search(reg *registry.Registry, p Prompt) (first registry.Key, hits []registry.Hit) {
	h := c.hasher(p.Tokens)
	defer c.putBack(h)
	search := reg.NewSearch(p.Instance)
	defer search.Close()
	key, _, ok := h.Next()
	first = registry.Key(key)
	for ok && search.Next(registry.Key(key)) {
		key, _, ok = h.Next()
	}
	return first, search.Hits()
}

// hasher has begun with the tokens; a shorter last chunk counts. Give it back.
func (c *candidate) hasher(tokens []int64) *lmcache.Hasher {
	h := c.hashers.Get().(*lmcache.Hasher)
	h.Start(tokens, true)
	return h
}

func (c *candidate) putBack(h *lmcache.Hasher) {
	h.Start(nil, false) // lets go of the tokens
	c.hashers.Put(h)
}

// scratch hashes one prompt's first chunk under many candidates: all builtin ones of a size
// share one pass over the tokens.
type scratch struct {
	sizes  []int
	tokens []int64
	first  []lmcache.FirstChunk // by size
}

func (s *scratch) reset(tokens []int64) {
	s.tokens = tokens
	for i := range s.first {
		s.first[i].Reset(tokens[:min(len(tokens), s.sizes[i])])
	}
}

// key is the first chunk's, which may be a short one. There must be a token.
func (s *scratch) key(c *candidate) registry.Key {
	return registry.Key(s.first[c.sizeAt].Key(&c.profile))
}

// follow searches under those of list whose first chunk somebody holds, until so many
// profiles have been found.
func (s *scratch) follow(reg *registry.Registry, p Prompt, list []*candidate, m *merger, most int) {
	for _, c := range list {
		if len(m.found) >= most {
			return
		}
		if c.takes(p) && reg.Held(s.key(c)) {
			_, hits := c.search(reg, p)
			m.add(c, hits)
		}
	}
}

// probe follows the candidates not in use for which the prompt is long enough: a shorter
// one is no evidence.
func (f *Finder) probe(reg *registry.Registry, p Prompt, rest []*candidate, s *scratch, m *merger) {
	tried, before := false, len(m.found)
	for at, size := range f.sizes {
		if len(p.Tokens) < size {
			continue
		}
		tried = true
		s.follow(reg, p, sized(rest, at), m, before+maxInUse)
	}
	switch {
	case len(m.found) > before:
		f.probes[probeHit].Add(1)
	case tried:
		f.probes[probeMiss].Add(1)
	}
}

// sized is the part of a list, which is in order of sizes, that has one of them.
func sized(list []*candidate, at int) []*candidate {
	from, _ := slices.BinarySearchFunc(list, at, func(c *candidate, at int) int { return c.sizeAt - at })
	to, _ := slices.BinarySearchFunc(list, at+1, func(c *candidate, at int) int { return c.sizeAt - at })
	return list[from:to]
}
