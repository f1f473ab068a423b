package httpapi

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
	"github.com/kvctrl/kvctrl/registry"
)

func lookupBody(tokens []int64, more string) string {
	b, err := json.Marshal(tokens)
	if err != nil {
		panic(err)
	}
	return `{"tokens":` + string(b) + more + `}`
}

// layout is the raw layout_info of an answer.
func layout(t testing.TB, w *httptest.ResponseRecorder) string {
	t.Helper()
	var a struct {
		Layout json.RawMessage `json:"layout_info"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 {
		t.Fatalf("%d %s (%v)", w.Code, w.Body, err)
	}
	return string(a.Layout)
}

func TestLookup_LongestFirstAndTailCredited(t *testing.T) {
	r := newRig(t)
	prompt := counting(0, 600)
	keys := chain(t, "builtin@0", prompt)
	for i, held := range []int{1, 3, 2} {
		r.register(fmt.Sprintf("i%d", i), 0)
		r.admit(fmt.Sprintf("i%d", i), 0, "LocalCPUBackend", keys[:held]...)
	}
	for _, c := range []struct {
		tokens []int64
		more   string
		want   string
	}{
		{prompt, "", `{"i1":["LocalCPUBackend",600],"i2":["LocalCPUBackend",512],"i0":["LocalCPUBackend",256]}`},
		{prompt[:512], "", `{"i1":["LocalCPUBackend",512],"i2":["LocalCPUBackend",512],"i0":["LocalCPUBackend",256]}`},
		{prompt[:300], "", `{"i0":["LocalCPUBackend",256],"i1":["LocalCPUBackend",256],"i2":["LocalCPUBackend",256]}`},
		{prompt[1:], "", `{}`},
		{nil, "", `{}`},
		{prompt, `,"instance_id":"i2"`, `{"i2":["LocalCPUBackend",512]}`},
		{prompt[1:], `,"instance_id":"i2"`, `{}`},
		// Not registered, or no name: as if it were not there.
		{prompt[:256], `,"instance_id":"nobody"`, `{"i0":["LocalCPUBackend",256],"i1":["LocalCPUBackend",256],"i2":["LocalCPUBackend",256]}`},
		{prompt[:256], `,"instance_id":5`, `{"i0":["LocalCPUBackend",256],"i1":["LocalCPUBackend",256],"i2":["LocalCPUBackend",256]}`},
		{prompt[:256], `,"instance_id":null`, `{"i0":["LocalCPUBackend",256],"i1":["LocalCPUBackend",256],"i2":["LocalCPUBackend",256]}`},
	} {
		if c.tokens == nil {
			c.tokens = []int64{}
		}
		if got := layout(t, r.post("/lookup", lookupBody(c.tokens, c.more))); got != c.want {
			t.Errorf("%d tokens%s: %s\nwant %s", len(c.tokens), c.more, got, c.want)
		}
	}
}

func TestLookup_NamesAreUTF8(t *testing.T) {
	r := newRig(t)
	r.register("инстанс \"é\"<&>\u2028", 0)
	r.admit("инстанс \"é\"<&>\u2028", 0, "a\nb", chain(t, "builtin@0", []int64{7})...)
	if got, want := layout(t, r.post("/lookup", `{"tokens":[7]}`)), "{\"инстанс \\\"é\\\"<&>\u2028\":[\"a\\u000ab\",1]}"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestLookup_TokensBeyond64Bits: Python hashes integers of any size by their remainder,
// so builtin finds them; a digest has no such rule and finds nothing.
func TestLookup_TokensBeyond64Bits(t *testing.T) {
	for _, c := range []struct{ profile, want string }{{"builtin@0", `{"i":["L",2]}`}, {"sha256_cbor@seed=0", `{}`}, {promptkeys.Auto, `{"i":["L",2]}`}} {
		r := newRig(t, func(o *Options) { o.Finder = finder(t, c.profile) })
		n, _ := new(big.Int).SetString("1180591620717411303424", 10) // 2^70
		reduced := []int64{reduce(n), -5}
		r.register("i", 0)
		r.admit("i", 0, "L", chain(t, "builtin@0", reduced)...)
		if c.profile == "sha256_cbor@seed=0" {
			r.admit("i", 0, "L", chain(t, c.profile, reduced)...)
		}
		if got := layout(t, r.post("/lookup", `{"tokens":[1180591620717411303424,-9223372036854775809]}`)); got != c.want {
			t.Errorf("%s: %s, want %s", c.profile, got, c.want)
		}
	}
}

func TestLookup_AutoFindsTheProfiles(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Finder = finder(t, promptkeys.Auto, "4711") })
	prompt, other := counting(0, 600), counting(50_000, 512)
	const fleet, second = "sha256_cbor@seed=4711", "builtin@seed=123"
	r.register("i", 0)
	r.admit("i", 0, "L", chain(t, fleet, prompt)...)
	r.register("j", 0)
	r.admit("j", 0, "L", chain(t, second, other)...)
	r.admit("j", 0, "L", chain(t, second, prompt)[0])

	look := func(want string, tokens []int64, inUse ...string) {
		t.Helper()
		if got := layout(t, r.post("/lookup", lookupBody(tokens, ""))); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		var have []string
		for _, p := range r.s.opts.Finder.Stats(r.state.Registry()).Profiles {
			if p.InUse {
				have = append(have, p.Profile)
			}
		}
		if slices.Sort(have); !slices.Equal(have, inUse) {
			t.Errorf("in use are %q, want %q", have, inUse)
		}
	}
	look("{}", prompt[:255]) // shorter than a chunk: no evidence, no search for another profile
	look(`{"j":["L",512]}`, other, second)
	look(`{}`, counting(7, 300), second) // a miss under every profile changes nothing
	r.admit("j", 0, "L", chain(t, second, counting(9000, 256))...)
	look(`{"j":["L",256]}`, counting(9000, 256), second)
	r.state.Registry().Deregister(registry.WorkerRef{Instance: "j"}, 1_700_000_000_250_001)
	look(`{"i":["L",600]}`, prompt, second, fleet)
	r.register("j", 0)
	r.admit("j", 0, "L", chain(t, second, prompt)[:2]...)
	look(`{"i":["L",600],"j":["L",512]}`, prompt, second, fleet) // both, at once
	body := r.get("/metrics").Body.String()
	for _, line := range []string{
		`kvctrl_hash_profile_in_use{chunk_size="256",profile="builtin@seed=123"} 1`, `kvctrl_hash_profile_hits_total{chunk_size="256",profile="builtin@seed=123"} 3`,
		`kvctrl_hash_profile_instances{chunk_size="256",profile="sha256_cbor@seed=4711"} 1`, `kvctrl_hash_profiles_found_total 2`,
		`kvctrl_hash_probes_total{outcome="hit"} 2`, `kvctrl_hash_probes_total{outcome="miss"} 1`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

// TestStatus_ShowsWhatAutoHasFound and nothing before it has.
func TestStatus_ShowsWhatAutoHasFound(t *testing.T) {
	r := newRig(t, func(o *Options) {
		f, err := promptkeys.New(promptkeys.Options{ChunkSizes: []int{256, 64}, Now: func() time.Time { return time.UnixMicro(1_700_000_000_000_000) }})
		if err != nil {
			t.Fatal(err)
		}
		o.Finder = f
	})
	status := func() string {
		t.Helper()
		var st struct{ Hash json.RawMessage }
		if err := json.Unmarshal(r.get("/admin/status").Body.Bytes(), &st); err != nil {
			t.Fatal(err)
		}
		return string(st.Hash)
	}
	const head = `{"mode":"auto","chunk_size":256,"chunk_sizes":[256,64],"candidates":118,"profiles":[`
	if got, want := status(), head+`]}`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	for _, instance := range []string{"b", "a"} {
		r.register(instance, 0)
		r.admit(instance, 0, "L", chain(t, "sha256@seed=0", counting(0, 512))...)
	}
	r.post("/lookup", lookupBody(counting(0, 512), ""))
	if got, want := status(), head+`{"name":"sha256@seed=0","chunk_size":256,"in_use":true,"hits":1,"last_hit_us":1700000000000000,"instances":["a","b"],"instance_count":2}]}`; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestLookup_AutoAsksTheInstanceOnly: another instance's profile is no evidence for the
// one that is asked for.
func TestLookup_AutoAsksTheInstanceOnly(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Finder = finder(t, promptkeys.Auto) })
	prompt := counting(0, 256)
	r.register("a", 0)
	r.admit("a", 0, "L", chain(t, "builtin@seed=0", prompt)...)
	r.register("b", 0)
	r.admit("b", 0, "L", chain(t, "builtin@seed=123", prompt)...)
	if got := layout(t, r.post("/lookup", lookupBody(prompt, `,"instance_id":"b"`))); got != `{"b":["L",256]}` {
		t.Errorf("%s", got)
	}
}

func TestLookup_FixedProfileNeverGuesses(t *testing.T) {
	r := newRig(t)
	prompt := counting(0, 256)
	r.register("i", 0)
	r.admit("i", 0, "L", chain(t, "builtin@seed=0", prompt)...)
	if got := layout(t, r.post("/lookup", lookupBody(prompt, ""))); got != "{}" {
		t.Errorf("%s", got)
	}
}

func TestLookup_CountsHits(t *testing.T) {
	r := newRig(t)
	prompt := counting(0, 512)
	r.register("i", 0)
	r.admit("i", 0, "L", chain(t, "builtin@0", prompt)...)
	r.post("/lookup", lookupBody(prompt, ""))
	r.post("/lookup", lookupBody(counting(9, 512), ""))
	body := r.get("/metrics").Body.String()
	for _, line := range []string{
		`kvctrl_lookup_hit_chunks_bucket{le="0"} 1`, `kvctrl_lookup_hit_chunks_bucket{le="1"} 1`, `kvctrl_lookup_hit_chunks_bucket{le="2"} 2`,
		`kvctrl_lookup_seconds_count 2`, `kvctrl_http_requests_total{method="POST",route="/lookup",status="200"} 2`,
	} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

// TestLookup_AsksTheNewRegistryAfterARestore: a restored snapshot swaps the registry.
func TestLookup_AsksTheNewRegistryAfterARestore(t *testing.T) {
	r := newRig(t)
	r.register("i", 0)
	r.admit("i", 0, "L", chain(t, "builtin@0", []int64{7})...)
	if got := layout(t, r.post("/lookup", `{"tokens":[7]}`)); got != `{"i":["L",1]}` {
		t.Fatal(got)
	}
	r.state.reg.Store(registry.New(registry.Options{Shards: 4}))
	if got := layout(t, r.post("/lookup", `{"tokens":[7]}`)); got != `{}` {
		t.Fatal(got)
	}
}
