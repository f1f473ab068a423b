package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/registry"
)

// several are replicas of one cluster, in one bubble of virtual time and without a
// network. Commands are done in one place (ran), as the log is one.
type several struct {
	t     *testing.T
	rigs  []*rig
	peers []http.Handler
	lead  atomic.Int32 // who leads; -1: nobody
	// lose drops answers: the request arrives, its answer does not. hang makes replica 0
	// take requests and say nothing.
	lose, hang atomic.Bool

	mu  sync.Mutex
	ran map[string]bool // by event id
	ids []string        // of every attempt that reached an executor
}

func newSeveral(t *testing.T, n int, change ...func(*Options)) *several {
	c := &several{t: t, ran: map[string]bool{}}
	for i := range n {
		r := newRig(t, change...)
		r.node.id = fmt.Sprint("n", i)
		r.node.place = func() (bool, cluster.Leader) {
			l := int(c.lead.Load())
			if l < 0 {
				return false, cluster.Leader{}
			}
			return l == i, cluster.Leader{NodeID: fmt.Sprint("n", l), URL: fmt.Sprintf("http://n%d:9000", l)}
		}
		r.node.read = func(context.Context, cluster.Read) (cluster.Freshness, error) {
			return cluster.Freshness{Index: uint64(100 * (i + 1))}, nil
		}
		r.node.toLeader = roundTripper(c.roundTrip)
		r.exec.do = c.do
		c.rigs = append(c.rigs, r)
		c.peers = append(c.peers, r.s.PeerHandler())
	}
	return c
}

// do does each event once.
func (c *several) do(_ context.Context, cmd executor.Command) (registry.Event, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids = append(c.ids, cmd.EventID)
	c.ran[cmd.EventID] = true
	return registry.Event{ID: cmd.EventID, State: registry.EventDone, NumTokens: 5}, nil
}

func (c *several) roundTrip(req *http.Request) (*http.Response, error) {
	l := c.lead.Load()
	if l < 0 {
		return nil, cluster.ErrNoLeader
	}
	return c.ask(int(l), req)
}

// ask sends a request to a replica's peer port.
func (c *several) ask(replica int, req *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(req.URL.Path, "/rest/") {
		c.t.Errorf("asked for %s on the peer port", req.URL.Path)
	}
	if c.hang.Load() && replica == 0 {
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-tick.C:
			case <-req.Context().Done():
				return nil, context.Cause(req.Context())
			}
			if l := c.lead.Load(); l > 0 {
				return nil, errors.New("another replica leads by now")
			}
		}
	}
	in := httptest.NewRequestWithContext(req.Context(), req.Method, req.URL.String(), req.Body)
	in.Header = req.Header.Clone()
	in.ContentLength = req.ContentLength
	w := httptest.NewRecorder()
	done := make(chan struct{})
	go func() { // ends with the handler, whose context is the caller's
		defer close(done)
		c.peers[replica].ServeHTTP(w, in)
	}()
	select {
	case <-done:
	case <-req.Context().Done():
		<-done
		return nil, req.Context().Err()
	}
	if c.lose.Load() {
		return nil, io.ErrUnexpectedEOF
	}
	return w.Result(), nil
}

// same holds two answers equal, but for the headers that name the replica asked.
func same(t *testing.T, what string, a, b *httptest.ResponseRecorder) {
	t.Helper()
	if a.Code != b.Code || a.Body.String() != b.Body.String() {
		t.Errorf("%s: by way of a follower %d %s\nat the leader %d %s", what, a.Code, a.Body, b.Code, b.Body)
	}
	for _, h := range []string{"Content-Type", "Content-Length", "Retry-After", "Allow", "X-Content-Type-Options", headerIndex, headerStaleness, headerLeader} {
		if a.Header().Get(h) != b.Header().Get(h) {
			t.Errorf("%s: %s is %q by way of a follower, %q at the leader", what, h, a.Header().Get(h), b.Header().Get(h))
		}
	}
	for h := range a.Header() {
		if strings.HasPrefix(h, "Kvctrl-") {
			t.Errorf("%s: %s is for replicas only", what, h)
		}
	}
}

// TestForward_AnswersAreTheLeaders: whatever is asked, and whatever comes of it.
func TestForward_AnswersAreTheLeaders(t *testing.T) {
	partial := registry.Event{ID: "e1", Kind: registry.CommandClear, State: registry.EventPartial, Detail: "1 of 2 did it",
		Workers: []registry.WorkerOutcome{{WorkerRef: registry.WorkerRef{Instance: "a", Worker: 1}, State: registry.EventFailed, Error: "answered: \"nö\""}}}
	for _, c := range []struct {
		target, body string
		err          error
		status       int
	}{
		{"/clear", `{"instance_id":"a","location":"l","event_id":"e1"}`, nil, 200},
		{"/clear?wait=false&timeout=2s", `{"instance_id":"a","location":"l","event_id":"é\n"}`, nil, 202},
		{"/pin", `{"instance_id":"a","location":"l","tokens":[1,2],"event_id":"e1"}`, nil, 200},
		{"/compress", `{"instance_id":"a","method":"m","location":"l","event_id":"e1"}`, nil, 200},
		{"/decompress", `{"instance_id":"a","method":"m","location":"l","event_id":"e1"}`, nil, 200},
		{"/move", `{"old_position":["a","l"],"new_position":["b","l"],"event_id":"e1"}`, nil, 200},
		{"/clear", `{"instance_id":"a"`, nil, 422},
		{"/clear", ``, nil, 422},
		{"/clear?timeout=x", `{"instance_id":"a","location":"l"}`, nil, 422},
		{"/pin", `{"instance_id":"a","location":"l","tokens":[18446744073709551616]}`, nil, 400},
		{"/clear", `{"instance_id":"a","location":"l","event_id":"e1"}`, &executor.CommandError{Event: partial, Cause: executor.CausePartial}, 502},
		{"/clear", `{"instance_id":"a","location":"l","event_id":"e1"}`, &executor.CommandError{Event: partial, Cause: executor.CauseInterrupted}, 502},
		{"/clear", `{"instance_id":"a","location":"l","event_id":"e1"}`, &executor.UnknownInstanceError{Instance: "a"}, 404},
		{"/clear", `{"instance_id":"a","location":"l","event_id":"e1"}`, fmt.Errorf("x: %w", executor.ErrBusy), 503},
		{"/clear", `{"instance_id":"a","location":"l","event_id":"e1"}`, errors.New("odd"), 500},
		{"/clear", strings.Repeat(" ", 3000) + `{}`, nil, 413},
	} {
		synctest.Test(t, func(t *testing.T) {
			two := newSeveral(t, 2, func(o *Options) { o.MaxBody = 2048 })
			if c.err != nil {
				for _, r := range two.rigs {
					r.exec.do = func(context.Context, executor.Command) (registry.Event, error) { return registry.Event{}, c.err }
				}
			}
			follower, leader := two.rigs[1].post(c.target, c.body), two.rigs[0].post(c.target, c.body)
			if follower.Code != c.status {
				t.Errorf("%s: %d %s, want %d", c.target, follower.Code, follower.Body, c.status)
			}
			if c.status < 400 || c.status > 422 || c.err != nil { // checked where it is asked
				same(t, c.target+" "+c.body, follower, leader)
			}
			if h := follower.Header(); h.Get(headerNode) != "n1" || h.Get(headerRole) != "follower" || h.Get(headerLeader) != "http://n0:9000" {
				t.Errorf("headers %v are not of the replica asked", h)
			}
		})
	}
}

// TestForward_ReadsStayHere: nothing but mutations goes to the leader.
func TestForward_ReadsStayHere(t *testing.T) {
	r := newRig(t)
	r.node.follows, r.node.leader = true, cluster.Leader{NodeID: "n2"}
	r.node.toLeader = roundTripper(func(req *http.Request) (*http.Response, error) {
		t.Errorf("%s was forwarded", req.URL)
		return nil, cluster.ErrNoLeader
	})
	mutations := 0
	for _, rt := range r.s.routes {
		switch {
		case rt.mutate != nil:
			mutations++
		case rt.method == http.MethodGet:
			r.get(pathVariable.ReplaceAllString(rt.path, "x"))
		default:
			r.post(rt.path, `{"tokens":[1],"instance_id":"a","event_id":"e","ip":"1.2.3.4"}`)
		}
	}
	if mutations != 8 {
		t.Errorf("%d routes are forwarded, want the five commands, join, leave and transfer", mutations)
	}
}

const clearE1 = `{"instance_id":"a","location":"l","event_id":"e1"}`

// TestForward_LeaderChangesMeanwhile: an answer that is lost, or never comes, is asked for
// again at the next leader, under the same id.
func TestForward_LeaderChangesMeanwhile(t *testing.T) {
	for _, c := range []struct {
		name   string
		before func(*several)
	}{
		{"the answer is lost", func(c *several) { c.lose.Store(true) }},
		{"the leader stops without a word", func(c *several) { c.hang.Store(true) }},
		{"nobody leads for a while", func(c *several) { c.lead.Store(-1) }},
	} {
		for _, body := range []string{clearE1, `{"instance_id":"a","location":"l"}`} {
			synctest.Test(t, func(t *testing.T) {
				three := newSeveral(t, 3)
				c.before(three)
				began := time.Now()
				time.AfterFunc(1500*time.Millisecond, func() {
					three.lose.Store(false)
					three.lead.Store(2)
				})
				w := three.rigs[1].post("/clear", body)
				if w.Code != 200 || time.Since(began) < 1500*time.Millisecond || time.Since(began) > 1700*time.Millisecond {
					t.Errorf("%s: %d %s after %v", c.name, w.Code, w.Body, time.Since(began))
				}
				if w.Header().Get(headerLeader) != "http://n2:9000" || w.Header().Get(headerIndex) != "300" {
					t.Errorf("%s: headers %v are not of now", c.name, w.Header())
				}
				three.mu.Lock()
				defer three.mu.Unlock()
				if len(three.ran) != 1 {
					t.Errorf("%s: attempts under the ids %v, want one", c.name, three.ids)
				}
			})
		}
	}
}

// TestForward_DeposedLeader: the replica that was asked is the leader that is lost.
func TestForward_DeposedLeader(t *testing.T) {
	for _, lost := range []error{executor.ErrNotLeading, fmt.Errorf("event: %w: %w", executor.ErrOutcomeUnknown, cluster.ErrUnknownOutcome)} {
		synctest.Test(t, func(t *testing.T) {
			two := newSeveral(t, 2)
			two.rigs[0].exec.do = func(context.Context, executor.Command) (registry.Event, error) {
				time.AfterFunc(time.Second, func() { two.lead.Store(1) })
				two.lead.Store(-1)
				return registry.Event{ID: "e1"}, lost
			}
			interrupted := &executor.CommandError{Event: registry.Event{ID: "e1", State: registry.EventInterrupted, Detail: "the leader was lost"}, Cause: executor.CauseInterrupted}
			two.rigs[1].exec.do = func(_ context.Context, c executor.Command) (registry.Event, error) {
				if c.EventID != "e1" {
					t.Errorf("event %q", c.EventID)
				}
				return interrupted.Event, interrupted
			}
			w := two.rigs[0].post("/clear", clearE1)
			if w.Code != 502 || !strings.Contains(w.Body.String(), `"code":"interrupted","event_id":"e1"`) {
				t.Errorf("%v: %d %s", lost, w.Code, w.Body)
			}
		})
	}
}

// TestForward_NoLeader: a mutation is held for its timeout or 5 s, then refused in words.
// If it may have been done, the answer says so.
func TestForward_NoLeader(t *testing.T) {
	for _, c := range []struct {
		query string
		held  time.Duration
	}{{"", 5 * time.Second}, {"?timeout=700ms", 700 * time.Millisecond}, {"?timeout=9s", 9 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			two := newSeveral(t, 2)
			two.lead.Store(-1)
			began := time.Now()
			w := two.rigs[1].post("/clear"+c.query, clearE1)
			took := time.Since(began)
			if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"no_leader"`) || w.Header().Get("Retry-After") != "1" || took < c.held || took > c.held+100*time.Millisecond {
				t.Errorf("%d %s after %v, Retry-After %q", w.Code, w.Body, took, w.Header().Get("Retry-After"))
			}
		})
		synctest.Test(t, func(t *testing.T) {
			two := newSeveral(t, 2)
			two.lose.Store(true)
			time.AfterFunc(100*time.Millisecond, func() { two.lead.Store(-1) })
			began := time.Now()
			w := two.rigs[1].post("/clear"+c.query, clearE1)
			took := time.Since(began)
			if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"unknown_outcome","event_id":"e1"`) || !strings.Contains(w.Body.String(), "same event_id") || took < c.held || took > c.held+200*time.Millisecond {
				t.Errorf("%d %s after %v", w.Code, w.Body, took)
			}
		})
		synctest.Test(t, func(t *testing.T) { // and when it is asked and gone, and nobody comes
			two := newSeveral(t, 2)
			two.hang.Store(true)
			time.AfterFunc(100*time.Millisecond, func() { two.lead.Store(-1) })
			began := time.Now()
			w := two.rigs[1].post("/clear"+c.query, clearE1)
			took := time.Since(began)
			if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"unknown_outcome","event_id":"e1"`) || took < c.held || took > c.held+300*time.Millisecond {
				t.Errorf("%d %s after %v", w.Code, w.Body, took)
			}
		})
	}
}

// TestForward_OneHop: a replica that is asked by another and does not lead forwards
// nothing, and the one that asked looks again.
func TestForward_OneHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		three := newSeveral(t, 3)
		// Replica 1 believes in 2, which follows 0.
		asked := 0
		three.rigs[1].node.place = func() (bool, cluster.Leader) { return false, cluster.Leader{NodeID: "n2"} }
		three.rigs[1].node.toLeader = roundTripper(func(req *http.Request) (*http.Response, error) {
			if asked++; asked < 4 {
				return three.ask(2, req)
			}
			return three.ask(0, req)
		})
		three.rigs[2].node.toLeader = roundTripper(func(req *http.Request) (*http.Response, error) {
			t.Error("forwarded what was forwarded")
			return nil, cluster.ErrNoLeader
		})
		if w := three.rigs[1].post("/clear", clearE1); w.Code != 200 || asked != 4 || len(three.ids) != 1 {
			t.Errorf("%d %s after %d attempts, done %v", w.Code, w.Body, asked, three.ids)
		}
		body := three.rigs[1].get("/metrics").Body.String() + three.rigs[2].get("/metrics").Body.String()
		for _, line := range []string{
			`kvctrl_forward_requests_total{outcome="not_leader",route="/clear"} 3`, `kvctrl_forward_requests_total{outcome="answered",route="/clear"} 1`,
			`kvctrl_forward_seconds_count{route="/clear"} 1`, `kvctrl_forwarded_requests_total{route="/clear",status="503"} 3`, `kvctrl_forward_requests_total{outcome="lost",route="/move"} 0`,
		} {
			if !strings.Contains(body, line+"\n") {
				t.Errorf("no line %s", line)
			}
		}
	})
}

// TestForward_EventID: fixed where it is asked; the body's own wins.
func TestForward_EventID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := newSeveral(t, 2)
		var named []string
		two.rigs[1].node.toLeader = roundTripper(func(req *http.Request) (*http.Response, error) {
			named = append(named, req.Header.Get(headerEventID))
			if len(named) == 1 {
				return nil, io.ErrUnexpectedEOF
			}
			return two.ask(0, req)
		})
		w := two.rigs[1].post("/clear", `{"instance_id":"a","location":"l"}`)
		if len(named) != 2 || named[0] == "" || named[0] != named[1] || two.ids[0] != named[0] || !strings.Contains(w.Body.String(), named[0]) {
			t.Errorf("named %q, done as %q, answered %s", named, two.ids, w.Body)
		}
		two.rigs[1].post("/clear", `{"instance_id":"a","location":"l","event_id":"mine"}`)
		if named[2] != "" || two.ids[1] != "mine" {
			t.Errorf("named %q, done as %q", named, two.ids)
		}
	})
}

// TestForward_ClientGoes: what it asked for is not asked for any longer.
func TestForward_ClientGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := newSeveral(t, 2)
		two.hang.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		ctx, gone := context.WithCancel(ctx)
		time.AfterFunc(200*time.Millisecond, gone)
		began := time.Now()
		w := httptest.NewRecorder()
		two.rigs[1].s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, "POST", "/clear", strings.NewReader(clearE1)))
		if w.Code != statusClientGone || time.Since(began) != 200*time.Millisecond {
			t.Errorf("%d %s after %v", w.Code, w.Body, time.Since(began))
		}
		if body := two.rigs[1].get("/metrics").Body.String(); !strings.Contains(body, `kvctrl_forward_requests_total{outcome="cancelled",route="/clear"} 1`+"\n") {
			t.Error("not counted as cancelled")
		}
	})
}

// TestForward_TimeIsOver: the leader's own words about a command that takes too long
// arrive before the follower gives up.
func TestForward_TimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := newSeveral(t, 2)
		two.rigs[0].exec.do = func(ctx context.Context, c executor.Command) (registry.Event, error) {
			<-ctx.Done()
			return registry.Event{ID: c.EventID, State: registry.EventRunning}, ctx.Err()
		}
		began := time.Now()
		w := two.rigs[1].post("/clear?timeout=1s", clearE1)
		if w.Code != 504 || !strings.Contains(w.Body.String(), `is still under way after 22s`) || time.Since(began).Round(10*time.Millisecond) != 22*time.Second {
			t.Errorf("%d %s after %v", w.Code, w.Body, time.Since(began))
		}
	})
}

// TestForward_LeaderStops: a leader that stops has its commands end elsewhere.
func TestForward_LeaderStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := newSeveral(t, 2)
		if err := two.rigs[0].s.StopActing(t.Context(), time.Second, time.Second); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(500*time.Millisecond, func() { two.lead.Store(1) })
		answers := make(chan int, 2)
		for _, r := range two.rigs { // it holds its own clients' commands, and refuses those of others
			go func() { answers <- r.post("/clear", `{"instance_id":"a","location":"l"}`).Code }()
		}
		if a, b := <-answers, <-answers; a != 200 || b != 200 || len(two.ids) != 2 {
			t.Errorf("%d and %d, done %v", a, b, two.ids)
		}
	})
}

// TestStopActing_NobodyWaits: a command that nobody waits for is under way all the same.
func TestStopActing_NobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.exec.stats.Open = 1
		began := time.Now()
		if err := r.s.StopActing(t.Context(), time.Second, time.Second); !errors.Is(err, errActing) || time.Since(began) != 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestStopActing_HangingCommand: it is waited for as long as patience lasts, and others
// go on meanwhile.
func TestStopActing_HangingCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		hung := make(chan struct{})
		r.exec.do = func(ctx context.Context, c executor.Command) (registry.Event, error) {
			if c.EventID == "e1" {
				<-hung
			}
			return registry.Event{ID: c.EventID}, nil
		}
		done := make(chan struct{})
		go func() { defer close(done); r.post("/clear", clearE1) }()
		synctest.Wait()
		began := time.Now()
		time.AfterFunc(time.Second, func() { want(t, r.post("/clear", `{"instance_id":"a","location":"l","event_id":"e2"}`), 200, "") })
		if err := r.s.StopActing(t.Context(), 2*time.Second, 100*time.Millisecond); !errors.Is(err, errActing) || time.Since(began) != 2100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		close(hung)
		<-done
	})
}

// TestForward_LeaderIsClosed: a leader that takes no requests any more is not the last
// word.
func TestForward_LeaderIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := newSeveral(t, 2)
		if err := two.rigs[0].s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { two.lead.Store(1) })
		want(t, two.rigs[1].post("/clear", clearE1), 200, "")
	})
}

// TestForward_BusyAfterALostAnswer: that there is no room for a further attempt says nothing
// of one whose answer was lost. The client must not take it for a command that was not done,
// and send it again under another id.
func TestForward_BusyAfterALostAnswer(t *testing.T) {
	full := `{"code":"busy","detail":"128 requests of other replicas are under way"}`
	for name, busy := range map[string]http.Header{"the leader is busy": {headerNode: {"n0"}, headerCode: {"busy"}}, "its peer port is": nil} {
		for _, ends := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				two := newSeveral(t, 2)
				asked, named := 0, ""
				two.rigs[1].node.toLeader = roundTripper(func(req *http.Request) (*http.Response, error) {
					asked++
					named = req.Header.Get(headerEventID)
					switch {
					case asked == 1: // done, and not heard
						if _, err := two.ask(0, req); err != nil {
							t.Error(err)
						}
						return nil, io.ErrUnexpectedEOF
					case asked < 4 || !ends:
						return &http.Response{StatusCode: 503, Header: busy.Clone(), Body: io.NopCloser(strings.NewReader(full))}, nil
					}
					return two.ask(0, req)
				})
				w := two.rigs[1].post("/clear", `{"instance_id":"a","location":"l"}`)
				status, code := 200, ""
				if !ends {
					status, code = 503, `"code":"unknown_outcome"`
				}
				if w.Code != status || !strings.Contains(w.Body.String(), code) || !strings.Contains(w.Body.String(), `"event_id":"`+named+`"`) || len(two.ran) != 1 {
					t.Errorf("%s: %d %s, done as %v", name, w.Code, w.Body, two.ran)
				}
			})
		}
	}
}

// TestForward_LostAnswerOnRecord: an answer that is lost, and nobody to ask for it any more,
// is read from the log as far as it has arrived here.
func TestForward_LostAnswerOnRecord(t *testing.T) {
	for _, c := range []struct {
		name   string
		ends   registry.EventState // "": it runs on
		kind   registry.CommandKind
		status int
		words  string
	}{
		{"done", registry.EventDone, registry.CommandClear, 200, `{"event_id":"e1","num_tokens":7}`},
		{"interrupted", registry.EventInterrupted, registry.CommandClear, 502, `"status":"interrupted"`},
		{"not over", "", registry.CommandClear, 503, `"code":"unknown_outcome","event_id":"e1"`},
		{"of another command", registry.EventDone, registry.CommandPin, 409, `"code":"conflict"`},
	} {
		synctest.Test(t, func(t *testing.T) {
			two := newSeveral(t, 2)
			reg := two.rigs[1].state.Registry()
			two.rigs[1].node.toLeader = roundTripper(func(req *http.Request) (*http.Response, error) {
				two.lead.Store(-1)
				source := registry.Target{Instance: "a", Location: "l"}
				create := registry.EventCreate{ID: "e1", Kind: c.kind, Source: source, At: 10, Fingerprint: executor.Command{Kind: registry.CommandClear, Source: source}.Fingerprint()}
				reg.CreateEvent(create)
				if c.ends != "" {
					if err := reg.FinishEvent(registry.EventFinish{ID: "e1", State: c.ends, NumTokens: 7, At: 12, Cause: string(executor.CauseInterrupted)}); err != nil {
						t.Error(err)
					}
				}
				return nil, io.ErrUnexpectedEOF
			})
			w := two.rigs[1].post("/clear", clearE1)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.words) {
				t.Errorf("%s: %d %s", c.name, w.Code, w.Body)
			}
		})
	}
}

// TestForward_WhyNobodyTookIt: a leader that is known and cannot be reached is not a
// cluster without one.
func TestForward_WhyNobodyTookIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := newSeveral(t, 2)
		two.rigs[1].node.toLeader = roundTripper(func(*http.Request) (*http.Response, error) {
			return nil, fmt.Errorf(`%w: node "n0" at 10.0.0.1:9400: certificate has expired`, cluster.ErrUnreachable)
		})
		if w := two.rigs[1].post("/clear", clearE1); w.Code != 503 || !strings.Contains(w.Body.String(), "certificate has expired") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}
