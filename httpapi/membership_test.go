package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
)

const joinN3 = `{"node_id":"n3","peer_addr":"10.0.0.3:9400","url":"http://n3:9000"}`

func TestJoin(t *testing.T) {
	r := newRig(t)
	var got cluster.JoinRequest
	r.node.join = func(_ context.Context, ask cluster.JoinRequest) (cluster.JoinResult, error) {
		got = ask
		return cluster.JoinResult{NodeID: ask.NodeID, PeerAddr: ask.PeerAddr, URL: ask.URL, Changed: true}, nil
	}
	const answer = `{"node_id":"n3","peer_addr":"10.0.0.3:9400","url":"http://n3:9000","voter":false,"changed":true}`
	for body, voter := range map[string]bool{
		joinN3: true,
		`{"node_id":"n3","peer_addr":"10.0.0.3:9400","url":"http://n3:9000","voter":null}`: true,
		`{"node_id":"n3","peer_addr":"10.0.0.3:9400","url":"http://n3:9000","voter":"no"}`: false,
	} {
		want(t, r.post("/admin/join", body), 200, answer)
		if (got != cluster.JoinRequest{NodeID: "n3", PeerAddr: "10.0.0.3:9400", URL: "http://n3:9000", Voter: voter}) {
			t.Errorf("%s: asked for %+v", body, got)
		}
	}
	want(t, r.post("/admin/join", `{"node_id":"n3","peer_addr":"10.0.0.3:9400"}`), 200, "")
	if got.URL != "" {
		t.Errorf("without a URL: asked for %+v", got)
	}
	r.node.join = func(context.Context, cluster.JoinRequest) (cluster.JoinResult, error) {
		t.Error("a join that does not fit was carried out")
		return cluster.JoinResult{}, nil
	}
	for _, c := range []struct{ body, has string }{
		{``, `{"type":"missing","loc":["body"]`},
		{`{"node_id":"n3"}`, `{"type":"missing","loc":["body","peer_addr"]`},
		{`{}`, `{"type":"missing","loc":["body","node_id"],"msg":"Field required"`},
		{`{"node_id":"n 3","peer_addr":"10.0.0.3:9400","url":"http://n3:9000"}`, `{"type":"string_pattern_mismatch","loc":["body","node_id"],"msg":"String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'","input":"n 3","ctx":{"pattern":"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"}}`},
		{`{"node_id":"n3","peer_addr":"10.0.0.3","url":"http://n3:9000"}`, `"loc":["body","peer_addr"]`},
		{`{"node_id":"n3","peer_addr":"10.0.0.3:1","url":"n3:9000"}`, `"loc":["body","url"]`},
		{`{"node_id":"n3","peer_addr":"10.0.0.3:1","url":"http://n3:9000","voter":5}`, `"bool_parsing","loc":["body","voter"]`},
		{`{"node_id":"n3","peer_addr":"` + strings.Repeat("x", 5000) + `:1","url":"http://n3:9000"}`, `"string_too_long","loc":["body","peer_addr"]`},
	} {
		if w := r.post("/admin/join", c.body); w.Code != 422 || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s: %d %s\nwant 422 with %s", c.body, w.Code, w.Body, c.has)
		}
	}
	want(t, r.post("/admin/join?timeout=0", joinN3), 422, "")
}

func TestLeave(t *testing.T) {
	r := newRig(t)
	var got string
	r.node.leave = func(_ context.Context, node string, force bool) error {
		got = fmt.Sprint(node, force)
		return nil
	}
	want(t, r.post("/admin/leave", `{"node_id":"n3"}`), 200, `{"node_id":"n3"}`)
	if got != "n3false" {
		t.Error(got)
	}
	want(t, r.post("/admin/leave", `{"node_id":"n3","force":true}`), 200, `{"node_id":"n3"}`)
	if got != "n3true" {
		t.Error(got)
	}
	want(t, r.post("/admin/leave", `{"node_id":"n3","force":"perhaps"}`), 422, "")
	want(t, r.post("/admin/leave", `{"node_id":"`+strings.Repeat("n", 65)+`"}`), 422, "")
}

func TestTransfer(t *testing.T) {
	r := newRig(t)
	leader := cluster.Leader{NodeID: "n1", URL: "http://n1"}
	r.node.place = func() (bool, cluster.Leader) { return leader.NodeID == "n1", leader }
	r.node.status.Nodes = []cluster.NodeStatus{{NodeID: "n1"}, {NodeID: "n2"}}
	r.node.transfer = func(_ context.Context, node string) error {
		if node == "n1" {
			return nil
		}
		leader = cluster.Leader{NodeID: "n2", URL: "http://n2"}
		return nil
	}
	want(t, r.post("/admin/transfer", `{"node_id":"n1"}`), 200, `{"leader":{"node_id":"n1","url":"http://n1"}}`)
	want(t, r.post("/admin/transfer", ``), 200, `{"leader":{"node_id":"n2","url":"http://n2"}}`)
	leader.NodeID = "n1"
	want(t, r.post("/admin/transfer", `{}`), 200, `{"leader":{"node_id":"n2","url":"http://n2"}}`)
	leader.NodeID = "n1"
	want(t, r.post("/admin/transfer", `{"node_id":null}`), 200, "")
	leader.NodeID = "n1"
	want(t, r.post("/admin/transfer", `{"node_id":"n9"}`), 404, "")
	want(t, r.post("/admin/transfer", `[]`), 422, "")
	leader.NodeID = "n1"
	r.node.transfer = func(context.Context, string) error { return fmt.Errorf("n2: %w", cluster.ErrNotVoter) }
	want(t, r.post("/admin/transfer", `{"node_id":"n2"}`), 409, `{"detail":"n2: not a voting member","code":"not_voter"}`)
}

// TestMembership_Refusals: each error of the cluster in words, at the leader and by way of
// a follower alike.
func TestMembership_Refusals(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{cluster.ErrUnknownNode, 404, "unknown_node"},
		{cluster.ErrQuorum, 409, "quorum"},
		{cluster.ErrConflict, 409, "conflict"},
		{cluster.ErrUnreachable, 409, "peer_unreachable"},
		{cluster.ErrRemoved, 409, "removed"},
		{cluster.ErrForming, 503, "not_ready"},
		{cluster.ErrBusy, 503, "busy"},
	} {
		synctest.Test(t, func(t *testing.T) {
			two := newSeveral(t, 2)
			for _, r := range two.rigs {
				r.node.leave = func(context.Context, string, bool) error { return fmt.Errorf("leave of n3: %w", c.err) }
			}
			leader, follower := two.rigs[0].post("/admin/leave", `{"node_id":"n3"}`), two.rigs[1].post("/admin/leave", `{"node_id":"n3"}`)
			if leader.Code != c.status || !strings.Contains(leader.Body.String(), `"code":"`+c.code+`"`) {
				t.Errorf("%v: %d %s", c.err, leader.Code, leader.Body)
			}
			same(t, c.code, follower, leader)
		})
	}
}

// TestMembership_LostAnswers: what is done again, and what is not.
func TestMembership_LostAnswers(t *testing.T) {
	for _, c := range []struct {
		target, body string
		status       int
		has          string
		attempts     int
	}{
		{"/admin/join", joinN3, 200, `"node_id":"n3"`, 2},
		{"/admin/leave", `{"node_id":"n3"}`, 200, `{"node_id":"n3"}`, 2}, // the second finds nobody: the first has done it
		{"/admin/transfer", `{"node_id":"n1"}`, 200, `{"leader":{"node_id":"n1"`, 2},
		{"/admin/transfer", ``, 200, `{"leader":{"node_id":"n1"`, 1}, // who leads now says that it was done
		{"/admin/transfer", `{"node_id":null}`, 503, `"code":"unknown_outcome"`, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			two := newSeveral(t, 2)
			n0 := two.rigs[0].node
			n0.status.Nodes = []cluster.NodeStatus{{NodeID: "n1"}, {NodeID: "n0"}}
			attempts := 0
			n0.join = func(_ context.Context, r cluster.JoinRequest) (cluster.JoinResult, error) {
				attempts++
				return cluster.JoinResult{NodeID: r.NodeID, Changed: attempts == 1}, nil
			}
			n0.leave = func(context.Context, string, bool) error {
				if attempts++; attempts > 1 {
					return cluster.ErrUnknownNode
				}
				return nil
			}
			n0.transfer = func(_ context.Context, node string) error {
				if attempts++; attempts > 1 || c.body == "" {
					two.lead.Store(1)
				}
				return nil
			}
			first := true
			two.rigs[1].node.toLeader = roundTripper(func(req *http.Request) (*http.Response, error) {
				resp, err := two.ask(0, req)
				if first {
					first = false
					return nil, io.ErrUnexpectedEOF
				}
				return resp, err
			})
			w := two.rigs[1].post(c.target, c.body)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.has) || attempts != c.attempts {
				t.Errorf("%s %s: %d %s after %d attempts", c.target, c.body, w.Code, w.Body, attempts)
			}
		})
	}
}

// TestLeave_UnknownFromTheStart is no success.
func TestLeave_UnknownFromTheStart(t *testing.T) {
	two := newSeveral(t, 2)
	two.rigs[0].node.leave = func(context.Context, string, bool) error { return cluster.ErrUnknownNode }
	want(t, two.rigs[0].post("/admin/leave", `{"node_id":"n3"}`), 404, "")
	want(t, two.rigs[1].post("/admin/leave", `{"node_id":"n3"}`), 404, "")
}

// TestForward_WhatErrorsProve: what was surely not sent may be sent again, or be refused as
// not begun; what may have been is not.
func TestForward_WhatErrorsProve(t *testing.T) {
	answer := func(status int, body string) func() *http.Response { // whole, each time it is asked
		return func() *http.Response {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
		}
	}
	none := func() *http.Response { return nil }
	for _, c := range []struct {
		name string
		resp func() *http.Response
		err  error
		has  string
		held bool
	}{
		{"no leader", none, cluster.ErrNoLeader, `"code":"no_leader"`, true},
		{"not reached", none, fmt.Errorf("%w: n2: connection refused", cluster.ErrUnreachable), `"code":"no_leader"`, true},
		{"hung up", none, io.ErrUnexpectedEOF, `"code":"unknown_outcome"`, false},
		{"the peer port is busy", answer(503, `{"code":"busy","detail":"128 requests of other replicas are under way"}`), nil, `{"detail":"128 requests of other replicas are under way","code":"busy"}`, false},
		{"the peer port stops", answer(503, `{"code":"stopping","detail":"this replica stops"}`), nil, `"code":"no_leader"`, true},
		{"not a replica", answer(200, `<html>`), nil, `"code":"no_leader"`, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.node.follows, r.node.leader = true, cluster.Leader{NodeID: "n2"}
			r.node.toLeader = roundTripper(func(*http.Request) (*http.Response, error) { return c.resp(), c.err })
			began := time.Now()
			w := r.post("/admin/transfer?timeout=2s", "")
			if held := time.Since(began) >= 2*time.Second; w.Code != 503 || !strings.Contains(w.Body.String(), c.has) || held != c.held {
				t.Errorf("%s: %d %s after %v, want %s", c.name, w.Code, w.Body, time.Since(began), c.has)
			}
		})
	}
}

func TestReady_WordsOfTheCluster(t *testing.T) {
	r := newRig(t)
	for _, err := range []error{
		fmt.Errorf("%w: 2 of 3 replicas are there", cluster.ErrForming),
		errors.New(`catching up with leader "n2": applied index 5 of 9`),
	} {
		r.node.ready = err
		w := r.get("/readyz")
		if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"not_ready"`) || w.Header().Get("Retry-After") != "1" {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
	}
	r.node.ready = nil
	r.s.StopReady()
	if w := r.get("/readyz"); w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"stopping"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	want(t, r.get("/healthz"), 200, "")
	want(t, r.post("/lookup", `{"tokens":[1]}`), 200, "")
}

// TestAdmin_TimeIsOver: an answer that cannot be had says where it stands.
func TestAdmin_TimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.node.join = func(ctx context.Context, _ cluster.JoinRequest) (cluster.JoinResult, error) {
			<-ctx.Done()
			return cluster.JoinResult{}, ctx.Err()
		}
		began := time.Now()
		w := r.post("/admin/join?timeout=30s", joinN3)
		if w.Code != 504 || !strings.Contains(w.Body.String(), "GET /admin/status tells") || time.Since(began) != 45*time.Second {
			t.Errorf("%d %s after %v", w.Code, w.Body, time.Since(began))
		}
	})
}

// TestLeave_OutcomeUnknownAsTheReplicaStops: a leader that leaves stops when it is removed,
// perhaps before it knows of it by its own request. That it stops is then no proof that
// nothing was done.
func TestLeave_OutcomeUnknownAsTheReplicaStops(t *testing.T) {
	for asked := range 2 {
		synctest.Test(t, func(t *testing.T) {
			two := newSeveral(t, 2)
			two.rigs[0].node.leave = func(context.Context, string, bool) error {
				two.lead.Store(1)
				return fmt.Errorf("leave of node %q: %w: %w", "n0", cluster.ErrUnknownOutcome, cluster.ErrStopped)
			}
			two.rigs[1].node.leave = func(context.Context, string, bool) error { return cluster.ErrUnknownNode }
			want(t, two.rigs[asked].post("/admin/leave", `{"node_id":"n0"}`), 200, `{"node_id":"n0"}`)
		})
	}
}
