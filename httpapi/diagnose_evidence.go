package httpapi

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// evidence is all that a diagnosis goes by, as plain data of one moment: what each
// profile finds of a prompt, and what is known of those that could hold it.
type evidence struct {
	tokens int
	// staleness is how old the state may be, or cluster.StalenessUnknown.
	staleness time.Duration
	// instance is the one asked for, "" for all; unknown is set when it is not registered.
	instance string
	unknown  bool
	// fixed is the one profile that lookups go by, "" when they find out.
	fixed    string
	profiles []profileEvidence // as a lookup tries them; those that none tries come last
	workers  []registry.WorkerInfo
	departed []registry.Departed // the latest first
	stores   []storeEvidence     // instances that hold keys
}

// profileEvidence is what one profile finds of the prompt, at one chunk size.
type profileEvidence struct {
	name       string
	chunkSize  int
	fullChunks int            // whole chunks of the prompt
	tried      bool           // a lookup here tries it
	inUse      bool           // it has found something here, or is the fixed one
	hits       []registry.Hit // in a lookup's order
	evicted    bool           // the first chunk was held, until its last holder evicted it
	streams    []streamEvidence
}

// streamEvidence is a worker's location that holds some of the prompt's chunks.
type streamEvidence struct {
	registry.StreamRef
	prefix int // chunks held without a break from the first one
	first  int // the first chunk held, counted from 0
	held   int // all of them
}

// storeEvidence is an instance that holds keys, and what they tell of its hash.
type storeEvidence struct {
	instance string
	keys     int64
	found    bool // some prompt has been found at it, by this replica
	looked   bool // at some of its keys,
	shared   int  // of which so many are held by another instance too
	// Of the first keys of its workers' present processes, and of those before; both
	// counts what the present ones have in common with those before.
	now, before, both int
}

// Bounds of what is looked at.
const (
	// maxFollowed bounds the chunks that are followed under a profile that finds
	// something; a prompt of a million tokens has as many.
	maxFollowed = 4096
	// maxStrayed bounds them under one that does not find the first.
	maxStrayed = 16
	// maxStores bounds the instances whose keys are looked at, maxSampled their keys.
	maxStores  = 64
	maxSampled = 16
)

// evidenceOf gathers what there is to know of a prompt.
//
// Cost: some milliseconds (BenchmarkDiagnose), and under each profile that finds
// something the time of hashing the prompt and asking for each chunk.
func (s *Server) evidenceOf(reg *registry.Registry, p promptkeys.Prompt) *evidence {
	e := &evidence{tokens: len(p.Tokens), instance: p.Instance, departed: reg.Departed()}
	e.workers = reg.Workers(p.Instance) // after who has gone: who goes meanwhile is not told to be back
	e.unknown = p.Instance != "" && len(e.workers) == 0
	if hash := s.opts.Finder.Stats(reg); !hash.Auto {
		e.fixed = hash.Profiles[0].Profile
	}
	for _, f := range s.opts.Finder.Survey(reg, p) {
		e.profiles = append(e.profiles, profileEvidence{
			name: f.Profile, chunkSize: f.ChunkSize, fullChunks: f.FullChunks, tried: f.Tried, inUse: f.InUse,
			hits: f.Hits, evicted: f.Evicted, streams: streamsOf(reg, f, p),
		})
	}
	for _, w := range e.workers {
		if w.Keys == 0 {
			continue
		}
		n := len(e.stores)
		if n == 0 || e.stores[n-1].instance != w.Instance {
			if n == maxStores {
				break
			}
			e.stores = append(e.stores, storeEvidence{instance: w.Instance, found: s.foundAt(e, w.Instance)})
			n++
		}
		e.stores[n-1].look(reg, w)
	}
	return e
}

// foundAt reports whether this replica has ever found anything at an instance, or
// does now.
func (s *Server) foundAt(e *evidence, instance string) bool {
	if _, _, found := s.opts.Finder.ProfileOf(instance); found {
		return true
	}
	for i := range e.profiles {
		if hitOf(e.profiles[i].hits, instance).Chunks > 0 {
			return true
		}
	}
	return false
}

// look adds what a worker's keys tell. An instance whose hash is known tells nothing.
func (st *storeEvidence) look(reg *registry.Registry, w registry.WorkerInfo) {
	st.keys += w.Keys
	if st.found {
		return
	}
	if !st.looked {
		st.looked = true
		for _, k := range reg.SampleKeys(st.instance, maxSampled) {
			if slices.ContainsFunc(reg.Holders(k), func(h registry.StreamRef) bool { return h.Instance != st.instance }) {
				st.shared++
			}
		}
	}
	before, now := reg.FirstKeys(w.WorkerRef)
	st.before += len(before)
	st.now += len(now)
	for _, k := range before {
		if slices.Contains(now, k) || slices.ContainsFunc(reg.Holders(k), func(h registry.StreamRef) bool { return h.WorkerRef == w.WorkerRef }) {
			st.both++
		}
	}
}

// streamsOf lists who holds which of the prompt's chunks under a profile, whatever their
// instance: to the end where somebody holds the first one, else a little way.
func streamsOf(reg *registry.Registry, f promptkeys.Finding, p promptkeys.Prompt) []streamEvidence {
	if p.Beyond && !strings.HasPrefix(f.Profile, "builtin") {
		return nil // no profile but Python's hash has keys for such tokens
	}
	profile, err := lmcache.ParseProfile(f.Profile)
	if err != nil {
		panic("bug: " + err.Error())
	}
	hasher, err := profile.NewHasher(f.ChunkSize)
	if err != nil {
		panic(fmt.Sprintf("bug: hasher of %s: %v", f.Profile, err))
	}
	var streams []streamEvidence
	at := map[registry.StreamRef]int{}
	most := maxStrayed
	hasher.Start(p.Tokens, true)
	for n := 0; n < most; n++ {
		key, _, ok := hasher.Next()
		if !ok {
			break
		}
		holders := reg.Holders(registry.Key(key))
		if len(holders) > 0 {
			most = maxFollowed
		}
		for _, ref := range holders {
			i, known := at[ref]
			if !known {
				i = len(streams)
				at[ref] = i
				streams = append(streams, streamEvidence{StreamRef: ref, first: n})
			}
			st := &streams[i]
			st.held++
			if st.prefix == n {
				st.prefix++
			}
		}
	}
	return streams
}

// searched reports whether a lookup of the prompt goes by a profile, the i-th: by those
// with which it begins always, by others only when there is a whole chunk.
func (e *evidence) searched(i int) bool {
	p := &e.profiles[i]
	return p.tried && (p.fullChunks > 0 || p.inUse || i == 0)
}

// tokensHeld is how many of the prompt's tokens n of its chunks are.
func (p *profileEvidence) tokensHeld(n, tokens int) int { return min(n*p.chunkSize, tokens) }

// best is the longest hit, which need not be the first one: what is suspect or lossy
// comes last in a lookup's order, however long it is.
func (p *profileEvidence) best() (hit registry.Hit, found bool) {
	for _, h := range p.hits {
		if !found || h.Chunks > hit.Chunks {
			hit, found = h, true
		}
	}
	return hit, found
}
