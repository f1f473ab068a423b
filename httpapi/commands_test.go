package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// TestCommand_Reading: what a body and its query become.
func TestCommand_Reading(t *testing.T) {
	tokens := func(ids ...int64) *[]lmcache.Token {
		ts := lmcache.TokensOf(ids...)
		return &ts
	}
	yes, no := true, false
	cpu := registry.Target{Instance: "a", Location: "LocalCPUBackend"}
	for _, c := range []struct {
		target, body string
		want         executor.Command
	}{
		{"/clear", `{"instance_id":"a","location":"LocalCPUBackend"}`, executor.Command{Kind: registry.CommandClear, Source: cpu}},
		// The example of LMCache's documentation.
		{"/clear", `{"event_id": "clear_001", "instance_id": "a", "location": "local_cpu"}`, executor.Command{Kind: registry.CommandClear, EventID: "clear_001", Source: cpu}},
		{"/clear", `{"event_id":null,"instance_id":"a","location":"local_disk"}`, executor.Command{Kind: registry.CommandClear, Source: registry.Target{Instance: "a", Location: "LocalDiskBackend"}}},
		{"/clear", `{"instance_id":"a","location":"remote"}`, executor.Command{Kind: registry.CommandClear, Source: registry.Target{Instance: "a", Location: "RemoteBackend"}}},
		{"/clear", `{"instance_id":"a","location":"p2p"}`, executor.Command{Kind: registry.CommandClear, Source: registry.Target{Instance: "a", Location: "P2PBackend"}}},
		// An instance that has a location of that very name means it.
		{"/clear", `{"instance_id":"literal","location":"local_cpu"}`, executor.Command{Kind: registry.CommandClear, Source: registry.Target{Instance: "literal", Location: "local_cpu"}}},
		{"/clear?timeout=1500ms", `{"instance_id":"a","location":"LocalCPUBackend"}`, executor.Command{Kind: registry.CommandClear, Source: cpu, Deadline: 1500 * time.Millisecond}},
		{"/clear?timeout=2&wait=no", `{"instance_id":"a","location":"LocalCPUBackend"}`, executor.Command{Kind: registry.CommandClear, Source: cpu, Deadline: 2 * time.Second, Detach: true}},
		{"/pin", `{"instance_id":"a","location":"LocalCPUBackend","tokens":[1,"2"]}`, executor.Command{Kind: registry.CommandPin, Source: cpu, Tokens: tokens(1, 2)}},
		{"/compress", `{"instance_id":"a","method":"m","location":"LocalCPUBackend"}`, executor.Command{Kind: registry.CommandCompress, Method: "m", Source: cpu, Tokens: tokens()}},
		{"/compress", `{"instance_id":"a","method":"m","location":"LocalCPUBackend","tokens":null}`, executor.Command{Kind: registry.CommandCompress, Method: "m", Source: cpu}},
		{"/decompress", `{"instance_id":"a","method":"m","location":"LocalCPUBackend","tokens":[3]}`, executor.Command{Kind: registry.CommandDecompress, Method: "m", Source: cpu, Tokens: tokens(3)}},
		{"/move", `{"old_position":["a","LocalCPUBackend"],"new_position":["literal","local_cpu"]}`,
			executor.Command{Kind: registry.CommandMove, Source: cpu, Dest: registry.Target{Instance: "literal", Location: "local_cpu"}, Tokens: tokens(), Copy: &no}},
		{"/move", `{"old_position":["a","local_cpu"],"new_position":["b","local_cpu"],"copy":true}`,
			executor.Command{Kind: registry.CommandMove, Source: cpu, Dest: registry.Target{Instance: "b", Location: "LocalCPUBackend"}, Tokens: tokens(), Copy: &yes}},
		{"/move", `{"old_position":["a","local_cpu"],"new_position":["b","x"],"copy":true,"should_copy":false}`,
			executor.Command{Kind: registry.CommandMove, Source: cpu, Dest: registry.Target{Instance: "b", Location: "x"}, Tokens: tokens(), Copy: &no}},
		{"/move", `{"old_position":["a","local_cpu"],"new_position":["b","x"],"should_copy":null}`,
			executor.Command{Kind: registry.CommandMove, Source: cpu, Dest: registry.Target{Instance: "b", Location: "x"}, Tokens: tokens()}},
		{"/move", `{"old_position":["a","local_cpu"],"new_position":["b","x"],"copy":"yes","should_copy":null,"event_id":"é"}`,
			executor.Command{Kind: registry.CommandMove, EventID: "é", Source: cpu, Dest: registry.Target{Instance: "b", Location: "x"}, Tokens: tokens(), Copy: &yes}},
	} {
		r := newRig(t)
		r.register("literal", 0)
		r.admit("literal", 0, "local_cpu", 1)
		var got executor.Command
		r.exec.do = func(_ context.Context, c executor.Command) (registry.Event, error) {
			got = c
			return registry.Event{ID: "E1", State: registry.EventDone, NumTokens: 12}, nil
		}
		w := r.post(c.target, c.body)
		if c.want.Detach {
			want(t, w, 202, `{"event_id":"E1"}`)
		} else {
			want(t, w, 200, `{"event_id":"E1","num_tokens":12}`)
		}
		if c.want.EventID == "" { // then it was named here
			if _, err := uuid.Parse(got.EventID[len(got.EventID)-36:]); err != nil || !strings.EqualFold(got.EventID[:len(got.EventID)-36], string(c.want.Kind)) {
				t.Errorf("%s: event id %q", c.target, got.EventID)
			}
			got.EventID = ""
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %s\n got %+v\nwant %+v", c.target, c.body, got, c.want)
		}
	}
}

func TestCommand_Refusals(t *testing.T) {
	r := newRig(t)
	r.exec.do = func(context.Context, executor.Command) (registry.Event, error) {
		t.Error("a command that does not fit was carried out")
		return registry.Event{}, nil
	}
	body := `{"instance_id":"a","location":"l"}`
	for _, c := range []struct {
		target, body string
		status       int
		has          string
	}{
		{"/clear", `{"instance_id":"a","location":"l","event_id":"` + strings.Repeat("x", 129) + `"}`, 422, `"string_too_long","loc":["body","event_id"]`},
		{"/clear", `{"instance_id":"a","location":"l","event_id":5}`, 422, `"string_type","loc":["body","event_id"]`},
		{"/clear?wait=perhaps", body, 422, `"bool_parsing","loc":["query","wait"]`},
		{"/clear?timeout=0", body, 422, `"greater_than","loc":["query","timeout"]`},
		{"/clear?timeout=-1s", body, 422, `"time_delta_parsing","loc":["query","timeout"]`},
		{"/clear?timeout=11m", body, 422, `"time_delta_parsing","loc":["query","timeout"]`},
		{"/pin", `{"instance_id":"a","location":"l","tokens":[18446744073709551616]}`, 400, `"bad_body"`},
		{"/move", `{"old_position":["a","l"],"new_position":["b","l"],"copy":[]}`, 422, `"bool_type","loc":["body","copy"]`},
	} {
		w := r.post(c.target, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s %s: %d %s\nwant %d with %s", c.target, c.body, w.Code, w.Body, c.status, c.has)
		}
	}
}

// TestCommand_EventIDOf128Characters: characters, not bytes.
func TestCommand_EventIDOf128Characters(t *testing.T) {
	r := newRig(t)
	id := strings.Repeat("界", executor.MaxEventID)
	r.exec.do = func(_ context.Context, c executor.Command) (registry.Event, error) {
		return registry.Event{ID: c.EventID}, nil
	}
	want(t, r.post("/clear", `{"instance_id":"a","location":"l","event_id":"`+id+`"}`), 200, `{"event_id":"`+id+`","num_tokens":0}`)
	want(t, r.post("/clear", `{"instance_id":"a","location":"l","event_id":"`+id+`x"}`), 422, "")
}

// TestCommand_Failures holds the table of errors.
func TestCommand_Failures(t *testing.T) {
	ev := registry.Event{ID: "Clear1", Kind: registry.CommandClear, State: registry.EventPartial, Source: registry.Target{Instance: "a"}, Detail: "1 of 2 did it",
		Workers: []registry.WorkerOutcome{
			{WorkerRef: registry.WorkerRef{Instance: "a", Worker: 0}, State: registry.EventDone, NumTokens: 5},
			{WorkerRef: registry.WorkerRef{Instance: "a", Worker: 1}, State: registry.EventFailed, Error: "answered: no"},
		}}
	const workers = `"workers":[{"instance_id":"a","worker_id":0,"status":"done","num_tokens":5,"error":""},{"instance_id":"a","worker_id":1,"status":"failed","num_tokens":0,"error":"answered: no"}]`
	failed := func(c executor.Cause) error { return &executor.CommandError{Event: ev, Cause: c} }
	for _, c := range []struct {
		err    error
		status int
		code   string
		retry  string
		has    string
	}{
		{&executor.UnknownInstanceError{Instance: "a"}, 404, "unknown_instance", "", `\"a\"`},
		{&executor.PlanError{Code: "ranks", Detail: "unequal"}, 409, "ranks", "", "unequal"},
		{&executor.PlanError{Code: "no_p2p", Detail: "enable P2P"}, 409, "no_p2p", "", "enable P2P"},
		{&executor.PlanError{Code: "same_place", Detail: "the same"}, 409, "same_place", "", "the same"},
		{&executor.ConflictError{Event: ev}, 409, "conflict", "", "choose a new id"},
		{failed(executor.CauseWorkerError), 502, "worker_error", "", workers},
		{failed(executor.CauseBadAnswer), 502, "bad_answer", "", workers},
		{failed(executor.CauseDisagree), 502, "disagree", "", workers},
		{failed(executor.CausePartial), 502, "partial", "", `"event_id":"Clear1","status":"partial",` + workers},
		{failed(executor.CauseInterrupted), 502, "interrupted", "", "new event id"},
		{failed(executor.CauseUnsent), 503, "unsent", "1", "new event id"},
		{failed(executor.CauseTimeout), 504, "timeout", "", workers},
		{failed(executor.CauseUnreachable), 504, "unreachable", "", workers},
		{fmt.Errorf("x: %w", executor.ErrBusy), 503, "busy", "1", ""},
		{executor.ErrNotLeading, 503, "no_leader", "1", ""},
		{fmt.Errorf("event: %w: %w", executor.ErrOutcomeUnknown, cluster.ErrUnknownOutcome), 504, "timeout", "", `"event_id":"e"`}, // tried again to the end
		{cluster.ErrStopped, 503, "stopping", "1", ""},
		{cluster.ErrNoLeader, 503, "no_leader", "1", ""},
		{errors.New("odd"), 500, "internal", "", "odd"},
	} {
		synctest.Test(t, func(t *testing.T) { // some are tried again for their time
			r := newRig(t)
			r.exec.do = func(context.Context, executor.Command) (registry.Event, error) { return registry.Event{}, c.err }
			w := r.post("/clear?timeout=3s", `{"instance_id":"a","location":"l","event_id":"e"}`)
			var p struct{ Detail, Code string }
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			if w.Code != c.status || p.Code != c.code || p.Detail == "" || w.Header().Get("Retry-After") != c.retry || !strings.Contains(w.Body.String(), c.has) {
				t.Errorf("%v: %d %s, Retry-After %q\nwant %d %s with %s", c.err, w.Code, w.Body, w.Header().Get("Retry-After"), c.status, c.code, c.has)
			}
		})
	}
}

func TestProblems_EveryCodeHasItsRow(t *testing.T) {
	for cause, c := range causes {
		if _, ok := kinds[c]; !ok {
			t.Errorf("cause %s: code %s has no row", cause, c)
		}
	}
	for _, s := range sentinels {
		if _, ok := kinds[s.code]; !ok {
			t.Errorf("error %q: code %s has no row", s.is, s.code)
		}
	}
}

// TestCommand_NotWaitedFor: a command that is in the log is accepted, whatever became
// of it; one that is not is refused as ever.
func TestCommand_NotWaitedFor(t *testing.T) {
	r := newRig(t)
	r.exec.do = func(_ context.Context, c executor.Command) (registry.Event, error) {
		if c.EventID == "again" {
			return registry.Event{}, &executor.CommandError{Event: registry.Event{ID: "again", State: registry.EventFailed}, Cause: executor.CauseWorkerError}
		}
		return registry.Event{}, &executor.UnknownInstanceError{Instance: c.Source.Instance}
	}
	want(t, r.post("/clear?wait=false", `{"instance_id":"a","location":"l","event_id":"again"}`), 202, `{"event_id":"again"}`)
	want(t, r.post("/clear?wait=false", `{"instance_id":"a","location":"l"}`), 404, "")
}

// TestCommand_StillUnderWay: the longest wait ends before the command does.
func TestCommand_StillUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		began := time.Now()
		r.exec.do = func(ctx context.Context, _ executor.Command) (registry.Event, error) {
			<-ctx.Done()
			return registry.Event{ID: "Clear9", State: registry.EventRunning}, ctx.Err()
		}
		w := r.post("/clear?timeout=1s", `{"instance_id":"a","location":"l","event_id":"Clear9"}`)
		if w.Code != 504 || !strings.Contains(w.Body.String(), `"event_id":"Clear9","status":"running"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if took := time.Since(began); took != 2*time.Second+logWait {
			t.Errorf("waited for %v", took)
		}
	})
}

func TestHealth(t *testing.T) {
	of := func(worker, code int64) executor.WorkerHealth {
		return executor.WorkerHealth{WorkerRef: registry.WorkerRef{Instance: "a", Worker: worker}, Code: code}
	}
	for _, c := range []struct {
		all    []executor.WorkerHealth
		status int
		has    string
	}{
		{nil, 200, `"error_codes":{}`},
		{[]executor.WorkerHealth{of(10, 0), of(2, -1), of(1, executor.CodeBadAnswer)}, 200, `"error_codes":{"1":-1003,"2":-1,"10":0}`},
		{[]executor.WorkerHealth{of(0, 0), of(1, executor.CodeNotAnswering)}, 504, `"code":"timeout","error_codes":{"0":0,"1":-1004}`},
		{[]executor.WorkerHealth{of(0, executor.CodeNotReached)}, 504, `"code":"unreachable"`},
		{[]executor.WorkerHealth{of(0, executor.CodeNotAsked)}, 504, `busy`},
	} {
		r := newRig(t)
		r.exec.health = func(_ context.Context, instance string, deadline time.Duration) ([]executor.WorkerHealth, error) {
			if instance != "a" || deadline != 3*time.Second {
				t.Errorf("asked for %q within %v", instance, deadline)
			}
			return c.all, nil
		}
		w := r.post("/health?timeout=3s", `{"instance_id":"a"}`)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%d %s\nwant %d with %s", w.Code, w.Body, c.status, c.has)
		}
	}
}
