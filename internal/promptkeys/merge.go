package promptkeys

import (
	"cmp"
	"slices"

	"github.com/kvctrl/kvctrl/registry"
)

// merger collects what a lookup finds under each profile.
type merger struct {
	found []match
}

type match struct {
	by   *candidate
	hits []registry.Hit // at least one
}

func (m *merger) add(c *candidate, hits []registry.Hit) {
	if len(hits) > 0 {
		m.found = append(m.found, match{c, hits})
	}
}

func (m *merger) any() bool { return len(m.found) > 0 }

// hits names each instance once. One that holds the prompt under several profiles (it was
// restarted with another seed over a disk that kept the old keys) counts with the longest,
// of even ones with the sound one.
func (m *merger) hits(tokens int) []Hit {
	if len(m.found) == 1 {
		return m.found[0].inTokens(tokens)
	}
	var all []Hit
	at := map[string]int{}
	for _, found := range m.found {
		for _, h := range found.inTokens(tokens) {
			switch i, again := at[h.Instance]; {
			case !again:
				at[h.Instance] = len(all)
				all = append(all, h)
			case cmp.Or(cmp.Compare(h.Tokens, all[i].Tokens), cmp.Compare(all[i].Class(), h.Class())) > 0:
				all[i] = h
			}
		}
	}
	// As in registry.Search.Hits.
	slices.SortStableFunc(all, func(a, b Hit) int {
		return cmp.Or(
			cmp.Compare(a.Class(), b.Class()),
			cmp.Compare(b.Tokens, a.Tokens),
			cmp.Compare(a.Order, b.Order),
		)
	})
	return all
}

// inTokens counts in tokens, which a short last chunk has fewer of.
func (f *match) inTokens(tokens int) []Hit {
	out := make([]Hit, len(f.hits))
	for i, h := range f.hits {
		out[i] = Hit{h, min(h.Chunks*f.by.size, tokens)}
	}
	return out
}
