package e2e

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/internal/zmqwake"
)

// scripted is a rank's answer to a type of command.
type scripted struct {
	frame  []byte
	silent bool
	delay  time.Duration
}

// heard is a command that has reached a rank.
type heard struct {
	instance string
	worker   int64
	message  any
	at       time.Time
	answered time.Time // zero while it is not
}

// rank is a worker's command port with scripted answers. It takes commands one after
// the other, as LMCache's worker does.
type rank struct {
	instance string
	worker   int64
	wake     *zmqwake.Waker
	stop     chan struct{}
	done     chan struct{}

	mu      sync.Mutex
	replies map[string]scripted
	heard   []heard
}

// listen opens a rank's command port; the test's cleanup closes it.
func listen(t *testing.T, zctx *zmq.Context, instance string, worker int64, port int, replies map[string]scripted) *rank {
	t.Helper()
	sock, err := zctx.NewSocket(zmq.ROUTER)
	if err != nil {
		t.Fatal(err)
	}
	if err := sock.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := sock.Bind("tcp://" + addr(port)); err != nil {
		t.Fatalf("command port of %s/%d: bind %s: %v", instance, worker, addr(port), err)
	}
	wake, err := zmqwake.New(zctx)
	if err != nil {
		t.Fatal(err)
	}
	k := &rank{instance: instance, worker: worker, replies: replies, wake: wake,
		stop: make(chan struct{}), done: make(chan struct{})}
	failed := make(chan error, 1)
	go func() { failed <- k.run(sock) }() // ends after stop; the cleanup waits for it
	t.Cleanup(func() {
		close(k.stop)
		wake.Wake()
		<-k.done
		if err := <-failed; err != nil {
			t.Errorf("command port of %s/%d: %v", instance, worker, err)
		}
		wake.Close()
	})
	return k
}

// run owns the socket.
func (k *rank) run(sock *zmq.Socket) error {
	defer close(k.done)
	defer sock.Close()
	poller := zmq.NewPoller()
	poller.Add(sock, zmq.POLLIN)
	poller.Add(k.wake.Socket(), zmq.POLLIN)
	for {
		polled, err := poller.Poll(-1)
		if err != nil && !interruptedCall(err) {
			return err
		}
		select {
		case <-k.stop:
			return nil
		default:
		}
		k.wake.Drain()
		for _, p := range polled {
			if p.Socket != sock {
				continue
			}
			parts, err := sock.RecvMessageBytes(zmq.DONTWAIT)
			if err != nil {
				if interruptedCall(err) {
					continue
				}
				return err
			}
			reply, ok := k.take(parts)
			if !ok {
				continue
			}
			if _, err := sock.SendMessageDontwait(reply); err != nil && !interruptedCall(err) {
				return err
			}
		}
	}
}

// take notes a command and returns its answer, after the scripted delay.
func (k *rank) take(parts [][]byte) ([][]byte, bool) {
	h := heard{instance: k.instance, worker: k.worker, at: time.Now()}
	var err error
	if len(parts) != 3 || len(parts[1]) != 0 {
		h.message = fmt.Sprintf("%d frames where a REQ socket sends three", len(parts))
	} else if h.message, err = unpack(parts[2]); err != nil {
		h.message = err.Error()
	}
	kind := ""
	if m, ok := h.message.(object); ok {
		kind = m.text("type")
	}
	k.mu.Lock()
	script, ok := k.replies[kind]
	if !ok {
		script, ok = k.replies["*"]
	}
	k.heard = append(k.heard, h)
	n := len(k.heard) - 1
	k.mu.Unlock()
	if !ok || script.silent {
		return nil, false
	}
	if script.delay > 0 {
		select {
		case <-k.stop:
			return nil, false
		case <-time.After(script.delay):
		}
	}
	k.mu.Lock()
	k.heard[n].answered = time.Now()
	k.mu.Unlock()
	return [][]byte{parts[0], {}, script.frame}, true
}

// answer replaces all scripts by one.
func (k *rank) answer(s scripted) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.replies = map[string]scripted{"*": s}
}

// since returns the commands after the first n.
func (k *rank) since(n int) []heard {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]heard(nil), k.heard[n:]...)
}

func (k *rank) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.heard)
}

func (k *rank) String() string { return k.instance + "/" + strconv.FormatInt(k.worker, 10) }
