package httpapi

import (
	"fmt"
	"strings"
	"time"

	"github.com/kvctrl/kvctrl/registry"
)

// reason is a part of a diagnosis: what was seen, and what to do.
type reason struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Advice string `json:"advice"`
}

// The codes of reasons. X-Kvctrl-Miss has one of those of a miss.
const (
	whyHit        = "hit"
	whyTail       = "tail_missing"
	whyPrefix     = "prefix_only"
	whySuspect    = "worker_suspect"
	whyMixed      = "mixed_profiles"
	whyShort      = "short_prompt"
	whyStale      = "stale_replica"
	whyUnknown    = "unknown_instance"
	whyNoWorkers  = "no_workers"
	whyMismatch   = "profile_mismatch"
	whyRanks      = "ranks_incomplete"
	whyElsewhere  = "held_elsewhere"
	whyEvicted    = "all_evicted"
	whyHole       = "first_chunk_missing"
	whyExpired    = "worker_expired"
	whyLeft       = "worker_deregistered"
	whyRandom     = "random_seed"
	whySyncing    = "syncing"
	whyUnrepaired = "unrepaired"
	whyLossy      = "stream_lossy"
	whyNeverFound = "unknown_profile"
	whyNotStored  = "not_stored"
)

// whyCodes are all of them, for the document of the interface.
var whyCodes = []string{
	whyHit, whyTail, whyPrefix, whySuspect, whyMixed, whyShort, whyStale, whyUnknown, whyNoWorkers, whyMismatch, whyRanks, whyElsewhere, whyEvicted, whyHole,
	whyExpired, whyLeft, whyRandom, whySyncing, whyUnrepaired, whyLossy, whyNeverFound, whyNotStored,
}

// explain says why a lookup of the prompt finds what it finds, the likeliest reason
// first. There is always one.
//
// Determinism: it depends on the evidence alone.
func explain(e *evidence) []reason {
	x := explainer{e: e}
	if x.found() {
		return x.reasons
	}
	x.missed()
	return x.reasons
}

type explainer struct {
	e       *evidence
	reasons []reason
}

func (x *explainer) add(code, advice, format string, args ...any) {
	x.reasons = append(x.reasons, reason{Code: code, Detail: fmt.Sprintf(format, args...), Advice: advice})
}

// found explains a hit, and what keeps it from being longer. False when nothing is
// found by a lookup.
func (x *explainer) found() bool {
	var best *profileEvidence
	var hit registry.Hit
	var hitting []string
	for i := range x.e.profiles {
		p := &x.e.profiles[i]
		h, any := p.best()
		if !any || !x.e.searched(i) {
			continue
		}
		if p.fullChunks > 0 { // less has one key under chunks of any size, and is no evidence
			hitting = append(hitting, profileAt(p))
		}
		if best == nil || p.tokensHeld(h.Chunks, x.e.tokens) > best.tokensHeld(hit.Chunks, x.e.tokens) {
			best, hit = p, h
		}
	}
	if best == nil {
		return false
	}
	held := best.tokensHeld(hit.Chunks, x.e.tokens)
	x.add(whyHit, "Nothing to do: a lookup finds it.", "instance %q holds the first %d of %d tokens in %s, found by %s", hit.Instance, held, x.e.tokens, hit.Location, profileAt(best))
	if hit.Suspect {
		x.add(whySuspect, "See whether the engine runs and reaches the controller; it is offered again as soon as it says anything.",
			"a worker of instance %q has been silent for too long: what it holds is kept, and offered after everybody else's", hit.Instance)
	}
	switch {
	case held == x.e.tokens:
	case hit.Chunks >= best.fullChunks:
		x.add(whyTail, "Nothing to do: since LMCache 0.3.11 engines store whole chunks only.",
			"only the last %d tokens are missing, less than a chunk of %d", x.e.tokens-held, best.chunkSize)
	default:
		x.add(whyPrefix, "Nothing to do when prompts differ from there on; else see the reasons below, and whether the engine's cache is large enough.",
			"instance %q does not hold chunk %d of %d (tokens %d to %d): not stored yet, or evicted",
			hit.Instance, hit.Chunks+1, best.fullChunks, held, min(held+best.chunkSize, x.e.tokens)-1)
		x.incomplete()
		x.mismatch(held)
	}
	if hit.Lossy || hit.Chunks < best.fullChunks {
		x.unsettled(hit.Instance)
	}
	if len(hitting) > 1 {
		x.add(whyMixed, "If engines are to share chunks, give all of them one LMCache version, one PYTHONHASHSEED, one pre_caching_hash_algorithm and one chunk size.",
			"%d hash profiles find this prompt (%s): engines with different ones cannot read each other's chunks", len(hitting), list(hitting))
	}
	return true
}

// missed explains that a lookup finds nothing: first what is certain, then what is
// likely by what is known of the workers, last what remains.
func (x *explainer) missed() {
	short := x.short()
	x.stale()
	switch {
	case x.e.unknown || len(x.e.workers) == 0:
		x.gone()
		x.nobody()
		return
	case short:
		x.mismatch(0)
		return
	}
	certain := x.mismatch(0)
	certain = x.incomplete() || certain
	certain = x.elsewhere() || certain
	certain = x.evicted() || certain
	certain = x.hole() || certain
	x.gone()
	x.randomSeeds()
	x.unsettled("")
	if !certain {
		x.neverFound()
		x.notStored()
	}
}

// maxTold is how many of a kind are told one by one.
const maxTold = 3

// list joins names, the first few of many.
func list(names []string) string {
	if len(names) <= maxTold {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxTold], ", "), len(names)-maxTold)
}

func quoted(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = fmt.Sprintf("%q", n)
	}
	return out
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// profileAt names a profile and its chunk size.
func profileAt(p *profileEvidence) string {
	return fmt.Sprintf("%s with chunks of %d", p.name, p.chunkSize)
}

func hitOf(hits []registry.Hit, instance string) registry.Hit {
	for _, h := range hits {
		if h.Instance == instance {
			return h
		}
	}
	return registry.Hit{}
}

// moment is a time in words.
func moment(t registry.Micros) string {
	return time.UnixMicro(int64(t)).UTC().Format("2006-01-02T15:04:05Z")
}
