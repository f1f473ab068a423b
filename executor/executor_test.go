package executor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

const wait = 20 * time.Second

func clearOf(instance string) Command {
	return Command{Kind: registry.CommandClear, Source: registry.Target{Instance: instance, Location: "LocalCPUBackend"}}
}

func TestDo_EveryRankGetsItsMessage(t *testing.T) {
	w := newWorld(t, Options{})
	ranks := w.fleet("a", say(512), say(512))
	w.fleet("b", say(1), say(1))
	list := lmcache.TokensOf(1, 2, 3)
	tokens := &list
	source, dest := registry.Target{Instance: "a", Location: "LocalCPUBackend"}, registry.Target{Instance: "b", Location: "L2"}
	yes := true
	for _, tt := range []struct {
		command Command
		prefix  string // of the event id
		idForm  string // of the worker's event id, before the uuid
		want    func(id string, rank int) lmcache.Message
	}{
		{Command{Kind: registry.CommandClear, Source: source}, "Clear", "Worker%dClear",
			func(id string, _ int) lmcache.Message {
				return &lmcache.ClearWorkerMsg{WorkerEventID: id, Location: "LocalCPUBackend"}
			}},
		{Command{Kind: registry.CommandPin, Source: source, Tokens: tokens}, "Pin", "Worker%dPin",
			func(id string, _ int) lmcache.Message {
				return &lmcache.PinWorkerMsg{WorkerEventID: id, Location: "LocalCPUBackend", Tokens: *tokens}
			}},
		{Command{Kind: registry.CommandCompress, Source: source, Method: "cachegen", Tokens: tokens}, "Compress", "CompressWorker%d",
			func(id string, _ int) lmcache.Message {
				return &lmcache.CompressWorkerMsg{WorkerEventID: id, Method: "cachegen", Location: "LocalCPUBackend", Tokens: tokens}
			}},
		{Command{Kind: registry.CommandDecompress, Source: source, Method: "m"}, "Decompress", "DecompressWorker%d",
			func(id string, _ int) lmcache.Message {
				return &lmcache.DecompressWorkerMsg{WorkerEventID: id, Method: "m", Location: "LocalCPUBackend"}
			}},
		{Command{Kind: registry.CommandMove, Source: source, Dest: dest, Tokens: tokens, Copy: &yes}, "Move", "MoveWorker%d",
			func(id string, rank int) lmcache.Message {
				return &lmcache.MoveWorkerMsg{WorkerEventID: id, OldPosition: "LocalCPUBackend", NewPosition: [2]string{fmt.Sprintf("peer-b-%d", rank), "L2"}, Tokens: tokens, Copy: &yes}
			}},
	} {
		t.Run(string(tt.command.Kind), func(t *testing.T) {
			ev, err := w.exec.Do(within(t, wait), tt.command)
			if err != nil {
				t.Fatal(err)
			}
			if ev.State != registry.EventDone || ev.NumTokens != 512 || !strings.HasPrefix(ev.ID, tt.prefix) || len(ev.Workers) != 2 {
				t.Fatalf("event %+v", ev)
			}
			for rank, x := range ranks {
				got := x.got()
				m := got[len(got)-1]
				id := workerEventID(m)
				if !strings.HasPrefix(id, fmt.Sprintf(tt.idForm, rank)) {
					t.Errorf("rank %d: worker event id %q, want prefix %q", rank, id, fmt.Sprintf(tt.idForm, rank))
				}
				if diff := cmp.Diff(tt.want(id, rank), m); diff != "" {
					t.Errorf("rank %d (-want +got):\n%s", rank, diff)
				}
			}
		})
	}
}

func workerEventID(m lmcache.Message) string {
	switch m := m.(type) {
	case *lmcache.ClearWorkerMsg:
		return m.WorkerEventID
	case *lmcache.PinWorkerMsg:
		return m.WorkerEventID
	case *lmcache.CompressWorkerMsg:
		return m.WorkerEventID
	case *lmcache.DecompressWorkerMsg:
		return m.WorkerEventID
	case *lmcache.MoveWorkerMsg:
		return m.WorkerEventID
	}
	return ""
}

func TestDo_Outcomes(t *testing.T) {
	failing := sayMessage(&lmcache.ErrorMsg{Error: "Worker error: no such location"})
	for _, tt := range []struct {
		name    string
		answers []answerFunc
		state   registry.EventState
		cause   Cause
		detail  string
	}{
		{"worker error keeps the worker's words", []answerFunc{failing}, registry.EventFailed, CauseWorkerError, "Worker error: no such location"},
		{"error without words", []answerFunc{sayMessage(&lmcache.ErrorMsg{Error: " "})}, registry.EventFailed, CauseWorkerError, "without words"},
		{"one of two fails", []answerFunc{say(5), failing}, registry.EventPartial, CausePartial, `1 of 2 workers did it; worker "i"/1 answered`},
		{"counts differ", []answerFunc{say(512), say(256)}, registry.EventPartial, CauseDisagree, "worker 0 says 512 tokens, worker 1 says 256 tokens"},
		{"garbage", []answerFunc{sayBytes(0xc1)}, registry.EventFailed, CauseBadAnswer, "cannot be decoded"},
		{"nil", []answerFunc{sayBytes(0xc0)}, registry.EventFailed, CauseBadAnswer, "cannot be decoded"},
		{"another command's reply", []answerFunc{sayMessage(&lmcache.PinWorkerRetMsg{NumTokens: 5})}, registry.EventFailed, CauseBadAnswer, "answered PinWorkerRetMsg, not ClearWorkerRetMsg"},
		{"negative count", []answerFunc{say(-7)}, registry.EventFailed, CauseBadAnswer, "-7 tokens"},
		{"silent", []answerFunc{silence}, registry.EventTimedOut, CauseTimeout, "did not answer within 300ms; it may still do it"},
		{"one of two silent", []answerFunc{silence, say(5)}, registry.EventPartial, CausePartial, `worker "i"/0 did not answer`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Options{Deadline: 300 * time.Millisecond})
			w.fleet("i", tt.answers...)
			digestOfKeys := w.log.fsm.Registry().Totals().Keys
			ev, err := w.exec.Do(within(t, wait), clearOf("i"))
			var failed *CommandError
			if !errors.As(err, &failed) || failed.Cause != tt.cause {
				t.Fatalf("error %v, want a CommandError of cause %q", err, tt.cause)
			}
			if ev.State != tt.state || !strings.Contains(ev.Detail, tt.detail) || !strings.Contains(err.Error(), tt.detail) {
				t.Errorf("state %q detail %q, want %q with %q", ev.State, ev.Detail, tt.state, tt.detail)
			}
			if logged, ok := w.log.fsm.Registry().Event(ev.ID); !ok || logged.State != tt.state {
				t.Errorf("the log has %+v (%t)", logged, ok)
			}
			if again, err := w.exec.Do(within(t, wait), Command{Kind: registry.CommandClear, Source: clearOf("i").Source, EventID: ev.ID}); !errors.As(err, &failed) || failed.Cause != tt.cause || err.Error() != ev.Detail {
				t.Errorf("the same id again: %+v, %v", again, err)
			}
			if got := w.log.fsm.Registry().Totals().Keys; got != digestOfKeys {
				t.Errorf("the command changed the index: %d keys, had %d", got, digestOfKeys)
			}
		})
	}
}

// Every worker's part is in the event, in its own words; the command's deadline is its own.
func TestDo_PartsOfWorkers(t *testing.T) {
	w := newWorld(t, Options{Deadline: time.Minute})
	w.fleet("i", say(5), sayMessage(&lmcache.ErrorMsg{Error: "Worker error: 'cachegen'"}), silence)
	c := Command{Kind: registry.CommandCompress, Source: registry.Target{Instance: "i", Location: "L"}, Method: "cachegen", Tokens: prompt(4), Deadline: 100 * time.Millisecond}
	ev, err := w.exec.Do(within(t, wait), c)
	if !isA[*CommandError](err) || ev.State != registry.EventPartial {
		t.Fatalf("%+v, %v", ev, err)
	}
	part := func(rank int64, state registry.EventState, tokens int64, text string) registry.WorkerOutcome {
		return registry.WorkerOutcome{WorkerRef: registry.WorkerRef{Instance: "i", Worker: rank}, State: state, NumTokens: tokens, Error: text}
	}
	want := []registry.WorkerOutcome{
		part(0, registry.EventDone, 5, ""),
		part(1, registry.EventFailed, 0, "answered: Worker error: 'cachegen'"),
		part(2, registry.EventTimedOut, 0, "did not answer within 100ms; it may still do it"),
	}
	logged, _ := w.log.fsm.Registry().Event(ev.ID)
	if diff := cmp.Diff(want, logged.Workers); diff != "" {
		t.Errorf("parts (-want +got):\n%s", diff)
	}
}

// A worker that is not there gets nothing, neither now nor when it appears.
func TestDo_UnreachableWorkerIsNeverSentTo(t *testing.T) {
	w := newWorld(t, Options{Deadline: 200 * time.Millisecond})
	port := freePort(t)
	w.register("gone", 0, port, "")
	ev, err := w.exec.Do(within(t, wait), clearOf("gone"))
	var failed *CommandError
	if !errors.As(err, &failed) || failed.Cause != CauseUnreachable || ev.State != registry.EventFailed {
		t.Fatalf("%+v, %v", ev, err)
	}
	c := clearOf("gone")
	c.EventID = ev.ID
	if _, err = w.exec.Do(within(t, wait), c); !errors.As(err, &failed) || failed.Cause != CauseUnreachable {
		t.Errorf("the same id again: %v, want the first outcome", err)
	}
	x := startWorker(t, port, say(4))
	if ev, err = w.exec.Do(within(t, wait), clearOf("gone")); err != nil || ev.NumTokens != 4 {
		t.Fatalf("afterwards: %+v, %v", ev, err)
	}
	if got := x.got(); len(got) != 1 {
		t.Errorf("the worker received %d commands, want only the second", len(got))
	}
}

// After a silent worker the next command works: no socket is wedged.
func TestDo_SilentOnceThenFine(t *testing.T) {
	w := newWorld(t, Options{Deadline: 200 * time.Millisecond})
	first := true
	w.fleet("i", func(m lmcache.Message) []byte {
		if first {
			first = false
			return nil
		}
		return say(7)(m)
	})
	if _, err := w.exec.Do(within(t, wait), clearOf("i")); err == nil {
		t.Fatal("the silent worker's command succeeded")
	}
	if ev, err := w.exec.Do(within(t, wait), clearOf("i")); err != nil || ev.NumTokens != 7 {
		t.Fatalf("%+v, %v", ev, err)
	}
}

func TestDo_OneRequestInFlightPerWorker(t *testing.T) {
	w := newWorld(t, Options{})
	release := make(chan struct{})
	x := w.fleet("i", func(m lmcache.Message) []byte {
		<-release
		return say(5)(m)
	})[0]
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if ev, err := w.exec.Do(within(t, wait), clearOf("i")); err != nil || ev.NumTokens != 5 {
				t.Errorf("%+v, %v", ev, err)
			}
		})
	}
	for i := range 3 {
		<-x.arrived
		if n := len(x.got()); n != i+1 {
			t.Errorf("%d requests reached the worker while one was open", n)
		}
		release <- struct{}{}
	}
	wg.Wait()
}

func TestDo_BusyForTheWholeDeadline(t *testing.T) {
	w := newWorld(t, Options{Deadline: time.Minute})
	hold := make(chan struct{})
	x := w.fleet("i", func(m lmcache.Message) []byte { <-hold; return say(1)(m) })[0]
	first := make(chan error, 1)
	go func() { _, err := w.exec.Do(within(t, wait), clearOf("i")); first <- err }()
	<-x.arrived
	c := clearOf("i")
	c.Deadline = 50 * time.Millisecond
	ev, err := w.exec.Do(within(t, wait), c)
	if !errors.Is(err, ErrBusy) || ev.State != registry.EventFailed {
		t.Errorf("%+v, %v", ev, err)
	}
	var ended *CommandError
	c.EventID = ev.ID
	if _, err := w.exec.Do(within(t, wait), c); !errors.As(err, &ended) || ended.Cause != CauseUnsent {
		t.Errorf("the same id again: %v, want cause %q", err, CauseUnsent)
	}
	close(hold)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if n := len(x.got()); n != 1 {
		t.Errorf("the worker received %d commands, want 1", n)
	}
}

// A command goes to where its worker is when its turn comes, not to where it was.
func TestDo_WorkerMovesWhileTheCommandWaits(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(w *world, elsewhere int64)
		check  func(ev registry.Event, err error, elsewhere int) bool
	}{
		{"to another address", func(w *world, port int64) { w.register("i", 0, port, "") },
			func(ev registry.Event, err error, elsewhere int) bool {
				return err == nil && ev.NumTokens == 2 && elsewhere == 1
			}},
		{"and another rank comes", func(w *world, port int64) { w.register("i", 1, port, "") },
			func(ev registry.Event, err error, elsewhere int) bool {
				return err != nil && ev.State == registry.EventFailed && strings.Contains(ev.Detail, "changed while") && elsewhere == 0
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Options{})
			release := make(chan struct{})
			x := w.fleet("i", func(m lmcache.Message) []byte { <-release; return say(1)(m) })[0]
			elsewhere := startWorker(t, 0, say(2))
			first := make(chan error, 1)
			go func() { _, err := w.exec.Do(within(t, wait), clearOf("i")); first <- err }()
			<-x.arrived
			c := clearOf("i")
			c.Detach = true
			ev, err := w.exec.Do(within(t, wait), c)
			if err != nil {
				t.Fatal(err)
			}
			tt.change(w, elsewhere.port)
			close(release)
			if err := <-first; err != nil {
				t.Error(err)
			}
			c.Detach, c.EventID = false, ev.ID
			if ev, err = w.exec.Do(within(t, wait), c); !tt.check(ev, err, len(elsewhere.got())) {
				t.Errorf("%+v, %v, %d commands arrived elsewhere", ev, err, len(elsewhere.got()))
			}
			if n := len(x.got()); n != 1 {
				t.Errorf("%d commands reached the old address, want only the first", n)
			}
		})
	}
}

func TestDo_RefusedBeforeAnythingIsLogged(t *testing.T) {
	w := newWorld(t, Options{})
	w.register("one", 0, 1, "p")
	w.register("two", 0, 1, "p")
	w.register("two", 1, 2, "p")
	w.register("nop2p", 0, 3, "")
	move := func(from, to string) Command {
		return Command{Kind: registry.CommandMove, Source: registry.Target{Instance: from}, Dest: registry.Target{Instance: to}}
	}
	for _, tt := range []struct {
		name    string
		command Command
		check   func(error) bool
		text    string
	}{
		{"unknown instance", clearOf("nobody"), isA[*UnknownInstanceError], `"nobody"`},
		{"empty instance", clearOf(""), isA[*UnknownInstanceError], `""`},
		{"unknown destination", move("one", "nobody"), isA[*UnknownInstanceError], `"nobody"`},
		{"unequal ranks", move("one", "two"), isA[*PlanError], `"one" has 1 workers and "two" has 2`},
		{"onto itself", move("two", "two"), isA[*PlanError], `both "" of instance "two"`},
		{"no P2P at the destination", move("one", "nop2p"), isA[*PlanError], "peer_init_url"},
		{"unknown command", Command{Kind: "explode"}, func(error) bool { return true }, `"explode"`},
		{"pin without tokens", Command{Kind: registry.CommandPin, Source: registry.Target{Instance: "one"}}, func(error) bool { return true }, "tokens"},
		{"long event id", Command{Kind: registry.CommandClear, EventID: strings.Repeat("x", 129)}, func(error) bool { return true }, "129 characters"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := w.log.fsm.Registry().Digest()
			_, err := w.exec.Do(within(t, wait), tt.command)
			if err == nil || !tt.check(err) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want one with %q", err, tt.text)
			}
			if w.log.fsm.Registry().Digest() != before {
				t.Error("the state changed")
			}
		})
	}
}

func isA[E error](err error) bool {
	var e E
	return errors.As(err, &e)
}

func TestDo_EventIDIsIdempotent(t *testing.T) {
	w := newWorld(t, Options{})
	x := w.fleet("i", say(9))[0]
	c := clearOf("i")
	c.EventID = "mine"
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if ev, err := w.exec.Do(within(t, wait), c); err != nil || ev.NumTokens != 9 || ev.ID != "mine" {
				t.Errorf("%+v, %v", ev, err)
			}
		})
	}
	wg.Wait()
	w.stop()
	w.lead(2) // the id outlives the leader
	if ev, err := w.exec.Do(within(t, wait), c); err != nil || ev.NumTokens != 9 {
		t.Errorf("in the next term: %+v, %v", ev, err)
	}
	if n := len(x.got()); n != 1 {
		t.Errorf("the worker received the command %d times, want once", n)
	}
	other := c
	other.Source.Location = "LocalDiskBackend"
	if _, err := w.exec.Do(within(t, wait), other); !isA[*ConflictError](err) {
		t.Errorf("the id for another command: %v, want a ConflictError", err)
	}
}

// Losing leadership ends what is under way, and the next term closes its event; the
// command is not sent again.
func TestLead_EndsWithItsCommands(t *testing.T) {
	w := newWorld(t, Options{Deadline: time.Minute})
	x := w.fleet("i", silence)[0]
	c := clearOf("i")
	c.EventID = "lost"
	result := make(chan error, 1)
	go func() { _, err := w.exec.Do(within(t, wait), c); result <- err }()
	<-x.arrived
	w.stop()
	if err := <-result; !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("error %v, want ErrOutcomeUnknown", err)
	}
	if _, err := w.exec.Do(within(t, wait), clearOf("i")); !errors.Is(err, ErrNotLeading) {
		t.Errorf("without leadership: %v, want ErrNotLeading", err)
	}
	w.lead(2)
	ev, err := w.exec.Do(within(t, wait), c)
	var ended *CommandError
	if !errors.As(err, &ended) || ended.Cause != CauseInterrupted || ev.State != registry.EventInterrupted {
		t.Errorf("in the next term: %+v, %v", ev, err)
	}
	if n := len(x.got()); n != 1 {
		t.Errorf("the worker received the command %d times, want once", n)
	}
}

func TestDo_ClientGivesUpCommandGoesOn(t *testing.T) {
	w := newWorld(t, Options{})
	release := make(chan struct{})
	x := w.fleet("i", func(m lmcache.Message) []byte { <-release; return say(3)(m) })[0]
	c := clearOf("i")
	c.EventID = "patience"
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { _, err := w.exec.Do(ctx, c); result <- err }()
	<-x.arrived
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	close(release)
	if ev, err := w.exec.Do(within(t, wait), c); err != nil || ev.NumTokens != 3 {
		t.Errorf("asked again: %+v, %v", ev, err)
	}
}

func TestDo_Detached(t *testing.T) {
	w := newWorld(t, Options{})
	release := make(chan struct{})
	w.fleet("i", func(m lmcache.Message) []byte { <-release; return say(3)(m) })
	c := clearOf("i")
	c.Detach = true
	ev, err := w.exec.Do(within(t, wait), c)
	if err != nil || ev.ID == "" || ev.State.Final() {
		t.Fatalf("%+v, %v", ev, err)
	}
	close(release)
	c.Detach, c.EventID = false, ev.ID
	if ev, err := w.exec.Do(within(t, wait), c); err != nil || ev.State != registry.EventDone {
		t.Errorf("%+v, %v", ev, err)
	}
}

// An entry whose fate is unknown never leads to a second sending, and the event is
// closed all the same.
func TestDo_LogLosesItsAnswers(t *testing.T) {
	for at, name := range []string{"create", "run", "finish"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Options{})
			x := w.fleet("i", say(3))[0]
			seen := 0
			w.log.mu.Lock()
			w.log.fail = func([]byte) error {
				w.log.lose = seen == at
				seen++
				return nil
			}
			w.log.mu.Unlock()
			ev, err := w.exec.Do(within(t, wait), clearOf("i"))
			sent := len(x.got())
			switch {
			case name == "finish" && (err != nil || ev.State != registry.EventDone || sent != 1):
				t.Errorf("%+v, %v, sent %d times", ev, err, sent)
			case name != "finish" && (err == nil || ev.State != registry.EventFailed || sent != 0):
				t.Errorf("%+v, %v, sent %d times", ev, err, sent)
			}
			if open := w.log.fsm.Registry().Totals().OpenEvents; open != 0 {
				t.Errorf("%d events stay open", open)
			}
		})
	}
}

// The log's errors say whether an event may be in it. When it cannot be the command
// is over, with the reason, and its id is free.
func TestDo_LogRefuses(t *testing.T) {
	for _, tt := range []struct{ err, want error }{
		{cluster.ErrNotLeader, ErrNotLeading},
		{cluster.ErrNoLeader, ErrNotLeading},
		{cluster.ErrStopped, ErrNotLeading},
		{cluster.ErrBusy, ErrBusy},
		{context.DeadlineExceeded, ErrBusy},
		{cluster.ErrTooLarge, cluster.ErrTooLarge},
		{cluster.ErrInvalid, cluster.ErrInvalid},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			w := newWorld(t, Options{})
			x := w.fleet("i", say(3))[0]
			tries := 0
			w.log.setFail(func([]byte) error { tries++; return tt.err })
			c := clearOf("i")
			c.EventID = "again"
			_, err := w.exec.Do(within(t, wait), c)
			if !errors.Is(err, tt.want) || errors.Is(err, ErrOutcomeUnknown) {
				t.Errorf("error %v, want %v and nothing unknown", err, tt.want)
			}
			if n := len(x.got()); n != 0 || tries != 1 {
				t.Errorf("sent %d times, %d entries proposed, want 0 and 1", n, tries)
			}
			w.log.setFail(nil)
			if ev, err := w.exec.Do(within(t, wait), c); err != nil || ev.NumTokens != 3 {
				t.Errorf("the same id later: %+v, %v", ev, err)
			}
		})
	}
}

// An end that no entry holds, of a command with very many workers, is written without
// the workers' words.
func TestDo_EndTooLarge(t *testing.T) {
	w := newWorld(t, Options{})
	w.fleet("i", sayMessage(&lmcache.ErrorMsg{Error: strings.Repeat("x", 1000)}))
	w.log.setFail(func(entry []byte) error {
		if len(entry) > 1500 {
			return cluster.ErrTooLarge
		}
		return nil
	})
	ev, err := w.exec.Do(within(t, wait), clearOf("i"))
	if !isA[*CommandError](err) || ev.State != registry.EventFailed || len(ev.Workers) != 1 || ev.Workers[0].State != registry.EventFailed || ev.Workers[0].Error != "" {
		t.Errorf("%+v, %v, want failed, with the worker's part and without its words", ev, err)
	}
	if open := w.log.fsm.Registry().Totals().OpenEvents; open != 0 {
		t.Errorf("%d events stay open", open)
	}
}

func TestDo_MaxOpen(t *testing.T) {
	w := newWorld(t, Options{MaxOpen: 1})
	release := make(chan struct{})
	x := w.fleet("i", func(m lmcache.Message) []byte { <-release; return say(3)(m) })[0]
	w.fleet("j", say(1))
	first := make(chan error, 1)
	go func() { _, err := w.exec.Do(within(t, wait), clearOf("i")); first <- err }()
	<-x.arrived
	if _, err := w.exec.Do(within(t, wait), clearOf("j")); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v, want ErrBusy", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if s := w.exec.Stats(); s.Open != 0 || s.Finished[Outcome{registry.CommandClear, "done"}] != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestDo_MaxTokens(t *testing.T) {
	w := newWorld(t, Options{MaxTokens: 4})
	release := make(chan struct{})
	x := w.fleet("i", func(m lmcache.Message) []byte { <-release; return say(3)(m) })[0]
	w.fleet("j", say(1))
	pin := func(instance string, tokens ...int64) Command {
		list := lmcache.TokensOf(tokens...)
		return Command{Kind: registry.CommandPin, Source: registry.Target{Instance: instance}, Tokens: &list}
	}
	first := make(chan error, 1)
	go func() { _, err := w.exec.Do(within(t, wait), pin("i", 1, 2, 3)); first <- err }()
	<-x.arrived
	if _, err := w.exec.Do(within(t, wait), pin("j", 1, 2)); !errors.Is(err, ErrBusy) {
		t.Errorf("beyond the bound: %v, want ErrBusy", err)
	}
	if _, err := w.exec.Do(within(t, wait), pin("j", 1)); err != nil {
		t.Errorf("within the bound: %v", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if _, err := w.exec.Do(within(t, wait), pin("j", 1, 2, 3, 4, 5)); err != nil {
		t.Errorf("one command alone: %v", err)
	}
}

func TestHealth_Codes(t *testing.T) {
	w := newWorld(t, Options{Deadline: 300 * time.Millisecond})
	w.fleet("i",
		say(0),
		sayMessage(&lmcache.HealthWorkerRetMsg{ErrorCode: -1}),
		sayMessage(&lmcache.ErrorMsg{Error: "x"}),
		sayMessage(&lmcache.PinWorkerRetMsg{NumTokens: 5}),
		sayBytes(0xc1),
		silence,
	)
	w.register("i", 6, freePort(t), "")
	got, err := w.exec.Health(within(t, wait), "i", 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []int64
	for i, h := range got {
		if h.Worker != int64(i) {
			t.Errorf("worker %d stands at place %d", h.Worker, i)
		}
		codes = append(codes, h.Code)
	}
	want := []int64{0, -1, CodeErrorAnswer, CodeOtherAnswer, CodeBadAnswer, CodeNotAnswering, CodeNotReached}
	if diff := cmp.Diff(want, codes); diff != "" {
		t.Errorf("codes (-want +got):\n%s", diff)
	}
	if got, err := w.exec.Health(within(t, wait), "nobody", 0); err != nil || len(got) != 0 {
		t.Errorf("unknown instance: %v, %v", got, err)
	}
}

func TestOptions_Validate(t *testing.T) {
	_, err := New(Options{Deadline: -1})
	for _, want := range []string{"no Log", "no Registry", "below zero"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

func TestEventIsInTheLogBeforeAnythingIsSent(t *testing.T) {
	w := newWorld(t, Options{})
	c := clearOf("i")
	c.EventID = "first-logged"
	w.fleet("i", func(m lmcache.Message) []byte {
		if ev, ok := w.log.fsm.Registry().Event(c.EventID); !ok || ev.State != registry.EventRunning {
			t.Errorf("the worker has the command while the log says %+v (%t)", ev, ok)
		}
		return say(1)(m)
	})
	if _, err := w.exec.Do(within(t, wait), c); err != nil {
		t.Fatal(err)
	}
}
