package promptkeys

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// Auto is the profile name that means: find out.
const Auto = "auto"

const (
	// maxInUse bounds the profiles in use, and of the others those that one lookup
	// follows. A fleet has one, or two while it is being changed over; each costs every
	// lookup a first chunk.
	maxInUse = 8
	// probeShift: of 2 to the power of so many lookups that hit under auto, one tries the
	// other candidates too: else an engine whose prompts another profile finds as well
	// would never be found. Spread over all, that is a sixteenth of a miss.
	probeShift = 4
	// maxChunkSizes bounds the sizes that are tried: each costs a miss all profiles.
	maxChunkSizes = 8
	// maxChunkSize is beyond any engine's.
	maxChunkSize = 1 << 20
)

// Options say what to look for. The zero value tries every profile at LMCache's default
// chunk size.
type Options struct {
	// Profile is the hash profile of all workers (see lmcache.ParseProfile), or Auto, the
	// default.
	Profile string
	// Seeds are texts of PYTHONHASHSEED in use, the likeliest first, for Auto to try
	// before its guesses.
	Seeds []string
	// ChunkSizes are tokens per chunk, without repetition: the workers' (256), and under
	// Auto further ones to try.
	ChunkSizes []int

	Logger hclog.Logger
	// Now is the clock (time.Now).
	Now func() time.Time
}

// Finder finds who holds the beginning of a prompt.
//
// Concurrency: any goroutine.
type Finder struct {
	auto  bool
	sizes []int
	// candidates are what lookups may try, in order; others what a survey tries besides.
	candidates, others []*candidate
	now                func() time.Time
	log                hclog.Logger

	// known is which candidates are in use. Published under mu, never written after.
	known atomic.Pointer[known]
	mu    sync.Mutex

	hits   atomic.Uint64 // lookups that hit under auto
	probes [2]atomic.Uint64
	found  atomic.Uint64

	instances instances
	scratch   sync.Pool // *scratch
}

// What became of the lookups that tried the candidates not in use.
const (
	probeMiss = iota
	probeHit
)

// known parts the candidates. As long as nothing has hit, the first stands in use.
type known struct {
	use, rest []*candidate
	proven    bool
}

// New makes a finder that has found nothing yet. Its errors name what to write instead.
func New(o Options) (*Finder, error) {
	setDefault(&o.Profile, Auto)
	if len(o.ChunkSizes) == 0 {
		o.ChunkSizes = []int{lmcache.DefaultChunkSize}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	f := &Finder{auto: o.Profile == Auto, sizes: slices.Clone(o.ChunkSizes), now: o.Now, log: o.Logger}
	if err := f.checkSizes(); err != nil {
		return nil, err
	}
	f.scratch.New = func() any { return &scratch{sizes: f.sizes, first: make([]lmcache.FirstChunk, len(f.sizes))} }
	profiles := lmcache.AutoCandidates(o.Seeds)
	if f.auto {
		f.candidates = candidatesOf(profiles, f.sizes)
		if len(f.candidates) == 0 {
			return nil, fmt.Errorf("chunk size %d: no hash profile takes it: LMCache's default is %d", f.sizes[0], lmcache.DefaultChunkSize)
		}
	} else {
		p, err := lmcache.ParseProfile(o.Profile)
		if err != nil {
			return nil, errors.Join(err, errors.New("or write auto"))
		}
		if err := p.Validate(f.sizes[0]); err != nil {
			return nil, err
		}
		f.candidates = candidatesOf([]lmcache.Profile{p}, f.sizes)
		if !slices.Contains(profiles, p) {
			profiles = append([]lmcache.Profile{p}, profiles...)
		}
	}
	f.others = othersOf(profiles, f.sizes, f.candidates)
	f.known.Store(&known{use: f.candidates[:1], rest: f.candidates[1:], proven: !f.auto})
	return f, nil
}

func setDefault(field *string, def string) {
	if *field == "" {
		*field = def
	}
}

func (f *Finder) checkSizes() error {
	for i, n := range f.sizes {
		switch {
		case n < 1 || n > maxChunkSize:
			return fmt.Errorf("chunk size %d: want 1 to %d tokens; LMCache's default is %d", n, maxChunkSize, lmcache.DefaultChunkSize)
		case slices.Contains(f.sizes[:i], n):
			return fmt.Errorf("chunk size %d is named twice", n)
		}
	}
	if len(f.sizes) > maxChunkSizes {
		return fmt.Errorf("%d chunk sizes: want at most %d, since a miss costs each of them", len(f.sizes), maxChunkSizes)
	}
	if !f.auto && len(f.sizes) > 1 {
		return fmt.Errorf("%d chunk sizes with a fixed hash profile: want one, or the profile auto, which tries several", len(f.sizes))
	}
	return nil
}

// ChunkSize is the first of the chunk sizes.
func (f *Finder) ChunkSize() int { return f.sizes[0] }

// SmallestChunk is the smallest of them: nothing is stored of a shorter prompt.
func (f *Finder) SmallestChunk() int { return slices.Min(f.sizes) }

// Prompt is what a lookup asks for.
type Prompt struct {
	Tokens []int64 // read until the call returns
	// Beyond is set when a token does not fit into 64 bits and stands there reduced:
	// only Python's hash can tell its key.
	Beyond   bool
	Instance string // "" for all
}

// Hit is an instance that holds the beginning of a prompt.
type Hit struct {
	registry.Hit
	Tokens int // of the prompt
}

// Result is what a lookup has found.
type Result struct {
	// Hits name each instance once, with the profile under which it holds the most, in
	// the order of registry.Search.Hits.
	Hits []Hit
	// First is the key of the first chunk under the profile that is tried first, when
	// there are tokens that it can hash.
	First registry.Key
}

// Find returns who holds the beginning of a prompt, and learns from it.
//
// Cost: with one profile in use, one hash of each chunk up to the first that nobody holds;
// each further one in use adds a first chunk. Under Auto, a prompt of at least a chunk that
// hits under none of them, and one of sixteen that do, adds the first chunk under every
// candidate.
func (f *Finder) Find(reg *registry.Registry, p Prompt) Result {
	var r Result
	if len(p.Tokens) == 0 {
		return r
	}
	k := f.known.Load()
	var m merger
	var s *scratch // the first chunk, once more than one candidate asks for it
	take := func() {
		if s == nil {
			s = f.scratch.Get().(*scratch)
			s.reset(p.Tokens)
		}
	}
	if first := k.use[0]; len(k.use) == 1 {
		if first.takes(p) {
			var hits []registry.Hit
			r.First, hits = first.search(reg, p)
			m.add(first, hits)
		}
	} else {
		take()
		if first.takes(p) {
			r.First = s.key(first)
		}
		s.follow(reg, p, k.use, &m, maxInUse)
	}
	if len(k.rest) > 0 && (!m.any() || !k.proven || f.probeDue()) {
		take()
		f.probe(reg, p, k.rest, s, &m)
	}
	if s != nil {
		s.reset(nil)
		f.scratch.Put(s)
	}
	if m.any() {
		f.learn(reg, p, m.found)
		r.Hits = m.hits(len(p.Tokens))
	}
	return r
}

// probeDue says of one in so many lookups that have hit that it is its turn. It scatters
// them: prompts that come in turns must not meet every 16th always or never.
func (f *Finder) probeDue() bool {
	n := f.hits.Add(1) * 0x9e3779b97f4a7c15 // Fibonacci hashing, mixed once more
	n = (n ^ n>>32) * 0xd6e8feb86659fd93
	return n>>(64-probeShift) == 0
}
