package simworker

import "math/rand/v2"

// WorkloadOptions shape the prompts: conversations that begin with one of a few shared
// prefixes and grow by a turn each time they come back, mostly to the instance they
// were on before. Sizes are in chunks.
type WorkloadOptions struct {
	Conversations int // going on at the same time. Default 64
	Prefixes      int // shared beginnings. Default 8
	PrefixChunks  int // default 4
	TurnChunks    int // default 2
	MaxTurns      int // after these a conversation starts anew. Default 16
	// Stray is the share of turns, in percent, that land on a random instance. Default 20.
	Stray int
}

func (o WorkloadOptions) withDefaults() WorkloadOptions {
	def(&o.Conversations, 64)
	def(&o.Prefixes, 8)
	def(&o.PrefixChunks, 4)
	def(&o.TurnChunks, 2)
	def(&o.MaxTurns, 16)
	def(&o.Stray, 20)
	return o
}

// Step is one request: a prompt and the instance that computes it.
type Step struct {
	Instance int
	Tokens   []int64
}

// Workload draws steps. The same seed and options give the same steps.
// Concurrency: one goroutine.
type Workload struct {
	o         WorkloadOptions
	seed      uint64
	chunk     int
	instances int
	rng       *rand.Rand
	talks     []talk
	started   uint64 // conversations begun so far
}

type talk struct {
	id    uint64
	home  int
	turns int
}

// NewWorkload makes a workload over so many instances, with chunks of chunkSize tokens.
func NewWorkload(seed uint64, instances, chunkSize int, o WorkloadOptions) *Workload {
	o = o.withDefaults()
	w := &Workload{o: o, seed: seed, chunk: chunkSize, instances: instances, rng: rand.New(rand.NewPCG(seed, 0x6b76))}
	w.talks = make([]talk, o.Conversations)
	for i := range w.talks {
		w.talks[i] = w.begin()
	}
	return w
}

func (w *Workload) begin() talk {
	w.started++
	return talk{id: w.started, home: w.rng.IntN(w.instances)}
}

// Next draws a step.
func (w *Workload) Next() Step {
	i := w.rng.IntN(len(w.talks))
	t := &w.talks[i]
	if t.turns >= w.o.MaxTurns {
		*t = w.begin()
	}
	t.turns++
	if w.rng.IntN(100) < w.o.Stray {
		t.home = w.rng.IntN(w.instances)
	}
	return Step{Instance: t.home, Tokens: w.prompt(*t)}
}

// prompt is the shared prefix and the conversation's own turns.
func (w *Workload) prompt(t talk) []int64 {
	prefix, own := w.o.PrefixChunks*w.chunk, t.turns*w.o.TurnChunks*w.chunk
	tokens := make([]int64, 0, prefix+own)
	shared := t.id % uint64(w.o.Prefixes)
	for i := range prefix {
		tokens = append(tokens, token(w.seed, shared, i))
	}
	for i := range own {
		tokens = append(tokens, token(w.seed, uint64(w.o.Prefixes)+t.id, i))
	}
	return tokens
}

// token is the token at a place of a text: any function of the three, in the range of
// a usual vocabulary (splitmix64).
func token(seed, text uint64, place int) int64 {
	z := seed + text*0x9e3779b97f4a7c15 + uint64(place)*0xbf58476d1ce4e5b9
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int64((z ^ z>>31) % 128_000)
}
