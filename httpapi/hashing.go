package httpapi

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// hashAuto is the profile name that means: find out.
const hashAuto = "auto"

// hashing says how prompts become keys. With a fixed profile it never guesses; with
// auto it tries the candidates on a prompt's first full chunk when the present profile
// misses, and remembers the first that some worker holds.
//
// What is remembered is per process: another replica, or this one after a restart,
// finds out by its own first hit.
type hashing struct {
	chunkSize  int
	candidates []*candidate // one, when the profile is fixed
	// current is what the next lookup hashes with. Published by any lookup that finds
	// a better one.
	current atomic.Pointer[candidate]
	// proven is set once current rests on a hit and not on the order of candidates.
	proven  atomic.Bool
	changes atomic.Uint64
	first   sync.Pool // *lmcache.FirstChunk
}

// candidate is a profile with its idle hashers.
type candidate struct {
	profile lmcache.Profile
	builtin bool // Python's hash: takes integers of any size
	pool    sync.Pool
}

func newHashing(o Options) (*hashing, error) {
	h := &hashing{chunkSize: o.ChunkSize}
	h.first.New = func() any { return new(lmcache.FirstChunk) }
	profiles := []lmcache.Profile(nil)
	if o.Hash == hashAuto {
		for _, p := range lmcache.AutoCandidates(o.HashSeeds) {
			if p.Validate(o.ChunkSize) == nil { // pickle families end at 13 000 tokens
				profiles = append(profiles, p)
			}
		}
		if len(profiles) == 0 {
			return nil, fmt.Errorf("chunk size %d: no hash profile takes it: LMCache's default is %d", o.ChunkSize, lmcache.DefaultChunkSize)
		}
	} else {
		p, err := lmcache.ParseProfile(o.Hash)
		if err != nil {
			return nil, errors.Join(err, errors.New("or write auto"))
		}
		if err := p.Validate(o.ChunkSize); err != nil {
			return nil, err
		}
		profiles = []lmcache.Profile{p}
		h.proven.Store(true)
	}
	for _, p := range profiles {
		c := &candidate{profile: p, builtin: strings.HasPrefix(p.String(), "builtin")}
		c.pool.New = func() any {
			hasher, err := p.NewHasher(o.ChunkSize)
			if err != nil {
				panic("bug: hasher of a validated profile: " + err.Error())
			}
			return hasher
		}
		h.candidates = append(h.candidates, c)
	}
	h.current.Store(h.candidates[0])
	return h, nil
}

// prompt is what a lookup asks for.
type prompt struct {
	tokens []int64
	// beyond is set when a token does not fit into 64 bits and stands there reduced:
	// only Python's hash can tell its key.
	beyond   bool
	instance string // "" for all
}

// find returns who holds the beginning of the prompt, the deepest first.
func (h *hashing) find(reg *registry.Registry, p prompt) (hits []registry.Hit, found *candidate) {
	cur := h.current.Load()
	if hits = h.search(reg, cur, p); len(hits) > 0 || len(h.candidates) == 1 || len(p.tokens) < h.chunkSize {
		return hits, cur
	}
	other := h.probe(reg, cur, p)
	if other == nil {
		return nil, cur
	}
	return h.search(reg, other, p), other
}

// search hashes chunk by chunk and asks for each before it hashes the next.
func (h *hashing) search(reg *registry.Registry, c *candidate, p prompt) []registry.Hit {
	if p.beyond && !c.builtin {
		return nil
	}
	hasher := c.pool.Get().(*lmcache.Hasher)
	defer func() {
		hasher.Start(nil, false) // lets go of the tokens
		c.pool.Put(hasher)
	}()
	search := reg.NewSearch(p.instance)
	defer search.Close()
	hasher.Start(p.tokens, true)
	for key, _, ok := hasher.Next(); ok && search.Next(registry.Key(key)); key, _, ok = hasher.Next() {
	}
	return search.Hits()
}

// probe returns the first other profile under which some worker holds the first chunk.
//
// Cost: one hash of the chunk for all builtin profiles together, one for each digest:
// see BenchmarkLookup/auto-miss.
func (h *hashing) probe(reg *registry.Registry, cur *candidate, p prompt) *candidate {
	first := h.first.Get().(*lmcache.FirstChunk)
	defer func() {
		first.Reset(nil)
		h.first.Put(first)
	}()
	first.Reset(p.tokens[:h.chunkSize])
	for _, c := range h.candidates {
		if c == cur || p.beyond && !c.builtin {
			continue
		}
		for _, holder := range reg.Holders(registry.Key(first.Key(&c.profile))) {
			if p.instance == "" || holder.Instance == p.instance {
				return c
			}
		}
	}
	return nil
}

// remember makes a profile that has hit the one that comes first, and reports whether
// that is news.
func (h *hashing) remember(c *candidate) bool {
	old := h.current.Swap(c)
	proven := h.proven.Swap(true)
	if old == c {
		return !proven
	}
	h.changes.Add(1)
	return true
}
