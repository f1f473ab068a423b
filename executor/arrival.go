package executor

import (
	"github.com/kvctrl/kvctrl/registry"
)

// KeysOf tells how an instance keys the chunks of a prompt, by what it holds now: last
// gives the key of the last chunk of the first n tokens. It is false when the instance does
// not hold the prompt's beginning under any profile that is known.
type KeysOf func(r *registry.Registry, instance string, tokens []int64) (last func(n int) (registry.Key, bool), ok bool)

// arrival is what a move's destination is to report of itself afterwards.
type arrival struct {
	tokens int
	last   func(n int) (registry.Key, bool)
	ranks  []int64
}

// expect looks, before a move is sent, what would show that it has arrived: afterwards the
// source may have evicted all of it. Nil when nothing would.
//
// The ranks are the partners of those that hold something where the move begins: of a model
// of which one rank keeps all (MLA), that one.
func (e *Executor) expect(c *Command, tasks []task) *arrival {
	tokens := c.tokens()
	if c.Kind != registry.CommandMove || e.opts.KeysOf == nil || len(tokens) == 0 {
		return nil
	}
	ids := make([]int64, len(tokens))
	for i, t := range tokens {
		id, ok := t.Int64()
		if !ok { // no profile but Python's own takes it, and no vocabulary has it
			return nil
		}
		ids[i] = id
	}
	last, ok := e.opts.KeysOf(e.opts.Registry(), c.Source.Instance, ids)
	if !ok {
		return nil
	}
	a := &arrival{tokens: len(ids), last: last}
	for _, t := range tasks {
		if t.holds {
			a.ranks = append(a.ranks, t.partner)
		}
	}
	return a
}

// confirm adds to a move's end what its destination is to report. A count of more tokens
// than were named is beside the prompt and says nothing of its chunks.
func (a *arrival) confirm(f *registry.EventFinish) {
	if a == nil || len(a.ranks) == 0 || f.State != registry.EventDone || f.NumTokens < 1 || f.NumTokens > int64(a.tokens) {
		return
	}
	if key, ok := a.last(int(f.NumTokens)); ok {
		f.Confirm = &registry.Confirmation{Key: key, Ranks: a.ranks}
	}
}
