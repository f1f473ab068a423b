package promptkeys

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// everyFamily names each family with the roots that engines have without being told.
func everyFamily() []string {
	return []string{
		"builtin@0", "builtin@seed=0", "builtin@seed=0,py310", "builtin@seed=123", "builtin@seed=123,py310",
		"builtin-none@seed=0", "builtin-none@0", "builtin-pair@0", "builtin-pair@seed=0",
		"sha256_cbor@seed=0", "sha256_cbor@seed=123", "sha256@seed=0", "xxhash_cbor@seed=0", "xxhash@seed=0",
		"sha256_cbor-bytes@seed=0", "sha256-bytes@seed=0", "xxhash_cbor-bytes@seed=0", "xxhash-bytes@seed=0",
		"sha256_cbor-bytes-none@seed=0", "sha256-bytes-none@seed=0", "xxhash_cbor-bytes-none@seed=0", "xxhash-bytes-none@seed=0",
		"sha256_cbor_64bit@seed=0", "sha256_cbor_64bit-none@seed=0",
	}
}

// TestFind_EveryProfileAtTheFirstLookup: whatever an engine hashes with, the first lookup
// of what it holds finds it.
func TestFind_EveryProfileAtTheFirstLookup(t *testing.T) {
	profiles := append(everyFamily(), "builtin@seed=4711", "sha256_cbor@seed=4711", "xxhash@seed=fleet")
	for _, size := range []int{256, 16} {
		for _, name := range profiles {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				reg, f := newFleet(t), newFinder(t, Options{Seeds: []string{"4711", "fleet"}, ChunkSizes: []int{256, 16}})
				tokens := prompt(1, 2*256+10)
				reg.store("a", name, size, tokens, 512/size)
				r := f.Find(reg.Registry, Prompt{Tokens: tokens})
				if len(r.Hits) != 1 || r.Hits[0].Instance != "a" || r.Hits[0].Tokens != 512 {
					t.Fatalf("found %+v", r.Hits)
				}
				if profile, chunk, ok := f.ProfileOf("a"); profile != name || chunk != size || !ok {
					t.Errorf("a is known under %s, %d", profile, chunk)
				}
				if got := inUse(f, reg.Registry); !slices.Equal(got, []string{name}) {
					t.Errorf("in use are %q", got)
				}
			})
		}
	}
}

// TestFind_AllCandidates: none of the candidates is shadowed by another.
func TestFind_AllCandidates(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{})
	list := lmcache.AutoCandidates(nil)
	for i, p := range list {
		reg.store(p.String(), p.String(), 256, prompt(i, 256), 0)
	}
	for i, p := range list {
		r := f.Find(reg.Registry, Prompt{Tokens: prompt(i, 300)})
		if len(r.Hits) != 1 || r.Hits[0].Instance != p.String() || r.Hits[0].Tokens != 256 {
			t.Errorf("%s: found %+v", p, r.Hits)
		}
	}
	s := f.Stats(reg.Registry)
	if s.Candidates != len(list) || len(s.Profiles) != len(list) || int(s.Found) != len(list) {
		t.Errorf("%d candidates, %d have hit, %d put in use, want %d each", s.Candidates, len(s.Profiles), s.Found, len(list))
	}
	if n := len(inUse(f, reg.Registry)); n != maxInUse {
		t.Errorf("%d in use, want %d at most", n, maxInUse)
	}
}

// TestFind_EnginesOfDifferentProfiles: side by side in one fleet, each at the first lookup
// of what only it holds, and all of what they share.
func TestFind_EnginesOfDifferentProfiles(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{ChunkSizes: []int{256, 128}})
	shared := prompt(9, 1024)
	engines := []struct {
		profile string
		size    int
		chunks  int // of the shared prompt
	}{{"builtin@0", 256, 2}, {"sha256_cbor@seed=0", 256, 3}, {"builtin-none@seed=123", 128, 7}}
	for i, e := range engines {
		name := fmt.Sprintf("e%d", i)
		reg.store(name, e.profile, e.size, prompt(i, 512), 0)
	}
	for i := range engines {
		r := f.Find(reg.Registry, Prompt{Tokens: prompt(i, 512)})
		if len(r.Hits) != 1 || r.Hits[0].Instance != fmt.Sprintf("e%d", i) || r.Hits[0].Tokens != 512 {
			t.Errorf("engine %d: found %+v", i, r.Hits)
		}
	}
	for i, e := range engines {
		reg.store(fmt.Sprintf("e%d", i), e.profile, e.size, shared, e.chunks)
	}
	r := f.Find(reg.Registry, Prompt{Tokens: shared})
	var got []string
	for _, h := range r.Hits {
		got = append(got, fmt.Sprint(h.Instance, h.Tokens))
	}
	if want := []string{"e2896", "e1768", "e0512"}; !slices.Equal(got, want) {
		t.Errorf("shared: %q, want %q", got, want)
	}
	if r := f.Find(reg.Registry, Prompt{Tokens: shared, Instance: "e1"}); len(r.Hits) != 1 || r.Hits[0].Tokens != 768 {
		t.Errorf("e1 alone: %+v", r.Hits)
	}
}

// TestFind_FollowsSoManyAtMost: a prompt that is stored under every profile costs a
// lookup so many searches, however many there are, and none is left out for good.
func TestFind_FollowsSoManyAtMost(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{ChunkSizes: []int{256, 64}})
	tokens := prompt(1, 512)
	for _, p := range lmcache.AutoCandidates(nil) {
		for _, size := range []int{256, 64} {
			reg.store(fmt.Sprint(p, size), p.String(), size, tokens, 0)
		}
	}
	followed := func() (n int) {
		for _, p := range f.Stats(reg.Registry).Profiles {
			n += int(p.Hits)
		}
		return n
	}
	most := 0
	for range 200 {
		before := followed()
		f.Find(reg.Registry, Prompt{Tokens: tokens})
		most = max(most, followed()-before)
	}
	if most > 2*maxInUse || most <= maxInUse {
		t.Errorf("a lookup followed %d profiles, want more than those in use and %d at most", most, 2*maxInUse)
	}
}

// TestFind_SharedPromptsAreProbedNowAndThen: an engine whose every prompt another
// profile finds as well is found all the same.
func TestFind_SharedPromptsAreProbedNowAndThen(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{})
	tokens := prompt(1, 512)
	reg.store("a", "builtin@0", 256, tokens, 1)
	f.Find(reg.Registry, Prompt{Tokens: tokens})
	reg.store("b", "xxhash@seed=0", 256, tokens, 2)
	looks := 1
	for len(f.Find(reg.Registry, Prompt{Tokens: tokens}).Hits) < 2 {
		if looks++; looks > 100 {
			t.Fatalf("b is not found by %d lookups", looks)
		}
	}
	r := f.Find(reg.Registry, Prompt{Tokens: tokens})
	if len(r.Hits) != 2 || r.Hits[0].Instance != "b" || r.Hits[1].Instance != "a" {
		t.Errorf("found %+v", r.Hits)
	}
}

// TestFind_ProbesAreScattered: a sixteenth of all lookups, and of those of each prompt,
// however many come in turns.
func TestFind_ProbesAreScattered(t *testing.T) {
	const lookups = 1 << 16
	for _, turns := range []int{1, 2, 3, 8, 13, 16, 21, 32, 48, 64} {
		f := newFinder(t, Options{})
		due := make([]int, turns)
		for i := range lookups {
			if f.probeDue() {
				due[i%turns]++
			}
		}
		for prompt, n := range due {
			if want := lookups >> probeShift / turns; n < want/2 || n > 2*want {
				t.Errorf("%d prompts by turns: of prompt %d every other profile is tried %d times, want about %d", turns, prompt, n, want)
			}
		}
	}
}

// TestFind_OneInstanceUnderTwoProfiles counts with the longest, and is named once.
func TestFind_OneInstanceUnderTwoProfiles(t *testing.T) {
	for _, first := range []int{0, 1} {
		reg, f := newFleet(t), newFinder(t, Options{})
		tokens := prompt(1, 1024)
		profiles := []string{"builtin@0", "builtin@seed=0"}
		reg.store("a", profiles[first], 256, tokens, 1)
		reg.store("a", profiles[1-first], 256, tokens, 3)
		reg.store("b", profiles[0], 256, tokens, 2)
		reg.store("c", profiles[1], 256, tokens, 2)
		r := f.Find(reg.Registry, Prompt{Tokens: tokens})
		// All three at once: nothing was in use. b and c are even, and come as registered.
		if len(r.Hits) != 3 || r.Hits[0].Instance != "a" || r.Hits[0].Tokens != 768 || r.Hits[1].Instance != "b" || r.Hits[2].Instance != "c" {
			t.Errorf("first %d: found %+v", first, r.Hits)
		}
	}
}

// TestFind_SuspectsComeLast over profiles too.
func TestFind_SuspectsComeLast(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{})
	tokens := prompt(1, 512)
	reg.store("silent", "builtin@0", 256, tokens, 2)
	reg.store("fresh", "builtin@seed=0", 256, tokens, 1)
	beat := []registry.Heard{{WorkerRef: registry.WorkerRef{Instance: "silent"}, Any: at, Heartbeat: at}}
	reg.Lease(registry.Lease{At: at + 1_000_000_000, SuspectAfter: 1_000_000, Heard: beat})
	r := f.Find(reg.Registry, Prompt{Tokens: tokens})
	if len(r.Hits) != 2 || r.Hits[0].Instance != "fresh" || !r.Hits[1].Suspect {
		t.Errorf("found %+v", r.Hits)
	}
}

// TestFind_LossyComeAfterSound over profiles too, however long.
func TestFind_LossyComeAfterSound(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{})
	tokens := prompt(1, 512)
	reg.store("sound", "builtin@seed=0", 256, tokens, 1)
	reg.store("lossy", "builtin@0", 256, tokens, 2)
	reg.lose("lossy")
	hits := f.Find(reg.Registry, Prompt{Tokens: tokens}).Hits
	if len(hits) != 2 || hits[0].Instance != "sound" || hits[0].Lossy || hits[1].Tokens != 512 || !hits[1].Lossy {
		t.Errorf("found %+v", hits)
	}
}

func TestMerger_OneInstance(t *testing.T) {
	a, b := &candidate{size: 256}, &candidate{size: 128}
	one := func(chunks int, lossy bool) []registry.Hit {
		return []registry.Hit{{Instance: "a", Chunks: chunks, Lossy: lossy}}
	}
	for _, c := range []struct {
		under, alsoUnder []registry.Hit // of chunks twice and once as large
		tokens           int
		lossy            bool
	}{
		{one(1, false), one(1, false), 256, false},
		{one(1, false), one(3, true), 384, true},
		{one(1, true), one(2, false), 256, false},
		{one(1, false), one(2, true), 256, false},
		{one(2, true), one(3, false), 512, true},
	} {
		var m merger
		m.add(a, c.under)
		m.add(b, c.alsoUnder)
		if hits := m.hits(1000); len(hits) != 1 || hits[0].Tokens != c.tokens || hits[0].Lossy != c.lossy {
			t.Errorf("%+v and %+v give %+v, want %d tokens, lossy %t", c.under, c.alsoUnder, hits, c.tokens, c.lossy)
		}
	}
}

func TestFind_FixedNeverTriesAnother(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{Profile: "builtin@0"})
	tokens := prompt(1, 512)
	reg.store("a", "builtin@seed=0", 256, tokens, 0)
	for range 100 {
		if r := f.Find(reg.Registry, Prompt{Tokens: tokens}); len(r.Hits) > 0 {
			t.Fatalf("found %+v", r.Hits)
		}
	}
	reg.store("b", "builtin@0", 256, tokens, 1)
	for range 100 {
		if r := f.Find(reg.Registry, Prompt{Tokens: tokens}); len(r.Hits) != 1 || r.Hits[0].Instance != "b" {
			t.Fatalf("found %+v", r.Hits)
		}
	}
	s := f.Stats(reg.Registry)
	if s.Auto || s.Candidates != 1 || s.ProbesHit+s.ProbesMiss != 0 || len(s.Profiles) != 1 || s.Profiles[0].Hits != 100 || !s.Profiles[0].InUse {
		t.Errorf("%+v", s)
	}
}

// TestFind_ShortPrompts: less than a chunk is searched for under what is in use, and is
// evidence for nothing.
func TestFind_ShortPrompts(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{ChunkSizes: []int{256, 64}})
	if r := f.Find(reg.Registry, Prompt{}); len(r.Hits) > 0 {
		t.Errorf("nothing is held by %+v", r.Hits)
	}
	tail := prompt(1, 50)
	p, _ := lmcache.ParseProfile("builtin@0")
	reg.Register(registry.Registration{WorkerRef: registry.WorkerRef{Instance: "a"}, At: at})
	reg.ApplyOps(registry.Ops{Stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: "a"}, Location: "L"}, At: at,
		Keys: []registry.Key{registry.Key(p.Chain(tail, 256, true)[0])}})
	r := f.Find(reg.Registry, Prompt{Tokens: tail})
	if len(r.Hits) != 1 || r.Hits[0].Tokens != 50 {
		t.Errorf("found %+v", r.Hits)
	}
	if _, _, ok := f.ProfileOf("a"); ok || len(inUse(f, reg.Registry)) > 0 {
		t.Error("a short chunk was taken for evidence")
	}
	if s := f.Stats(reg.Registry); s.ProbesMiss != 0 || s.ProbesHit != 0 {
		t.Errorf("%d and %d probes, want none", s.ProbesMiss, s.ProbesHit)
	}
	// Long enough for the second size, not for the first.
	reg.store("b", "builtin@seed=0", 64, prompt(2, 100), 1)
	if r := f.Find(reg.Registry, Prompt{Tokens: prompt(2, 100)}); len(r.Hits) != 1 || r.Hits[0].Tokens != 64 {
		t.Errorf("found %+v", r.Hits)
	}
}

// TestFind_TokensBeyond64Bits are for Python's hash alone, under any number of profiles.
func TestFind_TokensBeyond64Bits(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{})
	tokens := prompt(1, 256)
	reg.store("a", "sha256@seed=0", 256, tokens, 0)
	if r := f.Find(reg.Registry, Prompt{Tokens: tokens, Beyond: true}); len(r.Hits) > 0 {
		t.Errorf("found %+v", r.Hits)
	}
	if r := f.Find(reg.Registry, Prompt{Tokens: tokens}); len(r.Hits) != 1 {
		t.Errorf("found %+v", r.Hits)
	}
	if r := f.Find(reg.Registry, Prompt{Tokens: tokens, Beyond: true}); len(r.Hits) > 0 {
		t.Errorf("found %+v", r.Hits)
	}
}

// TestFind_SaysOnceWhatItFinds: a line for each profile, not for each change.
func TestFind_SaysOnceWhatItFinds(t *testing.T) {
	var log strings.Builder
	reg, f := newFleet(t), newFinder(t, Options{Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Info})})
	list := lmcache.AutoCandidates(nil)[:maxInUse+2]
	for round := range 2 {
		for i, p := range list {
			if round == 0 {
				reg.store(fmt.Sprintf("i%d", i), p.String(), 256, prompt(i, 256), 0)
			}
			f.Find(reg.Registry, Prompt{Tokens: prompt(i, 256)})
		}
	}
	if n := strings.Count(log.String(), "hash profile found"); n != len(list) {
		t.Errorf("%d lines, want %d:\n%s", n, len(list), log.String())
	}
	if !strings.Contains(log.String(), "profile=builtin@seed=0 chunk_size=256 instance=i1 in_use=2") && !strings.Contains(log.String(), `profile="builtin@seed=0" chunk_size=256 instance=i1 in_use=2`) {
		t.Errorf("no such line:\n%s", log.String())
	}
	if s := f.Stats(reg.Registry); int(s.Found) <= len(list) {
		t.Errorf("%d profiles put in use, want more than %d", s.Found, len(list))
	}
}

// TestFind_Concurrent: lookups that find different profiles at once lose none.
func TestFind_Concurrent(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{Now: time.Now})
	list := lmcache.AutoCandidates(nil)[:maxInUse]
	for i, p := range list {
		reg.store(fmt.Sprintf("i%d", i), p.String(), 256, prompt(i, 256), 0)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for n := range 4 * len(list) {
				i := (g + n) % len(list)
				if r := f.Find(reg.Registry, Prompt{Tokens: prompt(i, 256)}); len(r.Hits) != 1 {
					t.Errorf("prompt %d: %+v", i, r.Hits)
				}
			}
		})
	}
	wg.Wait()
	if n := len(inUse(f, reg.Registry)); n != len(list) {
		t.Errorf("%d in use, want %d", n, len(list))
	}
}

func TestNew_Refuses(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Profile: "builtin"}, "no root"},
		{Options{Profile: "md5@0"}, "or write auto"},
		{Options{Profile: "sha256@seed=0", ChunkSizes: []int{20_000}}, "above 13000"},
		{Options{ChunkSizes: []int{256, 0}}, "chunk size 0: want 1 to"},
		{Options{ChunkSizes: []int{256, 16, 256}}, "256 is named twice"},
		{Options{ChunkSizes: []int{1, 2, 3, 4, 5, 6, 7, 8, 9}}, "9 chunk sizes: want at most 8"},
		{Options{Profile: "builtin@0", ChunkSizes: []int{256, 16}}, "2 chunk sizes with a fixed"},
	} {
		if _, err := New(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one with %q", c.o, err, c.want)
		}
	}
	f := newFinder(t, Options{ChunkSizes: []int{20_000}}) // beyond the pickle families
	for _, c := range f.candidates {
		if strings.HasPrefix(c.name, "sha256@") {
			t.Errorf("%s cannot hash chunks of 20000 tokens", c.name)
		}
	}
}
