package promptkeys

import (
	"testing"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

func TestKeysOf(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{ChunkSizes: []int{256, 64}})
	tokens := prompt(1, 600)
	reg.store("a", "builtin@0", 256, tokens, 1)
	f.Find(reg.Registry, Prompt{Tokens: tokens}) // in use
	reg.store("b", "xxhash_cbor@seed=123", 64, tokens, 1)
	reg.store("c", "builtin@0", 256, prompt(2, 256), 0) // another prompt

	for _, c := range []struct {
		instance, profile string
		size              int
	}{{"a", "builtin@0", 256}, {"b", "xxhash_cbor@seed=123", 64}} {
		keys, ok := f.KeysOf(reg.Registry, c.instance, tokens)
		if !ok || keys.Profile() != c.profile || keys.ChunkSize() != c.size {
			t.Errorf("%s: %s at %d, %t; want %s at %d", c.instance, keys.Profile(), keys.ChunkSize(), ok, c.profile, c.size)
			continue
		}
		p, err := lmcache.ParseProfile(c.profile)
		if err != nil {
			t.Fatal(err)
		}
		chain := p.Chain(tokens, c.size, true)
		// What the source drops after it has been asked changes nothing.
		reg.Deregister(registry.WorkerRef{Instance: c.instance}, at+1)
		for _, n := range []int{0, 1, 63, 64, 255, 256, 300, 512, 599, 600, 1000} {
			full := min(n, len(tokens)) / c.size
			if n >= len(tokens) {
				full = len(chain)
			}
			key, ok := keys.Last(n)
			if ok != (full > 0) || ok && key != registry.Key(chain[full-1]) {
				t.Errorf("%s: %d tokens: key %d, %t; want that of chunk %d", c.instance, n, key, ok, full-1)
			}
		}
	}
	for _, c := range []struct {
		instance string
		tokens   []int64
	}{{"c", tokens}, {"nobody", tokens}, {"", tokens}, {"a", nil}, {"b", tokens[:63]}} {
		if keys, ok := f.KeysOf(reg.Registry, c.instance, c.tokens); ok {
			t.Errorf("%q keys %d tokens under %s", c.instance, len(c.tokens), keys.Profile())
		}
	}
	// One that holds a prompt under two profiles is asked by the one that it has now.
	reg.store("d", "builtin@seed=0", 256, tokens, 1)
	reg.store("d", "builtin@0", 256, tokens, 1)
	reg.store("d", "builtin@seed=0", 256, prompt(4, 256), 1)
	f.Find(reg.Registry, Prompt{Tokens: prompt(4, 256)})
	if keys, ok := f.KeysOf(reg.Registry, "d", tokens); !ok || keys.Profile() != "builtin@seed=0" {
		t.Errorf("d keys by %t, %+v; want builtin@seed=0", ok, keys.by)
	}
	if _, ok := (Keys{}).Last(256); ok {
		t.Error("no keys have a last one")
	}
}
