package zmqwake

import (
	"sync"
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWaker_EndsAPoll(t *testing.T) {
	zctx, err := zmq.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	defer zctx.Term()
	w, err := New(zctx)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()

	poller := zmq.NewPoller()
	poller.Add(w.Socket(), zmq.POLLIN)
	if polled, err := poller.Poll(0); err != nil || len(polled) != 0 {
		t.Fatalf("before Wake: %d sockets ready, %v", len(polled), err)
	}
	for round := range 3 {
		var wakers sync.WaitGroup
		for range 50 {
			wakers.Go(w.Wake)
		}
		if polled, err := poller.Poll(10 * time.Second); err != nil || len(polled) != 1 {
			t.Fatalf("round %d: %d sockets ready, %v", round, len(polled), err)
		}
		wakers.Wait()
		w.Drain()
	}
}

func TestWaker_CloseTwiceAndWakeAfter(t *testing.T) {
	zctx, err := zmq.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(zctx)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	w.Close()
	w.Wake()
	if err := zctx.Term(); err != nil { // would hang if a socket were left open
		t.Fatal(err)
	}
}
