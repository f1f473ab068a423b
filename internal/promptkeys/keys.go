package promptkeys

import "github.com/kvctrl/kvctrl/registry"

// Keys are a prompt's keys as one instance makes them.
type Keys struct {
	by     *candidate
	tokens []int64
}

// KeysOf tells how an instance keys a prompt, by the profile under which it holds the
// first chunk now: of several the one by which it was last found, then those in use. It is
// false when it holds that chunk under none that lookups try; one that is not in use needs
// a whole chunk.
//
// Ownership: Keys reads tokens until it is dropped. Cost: that of a lookup's first chunk.
func (f *Finder) KeysOf(reg *registry.Registry, instance string, tokens []int64) (Keys, bool) {
	if len(tokens) == 0 || instance == "" {
		return Keys{}, false
	}
	s := f.scratch.Get().(*scratch)
	s.reset(tokens)
	defer func() {
		s.reset(nil)
		f.scratch.Put(s)
	}()
	k := f.known.Load()
	if c := f.instances.candidate(instance); c != nil && reg.HeldBy(s.key(c), instance) {
		return Keys{c, tokens}, true
	}
	for _, c := range k.use {
		if reg.HeldBy(s.key(c), instance) {
			return Keys{c, tokens}, true
		}
	}
	for _, c := range k.rest {
		if len(tokens) >= c.size && reg.HeldBy(s.key(c), instance) {
			return Keys{c, tokens}, true
		}
	}
	return Keys{}, false
}

// Last is the key of the last chunk of the first n tokens: of the one that ends there, or
// when none does, of the last whole one before. It is false when there is none.
//
// Cost: hashes those n tokens.
func (k Keys) Last(n int) (key registry.Key, ok bool) {
	if k.by == nil || n <= 0 {
		return 0, false
	}
	if n < len(k.tokens) {
		n -= n % k.by.size // a short chunk is the prompt's last
	}
	h := k.by.hasher(k.tokens[:min(n, len(k.tokens))])
	defer k.by.putBack(h)
	for next, _, more := h.Next(); more; next, _, more = h.Next() {
		key, ok = registry.Key(next), true
	}
	return key, ok
}

// Profile is the name of the profile, ChunkSize its tokens per chunk.
func (k Keys) Profile() string { return k.by.name }

// ChunkSize is the number of tokens in a chunk.
func (k Keys) ChunkSize() int { return k.by.size }
