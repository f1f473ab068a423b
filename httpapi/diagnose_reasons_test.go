package httpapi

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/registry"
)

// seen is evidence of a prompt of 600 tokens that one profile misses, in a fleet of one
// worker that holds other things; change makes it what a test is about.
func seen(change func(*evidence)) *evidence {
	e := &evidence{
		tokens:   600,
		profiles: []profileEvidence{{name: "builtin@0", chunkSize: 256, fullChunks: 2, tried: true, inUse: true}},
		workers:  []registry.WorkerInfo{aWorker("a", 0, 10)},
		stores:   []storeEvidence{{instance: "a", keys: 10, found: true}},
	}
	change(e)
	return e
}

func aWorker(instance string, rank, keys int64) registry.WorkerInfo {
	return registry.WorkerInfo{WorkerRef: registry.WorkerRef{Instance: instance, Worker: rank}, Keys: keys, Stores: keys > 0, SyncState: registry.SyncNone,
		Locations: []registry.LocationInfo{{Location: "LocalCPUBackend", Keys: keys}}}
}

func aStream(instance string, rank int64, prefix, first, held int) streamEvidence {
	return streamEvidence{StreamRef: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: instance, Worker: rank}, Location: "LocalCPUBackend"}, prefix: prefix, first: first, held: held}
}

func hitAt(chunks int) []registry.Hit {
	return []registry.Hit{{Instance: "a", Location: "LocalCPUBackend", Chunks: chunks}}
}

// other is a profile that no lookup tries.
func other(chunkSize, chunks int) profileEvidence {
	return profileEvidence{name: "sha256_cbor@seed=0", chunkSize: chunkSize, fullChunks: 600 / chunkSize, hits: hitAt(chunks)}
}

func TestExplain(t *testing.T) {
	provoked := map[string]bool{}
	gone := func(why string) registry.Departed {
		return registry.Departed{WorkerRef: registry.WorkerRef{Instance: "b"}, At: 1_700_000_000_000_000, Why: why, Keys: 77}
	}
	for _, c := range []struct {
		name   string
		change func(*evidence)
		want   []string // codes, in order
		words  []string // of details and advice
	}{
		{"all of it", func(e *evidence) { e.profiles[0].hits = hitAt(3) }, []string{"hit"}, []string{`instance "a" holds the first 600 of 600 tokens in LocalCPUBackend, found by builtin@0 with chunks of 256`}},
		{"whole chunks only", func(e *evidence) { e.profiles[0].hits = hitAt(2) }, []string{"hit", "tail_missing"}, []string{"first 512 of 600", "only the last 88 tokens"}},
		{"a prefix", func(e *evidence) { e.profiles[0].hits = hitAt(1) }, []string{"hit", "prefix_only"}, []string{`instance "a" does not hold chunk 2 of 2 (tokens 256 to 511)`}},
		{"a prefix, of a worker that is being asked", func(e *evidence) {
			e.profiles[0].hits = hitAt(1)
			e.workers[0].SyncState = registry.SyncWanted
			e.workers = append(e.workers, aWorker("b", 0, 1))
			e.workers[1].SyncState = registry.SyncWanted
		}, []string{"hit", "prefix_only", "syncing"}, []string{`what "a"/0 (wanted) hold is not wholly known: 1 in`}},
		{"a prefix, of which one rank holds more", func(e *evidence) {
			e.profiles[0].hits = hitAt(1)
			e.profiles[0].streams = []streamEvidence{aStream("a", 0, 2, 0, 2), aStream("a", 1, 1, 0, 1)}
			e.workers = append(e.workers, aWorker("a", 1, 5))
		}, []string{"hit", "prefix_only", "ranks_incomplete"}, []string{`chunk 2 is held by rank 0 of instance "a" and not by rank 1`}},
		{"held by a silent worker", func(e *evidence) { e.profiles[0].hits = hitAt(3); e.profiles[0].hits[0].Suspect = true }, []string{"hit", "worker_suspect"}, []string{"silent for too long"}},
		{"a longer hit that is suspect", func(e *evidence) {
			e.profiles[0].hits = append(hitAt(1), registry.Hit{Instance: "b", Location: "L", Chunks: 3, Suspect: true})
		}, []string{"hit", "worker_suspect"}, []string{`instance "b" holds the first 600`}},
		{"held by a lossy stream", func(e *evidence) {
			e.profiles[0].hits = hitAt(3)
			e.profiles[0].hits[0].Lossy = true
			e.workers[0].Locations[0].Lossy = true
		}, []string{"hit", "stream_lossy"}, []string{`"a"/0 LocalCPUBackend (0 gaps)`}},
		{"under two profiles", func(e *evidence) {
			e.profiles[0].hits = hitAt(3)
			e.profiles = append(e.profiles, other(256, 3))
			e.profiles[1].tried = true
		}, []string{"hit", "mixed_profiles"}, []string{"2 hash profiles find this prompt (builtin@0 with chunks of 256, sha256_cbor@seed=0 with chunks of 256)"}},

		{"short", func(e *evidence) { e.tokens = 255 }, []string{"short_prompt"}, []string{"the prompt has 255 tokens, a chunk 256"}},
		{"empty", func(e *evidence) { e.tokens = 0 }, []string{"short_prompt"}, []string{"0 tokens"}},
		{"shorter than the largest chunk size", func(e *evidence) {
			e.tokens = 255
			e.profiles = append(e.profiles, profileEvidence{name: "builtin@0", chunkSize: 64, fullChunks: 3, tried: true})
		}, []string{"not_stored"}, nil},
		{"short, and stored in smaller chunks", func(e *evidence) { e.tokens = 255; e.profiles = append(e.profiles, other(64, 2)) }, []string{"short_prompt", "profile_mismatch"}, []string{"the first 128 of 255"}},

		{"a replica that is behind", func(e *evidence) { e.staleness = 61 * time.Second }, []string{"stale_replica", "not_stored"}, []string{"up to 1m1s old"}},
		{"a replica that knows nothing", func(e *evidence) { e.staleness = cluster.StalenessUnknown }, []string{"stale_replica", "not_stored"}, []string{"since its start"}},
		{"a replica that is behind, and finds it", func(e *evidence) { e.staleness = time.Hour; e.profiles[0].hits = hitAt(3) }, []string{"hit"}, nil},
		{"nobody registered", func(e *evidence) { e.workers = nil }, []string{"no_workers"}, []string{"no worker is registered"}},
		{"nobody left", func(e *evidence) { e.workers = nil; e.departed = []registry.Departed{gone("expired")} }, []string{"worker_expired", "no_workers"}, []string{`worker "b"/0 was given up at 2023-11-14T22:13:20Z after its silence; it held 77 chunks and has not come back`}},
		{"the instance is not registered", func(e *evidence) { e.instance, e.unknown, e.workers = "x", true, nil }, []string{"unknown_instance"}, []string{`no worker of instance "x"`}},
		{"the instance has expired", func(e *evidence) {
			e.instance, e.unknown, e.workers = "b", true, nil
			e.departed = []registry.Departed{gone("expired"), {WorkerRef: registry.WorkerRef{Instance: "c"}, Why: "expired", Keys: 1}}
		}, []string{"worker_expired", "unknown_instance"}, nil},
		{"another instance has it", func(e *evidence) {
			e.instance = "a"
			e.profiles[0].streams = []streamEvidence{aStream("b", 0, 2, 0, 2), aStream("b", 1, 1, 0, 1)}
		}, []string{"held_elsewhere"}, []string{`instance "a" does not hold the prompt's first chunk; "b" does`}},

		{"another profile, lookups go by one", func(e *evidence) {
			e.fixed = "builtin@0"
			e.profiles = append(e.profiles, other(256, 2))
		}, []string{"profile_mismatch"}, []string{`holds the first 512 of 600 tokens under sha256_cbor@seed=0 with chunks of 256, not under builtin@0`, "--hash sha256_cbor@seed=0 --chunk-size 256"}},
		{"another chunk size", func(e *evidence) { e.profiles = append(e.profiles, other(128, 4)) }, []string{"profile_mismatch"}, []string{"chunks of 128, not under the ones that lookups try", "--chunk-sizes 128"}},
		{"another profile holds less than the one that is tried", func(e *evidence) { e.profiles[0].hits = hitAt(1); e.profiles = append(e.profiles, other(128, 1)) }, []string{"hit", "prefix_only"}, nil},
		{"a rank without", func(e *evidence) {
			e.profiles[0].streams = []streamEvidence{aStream("a", 0, 2, 0, 2)}
			e.workers = append(e.workers, aWorker("a", 1, 5), aWorker("a", 2, 0))
		}, []string{"ranks_incomplete"}, []string{`chunk 1 is held by rank 0 of instance "a" and not by rank 1`}},
		{"evicted", func(e *evidence) { e.profiles[0].evicted = true }, []string{"all_evicted"}, []string{"under builtin@0 with chunks of 256"}},
		{"the rest without the beginning", func(e *evidence) { e.profiles[0].streams = []streamEvidence{aStream("a", 0, 0, 1, 1)} }, []string{"first_chunk_missing"}, []string{`worker "a"/0 holds 1 chunk of the prompt in LocalCPUBackend`, "from chunk 2 on"}},

		{"a worker that expired and is back", func(e *evidence) {
			e.departed = []registry.Departed{gone("expired")}
			e.workers = append(e.workers, aWorker("b", 0, 3))
		}, []string{"worker_expired", "not_stored"}, []string{"is back and holds 3"}},
		{"a worker that left", func(e *evidence) { e.departed = []registry.Departed{gone("deregistered")} }, []string{"worker_deregistered", "not_stored"}, []string{`worker "b"/0 left at`}},
		{"workers that held nothing", func(e *evidence) { d := gone("expired"); d.Keys = 0; e.departed = []registry.Departed{d} }, []string{"not_stored"}, nil},
		{"many that expired", func(e *evidence) { e.departed = slices.Repeat([]registry.Departed{gone("expired")}, 9) }, []string{"worker_expired", "worker_expired", "worker_expired", "not_stored"}, nil},

		{"random seed", func(e *evidence) { e.stores[0] = storeEvidence{instance: "a", keys: 10, now: 8, before: 8} }, []string{"random_seed", "not_stored"}, []string{`instance "a" holds 10 chunks, no lookup of this replica has found anything there`, "If it is, the engine was only asked for other prompts"}},
		{"other keys after a restart, but found", func(e *evidence) {
			e.stores[0] = storeEvidence{instance: "a", keys: 10, found: true, now: 8, before: 8}
		}, []string{"not_stored"}, nil},
		{"the same keys after a restart", func(e *evidence) {
			e.stores[0] = storeEvidence{instance: "a", keys: 10, now: 8, before: 8, both: 2}
		}, []string{"unknown_profile", "not_stored"}, []string{`not found any prompt at "a" yet (10 chunks)`, "among the 1 profile "}},
		{"keys of another instance's", func(e *evidence) {
			e.stores[0] = storeEvidence{instance: "a", keys: 10, shared: 1, now: 8, before: 8}
		}, []string{"unknown_profile", "not_stored"}, nil},
		{"never restarted, never found", func(e *evidence) { e.stores[0] = storeEvidence{instance: "a", keys: 10, now: 8} }, []string{"unknown_profile", "not_stored"}, nil},
		{"two random seeds", func(e *evidence) {
			e.stores = []storeEvidence{{instance: "a", keys: 1, now: 8, before: 8}, {instance: "b", keys: 1, now: 8, before: 8}}
		}, []string{"random_seed", "not_stored"}, []string{`instances "a", "b" hold`}},

		{"syncing", func(e *evidence) { e.workers[0].SyncState = registry.SyncSyncing }, []string{"syncing", "not_stored"}, []string{`"a"/0 (syncing)`}},
		{"unrepaired", func(e *evidence) { e.workers[0].SyncState = registry.SyncUnrepaired }, []string{"unrepaired", "not_stored"}, []string{"lmcache_worker_heartbeat_time"}},
		{"lossy", func(e *evidence) { e.workers[0].Locations[0].Lossy, e.workers[0].Locations[0].Gaps = true, 4 }, []string{"stream_lossy", "not_stored"}, []string{`"a"/0 LocalCPUBackend (4 gaps)`}},
		{"much of it", func(e *evidence) {
			e.workers[0].Locations[0].Lossy = true
			e.departed = []registry.Departed{gone("expired")}
			e.stores[0].found = false
		}, []string{"worker_expired", "stream_lossy", "unknown_profile", "not_stored"}, nil},

		{"nothing stored", func(e *evidence) { e.workers[0].Keys = 0; e.stores = nil }, []string{"not_stored"}, []string{"nothing is stored at all, at 1 worker"}},
		{"not stored", func(*evidence) {}, []string{"not_stored"}, []string{"what is held is of others: 10 chunks at 1 worker", "chat template"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				for _, code := range c.want {
					provoked[code] = true
				}
			}()
			var codes []string
			var text strings.Builder
			for _, r := range explain(seen(c.change)) {
				codes = append(codes, r.Code)
				text.WriteString(r.Detail + "\n" + r.Advice + "\n")
				if r.Detail == "" || r.Advice == "" {
					t.Errorf("%s without words", r.Code)
				}
				if !slices.Contains(whyCodes, r.Code) {
					t.Errorf("%s is not among the codes", r.Code)
				}
			}
			if !slices.Equal(codes, c.want) {
				t.Errorf("%q, want %q\n%s", codes, c.want, text.String())
			}
			for _, w := range c.words {
				if !strings.Contains(text.String(), w) {
					t.Errorf("no %q in\n%s", w, text.String())
				}
			}
		})
	}
	for _, code := range whyCodes {
		if !provoked[code] {
			t.Errorf("nothing leads to %s", code)
		}
	}
}

// TestExplain_Words: long lists are cut.
func TestExplain_Words(t *testing.T) {
	for _, c := range []struct {
		names []string
		want  string
	}{{[]string{"a"}, "a"}, {[]string{"a", "b", "c"}, "a, b, c"}, {[]string{"a", "b", "c", "d", "e"}, "a, b, c and 2 more"}} {
		if got := list(c.names); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
