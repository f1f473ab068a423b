package httpapi

import (
	"fmt"
	"slices"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/registry"
)

// What can be the cause of a miss: one method each. Those that return a bool say whether
// the cause is certain and leaves nothing to look for.

// short: nothing can be stored of a prompt that is shorter than every chunk size.
func (x *explainer) short() bool {
	smallest := 0
	for i := range x.e.profiles {
		if p := &x.e.profiles[i]; p.tried && (smallest == 0 || p.chunkSize < smallest) {
			smallest = p.chunkSize
		}
	}
	if x.e.tokens >= smallest {
		return false
	}
	x.add(whyShort, "Nothing to do for short prompts: engines store whole chunks only (all since LMCache 0.3.11). If the engines' chunk_size is smaller, give it with --chunk-size, or in --chunk-sizes with --hash auto.",
		"the prompt has %d tokens, a chunk %d: there is no whole chunk in it", x.e.tokens, smallest)
	return true
}

// stale: this replica may be behind.
func (x *explainer) stale() {
	const advice = "Ask another replica, or this one with consistency=linearizable, and look at kvctrld status: this one may be cut off from the leader."
	switch {
	case x.e.staleness == cluster.StalenessUnknown:
		x.add(whyStale, advice, "this replica has not heard how much is committed since its start: its state may be of any age")
	case x.e.staleness > staleAfter:
		x.add(whyStale, advice, "this replica's state is up to %s old", x.e.staleness.Round(time.Second))
	}
}

// staleAfter is far beyond a replica's heartbeats from its leader.
const staleAfter = 5 * time.Second

// nobody: the instance asked for, or the whole fleet, is not there.
func (x *explainer) nobody() {
	if x.e.unknown {
		x.add(whyUnknown, "Compare the name with kvctrld instances. A lookup that names it is answered for all instances.",
			"no worker of instance %q is registered", x.e.instance)
		return
	}
	x.add(whyNoWorkers, "See whether the engines run with enable_controller and with controller_pull_url and controller_reply_url of this cluster (or of the front before it): their log says \"Registering lmcache instance-worker\", ours Registered instance-worker.",
		"no worker is registered")
}

// mismatch: another profile finds more of the prompt than lookups do, which do not try
// it.
func (x *explainer) mismatch(held int) bool {
	var other *profileEvidence
	var hit registry.Hit
	for i := range x.e.profiles {
		p := &x.e.profiles[i]
		if h, any := p.best(); any && !p.tried && p.tokensHeld(h.Chunks, x.e.tokens) > held {
			other, hit, held = p, h, p.tokensHeld(h.Chunks, x.e.tokens)
		}
	}
	if other == nil {
		return false
	}
	setting := fmt.Sprintf("--hash %s --chunk-size %d", other.name, other.chunkSize)
	if x.e.fixed == "" {
		setting = fmt.Sprintf("--chunk-sizes %d", other.chunkSize)
	}
	going := "the ones that lookups try"
	if x.e.fixed != "" {
		going = x.e.fixed + ", by which lookups go"
	}
	x.add(whyMismatch, fmt.Sprintf("Start every replica with %s, or give the engine the fleet's settings and restart it.", setting),
		"instance %q holds the first %d of %d tokens under %s, not under %s", hit.Instance, held, x.e.tokens, profileAt(other), going)
	return true
}

// incomplete: some ranks of an instance hold more than others.
func (x *explainer) incomplete() bool {
	seen := map[string]bool{}
	for i := range x.e.profiles {
		p := &x.e.profiles[i]
		if !x.e.searched(i) {
			continue
		}
		for _, st := range p.streams {
			if seen[st.Instance] || st.prefix <= hitOf(p.hits, st.Instance).Chunks {
				continue
			}
			with, without := x.ranks(p, st.Instance, hitOf(p.hits, st.Instance).Chunks)
			if len(without) == 0 {
				continue
			}
			seen[st.Instance] = true
			x.add(whyRanks, "An engine can load only what every rank holds. See whether the other ranks' events arrive (kvctrld instances shows gaps) and whether their caches are of one size.",
				"chunk %d is held by rank %s of instance %q and not by rank %s", hitOf(p.hits, st.Instance).Chunks+1, list(with), st.Instance, list(without))
		}
	}
	return len(seen) > 0
}

// ranks are those of an instance that hold more than the given number of chunks, and
// those that store something and do not.
func (x *explainer) ranks(p *profileEvidence, instance string, chunks int) (with, without []string) {
	longest := map[int64]int{}
	for _, st := range p.streams {
		if st.Instance == instance {
			longest[st.Worker] = max(longest[st.Worker], st.prefix)
		}
	}
	for _, w := range x.e.workers {
		switch {
		case w.Instance != instance:
		case longest[w.Worker] > chunks:
			with = append(with, fmt.Sprint(w.Worker))
		case w.Stores:
			without = append(without, fmt.Sprint(w.Worker))
		}
	}
	return with, without
}

// elsewhere: not the instance that is asked for has it.
func (x *explainer) elsewhere() bool {
	if x.e.instance == "" {
		return false
	}
	var names []string
	for i := range x.e.profiles {
		for _, st := range x.e.profiles[i].streams {
			if name := fmt.Sprintf("%q", st.Instance); st.prefix > 0 && st.Instance != x.e.instance && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return false
	}
	x.add(whyElsewhere, "Look it up without an instance, or bring it there: kvctrld move, with --copy to keep the original.",
		"instance %q does not hold the prompt's first chunk; %s", x.e.instance, has(names))
	return true
}

func has(names []string) string {
	if len(names) == 1 {
		return names[0] + " does"
	}
	return list(names) + " do"
}

// evicted: the prompt was there.
func (x *explainer) evicted() bool {
	for i := range x.e.profiles {
		if p := &x.e.profiles[i]; p.evicted {
			x.add(whyEvicted, "Nothing to do after a clear. Else make the engine's cache larger (max_local_cpu_size, a disk or remote backend), pin what must stay, or send such prompts to one engine so that they stay in use.",
				"the prompt's first chunk was stored (under %s), and whoever held it last has evicted it", profileAt(p))
			return true
		}
	}
	return false
}

// hole: later chunks without the first are of no use to anybody.
func (x *explainer) hole() bool {
	for i := range x.e.profiles {
		p := &x.e.profiles[i]
		if len(p.hits) > 0 || slices.ContainsFunc(p.streams, func(st streamEvidence) bool { return st.prefix > 0 }) {
			continue
		}
		for _, st := range p.streams {
			x.add(whyHole, "The beginning was evicted before the rest, or its event was lost (kvctrld instances shows gaps). It is found again once the prompt is stored again.",
				"worker %q/%d holds %s of the prompt in %s (under %s), from chunk %d on: without the first chunk nothing can be loaded",
				st.Instance, st.Worker, count(int64(st.held), "chunk"), st.Location, profileAt(p), st.first+1)
			return true
		}
	}
	return false
}

// gone: workers that held something and are no longer there, or have come back empty.
func (x *explainer) gone() {
	told := map[string]int{}
	for _, d := range x.e.departed {
		if d.Keys == 0 || x.e.instance != "" && d.Instance != x.e.instance {
			continue
		}
		now := "has not come back"
		if w := x.worker(d.WorkerRef); w != nil {
			now = fmt.Sprintf("is back and holds %d", w.Keys)
		}
		code := whyLeft
		if d.Why == registry.DepartedExpired {
			code = whyExpired
		}
		if told[code]++; told[code] > maxTold {
			continue
		}
		if code == whyExpired {
			x.add(code, "See whether the engine runs and reaches the controller. Silence is judged by --lmcache-worker-timeout and --health-check-interval, which should be several of the engine's lmcache_worker_heartbeat_time.",
				"worker %q/%d was given up at %s after its silence; it held %s and %s", d.Instance, d.Worker, moment(d.At), count(d.Keys, "chunk"), now)
			continue
		}
		x.add(code, "Nothing to do when it was meant: what an engine holds in memory ends with it.",
			"worker %q/%d left at %s; it held %s and %s", d.Instance, d.Worker, moment(d.At), count(d.Keys, "chunk"), now)
	}
}

func (x *explainer) worker(ref registry.WorkerRef) *registry.WorkerInfo {
	i := slices.IndexFunc(x.e.workers, func(w registry.WorkerInfo) bool { return w.WorkerRef == ref })
	if i < 0 {
		return nil
	}
	return &x.e.workers[i]
}

// randomSeeds: keys that match nothing and change with the process. It is no proof: what
// is compared is 32 keys of each process, and the prompts may have been others.
func (x *explainer) randomSeeds() {
	var names []string
	var one storeEvidence
	for _, s := range x.e.stores {
		if s.random() {
			names, one = append(names, s.instance), s
		}
	}
	if len(names) == 0 {
		return
	}
	what := fmt.Sprintf("instance %s holds %s, no lookup of this replica has found anything there, and since its restart it has stored other keys than before (%d and %d first keys, none in common)", list(quoted(names)), count(one.keys, "chunk"), one.before, one.now)
	if len(names) > 1 {
		what = fmt.Sprintf("instances %s hold chunks, no lookup of this replica has found anything there, and since its restart each has stored other keys than before", list(quoted(names)))
	}
	x.add(whyRandom, "See whether PYTHONHASHSEED is set in the engine's environment. If not, set it to one number (such as 0) for every engine and restart them: without it vLLM's hash begins with a number of its own in each process, and nobody else can tell its keys. If it is, the engine was only asked for other prompts than before: give the number in --hash-seeds.", "%s", what)
}

// random reports whether an instance's keys look like those of a hash that begins anew
// with every process.
func (s *storeEvidence) random() bool {
	return !s.found && s.keys > 0 && s.shared == 0 && s.both == 0 && s.now > 0 && s.before > 0
}

// unsettled tells of workers of which not all is known: of one instance, or of all.
func (x *explainer) unsettled(instance string) {
	var syncing, unrepaired, lossy []string
	for _, w := range x.e.workers {
		if instance != "" && w.Instance != instance {
			continue
		}
		name := fmt.Sprintf("%q/%d", w.Instance, w.Worker)
		switch w.SyncState {
		case registry.SyncSyncing, registry.SyncWanted:
			syncing = append(syncing, name+" ("+w.SyncState+")")
		case registry.SyncUnrepaired:
			unrepaired = append(unrepaired, name)
		}
		for _, l := range w.Locations {
			if l.Lossy {
				lossy = append(lossy, fmt.Sprintf("%s %s (%s)", name, l.Location, count(l.Gaps, "gap")))
			}
		}
	}
	if len(syncing) > 0 {
		x.add(whySyncing, "Wait: a full sync takes seconds, at most --max-syncs run at once. kvctrld instances shows how it stands.",
			"what %s hold is not wholly known: %d in a full sync or waiting for one", list(syncing), len(syncing))
	}
	if len(unrepaired) > 0 {
		x.add(whyUnrepaired, "Wait for the first heartbeat if they have just started. Else set lmcache_worker_heartbeat_time on these engines (such as 10) and restart them: a worker is asked for a full sync by the answer to its heartbeat.",
			"events of %s were lost, and these have sent no heartbeat since they registered, by which they could be asked to tell all they hold", list(unrepaired))
	}
	if len(lossy) > 0 {
		x.add(whyLossy, "A CPU cache is made good by a full sync, another location when the engine has evicted all of it, or restarts (LMCache clears no disk). If gaps go on, see the network between engine and controller, and the engine's log for dropped messages.",
			"events were lost of %s: chunks may be stored there that are not known here, and others be gone", list(lossy))
	}
}

// neverFound: instances whose keys no prompt has led to.
func (x *explainer) neverFound() {
	var names []string
	keys := int64(0)
	for _, s := range x.e.stores {
		if !s.found && !s.random() {
			names = append(names, s.instance)
			keys += s.keys
		}
	}
	if len(names) == 0 {
		return
	}
	x.add(whyNeverFound, "If prompts that these engines have served are not found either, compare their PYTHONHASHSEED, pre_caching_hash_algorithm and chunk_size with kvctrld status: give the seed in --hash-seeds and the size in --chunk-sizes, or set PYTHONHASHSEED to one number on all engines.",
		"this replica has not found any prompt at %s yet (%s): none was asked for that is stored there, or the hash is not among the %s tried", list(quoted(names)), count(keys, "chunk"), count(int64(x.tried()), "profile"))
}

func (x *explainer) tried() int {
	n := 0
	for i := range x.e.profiles {
		if x.e.profiles[i].tried {
			n++
		}
	}
	return n
}

// notStored is what is left.
func (x *explainer) notStored() {
	keys := int64(0)
	for _, w := range x.e.workers {
		keys += w.Keys
	}
	detail := fmt.Sprintf("by what its workers say, nobody holds the prompt's first chunk: it was not stored, or not since an engine's last start, or it was evicted longer ago than this replica remembers; what is held is of others: %s at %s", count(keys, "chunk"), count(int64(len(x.e.workers)), "worker"))
	if keys == 0 {
		detail = fmt.Sprintf("nothing is stored at all, at %s", count(int64(len(x.e.workers)), "worker"))
	}
	x.add(whyNotStored, "Compare the tokens with those that the engine got, from the first one on: chat template, system prompt, special tokens at the beginning, tokenizer. A prompt with images is looked up by its rewritten tokens. If they are the same, see in the engine's log whether it stores at all.", "%s", detail)
}
