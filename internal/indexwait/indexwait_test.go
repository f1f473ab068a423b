package indexwait

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMark_WaitForWhatIsReached(t *testing.T) {
	var m Mark
	m.Publish(5)
	for _, index := range []uint64{0, 4, 5} {
		if err := m.Wait(t.Context(), index); err != nil {
			t.Errorf("Wait(%d) at 5: %v", index, err)
		}
	}
	if m.Reached() != 5 {
		t.Errorf("Reached() = %d, want 5", m.Reached())
	}
}

func TestMark_WakesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Mark
		var woken [10]atomic.Bool
		for _, i := range rand.Perm(10) {
			go func() {
				if err := m.Wait(t.Context(), uint64(i)+1); err != nil {
					t.Error(err)
				}
				woken[i].Store(true)
			}()
		}
		for _, reached := range []uint64{0, 3, 3, 9, 12} {
			m.Publish(reached)
			synctest.Wait()
			for i := range woken {
				if got, want := woken[i].Load(), uint64(i)+1 <= reached; got != want {
					t.Errorf("at %d: waiter for %d woken = %v", reached, i+1, got)
				}
			}
		}
		if n := m.waiting(); n != 0 {
			t.Errorf("%d waiters left", n)
		}
	})
}

func TestMark_ContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Mark
		gone := errors.New("caller gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		errs := make(chan error, 3)
		for _, index := range []uint64{7, 8, 9} {
			c := t.Context()
			if index == 8 {
				c = ctx
			}
			go func() { errs <- m.Wait(c, index) }()
		}
		synctest.Wait()
		cancel(gone)
		if err := <-errs; !errors.Is(err, gone) {
			t.Errorf("Wait = %v, want the cause", err)
		}
		if n := m.waiting(); n != 2 {
			t.Errorf("%d wait, want 2: the one that left must not stay", n)
		}
		m.Publish(9)
		for range 2 {
			if err := <-errs; err != nil {
				t.Errorf("Wait = %v", err)
			}
		}
		if err := m.Wait(ctx, 9); err != nil {
			t.Errorf("reached, context over: %v, want nil", err)
		}
		if err := m.Wait(ctx, 10); !errors.Is(err, gone) {
			t.Errorf("not reached, context over: %v, want the cause", err)
		}
	})
}

func TestMark_Fail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Mark
		stopped := errors.New("stopped")
		errs := make(chan error, 2)
		for _, index := range []uint64{4, 6} {
			go func() { errs <- m.Wait(t.Context(), index) }()
		}
		synctest.Wait()
		m.Publish(5)
		if err := <-errs; err != nil {
			t.Errorf("reached before: %v", err)
		}
		m.Fail(stopped)
		m.Fail(errors.New("second"))
		if err := <-errs; !errors.Is(err, stopped) {
			t.Errorf("waiter got %v", err)
		}
		if err := m.Wait(t.Context(), 6); !errors.Is(err, stopped) {
			t.Errorf("later waiter got %v", err)
		}
		if err := m.Wait(t.Context(), 5); err != nil {
			t.Errorf("what was reached stays reached: %v", err)
		}
	})
}

// A waiter whose context ends at the moment of Fail has been taken out already.
func TestMark_FailThenLeave(t *testing.T) {
	var m Mark
	w, err := m.enlist(t.Context(), 3)
	if w == nil || err != nil {
		t.Fatalf("enlist = %v, %v", w, err)
	}
	m.Fail(errors.New("stopped"))
	m.delist(w)
	if n := m.waiting(); n != 0 {
		t.Errorf("%d wait after Fail", n)
	}
}

func TestMark_StepBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Mark
		m.Publish(9)
		m.Publish(4)
		done := make(chan error, 1)
		go func() { done <- m.Wait(t.Context(), 6) }()
		synctest.Wait()
		if n := m.waiting(); n != 1 {
			t.Fatalf("%d wait for 6 at 4, want 1", n)
		}
		m.Publish(6)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A reader sees what the publisher wrote before it published. The race detector
// judges the plain variable.
func TestMark_PublishesWrites(t *testing.T) {
	const last = 2000
	var m Mark
	var state [last + 1]uint64
	var wg sync.WaitGroup
	for r := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 1))
			for i := uint64(1); i <= last; i += 1 + rng.Uint64N(50) {
				ctx, cancel := context.WithCancel(t.Context())
				if rng.IntN(4) == 0 {
					cancel()
				}
				if m.Wait(ctx, i) == nil && state[i] != i {
					t.Errorf("state %d at index %d", state[i], i)
				}
				cancel()
			}
		})
	}
	for i := uint64(1); i <= last; i++ {
		state[i] = i
		m.Publish(i)
	}
	wg.Wait()
	if n := m.waiting(); n != 0 {
		t.Errorf("%d waiters left", n)
	}
}

func BenchmarkMark_Publish(b *testing.B) {
	b.ReportAllocs()
	var m Mark
	var i uint64
	for b.Loop() {
		i++
		m.Publish(i)
	}
}
