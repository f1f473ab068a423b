package ingest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

func always(int) fate { return fine }

// TestHeard_ReachesTheLeader: what a follower has heard is in the leader's notes, and not
// in its own, once the leader has said so; names that are not registered stay at home.
func TestHeard_ReachesTheLeader(t *testing.T) {
	c := newReplicas(t, 1, always)
	now := time.Unix(1000, 0)
	c.serve(func(id int, o *Options) {
		o.Now = func() time.Time { return now.Add(time.Duration(id) * time.Hour) } // their clocks are wrong
	})
	c.elect(0)
	c.register("a", "b")
	follower, leader := c.nodes[2].server, c.nodes[0].server
	at := micros(now.Add(2 * time.Hour))
	follower.note(ref("a"), at-3*sec, true)
	follower.note(ref("a"), at-2*sec, false)
	follower.note(ref("b"), at+9*sec, false) // of a moment that is not yet
	follower.note(ref("stranger"), at, true)
	leader.note(ref("b"), micros(now)-50*sec, true)
	follower.sendHeard(context.Background())

	want := []registry.Heard{heard("a", micros(now)-2*sec, micros(now)-3*sec), heard("b", micros(now), micros(now)-50*sec)}
	if got := leader.TakeHeard(context.Background()); !reflect.DeepEqual(got, want) {
		t.Errorf("the leader has %v, want %v: as long ago as they were", got, want)
	}
	if left := follower.notes.take(); len(left) != 0 {
		t.Errorf("the follower still has %v", left)
	}
	if sent, taken := follower.Stats().HeardSent, leader.Stats().HeardTaken; sent != 2 || taken != 2 {
		t.Errorf("counted %d as sent and %d as taken, want 2", sent, taken)
	}
	leader.note(ref("a"), 5, true)
	leader.sendHeard(context.Background()) // the leader keeps its own
	if got := leader.notes.take(); len(got) != 1 {
		t.Errorf("the leader's own notes are %v", got)
	}
}

// TestHeard_KeptUntilAcknowledged: whatever becomes of the request, nothing heard is lost.
func TestHeard_KeptUntilAcknowledged(t *testing.T) {
	for _, tt := range []struct {
		name         string
		leader       int
		arrives      bool
		err          error
		atTheLeader  int // notes there after the first request
		atFollower   int
		thenAccepted int
	}{
		{"nobody leads", -1, false, nil, 0, 1, 1},
		{"the request is lost", 0, false, errors.New("connection reset"), 0, 1, 1},
		{"its answer is lost", 0, true, context.DeadlineExceeded, 1, 1, 1},
		{"a leader of yesterday", 1, false, nil, 0, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newReplicas(t, 1, always)
			c.serve(nil)
			c.elect(tt.leader)
			c.register("a")
			if tt.leader == 1 { // the follower takes a replica for the leader that no longer is
				c.nodes[1].server.opts.Leader = c.nodes[2]
			}
			c.cut = func(string, []byte) (bool, error) { return tt.arrives, tt.err }
			follower := c.nodes[2].server
			follower.note(ref("a"), micros(time.Now()), true)
			follower.sendHeard(context.Background())
			count := func(s *Server) int {
				n := s.notes.take()
				s.notes.put(n)
				return len(n)
			}
			if n := count(c.nodes[0].server); n != tt.atTheLeader {
				t.Errorf("%d notes at the leader, want %d", n, tt.atTheLeader)
			}
			if n := count(follower); n != tt.atFollower || follower.Stats().HeardLate != 1 {
				t.Errorf("%d notes at the follower, %d counted as late, want %d and 1", n, follower.Stats().HeardLate, tt.atFollower)
			}
			c.cut = nil
			c.elect(0)
			follower.sendHeard(context.Background())
			if n, left := count(c.nodes[0].server), count(follower); n != tt.thenAccepted || left != 0 {
				t.Errorf("later: %d notes at the leader, %d left at the follower, want %d and 0", n, left, tt.thenAccepted)
			}
		})
	}
}

// TestHeard_InParts: names are the workers' own, so what was heard is cut into requests
// that the leader takes; what it does not acknowledge of them is kept.
func TestHeard_InParts(t *testing.T) {
	c := newReplicas(t, 1, always)
	c.serve(nil)
	c.elect(0)
	const workers = 300
	long := strings.Repeat("n", fsm.MaxName-5)
	for i := range workers {
		c.register(fmt.Sprintf("%s-%d", long, i))
	}
	follower, leader := c.nodes[1].server, c.nodes[0].server
	for i := range workers {
		follower.note(ref(fmt.Sprintf("%s-%d", long, i)), micros(time.Now()), true)
	}
	requests, largest := 0, 0
	c.cut = func(_ string, body []byte) (bool, error) {
		requests++
		largest = max(largest, len(body))
		if requests == 5 {
			return false, errors.New("connection reset")
		}
		return true, nil
	}
	follower.sendHeard(context.Background())
	first := len(leader.notes.take())
	left := follower.notes.take()
	if first == 0 || len(left) == 0 || first+len(left) != workers || requests != 5 {
		t.Errorf("%d of %d arrived in %d requests, %d are left", first, workers, requests-1, len(left))
	}
	follower.notes.put(left)
	follower.sendHeard(context.Background())
	if n := len(leader.notes.take()); n != len(left) {
		t.Errorf("%d arrived the second time, want the other %d", n, len(left))
	}
	if largest > maxPeerBody || largest < maxHeardPart/2 {
		t.Errorf("the largest of %d requests has %d bytes, want about %d", requests, largest, maxHeardPart)
	}
}

func TestPeerHandler_Refusals(t *testing.T) {
	c := newReplicas(t, 1, always)
	c.serve(nil)
	c.elect(0)
	lease := fsm.EncodeLease(registry.Lease{At: 5, Heard: []registry.Heard{heard("a", 4, 0)}})
	for _, tt := range []struct {
		name   string
		node   int
		path   string
		body   []byte
		status int
		words  string
	}{
		{"no leader", 1, pathHeard, lease, http.StatusMisdirectedRequest, `"code":"not_leader"`},
		{"nothing", 0, pathHeard, nil, http.StatusBadRequest, "0 bytes"},
		{"noise", 0, pathHeard, []byte(strings.Repeat("x", 100)), http.StatusBadRequest, "checksum"},
		{"another entry", 0, pathHeard, fsm.EncodeTermBegin(registry.TermBegin{Term: 7, Node: "n"}), http.StatusBadRequest, "want a lease"},
		{"expired workers", 0, pathHeard, fsm.EncodeLease(registry.Lease{Expired: []registry.WorkerRef{ref("a")}}), http.StatusBadRequest, "1 expired"},
		{"too large", 0, pathHeard, make([]byte, maxPeerBody+1), http.StatusRequestEntityTooLarge, `"code":"body_too_large"`},
		{"another path", 0, "/ingest/other", lease, http.StatusNotFound, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, answer := c.nodes[tt.node].answer(tt.path, tt.body)
			if status != tt.status || !strings.Contains(string(answer), tt.words) {
				t.Errorf("answer %d %s, want %d with %q", status, answer, tt.status, tt.words)
			}
			if n := c.nodes[tt.node].server.notes.take(); len(n) != 0 {
				t.Errorf("notes %v", n)
			}
		})
	}
}

// TestHeard_KeepsWorkersAliveOverALeaderChange: a worker that only followers hear stays
// registered; a new leader gives everybody a fresh period, however little it has heard;
// and who is silent for that long is given up.
func TestHeard_KeepsWorkersAliveOverALeaderChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newReplicas(t, 1, always)
		c.serve(nil)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		for _, n := range c.nodes {
			running.Go(func() { n.server.everySecond(ctx) })
		}
		lead := func(id int) (stop func()) {
			c.elect(id)
			n := c.nodes[id]
			task := LeaseTask(LeaseOptions{Log: n, State: n, Heard: n.server.TakeHeard, PutBack: n.server.PutBackHeard,
				HealthCheckInterval: 5 * time.Second, WorkerTimeout: 30 * time.Second})
			term, end := context.WithCancel(ctx)
			ended := make(chan error, 1)
			running.Go(func() { ended <- task.Run(term, c.nodes[id].Term()) })
			return func() {
				end()
				must(t, <-ended)
			}
		}
		known := func(name string) bool {
			_, known := c.nodes[1].Registry().Worker(ref(name))
			return known
		}
		stop := lead(0)
		c.register("beats", "silent")
		beat := func(seconds int) {
			for range seconds / 5 {
				c.nodes[2].server.note(ref("beats"), micros(time.Now()), true)
				time.Sleep(5 * time.Second)
			}
		}
		beat(25)
		if !known("silent") {
			t.Fatal("given up before its time")
		}
		stop()
		c.elect(-1)
		beat(20) // nobody leads, and nobody is given up
		stop = lead(1)
		if !known("silent") || !known("beats") {
			t.Fatal("given up by the election")
		}
		beat(25)
		if !known("silent") {
			t.Error("the new leader gave no fresh period")
		}
		beat(20)
		if known("silent") || !known("beats") {
			t.Errorf("after the period: silent %v, want gone; beats %v, want known", known("silent"), known("beats"))
		}
		w, _ := c.nodes[0].Registry().Worker(ref("beats"))
		if age := time.Since(time.UnixMicro(int64(w.LastHeartbeat))); age > 12*time.Second {
			t.Errorf("the last heartbeat that the registry knows is %v old", age)
		}
		stop()
	})
}

// TestHeard_LastWordsAtAStop: a replica that stops tells the leader what it has heard.
func TestHeard_LastWordsAtAStop(t *testing.T) {
	c := newReplicas(t, 1, always)
	c.serve(nil)
	c.elect(0)
	c.register("i")
	r := start(t, func(o *Options) {
		o.Log, o.State, o.Leader, o.HeardEvery = c.nodes[1], c.nodes[1], c.nodes[1], time.Hour
	})
	r.heartbeat().ask(heartbeatMsg("i"))
	must(t, r.s.Close())
	if got := c.nodes[0].server.TakeHeard(context.Background()); len(got) != 1 || got[0].WorkerRef != ref("i") || got[0].Heartbeat == 0 {
		t.Errorf("the leader has heard of %v", got)
	}
}
