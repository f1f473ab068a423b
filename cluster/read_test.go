package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A linearizable read sees every entry that was acknowledged before it began.
func TestRead_LinearizableUnderLoad(t *testing.T) {
	state := &ledger{}
	o := testOptions(t, t.TempDir())
	o.FSM = state
	n := mustOpen(t, o)
	await(t, "ready", n.Ready)
	ctx, cancel := context.WithCancel(context.Background())
	var acked atomic.Uint64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ctx.Err() == nil; i++ {
				a, err := n.Propose(context.Background(), []byte(fmt.Sprintf("x:%d.%d", g, i)))
				if err != nil {
					t.Errorf("propose: %v", err)
					return
				}
				for old := acked.Load(); old < a.Index && !acked.CompareAndSwap(old, a.Index); old = acked.Load() {
				}
			}
		}()
	}
	var reads sync.WaitGroup
	for range 8 {
		reads.Add(1)
		go func() {
			defer reads.Done()
			for range 20 {
				before := acked.Load()
				f, err := n.Read(context.Background(), Read{Consistency: Linearizable})
				if err != nil || f.Index < before || f.Staleness != 0 {
					t.Errorf("read %+v, %v after index %d was acknowledged", f, err, before)
				}
			}
		}()
	}
	reads.Wait()
	cancel()
	wg.Wait()
	mustClose(t, n)
}

// Readers that wait share one entry: 200 readers, 3 entries (one under way, one
// that the rest ride, one for who came between).
func TestSharedRounds_ManyRidersOneEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sharedRounds
		var proposals, index uint64
		propose := func() (uint64, error) { // takes a second
			proposals++
			time.Sleep(time.Second)
			index++
			return index, nil
		}
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				time.Sleep(time.Duration(i) * time.Millisecond)
				began := time.Now()
				r, lead := s.join()
				if lead {
					go s.run(propose)
				}
				<-r.done
				if time.Since(began) < time.Second {
					t.Errorf("reader %d rode an entry that was proposed before it asked", i)
				}
			}()
		}
		wg.Wait()
		synctest.Wait()
		if proposals != 2 {
			t.Errorf("%d entries for 200 readers, want 2", proposals)
		}
		if s.running {
			t.Error("still running with nobody waiting")
		}
		// And again from rest.
		r, lead := s.join()
		if !lead {
			t.Fatal("nobody to run it")
		}
		go s.run(func() (uint64, error) { return 0, errDisk })
		<-r.done
		if !errors.Is(r.err, errDisk) {
			t.Errorf("error %v", r.err)
		}
		synctest.Wait()
	})
}

func TestRead_MinIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1, nil)
		n := c.mustLead()
		a := mustPropose(t, n, "x:1")
		if f, err := n.Read(context.Background(), Read{MinIndex: a.Index}); err != nil || f.Index < a.Index || f.Staleness != 0 {
			t.Errorf("own write: %+v, %v", f, err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := n.Read(ctx, Read{MinIndex: a.Index + 1}); !errors.Is(err, ErrStale) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("index of the future: %v", err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := n.Read(context.Background(), Read{MinIndex: a.Index + 1})
			done <- err
		}()
		synctest.Wait()
		mustPropose(t, n, "x:2")
		if err := <-done; err != nil {
			t.Errorf("waited for: %v", err)
		}
		// The sole voter knows what is committed.
		if f, err := n.Read(context.Background(), Read{Consistency: Bounded}); err != nil || f.Staleness != 0 {
			t.Errorf("bounded by nothing: %+v, %v", f, err)
		}
		// Except while the state is behind it, for however short a time.
		n.fresh.mu.Lock()
		n.fresh.asOf, n.fresh.mark, n.fresh.index = time.Now().Add(-time.Microsecond), time.Now(), a.Index+100
		n.fresh.mu.Unlock()
		if f, err := n.Read(context.Background(), Read{}); err != nil || f.Staleness < time.Microsecond {
			t.Errorf("with a state that is behind: %+v, %v", f, err)
		}
		c.stop()
	})
}

func TestFreshness(t *testing.T) {
	var f freshness
	t0 := time.Now()
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	for _, c := range []struct {
		ms                 int
		committed, applied uint64
		want               time.Time
	}{
		{0, 5, 3, time.Time{}}, // behind: nothing known
		{10, 9, 4, time.Time{}},
		{20, 12, 5, t0},  // has what was committed at 0
		{30, 20, 11, t0}, // the note of 20 wants 12
		{40, 30, 12, at(20)},
		{50, 30, 30, at(50)}, // caught up
		{60, 30, 30, at(60)},
	} {
		f.note(at(c.ms), c.committed, c.applied)
		if got := f.since(c.applied); !got.Equal(c.want) {
			t.Errorf("at %d ms: as of %v, want %v", c.ms, got.Sub(t0), c.want.Sub(t0))
		}
	}
	f.note(at(40), 30, 30) // an earlier moment: what is known stays
	if got := f.since(30); !got.Equal(at(60)) {
		t.Errorf("an earlier note counted: as of %v", got.Sub(t0))
	}

	for _, c := range []struct{ term, committed uint64 }{{3, 70}, {3, 80}, {4, 90}, {4, 95}} {
		f.heard(c.term, c.committed, int64(c.committed))
	}
	for _, c := range []struct {
		term, applied, target uint64
		ok                    bool
	}{{4, 89, 90, false}, {4, 90, 90, true}, {3, 99, 0, false}, {5, 99, 0, false}} {
		if target, ok := f.caughtUp(c.term, c.applied); target != c.target || ok != c.ok {
			t.Errorf("%+v: %d, %v", c, target, ok)
		}
	}
	if this, other := f.stampOf(4), f.stampOf(3); this != 95 || other != 0 {
		t.Errorf("stamps %d of the leader's term and %d of an earlier one, want 95 and 0", this, other)
	}
}

func TestIntake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var i intake
		for range 2 {
			if !i.enter() {
				t.Fatal("refused while open")
			}
		}
		i.leave()
		i.close()
		if i.enter() {
			t.Error("admitted after close")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if left := i.wait(ctx); left != 1 {
			t.Errorf("%d left, want 1", left)
		}
		done := make(chan int)
		go func() { done <- i.wait(context.Background()) }()
		synctest.Wait()
		i.leave()
		if left := <-done; left != 0 {
			t.Errorf("%d left, want 0", left)
		}
	})
}
