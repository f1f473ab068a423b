package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
)

// leastBadInputs is how many cases there are at least.
const leastBadInputs = 200

// maxBadBody is --max-body of the replica under test.
const maxBadBody = 64 << 10

// TestBadInput gives a replica everything that it must not take, and holds what it
// promises: a clear error, the state as it was, all sockets working. Cases that end or
// never start a process have one of their own.
func TestBadInput(t *testing.T) {
	b := newBadBench(t)
	groups := []struct {
		name string
		run  func(*testing.T, *badBench)
	}{
		{"rest", badREST},
		{"workers", badWorkers},
		{"http", badHTTP},
		{"pull", badPull},
		{"reply", func(t *testing.T, b *badBench) { badRouter(t, b, "reply", b.r.ReplyAddr()) }},
		{"heartbeat", func(t *testing.T, b *badBench) { badRouter(t, b, "heartbeat", b.r.HeartbeatAddr()) }},
		{"tcp", badTCP},
		{"peer", badPeer},
		{"start", badStart},
		{"datadir", badDataDir},
		{"damage", badDamage},
		{"disk", badDisk},
		{"slow", badSlow}, // last: by now the slow have waited long
	}
	ran := 0
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			ran++
			began, before := time.Now(), b.cases
			g.run(t, b)
			b.works(t)
			t.Logf("%d cases in %s", b.cases-before, time.Since(began).Round(time.Millisecond))
		})
	}
	b.end(t)
	if ran == len(groups) && b.cases < leastBadInputs {
		t.Errorf("%d cases, want at least %d", b.cases, leastBadInputs)
	}
	t.Logf("%d cases", b.cases)
}

// badBench is the running replica and what must not change about it.
type badBench struct {
	r     *Replica
	c     *client
	zctx  *zmq.Context
	slow  *slowClients
	cases int
	probe int // probes made

	prompt []int64 // held by the worker "good"
	good   *simworker.Worker
	known  string // the fleet and the commands as they are shown
	last   stateDigest
	spans  []entrySpan
}

// entrySpan is a range of log indexes that came while a case ran.
type entrySpan struct {
	name     string
	from, to uint64
	commits  bool // the case's own entries may be among them
}

func newBadBench(t *testing.T) *badBench {
	t.Helper()
	b := &badBench{r: Start(t, Options{Args: []string{"--worker-deadline", "1s", "--max-body", fmt.Sprint(maxBadBody), "--health-check-interval", "1",
		"--hash", "builtin@0", "--chunk-size", fmt.Sprint(crashChunk)}})}
	b.c = newClient(t, b.r)
	zctx, err := zmq.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	b.zctx = zctx
	t.Cleanup(func() {
		if err := zctx.Term(); err != nil {
			t.Error(err)
		}
	})
	b.slow = newSlowClients(t, b.r)
	for i := range 2 * crashChunk {
		b.prompt = append(b.prompt, int64(i))
	}
	b.good = b.worker(t, simworker.Options{Instance: "good"})
	b.worker(t, simworker.Options{Instance: "pair", Rank: 0})
	b.worker(t, simworker.Options{Instance: "pair", Rank: 1})
	b.good.Store(b.prompt)
	Eventually(t, 20*time.Second, "the good prompt", b.goodLookup)
	if status, answer, err := b.c.post("/pin", map[string]any{"instance_id": "good", "location": simworker.LocalCPU, "tokens": b.prompt, "event_id": "used"}); err != nil || status != http.StatusOK {
		t.Fatalf("pin is answered %d %s: %v", status, answer, err)
	}
	b.settle(t)
	return b
}

// worker starts a simulated worker without heartbeats; the test's cleanup stops it.
func (b *badBench) worker(t *testing.T, o simworker.Options) *simworker.Worker {
	t.Helper()
	o.Context = b.zctx
	return startWorker(t, b.r, o)
}

func (b *badBench) goodLookup() error {
	hits, err := b.c.lookup(b.prompt)
	if err == nil && hits["good"] != len(b.prompt) {
		err = fmt.Errorf("a lookup of the good prompt answers %v", hits)
	}
	return err
}

// settle takes the present state for the right one.
func (b *badBench) settle(t *testing.T) {
	t.Helper()
	b.last = b.c.mustDigest(t)
	known, err := b.view()
	if err != nil {
		t.Fatal(err)
	}
	b.known = known
}

// view is everything that the REST shows of the state, without times.
func (b *badBench) view() (string, error) {
	var out strings.Builder
	for _, path := range []string{"/instances", "/events"} {
		status, answer, err := b.c.do(http.MethodGet, path, nil)
		if err != nil || status != http.StatusOK {
			return "", fmt.Errorf("GET %s answers %d %s: %w", path, status, answer, err)
		}
		var v any
		if err := json.Unmarshal(answer, &v); err != nil {
			return "", err
		}
		shown, err := json.Marshal(withoutTimes(v))
		if err != nil {
			return "", err
		}
		out.Write(shown)
	}
	return out.String(), nil
}

func withoutTimes(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			if strings.HasSuffix(k, "_time") || strings.HasSuffix(k, "_us") {
				delete(v, k)
				continue
			}
			v[k] = withoutTimes(v[k])
		}
	case []any:
		for i := range v {
			v[i] = withoutTimes(v[i])
		}
	}
	return v
}

// try runs a case and then looks whether the state is what it was. A case that commits
// may put entries of its own into the log, which must show nowhere.
func (b *badBench) try(t *testing.T, name string, commits bool, f func(t *testing.T)) {
	t.Helper()
	b.cases++
	t.Run(name, func(t *testing.T) {
		f(t)
		b.unchanged(t, name, commits)
	})
}

func (b *badBench) unchanged(t *testing.T, name string, commits bool) {
	t.Helper()
	if !b.r.Running() {
		t.Fatalf("the replica has ended with exit code %d", b.r.AwaitEnd())
	}
	d := b.c.mustDigest(t)
	switch {
	case d.Index == b.last.Index && d.Digest != b.last.Digest:
		t.Errorf("digest %s has become %s at the same index %d", b.last.Digest, d.Digest, d.Index)
	case d.Index < b.last.Index:
		t.Errorf("index %d has become %d", b.last.Index, d.Index)
	case d.Index > b.last.Index: // the leader's word on who was heard, or the case's own; end looks
		b.spans = append(b.spans, entrySpan{name, b.last.Index + 1, d.Index, commits})
	}
	b.last = d
	if known, err := b.view(); err != nil || known != b.known {
		t.Errorf("the state has changed: %v\nwas %s\nis  %s", err, b.known, known)
	}
}

// works uses every socket for what it is for: registration, heartbeat, admits, lookup,
// a command, leave. What it changed is taken for right afterwards.
func (b *badBench) works(t *testing.T) {
	t.Helper()
	if err := b.goodLookup(); err != nil {
		t.Fatal(err)
	}
	b.probe++
	name := fmt.Sprintf("probe-%d", b.probe)
	w := b.worker(t, simworker.Options{Instance: name, HeartbeatEvery: 20 * time.Millisecond, AnswerTimeout: 10 * time.Second})
	prompt := slices.Clone(b.prompt)
	prompt[0] = 1_000_000 + int64(b.probe)
	w.Store(prompt)
	Eventually(t, 20*time.Second, "a prompt stored after bad input", func() error {
		hits, err := b.c.lookup(prompt)
		if err == nil && hits[name] != len(prompt) {
			err = fmt.Errorf("a lookup answers %v", hits)
		}
		return err
	})
	status, answer, err := b.c.post("/clear", map[string]any{"instance_id": name, "location": simworker.LocalCPU})
	if err != nil || status != http.StatusOK || !bytes.Contains(answer, []byte(fmt.Sprintf(`"num_tokens":%d`, len(prompt)))) {
		t.Errorf("clear of %s is answered %d %s: %v", name, status, answer, err)
	}
	Eventually(t, 20*time.Second, "a heartbeat after bad input", func() error {
		if w.Stats().Heartbeats == 0 {
			return errors.New("none is answered")
		}
		return nil
	})
	if conn, err := net.DialTimeout("tcp", addr(b.r.Ports.Peer), 5*time.Second); err != nil {
		t.Errorf("the peer port: %v", err)
	} else {
		conn.Close()
	}
	b.leave(t, w)
	b.settle(t)
}

// leave ends a worker and waits until the replica has forgotten it.
func (b *badBench) leave(t *testing.T, w *simworker.Worker) {
	t.Helper()
	w.Deregister()
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	Eventually(t, 20*time.Second, "worker "+w.String()+" to be gone", func() error {
		views, err := b.c.workers()
		if _, known := views[w.String()]; err == nil && known {
			err = errors.New("it is still there")
		}
		return err
	})
}

// end stops the replica and looks into its log: while cases ran that commit nothing,
// nothing but leases came into it.
func (b *badBench) end(t *testing.T) {
	t.Helper()
	digest := b.c.mustDigest(t)
	if code := b.r.Terminate(); code != 0 {
		t.Errorf("SIGTERM ended the replica with exit code %d, want 0", code)
	}
	wantNoFaults(t, b.r)
	offline := openOffline(t, b.r.DataDir)
	defer offline.close(t)
	single := func() int { return 1 }
	if got := offline.replay(t, digest.Index, true, single).Digest().String(); got != digest.Digest {
		t.Errorf("digest at index %d is %s by a replay, the replica said %s", digest.Index, got, digest.Digest)
	}
	for _, span := range b.spans {
		if span.commits {
			continue
		}
		offline.entries(t, span.from, span.to, func(entry *raft.Log) {
			e, err := fsm.Decode(entry.Data)
			if err != nil || e.Type != fsm.TypeLease {
				t.Errorf("case %q: entry %d is a %v (%v), want nothing but leases", span.name, entry.Index, e.Type, err)
			}
		})
	}
}

// counted runs f and waits until a metric has grown by n.
func (b *badBench) counted(t *testing.T, metric string, n float64, f func() error) {
	t.Helper()
	before, err := b.c.metric(metric)
	if err == nil {
		err = f()
	}
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, 20*time.Second, metric, func() error {
		now, err := b.c.metric(metric)
		if err == nil && now != before+n {
			err = fmt.Errorf("was %v, is %v, want %v more", before, now, n)
		}
		return err
	})
}

func badFrameMetric(reason lmcache.Reason) string {
	return fmt.Sprintf("kvctrl_ingest_bad_frames_total{reason=%q}", string(reason))
}

func refusedMetric(why string) string {
	return fmt.Sprintf("kvctrl_ingest_refused_total{reason=%q}", why)
}
