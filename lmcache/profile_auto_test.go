package lmcache

import (
	"slices"
	"testing"
)

func names(list []Profile) []string {
	var s []string
	for _, p := range list {
		s = append(s, p.String())
	}
	return s
}

func TestAutoCandidates_Order(t *testing.T) {
	got := names(AutoCandidates(nil))
	wantStart := []string{
		"builtin@0",
		"builtin@seed=0", "builtin@seed=0,py310",
		"builtin@seed=123", "builtin@seed=123,py310",
		"builtin@seed=1", "builtin@seed=1,py310",
		"builtin@seed=42", "builtin@seed=42,py310",
		"sha256_cbor@seed=0", "sha256@seed=0", "xxhash_cbor@seed=0", "xxhash@seed=0",
		"sha256_cbor@seed=123",
	}
	if len(got) < len(wantStart) || !slices.Equal(got[:len(wantStart)], wantStart) {
		t.Errorf("starts with\n%q, want\n%q", got, wantStart)
	}
	after := func(a, b string) {
		t.Helper()
		if i, j := slices.Index(got, a), slices.Index(got, b); i < 0 || j < 0 || i >= j {
			t.Errorf("%s is at %d, %s at %d: want the former first", a, i, b, j)
		}
	}
	after("xxhash@seed=42", "builtin-none@0")
	after("builtin-none@seed=42", "builtin-pair@0")
	after("builtin-pair@seed=42,py310", "sha256_cbor-bytes@seed=0")
	after("xxhash-bytes@seed=123", "sha256_cbor-bytes-none@seed=0")
	after("xxhash-bytes-none@seed=123", "sha256_cbor_64bit@seed=0")

	for _, f := range families() {
		if !slices.ContainsFunc(got, func(s string) bool { return s == f.name+"@seed=0" }) {
			t.Errorf("family %s is not tried", f.name)
		}
	}
	if again := names(AutoCandidates(nil)); !slices.Equal(got, again) {
		t.Error("a second call gives another order")
	}
}

func TestAutoCandidates_FurtherSeeds(t *testing.T) {
	plain := names(AutoCandidates(nil))
	got := names(AutoCandidates([]string{"777", "label", "0", "", "777"}))
	wantStart := []string{
		"builtin@0",
		"builtin@seed=777", "builtin@seed=777,py310",
		"builtin@seed=0", "builtin@seed=0,py310", // "label" is no seed of Python's, and the empty one is builtin@0 again
		"builtin@seed=123",
	}
	if !slices.Equal(got[:len(wantStart)], wantStart) {
		t.Errorf("starts with\n%q, want\n%q", got[:len(wantStart)], wantStart)
	}
	for _, name := range append(plain, "sha256_cbor@seed=label", "sha256@seed=", "xxhash-bytes-none@seed=777") {
		if !slices.Contains(got, name) {
			t.Errorf("%s is not tried", name)
		}
	}
	tokens := seqTokens(256)
	seen := map[Key]string{}
	var first FirstChunk
	first.Reset(tokens)
	for _, p := range AutoCandidates([]string{"777", "label", "0", "", "777"}) {
		key := first.Key(&p)
		if other, twice := seen[key]; twice {
			t.Errorf("%v and %s give one key", p, other)
		}
		seen[key] = p.String()
	}
}

func TestProfile_Fits(t *testing.T) {
	builtin, folded := mustProfile(t, "builtin@0"), mustProfile(t, "sha256@seed=0")
	old, whole := mustProfile(t, "sha256_cbor_64bit@seed=0"), mustProfile(t, "sha256-bytes@seed=0")
	tests := []struct {
		name string
		seen Signs
		want []Profile
	}{
		{"nothing seen", 0, []Profile{builtin, folded, old, whole}},
		{"negative", SignNegative, []Profile{builtin}},
		{"from 2^63 up", SignUnsigned, []Profile{folded, old}},
		{"bytes", SignBin, []Profile{whole}},
		{"mixed", SignNegative | SignUnsigned, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []Profile
			for _, p := range []Profile{builtin, folded, old, whole} {
				if p.Fits(tt.seen) {
					got = append(got, p)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
