package executor

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// registerAt puts a worker into the registry at any address it may claim.
func (w *world) registerAt(instance, ip string, port int64) {
	w.t.Helper()
	b := fsm.NewBatch(registry.SessionID{1})
	b.Register(registry.Registration{WorkerRef: registry.WorkerRef{Instance: instance}, IP: ip, Port: port, At: 1})
	w.log.mu.Lock()
	number := w.log.index + 1
	w.log.mu.Unlock()
	w.log.must(w.t, b.Encode(number, 1))
}

// Workers register any address. A command to one that cannot be is answered at once,
// with the reason, and reaches nobody else.
func TestDo_AddressThatCannotBe(t *testing.T) {
	w := newWorld(t, Options{Deadline: time.Minute})
	x := startWorker(t, 0, say(1))
	for i, tt := range []struct {
		ip     string
		port   int64
		reason string
	}{
		{"", x.port, "no host"},
		{"127.0.0.1", 0, "refused"},
		{"127.0.0.1", -1, "invalid port"},
		{"127.0.0.1", 70000, "invalid port"},
		{"127.0.0.1", x.port + 1<<16, "invalid port"}, // libzmq takes it for x's
		{"127.0.0.1", freePort(t), "refused"},
		{fmt.Sprintf("127.0.0.1:%d\x00", x.port), 1, "no such host"}, // a C string ends there
		{"127.0.0.1:1;127.0.0.1", x.port, "no such host"},            // libzmq's source address
		{"*", x.port, "no such host"},
		{"no such host", x.port, "no such host"},
	} {
		t.Run(fmt.Sprintf("%q:%d", tt.ip, tt.port), func(t *testing.T) {
			instance := fmt.Sprint("w", i)
			w.registerAt(instance, tt.ip, tt.port)
			began := time.Now()
			ev, err := w.exec.Do(within(t, wait), clearOf(instance))
			if !isA[*CommandError](err) || err.(*CommandError).Cause != CauseUnreachable || !strings.Contains(ev.Detail, tt.reason) {
				t.Errorf("%+v, %v, want unreachable with %q", ev, err, tt.reason)
			}
			if took := time.Since(began); took >= connectWait {
				t.Errorf("it took %v to find out", took)
			}
		})
	}
	if got := x.got(); len(got) != 0 {
		t.Errorf("a worker at another address received %d commands", len(got))
	}
}

func TestDo_AddressByNameAndFamily(t *testing.T) {
	w := newWorld(t, Options{})
	x := startWorker(t, 0, say(1))
	for _, ip := range []string{"127.0.0.1", "localhost", "::ffff:127.0.0.1"} {
		w.registerAt(ip, ip, x.port)
		if _, err := w.exec.Do(within(t, wait), clearOf(ip)); err != nil {
			t.Errorf("%s: %v", ip, err)
		}
	}
}

// Something else listens at the worker's address: it gets no request.
func TestDo_AddressOfSomethingElse(t *testing.T) {
	w := newWorld(t, Options{Deadline: 300 * time.Millisecond})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan int, 1)
	go func() {
		defer close(got)
		for total := 0; ; {
			conn, err := l.Accept()
			if err != nil {
				got <- total
				return
			}
			sent, _ := io.ReadAll(conn) // until the executor hangs up
			conn.Close()
			total += bytes.Count(sent, []byte("ClearWorkerMsg"))
		}
	}()
	w.registerAt("i", "127.0.0.1", int64(l.Addr().(*net.TCPAddr).Port))
	ev, err := w.exec.Do(within(t, wait), clearOf("i"))
	if !isA[*CommandError](err) || err.(*CommandError).Cause != CauseUnreachable || !strings.Contains(ev.Detail, "does not speak ZeroMQ") {
		t.Errorf("%+v, %v", ev, err)
	}
	l.Close()
	if n := <-got; n != 0 {
		t.Errorf("it was sent the request %d times", n)
	}
}

// More absent workers than sockets: each is found absent at once, and a live worker
// is not held up by them.
func TestDo_AbsentWorkersHoldUpNobody(t *testing.T) {
	w := newWorld(t, Options{Deadline: time.Minute})
	const absent = 1000
	port := freePort(t)
	for i := range absent {
		w.registerAt(fmt.Sprint("absent", i), "127.0.0.1", port)
	}
	w.fleet("live", say(1))
	began := time.Now()
	var wg sync.WaitGroup
	for i := range absent {
		wg.Go(func() {
			if _, err := w.exec.Do(within(t, wait), clearOf(fmt.Sprint("absent", i))); !isA[*CommandError](err) {
				t.Errorf("absent %d: %v", i, err)
			}
		})
	}
	if _, err := w.exec.Do(within(t, wait), clearOf("live")); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if took := time.Since(began); took >= connectWait {
		t.Errorf("%d commands took %v, want less than one wait for a connection (%v)", absent, took, connectWait)
	}
}
