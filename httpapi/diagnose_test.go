package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/internal/promptkeys"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// diagnose asks /diagnose.
func (r *rig) diagnose(tokens []int64, instance string) diagnosis {
	r.t.Helper()
	more := ""
	if instance != "" {
		more = fmt.Sprintf(`,"instance_id":%q`, instance)
	}
	w := r.post("/diagnose", lookupBody(tokens, more))
	var d diagnosis
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != 200 {
		r.t.Fatalf("%d %s (%v)", w.Code, w.Body, err)
	}
	return d
}

func codesOfReasons(d diagnosis) []string {
	var codes []string
	for _, r := range d.Reasons {
		codes = append(codes, r.Code)
	}
	return codes
}

// miss is the X-Kvctrl-Miss of a lookup, "" when it has none.
func (r *rig) miss(tokens []int64, instance string) string {
	r.t.Helper()
	more := ""
	if instance != "" {
		more = fmt.Sprintf(`,"instance_id":%q`, instance)
	}
	w := r.post("/lookup", lookupBody(tokens, more))
	if w.Code != 200 {
		r.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Header().Get(headerMiss)
}

const day = 1_700_000_000_250_000 // as in register

// ops applies numbered operations.
func (r *rig) ops(instance string, worker, first int64, evict bool, keys ...lmcache.Key) {
	r.t.Helper()
	o := registry.Ops{Stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: instance, Worker: worker}, Location: "LocalCPUBackend"}, First: first, Numbered: true, At: day}
	for i, k := range keys {
		o.Keys = append(o.Keys, registry.Key(k))
		if i%8 == 0 {
			o.Evict = append(o.Evict, 0)
		}
		if evict {
			o.Evict[i/8] |= 1 << (i % 8)
		}
	}
	if res := r.state.Registry().ApplyOps(o); res.Unknown || res.Refused != "" {
		r.t.Fatalf("refused: %+v", res)
	}
}

// expire lets the leader give a worker up, ten seconds after it was registered.
func (r *rig) expire(instance string, worker int64) {
	r.state.Registry().Lease(registry.Lease{At: day + 10_000_000, Expired: []registry.WorkerRef{{Instance: instance, Worker: worker}}})
}

// TestDiagnose_EachReason provokes every reason once, by what workers do, and looks at
// its name and at the miss's header.
func TestDiagnose_EachReason(t *testing.T) {
	prompt := counting(0, 600)
	provoked := map[string]bool{}
	auto := func(sizes ...int) func(*Options) {
		return func(o *Options) {
			f, err := promptkeys.New(promptkeys.Options{Profile: promptkeys.Auto, ChunkSizes: sizes})
			if err != nil {
				panic(err)
			}
			o.Finder = f
		}
	}
	const cpu = "LocalCPUBackend"
	for _, c := range []struct {
		name     string
		options  func(*Options)
		fleet    func(r *rig, keys []lmcache.Key)
		tokens   []int64
		instance string
		want     []string
		miss     string // "" for a hit
		words    string
	}{
		{name: "hit", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys...)
		}, want: []string{"hit"}, words: `instance "a" holds the first 600 of 600 tokens in LocalCPUBackend`},
		{name: "tail_missing", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys[:2]...)
		}, want: []string{"hit", "tail_missing"}, words: "only the last 88 tokens"},
		{name: "prefix_only", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys[0])
		}, want: []string{"hit", "prefix_only"}, words: `instance "a" does not hold chunk 2 of 2 (tokens 256 to 511)`},
		{name: "worker_suspect", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys...)
			r.state.Registry().Lease(registry.Lease{At: day, Heard: []registry.Heard{{WorkerRef: registry.WorkerRef{Instance: "a"}, Any: day, Heartbeat: day}}})
			r.state.Registry().Lease(registry.Lease{At: day + 2*60_000_000})
		}, want: []string{"hit", "worker_suspect"}, words: "silent"},
		{name: "stream_lossy: a hit", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			disk := registry.Ops{Stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: "a"}, Location: "LocalDiskBackend"}, Numbered: true, At: day}
			for i, k := range keys {
				disk.First, disk.Keys = int64(2*i), []registry.Key{registry.Key(k)}
				r.state.Registry().ApplyOps(disk)
			}
		}, want: []string{"hit", "stream_lossy"}, words: `"a"/0 LocalDiskBackend (2 gaps)`},
		{name: "mixed_profiles", options: auto(256), fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys...)
			r.register("b", 0)
			r.admit("b", 0, cpu, chain(r.t, "sha256_cbor@seed=0", prompt)...)
		}, want: []string{"hit", "mixed_profiles"}, words: "builtin@0 with chunks of 256, sha256_cbor@seed=0 with chunks of 256"},
		{name: "short_prompt", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys...)
		}, tokens: prompt[:255], want: []string{"short_prompt"}, miss: "short_prompt", words: "255 tokens, a chunk 256"},
		{name: "unknown_instance", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
		}, instance: "x", want: []string{"unknown_instance"}, miss: "not_stored", words: `"x"`},
		{name: "no_workers", fleet: func(*rig, []lmcache.Key) {}, want: []string{"no_workers"}, miss: "no_workers"},
		{name: "hit: less than a chunk of another size that is tried", options: auto(256, 512), tokens: prompt[:256], fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys[0])
		}, want: []string{"hit"}, words: "the first 256 of 256 tokens in LocalCPUBackend, found by builtin@0 with chunks of 256"},
		{name: "short_prompt: held under a profile that lookups do not try for so little", options: auto(256), tokens: prompt[:50], fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, chain(r.t, "sha256_cbor@seed=0", prompt[:50])...)
		}, want: []string{"short_prompt"}, miss: "short_prompt"},
		{name: "stale_replica", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.node.read = func(context.Context, cluster.Read) (cluster.Freshness, error) {
				return cluster.Freshness{Index: 7, Staleness: 90 * time.Second}, nil
			}
		}, want: []string{"stale_replica", "not_stored"}, miss: "not_stored", words: "up to 1m30s old"},
		{name: "stale_replica: it does not know", fleet: func(r *rig, keys []lmcache.Key) {
			r.node.read = func(context.Context, cluster.Read) (cluster.Freshness, error) {
				return cluster.Freshness{Index: 7, Staleness: cluster.StalenessUnknown}, nil
			}
		}, want: []string{"stale_replica", "no_workers"}, miss: "no_workers", words: "since its start"},
		{name: "profile_mismatch: the fixed one is another", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, chain(r.t, "builtin@seed=0", prompt)...)
		}, want: []string{"profile_mismatch"}, miss: "unknown_profile", words: "--hash builtin@seed=0 --chunk-size 256"},
		{name: "profile_mismatch: another chunk size", options: auto(256), fleet: func(r *rig, keys []lmcache.Key) {
			p, err := lmcache.ParseProfile("builtin@0")
			if err != nil {
				r.t.Fatal(err)
			}
			r.register("a", 0)
			r.admit("a", 0, cpu, p.Chain(prompt, 64, false)...)
		}, want: []string{"profile_mismatch"}, miss: "unknown_profile", words: "the first 576 of 600 tokens under builtin@0 with chunks of 64"},
		{name: "ranks_incomplete", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.register("a", 1)
			r.admit("a", 0, cpu, keys...)
			r.admit("a", 1, cpu, 7)
		}, want: []string{"ranks_incomplete"}, miss: "unknown_profile", words: `chunk 1 is held by rank 0 of instance "a" and not by rank 1`},
		{name: "ranks_incomplete: one that has evicted all it stored", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.register("a", 1)
			r.admit("a", 0, cpu, keys...)
			r.ops("a", 1, 0, false, keys...)
			r.ops("a", 1, 3, true, keys...)
		}, want: []string{"ranks_incomplete"}, miss: "unknown_profile", words: `chunk 1 is held by rank 0 of instance "a" and not by rank 1`},
		{name: "held_elsewhere", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, 7)
			r.register("b", 0)
			r.admit("b", 0, cpu, keys...)
		}, instance: "a", want: []string{"held_elsewhere"}, miss: "not_stored", words: `"b" does`},
		{name: "first_chunk_missing", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys[1:]...)
		}, want: []string{"first_chunk_missing"}, miss: "unknown_profile", words: `worker "a"/0 holds 2 chunks of the prompt in LocalCPUBackend (under builtin@0 with chunks of 256), from chunk 2 on`},
		{name: "all_evicted", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.ops("a", 0, 0, false, keys...)
			r.ops("a", 0, 3, true, keys...)
		}, want: []string{"all_evicted"}, miss: "all_evicted", words: "stored (under builtin@0 with chunks of 256)"},
		{name: "all_evicted: stored again, and lost with the process", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.ops("a", 0, 0, false, keys...)
			r.ops("a", 0, 3, true, keys...)
			r.ops("a", 0, 6, false, keys...)
			r.register("b", 0)
			r.expire("a", 0)
		}, want: []string{"worker_expired", "not_stored"}, miss: "worker_expired"},
		{name: "worker_expired", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys...)
			r.register("b", 0)
			r.expire("a", 0)
		}, want: []string{"worker_expired", "not_stored"}, miss: "worker_expired", words: `worker "a"/0 was given up at 2023-11-14T22:13:30Z after its silence; it held 3 chunks and has not come back`},
		{name: "worker_expired: nobody is left", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys...)
			r.expire("a", 0)
		}, want: []string{"worker_expired", "no_workers"}, miss: "worker_expired"},
		{name: "worker_expired: the instance asked for", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys...)
			r.register("b", 0)
			r.expire("a", 0)
		}, instance: "a", want: []string{"worker_expired", "unknown_instance"}, miss: "worker_expired"},
		{name: "worker_expired: and came back", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys...)
			r.expire("a", 0)
			r.register("a", 0)
		}, want: []string{"worker_expired", "not_stored"}, miss: "not_stored", words: "is back and holds 0"},
		{name: "worker_deregistered", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, keys...)
			r.register("b", 0)
			r.state.Registry().Deregister(registry.WorkerRef{Instance: "a"}, day)
		}, want: []string{"worker_deregistered", "not_stored"}, miss: "not_stored", words: `worker "a"/0 left at 2023-11-14T22:13:20Z`},
		{name: "random_seed", options: auto(256), fleet: func(r *rig, keys []lmcache.Key) {
			// The same prompt before and after a restart, each time under a NONE_HASH of its own.
			for _, root := range []string{"builtin@int=1234567", "builtin@int=7654321"} {
				r.register("a", 0)
				r.admit("a", 0, cpu, chain(r.t, root, prompt)...)
			}
		}, want: []string{"random_seed", "not_stored"}, miss: "unknown_profile", words: `instance "a" holds 3 chunks, no lookup of this replica has found anything there, and since its restart it has stored other keys than before (3 and 3 first keys, none in common)`},
		{name: "unknown_profile: other keys, of a process that was given up and went on", options: auto(256), fleet: func(r *rig, keys []lmcache.Key) {
			ref := registry.WorkerRef{Instance: "a"}
			r.register("a", 0)
			r.admit("a", 0, cpu, chain(r.t, "builtin@int=1234567", prompt)...)
			r.expire("a", 0)
			r.state.Registry().Register(registry.Registration{WorkerRef: ref, IP: "1.2.3.4", Port: 1, At: day + 20_000_000, ByHeartbeat: true})
			r.admit("a", 0, cpu, chain(r.t, "builtin@int=1234567", counting(10_000, 600))...)
		}, want: []string{"worker_expired", "syncing", "stream_lossy", "unknown_profile", "not_stored"}, miss: "syncing"},
		{name: "unknown_profile: the same keys after a restart", options: auto(256), fleet: func(r *rig, keys []lmcache.Key) {
			for range 2 {
				r.register("a", 0)
				r.admit("a", 0, cpu, chain(r.t, "builtin@int=1234567", prompt)...)
			}
		}, want: []string{"unknown_profile", "not_stored"}, miss: "unknown_profile"},
		{name: "unknown_profile: two instances share keys", options: auto(256), fleet: func(r *rig, keys []lmcache.Key) {
			for _, root := range []string{"builtin@int=1234567", "builtin@int=7654321"} {
				for _, instance := range []string{"a", "b"} {
					r.register(instance, 0)
					r.admit(instance, 0, cpu, chain(r.t, root, prompt)...)
				}
			}
		}, want: []string{"unknown_profile", "not_stored"}, miss: "unknown_profile"},
		{name: "syncing: asked", fleet: func(r *rig, keys []lmcache.Key) {
			r.state.Registry().Register(registry.Registration{WorkerRef: registry.WorkerRef{Instance: "a"}, IP: "1.2.3.4", Port: 1, At: day, ByHeartbeat: true})
		}, want: []string{"syncing", "not_stored"}, miss: "syncing", words: `"a"/0 (wanted)`},
		{name: "syncing: under way", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.state.Registry().SyncStart(registry.SyncStart{Stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: "a"}, Location: cpu}, SyncID: "s", TotalKeys: 9, BatchCount: 1, At: day})
		}, want: []string{"syncing", "not_stored"}, miss: "syncing", words: `"a"/0 (syncing)`},
		{name: "unrepaired", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.ops("a", 0, 0, false, 7)
			r.ops("a", 0, 5, false, 8)
		}, want: []string{"unrepaired", "stream_lossy", "unknown_profile", "not_stored"}, miss: "unrepaired", words: `"a"/0`},
		{name: "stream_lossy", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			disk := registry.Ops{Stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: "a"}, Location: "LocalDiskBackend"}, Numbered: true, At: day}
			for _, n := range []int64{0, 5} {
				disk.First, disk.Keys = n, []registry.Key{registry.Key(n)}
				r.state.Registry().ApplyOps(disk)
			}
		}, want: []string{"stream_lossy", "unknown_profile", "not_stored"}, miss: "stream_lossy", words: `"a"/0 LocalDiskBackend (1 gap)`},
		{name: "unknown_profile", options: auto(256), fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, 7, 8, 9)
		}, want: []string{"unknown_profile", "not_stored"}, miss: "unknown_profile", words: `at "a" yet (3 chunks)`},
		{name: "not_stored", fleet: func(r *rig, keys []lmcache.Key) {
			r.register("a", 0)
			r.admit("a", 0, cpu, chain(r.t, "builtin@0", counting(90_000, 256))...)
			r.post("/lookup", lookupBody(counting(90_000, 256), ""))
		}, want: []string{"not_stored"}, miss: "not_stored", words: "what is held is of others: 1 chunk at 1 worker"},
		{name: "not_stored: nothing is", fleet: func(r *rig, keys []lmcache.Key) { r.register("a", 0) }, want: []string{"not_stored"}, miss: "not_stored", words: "nothing is stored at all"},
	} {
		t.Run(c.name, func(t *testing.T) {
			change := []func(*Options){func(o *Options) { o.Now = func() time.Time { return time.UnixMicro(day).Add(time.Minute) } }}
			if c.options != nil {
				change = append(change, c.options)
			}
			r := newRig(t, change...)
			c.fleet(r, chain(t, "builtin@0", prompt))
			tokens := c.tokens
			if tokens == nil {
				tokens = prompt
			}
			d := r.diagnose(tokens, c.instance)
			for _, code := range codesOfReasons(d) {
				provoked[code] = true
			}
			if got := codesOfReasons(d); !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q: %+v", got, c.want, d.Reasons)
			}
			words, err := json.Marshal(d.Reasons)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.ReplaceAll(string(words), `\"`, `"`), c.words) {
				t.Errorf("no %q in %s", c.words, words)
			}
			if got := r.miss(tokens, c.instance); got != c.miss {
				t.Errorf("%s: %q, want %q", headerMiss, got, c.miss)
			}
		})
	}
	for _, code := range whyCodes {
		if !provoked[code] {
			t.Errorf("nothing leads to %s", code)
		}
	}
}

// TestDiagnose_Answer is one whole answer.
func TestDiagnose_Answer(t *testing.T) {
	r := newRig(t)
	prompt := counting(0, 600)
	keys := chain(t, "builtin@0", prompt)
	r.register("a", 0)
	r.admit("a", 0, "LocalCPUBackend", keys[0])
	r.admit("a", 0, "LocalDiskBackend", keys...)
	r.register("b", 0)
	r.admit("b", 0, "LocalCPUBackend", keys[0])
	want(t, r.post("/diagnose", lookupBody(prompt, "")), 200, `{"tokens":600,"profiles":[`+
		`{"profile":"builtin@0","chunk_size":256,"full_chunks":2,"hit_chunks":3,"tried":true,"in_use":true,"instances":[`+
		`{"instance_id":"a","location":"LocalDiskBackend","tokens":600,"suspect":false,"lossy":false},{"instance_id":"b","location":"LocalCPUBackend","tokens":256,"suspect":false,"lossy":false}]}],`+
		`"holders":[{"instance_id":"a","worker_id":0,"location":"LocalDiskBackend","profile":"builtin@0","chunk_size":256,"chunks":3,"prefix_chunks":3,"first_chunk":0},`+
		`{"instance_id":"a","worker_id":0,"location":"LocalCPUBackend","profile":"builtin@0","chunk_size":256,"chunks":1,"prefix_chunks":1,"first_chunk":0},`+
		`{"instance_id":"b","worker_id":0,"location":"LocalCPUBackend","profile":"builtin@0","chunk_size":256,"chunks":1,"prefix_chunks":1,"first_chunk":0}],`+
		`"reasons":[{"code":"hit","detail":"instance \"a\" holds the first 600 of 600 tokens in LocalDiskBackend, found by builtin@0 with chunks of 256","advice":"Nothing to do: a lookup finds it."}]}`)

	d := r.diagnose(prompt, "b")
	if len(d.Profiles) != 1 || len(d.Profiles[0].Instances) != 1 || d.Profiles[0].HitChunks != 1 {
		t.Errorf("of one instance: %+v", d.Profiles)
	}
	if !slices.Equal(codesOfReasons(d), []string{"hit", "prefix_only"}) {
		t.Errorf("%+v", d.Reasons)
	}
}

// TestDiagnose_LearnsNothing: asking why is not a lookup.
func TestDiagnose_LearnsNothing(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Finder = finder(t, promptkeys.Auto) })
	prompt := counting(0, 256)
	r.register("a", 0)
	r.admit("a", 0, "L", chain(t, "builtin@seed=123", prompt)...)
	for range 2 {
		if d := r.diagnose(prompt, ""); !slices.Equal(codesOfReasons(d), []string{"hit"}) || d.Profiles[0].InUse {
			t.Fatalf("%+v", d.Reasons)
		}
	}
	r.post("/lookup", lookupBody(prompt, ""))
	if d := r.diagnose(prompt, ""); !d.Profiles[0].InUse || d.Profiles[0].Profile != "builtin@seed=123" || !d.Profiles[0].Tried {
		t.Errorf("after a lookup: %+v", d.Profiles[0])
	}
}

// TestDiagnose_TokensBeyond64Bits: only Python's hash has keys for them.
func TestDiagnose_TokensBeyond64Bits(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Finder = finder(t, promptkeys.Auto) })
	r.register("a", 0)
	r.admit("a", 0, "L", 7)
	w := r.post("/diagnose", `{"tokens":[`+strings.Repeat("1180591620717411303424,", 255)+`1]}`)
	var d diagnosis
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != 200 || len(d.Holders) != 0 || d.Reasons[0].Code != "unknown_profile" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestDiagnose_BadBodies(t *testing.T) {
	r := newRig(t)
	for _, body := range []string{`{}`, `{"tokens":"x"}`, `{"tokens":[1],"instance_id":7}`, `[]`, `{`} {
		if w := r.post("/diagnose", body); w.Code != 422 {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	want(t, r.post("/diagnose", `{"tokens":[],"instance_id":null}`), 200, "")
}

// TestDiagnose_LooksOnceAtAnInstance: a look that finds none of its keys is not taken
// again for each of its workers.
func TestDiagnose_LooksOnceAtAnInstance(t *testing.T) {
	r := newRig(t)
	st := storeEvidence{instance: "a"}
	st.look(r.state.Registry(), registry.WorkerInfo{Keys: 1})
	for _, instance := range []string{"a", "b"} {
		r.register(instance, 0)
		r.admit(instance, 0, "L", 7)
	}
	if st.look(r.state.Registry(), registry.WorkerInfo{Keys: 1}); st.shared != 0 || st.keys != 2 {
		t.Errorf("%+v: looked twice", st)
	}
}

// TestDiagnose_LongPrompt: the chunks that are followed are bounded.
func TestDiagnose_LongPrompt(t *testing.T) {
	f, err := promptkeys.New(promptkeys.Options{Profile: "builtin@0", ChunkSizes: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *Options) { o.Finder = f })
	prompt := counting(0, maxFollowed+10)
	p, err := lmcache.ParseProfile("builtin@0")
	if err != nil {
		t.Fatal(err)
	}
	r.register("a", 0)
	r.admit("a", 0, "L", p.Chain(prompt, 1, true)...)
	if d := r.diagnose(prompt, ""); d.Holders[0].Prefix != maxFollowed || d.Profiles[0].HitChunks != len(prompt) {
		t.Errorf("%+v %d", d.Holders, d.Profiles[0].HitChunks)
	}
}

// BenchmarkDiagnose is a diagnosis of a miss, in a fleet of a hundred instances at which
// nothing has been found.
func BenchmarkDiagnose(b *testing.B) {
	r := newRig(b, func(o *Options) { o.Finder = finder(b, promptkeys.Auto) })
	for i := range 100 {
		r.register(fmt.Sprint("i", i), 0)
		r.admit(fmt.Sprint("i", i), 0, "L", chain(b, "builtin@int=99", counting(1000*i, 25_600))...)
	}
	p := promptkeys.Prompt{Tokens: counting(100_000, 2048)}
	for b.Loop() {
		if e := r.s.evidenceOf(r.state.Registry(), p); explain(e)[0].Code != whyNeverFound {
			b.Fatalf("%+v", explain(e))
		}
	}
}

// TestDiagnose_Bounded: a third diagnosis beside two is told to come again, and the places
// are given back.
func TestDiagnose_Bounded(t *testing.T) {
	r := newRig(t)
	for range maxDiagnoses {
		r.s.diagnosing <- struct{}{}
	}
	w := r.post("/diagnose", `{"tokens":[1]}`)
	if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"busy"`) || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for range maxDiagnoses {
		<-r.s.diagnosing
	}
	for range maxDiagnoses + 1 {
		if w := r.post("/diagnose", `{"tokens":[1]}`); w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}
