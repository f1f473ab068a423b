package e2e

import (
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Ports are drawn below the range the kernel gives to outgoing connections, so that no
// client takes one between the look and the use.
const (
	firstPort = 12000
	lastPort  = 32000
)

// handedOut are the ports of this process's tests, which may be bound late or again.
var handedOut struct {
	sync.Mutex
	ports map[int]bool
}

// FreePorts returns the first of n consecutive TCP ports that nobody has on 127.0.0.1
// and that no earlier call has returned.
func FreePorts(t testing.TB, n int) int {
	t.Helper()
	handedOut.Lock()
	defer handedOut.Unlock()
	if handedOut.ports == nil {
		handedOut.ports = make(map[int]bool)
	}
	for range 200 {
		base := firstPort + rand.IntN(lastPort-firstPort-n)
		if !portsFree(base, n) {
			continue
		}
		for port := base; port < base+n; port++ {
			handedOut.ports[port] = true
		}
		return base
	}
	t.Fatalf("no %d consecutive free ports from %d to %d", n, firstPort, lastPort)
	return 0
}

func portsFree(base, n int) bool {
	for port := base; port < base+n; port++ {
		if handedOut.ports[port] {
			return false
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// Eventually asks again and again until try returns nil, and fails the test with its
// last error after limit.
func Eventually(t testing.TB, limit time.Duration, what string, try func() error) {
	t.Helper()
	if err := Poll(limit, try); err != nil {
		t.Fatalf("%s: not within %s: %v", what, limit, err)
	}
}

// Poll is Eventually that returns the last error.
func Poll(limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().Add(pause).After(deadline) {
			return err
		}
		<-time.After(pause)
	}
}
