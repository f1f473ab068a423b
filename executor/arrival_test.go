package executor

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

const cpu = "LocalCPUBackend"

// chunk is the number of tokens in a chunk, whose key is the number of its last token.
const chunk = 4

// keysOf gives the keys of an instance that holds the first chunk.
func keysOf(r *registry.Registry, instance string, tokens []int64) (last func(int) (registry.Key, bool), ok bool) {
	return func(n int) (registry.Key, bool) { return registry.Key(n / chunk * chunk), n >= chunk }, r.HeldBy(chunk, instance)
}

// admit has a worker report the keys of a prompt's chunks.
func (w *world) admit(instance string, rank int64, location string, keys ...registry.Key) {
	w.t.Helper()
	b := fsm.NewBatch(registry.SessionID{1})
	b.Ops(registry.Ops{Stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: instance, Worker: rank}, Location: location}, Keys: keys, At: 1})
	w.log.must(w.t, b.Encode(w.nextBatch(), 1))
}

// nextBatch numbers the next entry of the world's workers.
func (w *world) nextBatch() uint64 {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	return w.log.index + 1
}

func prompt(n int) *[]lmcache.Token {
	ids := make([]int64, n)
	tokens := lmcache.TokensOf(ids...)
	return &tokens
}

func moveOf(from, to string, tokens int) Command {
	return Command{Kind: registry.CommandMove, Tokens: prompt(tokens), Source: registry.Target{Instance: from, Location: cpu}, Dest: registry.Target{Instance: to, Location: cpu}}
}

// A move is confirmed by what its destination reports, and by nothing that the workers
// answer to the command.
func TestMove_ConfirmedByItsDestination(t *testing.T) {
	w := newWorld(t, Options{KeysOf: keysOf})
	arrive := func() {
		for _, rank := range []int64{3, 5} {
			w.admit("b", rank, cpu, 4, 8)
		}
	}
	early := false // the destination reports before the source answers
	w.fleet("a", say(8), func(m lmcache.Message) []byte {
		if early {
			arrive()
		}
		return say(8)(m)
	})
	w.register("b", 5, 1, "peer-b-5")
	w.register("b", 3, 1, "peer-b-3")
	w.admit("a", 0, cpu, 4, 8, 12)
	w.admit("a", 1, cpu, 4, 8)
	ev, err := w.exec.Do(within(t, wait), moveOf("a", "b", 13))
	if err != nil || ev.Confirmed != registry.MoveAwaited {
		t.Fatalf("%+v, %v", ev, err)
	}
	if diff := cmp.Diff(&registry.Confirmation{Key: 8, Ranks: []int64{3, 5}}, ev.Confirm); diff != "" {
		t.Errorf("waits for (-want +got):\n%s", diff)
	}
	arrive()
	w.log.must(t, fsm.EncodeLease(registry.Lease{At: w.exec.now() + 1}))
	if ev, _ := w.log.fsm.Registry().Event(ev.ID); ev.Confirmed != registry.MoveConfirmed || ev.State != registry.EventDone {
		t.Errorf("once the destination has reported: %+v", ev)
	}
	w.register("b", 5, 1, "peer-b-5") // anew: holds nothing
	w.register("b", 3, 1, "peer-b-3")
	early = true
	if ev, err := w.exec.Do(within(t, wait), moveOf("a", "b", 8)); err != nil || ev.Confirmed != registry.MoveConfirmed {
		t.Errorf("when the destination is sooner than the answer: %+v, %v", ev, err)
	}
}

// What the source holds counts before it is asked: it may report its evicts before it
// answers.
func TestMove_KeysAreAskedBeforeItIsSent(t *testing.T) {
	w := newWorld(t, Options{KeysOf: keysOf})
	w.fleet("a", func(m lmcache.Message) []byte {
		w.register("a", 0, 1, "") // anew: drops all that it held
		return say(4)(m)
	})
	w.register("b", 0, 1, "peer-b-0")
	w.admit("a", 0, cpu, 4)
	if ev, err := w.exec.Do(within(t, wait), moveOf("a", "b", 4)); err != nil || ev.Confirmed != registry.MoveAwaited {
		t.Errorf("%+v, %v", ev, err)
	}
}

func TestMove_WhatIsConfirmed(t *testing.T) {
	for _, c := range []struct {
		name    string
		holds   map[int64][]registry.Key // the source's ranks
		where   string                   // they hold it
		answers []answerFunc
		tokens  int
		want    *registry.Confirmation
	}{
		{name: "one rank keeps all", holds: map[int64][]registry.Key{0: {4, 8}}, answers: []answerFunc{say(8), say(8)}, tokens: 8,
			want: &registry.Confirmation{Key: 8, Ranks: []int64{0}}},
		{name: "a part of a chunk does not count", holds: map[int64][]registry.Key{0: {4}, 1: {4}}, answers: []answerFunc{say(6), say(6)}, tokens: 8,
			want: &registry.Confirmation{Key: 4, Ranks: []int64{0, 1}}},
		{name: "nothing is moved", holds: map[int64][]registry.Key{0: {4}, 1: {4}}, answers: []answerFunc{say(0), say(0)}, tokens: 8},
		{name: "less than a chunk", holds: map[int64][]registry.Key{0: {4}, 1: {4}}, answers: []answerFunc{say(3), say(3)}, tokens: 8},
		{name: "more than there is", holds: map[int64][]registry.Key{0: {4}, 1: {4}}, answers: []answerFunc{say(600), say(600)}, tokens: 8},
		{name: "keys that nobody knows", holds: map[int64][]registry.Key{0: {99}, 1: {99}}, answers: []answerFunc{say(8), say(8)}, tokens: 8},
		{name: "held elsewhere", holds: map[int64][]registry.Key{0: {4}, 1: {4}}, where: "LocalDiskBackend", answers: []answerFunc{say(8), say(8)}, tokens: 8},
		{name: "without tokens", holds: map[int64][]registry.Key{0: {4}, 1: {4}}, answers: []answerFunc{say(0), say(0)}},
		{name: "done in part", holds: map[int64][]registry.Key{0: {4}, 1: {4}}, answers: []answerFunc{say(8), say(4)}, tokens: 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, Options{KeysOf: keysOf})
			w.fleet("a", c.answers...)
			for rank := range c.answers {
				w.register("b", int64(rank), 1, "peer")
			}
			if c.where == "" {
				c.where = cpu
			}
			for rank, keys := range c.holds {
				w.admit("a", rank, c.where, keys...)
			}
			ev, err := w.exec.Do(within(t, wait), moveOf("a", "b", c.tokens))
			if err != nil && !isA[*CommandError](err) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, ev.Confirm); diff != "" || (ev.Confirmed == registry.MoveAwaited) != (c.want != nil) {
				t.Errorf("%q waits for (-want +got):\n%s", ev.Confirmed, diff)
			}
		})
	}
	t.Run("a token that no vocabulary has", func(t *testing.T) {
		w := newWorld(t, Options{KeysOf: keysOf})
		w.fleet("a", say(4))
		w.register("b", 0, 1, "peer")
		w.admit("a", 0, cpu, 4)
		c := moveOf("a", "b", 4)
		(*c.Tokens)[0] = lmcache.LargeTokenOf(1 << 63)
		if ev, err := w.exec.Do(within(t, wait), c); err != nil || ev.Confirmed != "" {
			t.Errorf("%+v, %v", ev, err)
		}
	})
}
