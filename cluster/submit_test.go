package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// Submit is the same at every replica.
func TestSubmit_AtEveryReplica(t *testing.T) {
	c := openCluster(t, 3, func(_ int, o *Options) { o.MaxEntry = 2000 })
	leader, others := c.leader()
	for i, n := range c.nodes {
		entry := batch(byte(i+1), 1, i)
		a, err := n.Submit(ctxFor(t, 10*time.Second), entry)
		if err != nil {
			t.Fatalf("%s: %v", n.id, err)
		}
		res, ok := a.Result.(fsm.BatchResult)
		if !ok || a.Index == 0 || res.Duplicate || len(res.Records) != 1 {
			t.Errorf("%s: %+v, want one record", n.id, a)
		}
		again, err := n.Submit(ctxFor(t, 10*time.Second), entry)
		if res, ok := again.Result.(fsm.BatchResult); err != nil || !ok || !res.Duplicate || again.Index <= a.Index {
			t.Errorf("%s, the same again: %+v, %v, want a duplicate", n.id, again, err)
		}
		for _, m := range c.nodes {
			if err := m.machine.WaitApplied(ctxFor(t, 10*time.Second), a.Index); err != nil {
				t.Fatal(err)
			}
			if _, ok := c.state(m).Registry().Worker(registry.WorkerRef{Instance: "vllm-0", Worker: int64(i)}); !ok {
				t.Errorf("%s does not know the worker that came by %s", m.id, n.id)
			}
		}

		if _, err := n.Submit(ctxFor(t, 10*time.Second), make([]byte, 2001)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s, too large: %v", n.id, err)
		}
		broken := batch(9, 1, 0)
		broken[len(broken)-1]++
		if _, err := n.Submit(ctxFor(t, 10*time.Second), broken); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s, broken: %v", n.id, err)
		}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := n.Submit(ended, batch(9, 2, 0)); !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("%s, cancelled before: %v", n.id, err)
		}
	}
	// What is no worker batch is not safe to propose twice.
	lease := fsm.EncodeLease(registry.Lease{At: now()})
	if _, err := leader.Submit(ctxFor(t, 10*time.Second), lease); err != nil {
		t.Errorf("a lease at the leader: %v", err)
	}
	for _, entry := range [][]byte{lease, {}} {
		if _, err := others[0].Submit(ctxFor(t, 10*time.Second), entry); !errors.Is(err, ErrInvalid) {
			t.Errorf("an entry of %d bytes from afar that is no worker batch: %v", len(entry), err)
		}
	}
	if f := others[0].Counters().Forwarded; f.Applied != 2 || f.Refused < 2 || f.Unknown != 0 || f.Seconds.Count != 2 {
		t.Errorf("forwarded %+v", f)
	}
	if n := leader.Counters().PeerRequests; n < 4 {
		t.Errorf("%d requests counted by the leader", n)
	}
	mustClose(t, others[0])
	if _, err := others[0].Submit(context.Background(), lease); !errors.Is(err, ErrStopped) {
		t.Errorf("after Close: %v", err)
	}
}

// Everything that was submitted anywhere is there once, in its order, although the
// leader goes again and again.
func TestSubmit_ThroughLeaderChanges(t *testing.T) {
	c := openCluster(t, 3, nil)
	c.leader()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	streams := make([]registry.StreamRef, len(c.nodes))
	sent := make([]int64, len(c.nodes))
	for i, n := range c.nodes {
		streams[i] = registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: fmt.Sprintf("vllm-%d", i)}, Location: "LocalCPUBackend"}
		wg.Add(1)
		go func() {
			defer wg.Done()
			b := fsm.NewBatch(registry.SessionID{byte(i + 1)})
			for number := uint64(1); ; number++ {
				select {
				case <-stop:
					return
				default:
				}
				b.Reset()
				if number == 1 {
					b.Register(registry.Registration{WorkerRef: streams[i].WorkerRef, IP: "10.0.0.1", Port: 9000, At: now()})
				}
				b.Ops(registry.Ops{Stream: streams[i], Keys: []registry.Key{registry.Key(number)}, Evict: registry.Bitmap{0}, First: sent[i], Numbered: true, At: now()})
				for {
					_, err := n.Submit(ctxFor(t, 10*time.Second), b.Encode(number, now()))
					if err == nil {
						break
					}
					if !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, ErrNoLeader) {
						t.Errorf("%s: %v", n.id, err)
						return
					}
				}
				sent[i]++
			}
		}()
	}
	for moved := 0; moved < 4; {
		leader, _ := c.leader()
		if err := leader.Transfer(ctxFor(t, 10*time.Second), ""); err != nil {
			t.Logf("transfer: %v", err) // a busy machine takes longer than raft gives it
		} else {
			moved++
		}
		leader, _ = c.leader()
		before := leader.Counters().Applied
		await(t, "batches", isTrue("none", func() bool { return leader.Counters().Applied > before+10 || !leader.IsLeader() }))
	}
	close(stop)
	wg.Wait()
	leader, _ := c.leader()
	a, err := leader.Propose(ctxFor(t, 10*time.Second), fsm.EncodeLease(registry.Lease{At: now()}))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		if err := n.machine.WaitApplied(ctxFor(t, 10*time.Second), a.Index); err != nil {
			t.Fatal(err)
		}
		for i, s := range streams {
			loc, ok := location(c.state(n).Registry(), s)
			if !ok || loc.NextSeq != sent[i] || loc.Keys != sent[i] || loc.Gaps != 0 || loc.Lossy {
				t.Errorf("%s says of stream %d: %+v, %v; %d were acknowledged", n.id, i, loc, ok, sent[i])
			}
		}
	}
	t.Logf("%v batches", sent)
}

// A leader that is cut off does not hold a submission for longer than it takes to
// have another; what became of the entry is unknown, and the same one again tells.
func TestSubmit_LeaderCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 3, delay: time.Millisecond})
		leader := c.mustLead()
		follower := c.followers()[0]
		if _, err := follower.Submit(ctxFor(t, 10*time.Second), batch(1, 1, 0)); err != nil {
			t.Fatal(err)
		}
		c.isolate(leader.NodeID())
		begin := time.Now()
		entry := batch(1, 2, 1)
		_, err := follower.Submit(context.Background(), entry)
		if took := time.Since(begin); !errors.Is(err, ErrUnknownOutcome) || !errors.Is(err, errLeaderChanged) || took > 3*time.Second {
			t.Errorf("%v after %v, want unknown once another leads", err, took)
		}
		a, err := follower.Submit(ctxFor(t, 10*time.Second), entry)
		if res, ok := a.Result.(fsm.BatchResult); err != nil || !ok || res.Duplicate {
			t.Errorf("at the next leader: %+v, %v", a, err)
		}

		// Without a quorum: nobody is known to lead soon, and then it is not held long.
		c.net.Partition(c.others(), c.others())
		await(t, "no leader", isTrue("one leads", func() bool { _, ok := follower.Leader(); return !ok }))
		begin = time.Now()
		_, err = follower.Submit(context.Background(), batch(1, 3, 2))
		if took := time.Since(begin); !errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknownOutcome) || took != follower.times.hold() {
			t.Errorf("without a leader: %v after %v, want ErrNoLeader after %v", err, took, follower.times.hold())
		}
		short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if _, err = follower.Submit(short, batch(1, 3, 2)); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("without a leader, in a hurry: %v", err)
		}
		c.heal()
		c.settle()
	})
}

// A dead leader is noticed at once by its connections; the caller is held until there
// is another one.
func TestSubmit_LeaderCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 4})
		leader, follower := c.mustLead(), c.followers()[0]
		if _, err := follower.Submit(ctxFor(t, 10*time.Second), batch(1, 1, 0)); err != nil {
			t.Fatal(err)
		}
		leader.replica.crash()
		begin := time.Now()
		entry := batch(1, 2, 1)
		a, err := follower.Submit(context.Background(), entry)
		for tries := 0; err != nil && tries < 3; tries++ { // an election may take longer than one hold
			if !errors.Is(err, ErrUnknownOutcome) && !errors.Is(err, ErrNoLeader) {
				t.Fatal(err)
			}
			a, err = follower.Submit(context.Background(), entry)
		}
		if took := time.Since(begin); err != nil || a.Index == 0 || took > 4*time.Second {
			t.Errorf("%+v, %v after %v", a, err, took)
		}
		c.heal()
		c.settle()
	})
}

func TestRefusedThere(t *testing.T) {
	travelled := func(err error) error {
		status, b := encodePeerError(err)
		return decodePeerError(status, fmt.Appendf(nil, `{"code":%q,"detail":%q}`, b.Code, b.Detail))
	}
	for _, c := range []struct {
		err          error
		again, known bool
	}{
		{fmt.Errorf("%w: no route", ErrUnreachable), true, true},
		{errors.New("connection reset"), false, false},
		{travelled(unknown(ErrStopped)), false, false},
		{travelled(&NotLeaderError{}), true, true},
		{travelled(ErrNoLeader), true, true},
		{travelled(ErrStopped), true, true},
		{travelled(context.Canceled), true, true},
		{travelled(ErrInvalid), false, true},
		{travelled(ErrTooLarge), false, true},
		{travelled(ErrBusy), false, true},
		{travelled(errors.New("something new")), false, false},
		{decodePeerError(500, []byte("?")), false, false},
		{&PeerError{Code: codeCluster}, true, true},
	} {
		if again, known := refusedThere(c.err); again != c.again || known != c.known {
			t.Errorf("%v: %v, %v, want %v, %v", c.err, again, known, c.again, c.known)
		}
	}
}

func TestAppliedEncoding(t *testing.T) {
	want := Applied{Index: 7, Result: fsm.BatchResult{Duplicate: true}}
	b, err := encodeApplied(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeApplied(b)
	if res, ok := got.Result.(fsm.BatchResult); err != nil || got.Index != 7 || !ok || !res.Duplicate {
		t.Errorf("%+v, %v", got, err)
	}
	for cut := range b {
		if _, err := decodeApplied(b[:cut]); err == nil {
			t.Errorf("%d of %d bytes are read", cut, len(b))
		}
	}
}

// What goes to the leader reaches its handlers, whole; and says so when there is none,
// or it is this replica.
func TestAskLeader(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if strings.HasSuffix(r.URL.Path, "/no") {
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprintf(w, `{"code":"tea","detail":"no"}`)
			return
		}
		w.Header().Set("Who", r.Host)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), b)
	})
	c := openCluster(t, 3, func(_ int, o *Options) { o.PeerHandlers = map[string]http.Handler{"/rest/": handler} })
	leader, others := c.leader()
	ctx := ctxFor(t, 20*time.Second)
	if b, err := others[0].AskLeader(ctx, "/rest/heard", []byte("notes")); err != nil || string(b) != "POST /rest/heard notes" {
		t.Errorf("%q, %v", b, err)
	}
	var e *PeerError
	if _, err := others[0].AskLeader(ctx, "/rest/no", nil); !errors.As(err, &e) || e.Status != http.StatusTeapot || e.Code != "tea" || e.Detail != "no" {
		t.Errorf("refused: %v", err)
	}
	if _, err := leader.AskLeader(ctx, "/rest/heard", nil); !errors.Is(err, ErrIsLeader) {
		t.Errorf("the leader itself: %v", err)
	}

	client := &http.Client{Transport: others[0].LeaderTransport()}
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://whoever/rest/x?y=z", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(w.Body)
	w.Body.Close()
	if err != nil || string(b) != "DELETE /rest/x?y=z body" || w.Header.Get("Who") == "" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := leader.LeaderTransport().RoundTrip(r); !errors.Is(err, ErrIsLeader) {
		t.Errorf("the leader itself: %v", err)
	}
	mustClose(t, others[0])
	if _, err := others[0].LeaderTransport().RoundTrip(r); !errors.Is(err, ErrStopped) {
		t.Errorf("after Close: %v", err)
	}
}

// A request that waits for a leader which is cut off comes back when another leads.
func TestLeaderTransport_LeaderCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 5, tune: func(o *Options) {
			o.PeerHandlers = map[string]http.Handler{"/rest/": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
		}})
		leader, follower := c.mustLead(), c.followers()[0]
		r, err := http.NewRequest(http.MethodPost, "http://x/rest/move", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			_, err := follower.LeaderTransport().RoundTrip(r)
			got <- err
		}()
		c.wait(10 * time.Second)
		c.isolate(leader.NodeID())
		begin := time.Now()
		if err := <-got; !errors.Is(err, errLeaderChanged) || time.Since(begin) > 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		c.net.Partition(c.others(), c.others())
		await(t, "no leader", isTrue("one leads", func() bool { _, ok := follower.Leader(); return !ok }))
		if _, err := follower.LeaderTransport().RoundTrip(r); !errors.Is(err, ErrNoLeader) {
			t.Errorf("nobody leads: %v", err)
		}
		if _, err := follower.AskLeader(context.Background(), "/rest/heard", nil); !errors.Is(err, ErrNoLeader) {
			t.Errorf("nobody leads: %v", err)
		}
		c.heal()
		c.settle()
	})
}
