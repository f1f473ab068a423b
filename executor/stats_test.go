package executor

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// TestStats_Latencies: a command is timed once, by its kind, when it was created here
// and has an end; an answer is timed for each worker.
func TestStats_Latencies(t *testing.T) {
	var clock atomic.Int64 // the only thing that moves it is a worker that works
	w := newWorld(t, Options{Now: func() time.Time { return time.UnixMicro(clock.Load()) }})
	takes := func(d time.Duration, answer answerFunc) answerFunc {
		return func(m lmcache.Message) []byte { clock.Add(d.Microseconds()); return answer(m) }
	}
	w.fleet("good", takes(3*time.Second, say(1)))
	w.fleet("bad", takes(20*time.Millisecond, sayMessage(&lmcache.ErrorMsg{Error: "no"})))

	good := clearOf("good")
	good.EventID = "c1"
	if _, err := w.exec.Do(within(t, wait), good); err != nil {
		t.Fatal(err)
	}
	if _, err := w.exec.Do(within(t, wait), good); err != nil { // again: nothing new is carried out
		t.Fatal(err)
	}
	if _, err := w.exec.Do(within(t, wait), clearOf("bad")); !isA[*CommandError](err) {
		t.Fatalf("error %v, want the worker's", err)
	}
	if _, err := w.exec.Do(within(t, wait), clearOf("nobody")); !isA[*UnknownInstanceError](err) {
		t.Fatalf("error %v, want an unknown instance", err)
	}
	w.log.setFail(func([]byte) error { return cluster.ErrBusy })
	if _, err := w.exec.Do(within(t, wait), clearOf("good")); err == nil {
		t.Fatal("a command that could not be created was carried out")
	}
	w.log.setFail(nil)

	s := w.exec.Stats()
	for kind := range prefixes {
		want := uint64(0)
		if kind == registry.CommandClear {
			want = 2
		}
		if h, ok := s.Commands[kind]; !ok || h.Count != want {
			t.Errorf("%s: %+v, want %d timed", kind, h, want)
		}
	}
	if h := s.Commands[registry.CommandClear]; h.Sum != 3.02 || h.Buckets[.01] != 0 || h.Buckets[.025] != 1 || h.Buckets[2.5] != 1 || h.Buckets[5] != 2 {
		t.Errorf("commands took %+v, want one 0.02 s and one 3 s", h)
	}
	if h := s.Answers; h.Count != 2 || h.Sum != 3.02 || h.Buckets[.01] != 0 || h.Buckets[.025] != 1 || h.Buckets[5] != 2 {
		t.Errorf("answers took %+v, want one 0.02 s and one 3 s", h)
	}
}

// TestStats_LostCommandIsNotTimed: a command whose end this replica could not write has
// no known length.
func TestStats_LostCommandIsNotTimed(t *testing.T) {
	w := newWorld(t, Options{})
	asked := make(chan struct{})
	w.fleet("i", func(m lmcache.Message) []byte {
		w.log.setFail(func([]byte) error { return cluster.ErrBusy })
		close(asked)
		return say(1)(m)
	})
	done := make(chan error, 1)
	go func() { _, err := w.exec.Do(within(t, wait), clearOf("i")); done <- err }()
	<-asked
	w.stop()
	if err := <-done; err == nil {
		t.Error("no error")
	}
	if s := w.exec.Stats(); s.Commands[registry.CommandClear].Count != 0 || s.Finished[Outcome{registry.CommandClear, "unknown"}] != 1 {
		t.Errorf("stats %+v, want an unknown end and no time", s)
	}
}
