package promptkeys

import (
	"slices"
	"testing"

	"github.com/kvctrl/kvctrl/lmcache"
)

func TestSurvey(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{})
	tokens := prompt(1, 600)
	reg.store("a", "sha256_cbor@seed=0", 256, tokens, 1)
	reg.store("b", "builtin-pair@0", 256, tokens, 2)
	reg.store("b", "sha256_cbor@seed=0", 256, tokens, 2)
	reg.store("c", "builtin@seed=42", 64, tokens, 9)
	if list := f.Survey(reg.Registry, Prompt{Tokens: tokens}); list[0].InUse || list[0].Profile != "builtin@0" || len(inUse(f, reg.Registry)) > 0 {
		t.Errorf("before any lookup: %+v", list[0])
	}
	reg.store("d", "builtin@seed=0", 256, prompt(2, 256), 0)
	f.Find(reg.Registry, Prompt{Tokens: prompt(2, 256)})

	list := f.Survey(reg.Registry, Prompt{Tokens: tokens})
	tried := lmcache.AutoCandidates(nil)
	if len(list) != len(tried)+1 {
		t.Fatalf("%d findings, want %d candidates and one more", len(list), len(tried))
	}
	if first := list[0]; first.Profile != "builtin@seed=0" || !first.InUse || first.Chunks != 0 || first.FullChunks != 2 {
		t.Errorf("first %+v", first)
	}
	chunks := map[string]int{"sha256_cbor@seed=0": 2, "builtin-pair@0": 2}
	for _, found := range list[:len(tried)] {
		if !found.Tried || found.ChunkSize != 256 || found.Chunks != chunks[found.Profile] || found.InUse != (found.Profile == "builtin@seed=0") {
			t.Errorf("%+v, want %d chunks", found, chunks[found.Profile])
		}
		if found.Profile == "sha256_cbor@seed=0" && (len(found.Hits) != 2 || found.Hits[0].Instance != "b" || found.Hits[1].Chunks != 1) {
			t.Errorf("hits %+v", found.Hits)
		}
	}
	if last := list[len(tried)]; last.Tried || last.InUse || last.Profile != "builtin@seed=42" || last.ChunkSize != 64 || last.Chunks != 9 || last.FullChunks != 9 {
		t.Errorf("last %+v, want the chunk size that is not tried", last)
	}
	for _, found := range f.Survey(reg.Registry, Prompt{Tokens: tokens, Instance: "a"}) {
		if want := min(chunks[found.Profile], 1); found.Profile == "sha256_cbor@seed=0" && found.Chunks != want || found.Profile != "sha256_cbor@seed=0" && found.Chunks > 0 {
			t.Errorf("asked for a: %+v", found)
		}
	}
	if list := f.Survey(reg.Registry, Prompt{}); len(list) != len(tried) || list[0].FullChunks != 0 {
		t.Errorf("nothing asked: %d findings", len(list))
	}
}

// TestSurvey_FixedSeesWhatItDoesNotTry: another profile than the fixed one is told.
func TestSurvey_FixedSeesWhatItDoesNotTry(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{Profile: "builtin@0", Seeds: []string{"4711"}})
	tokens := prompt(1, 300)
	reg.store("a", "builtin@seed=4711", 256, tokens, 0)
	list := f.Survey(reg.Registry, Prompt{Tokens: tokens})
	if len(list) != 2 || !list[0].Tried || !list[0].InUse || list[0].Profile != "builtin@0" || list[1].Tried || list[1].Profile != "builtin@seed=4711" || list[1].Chunks != 1 {
		t.Errorf("%+v", list)
	}
	if len(f.Find(reg.Registry, Prompt{Tokens: tokens}).Hits) > 0 {
		t.Error("a survey has changed what lookups try")
	}
}

// TestSurvey_FixedListsEachOnce: the fixed profile is a guess of auto's too.
func TestSurvey_FixedListsEachOnce(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{Profile: "builtin@0"})
	tokens := prompt(1, 300)
	reg.store("a", "builtin@0", 64, tokens, 0)
	if list := f.Survey(reg.Registry, Prompt{Tokens: tokens}); len(list) != 2 || list[1].ChunkSize != 64 || list[1].Chunks != 4 {
		t.Errorf("%+v, want the fixed one and one of chunks of 64", list)
	}
}

// TestSurvey_Evicted: what the last holder has dropped is told from what nobody stored.
func TestSurvey_Evicted(t *testing.T) {
	reg, f := newFleet(t), newFinder(t, Options{})
	tokens := prompt(1, 512)
	const profile = "xxhash@seed=123"
	evicted := func() (names []string) {
		for _, found := range f.Survey(reg.Registry, Prompt{Tokens: tokens}) {
			if found.Evicted {
				names = append(names, found.Profile)
			}
		}
		return names
	}
	reg.store("a", profile, 256, tokens, 0)
	reg.store("b", profile, 256, tokens, 0)
	reg.evict("a", profile, 256, tokens, 0)
	if got := evicted(); len(got) > 0 {
		t.Errorf("b holds it, and it counts as evicted under %q", got)
	}
	reg.evict("b", profile, 256, tokens, 0)
	if got := evicted(); !slices.Equal(got, []string{profile}) {
		t.Errorf("evicted under %q, want %s alone", got, profile)
	}
	reg.store("a", profile, 256, tokens, 1)
	if got := evicted(); len(got) > 0 {
		t.Errorf("a holds it again, and it counts as evicted under %q", got)
	}
}
