package lmcache

import (
	"slices"
	"strings"
	"testing"
)

func TestParseProfile_CanonicalName(t *testing.T) {
	tests := []struct{ name, want string }{
		{"builtin@0", "builtin@0"},
		{"builtin@int=0", "builtin@0"},
		{"builtin@int=-0", "builtin@0"},
		{"builtin@int=0xff", "builtin@int=255"},
		{"builtin@int=-0x10", "builtin@int=-16"},
		{"builtin@int=007", "builtin@int=7"},
		{"builtin@seed=0", "builtin@seed=0"},
		{"builtin@seed=00", "builtin@seed=00"},
		{"builtin@seed=", "builtin@seed="},
		{"builtin@seed=4294967295,py310", "builtin@seed=4294967295,py310"},
		{"builtin-none@0", "builtin-none@0"},
		{"builtin-none@seed=7", "builtin-none@seed=7"},
		{"builtin-pair@seed=7,py310", "builtin-pair@seed=7,py310"},
		{"sha256_cbor@seed=random", "sha256_cbor@seed=random"},
		{"sha256@seed=", "sha256@seed="},
		{"xxhash@seed=a=b@c", "xxhash@seed=a=b@c"},
		{"xxhash_cbor-bytes-none@int=-9223372036854775808", "xxhash_cbor-bytes-none@int=-9223372036854775808"},
		{"sha256_cbor_64bit@int=18446744073709551615", "sha256_cbor_64bit@int=18446744073709551615"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustProfile(t, tt.name)
			if p.String() != tt.want {
				t.Errorf("String: %q, want %q", p, tt.want)
			}
			if again := mustProfile(t, p.String()); again != p {
				t.Errorf("%q read back is another profile", p)
			}
		})
	}
	for _, f := range families() {
		p := mustProfile(t, f.name+"@seed=5")
		if err := p.Validate(DefaultChunkSize); err != nil {
			t.Error(err)
		}
	}
}

func TestParseProfile_Refusals(t *testing.T) {
	tests := []struct {
		name string
		want []string // parts of the error: the reason and the way out
	}{
		{"", []string{`unknown family ""`, "builtin, builtin-none", "sha256_cbor_64bit-none"}},
		{"blake3@seed=0", []string{`unknown family "blake3"`}},
		{"Builtin@0", []string{`unknown family "Builtin"`}},
		{"builtin", []string{"no root", "builtin@0", "builtin@seed=N"}},
		{"builtin@", []string{"no root"}},
		{"builtin-none", []string{"no root", "builtin-none@0"}},
		{"builtin@1", []string{`root "1"`, "int=N"}},
		{"builtin@seed", []string{`root "seed"`}},
		{"builtin@0,py310", []string{`root "0,py310"`}},
		{"builtin@seed=x", []string{`seed "x"`, "0 to 4294967295"}},
		{"builtin@seed=-1", []string{`seed "-1"`}},
		{"builtin@seed=+1", []string{`seed "+1"`}},
		{"builtin@seed= 1", []string{`seed " 1"`}},
		{"builtin@seed=4294967296", []string{`seed "4294967296"`}},
		{"builtin@seed=0,py312", []string{`seed "0,py312"`, ",py310"}},
		{"builtin@seed=" + strings.Repeat("0", 256), []string{"256 digits", "255"}},
		{"builtin@seed=random", []string{"PYTHONHASHSEED=random", "one number on all workers"}},
		{"builtin-none@seed=0,py310", []string{"None is hashed by its address", "Python 3.12"}},
		{"builtin@int=", []string{`int ""`}},
		{"builtin@int=1e3", []string{`int "1e3"`}},
		{"builtin@int=--1", []string{`int "--1"`}},
		{"builtin@int=+1", []string{`int "+1"`}},
		{"builtin@int=0x1" + strings.Repeat("0", 64), []string{"256 bits"}},
		{"builtin@int=" + strings.Repeat("9", 1000), []string{"256 bits"}},
		{"sha256_cbor", []string{"PYTHONHASHSEED unset", "sha256_cbor@seed=VALUE"}},
		{"sha256@", []string{"PYTHONHASHSEED unset", "sha256@seed=VALUE"}},
		{"xxhash@0", []string{"without vLLM", "builtin@0", "xxhash@seed=TEXT"}},
		{"sha256-bytes@seed=0,py310", []string{"same on every Python", "leave off"}},
		{"sha256@seed=" + strings.Repeat("0", 256), []string{"256 bytes", "255"}},
		{"sha256@seed=\xff", []string{"UTF-8"}},
		{"sha256@int=18446744073709551616", []string{"-2^63 to 2^64-1"}},
		{"sha256_cbor@int=-9223372036854775809", []string{"-2^63 to 2^64-1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParseProfile(tt.name)
			if err == nil {
				t.Fatalf("got %v, want an error", p)
			}
			for _, part := range append(tt.want, "hash profile") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if p != (Profile{}) {
				t.Errorf("got %v beside the error", p)
			}
		})
	}
}

func TestProfile_ValidateChunkSize(t *testing.T) {
	tests := []struct {
		name string
		size int
		want string // part of the error; "": accepted
	}{
		{"builtin@0", 1, ""},
		{"builtin@0", 1 << 30, ""},
		{"builtin@0", 0, "chunk size 0"},
		{"builtin@0", -5, "chunk size -5"},
		{"sha256_cbor@seed=0", 13001, ""},
		{"sha256@seed=0", 13000, ""},
		{"sha256@seed=0", 13001, "above 13000"},
		{"xxhash@seed=0", 13001, "above 13000"},
		{"xxhash-bytes-none@seed=0", 13001, "above 13000"},
		{"", 256, "no hash profile"},
	}
	for _, tt := range tests {
		var p Profile
		if tt.name != "" {
			p = mustProfile(t, tt.name)
		}
		err := p.Validate(tt.size)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, %d: %v, want %q", p, tt.size, err, tt.want)
		}
		if h, hErr := p.NewHasher(tt.size); (h == nil) != (err != nil) || (hErr == nil) != (err == nil) {
			t.Errorf("%v, %d: NewHasher gives %v, %v", p, tt.size, h, hErr)
		}
	}
}

// An empty PYTHONHASHSEED is, for builtin, as good as no vLLM, on every Python.
func TestParseProfile_EmptySeed(t *testing.T) {
	want := mustProfile(t, "builtin@0").Chain(seqTokens(600), 256, true)
	for _, name := range []string{"builtin@seed=", "builtin@seed=,py310", "builtin@int=2305843009213693951"} {
		if got := mustProfile(t, name).Chain(seqTokens(600), 256, true); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// FuzzParseProfile looks for panics, and for names that do not read back.
func FuzzParseProfile(f *testing.F) {
	for _, seed := range []string{"builtin@0", "builtin@seed=1,py310", "sha256@seed=x", "builtin-pair@int=-0xff", "@", "builtin"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		p, err := ParseProfile(name)
		if err != nil {
			return
		}
		if again, err := ParseProfile(p.String()); err != nil || again != p {
			t.Errorf("%q gives %q, which gives %v, %v", name, p, again, err)
		}
	})
}
