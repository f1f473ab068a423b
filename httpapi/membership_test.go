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

// TestForward_WhatErrorsProve: what was surely not sent may be sent again, or be refused as
// not begun; what may have been is not.
func TestForward_WhatErrorsProve(t *testing.T) {
	answer := func(status int, body string) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	}
	for _, c := range []struct {
		name string
		resp *http.Response
		err  error
		has  string
		held bool
	}{
		{"no leader", nil, cluster.ErrNoLeader, `"code":"no_leader"`, true},
		{"not reached", nil, fmt.Errorf("%w: n2: connection refused", cluster.ErrUnreachable), `"code":"no_leader"`, true},
		{"hung up", nil, io.ErrUnexpectedEOF, `"code":"unknown_outcome"`, false},
		{"the peer port is busy", answer(503, `{"code":"busy","detail":"128 requests of other replicas are under way"}`), nil, `{"detail":"128 requests of other replicas are under way","code":"busy"}`, false},
		{"the peer port stops", answer(503, `{"code":"stopping","detail":"this replica stops"}`), nil, `"code":"no_leader"`, true},
		{"not a replica", answer(200, `<html>`), nil, `"code":"no_leader"`, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.node.follows, r.node.leader = true, cluster.Leader{NodeID: "n2"}
			r.node.toLeader = roundTripper(func(*http.Request) (*http.Response, error) { return c.resp, c.err })
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
