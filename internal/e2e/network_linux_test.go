package e2e

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// TestNetwork_Directions: a drop is in one direction, heal ends it, the test reaches
// everybody meanwhile, and nothing of the network is left behind.
func TestNetwork_Directions(t *testing.T) {
	var left string
	t.Run("network", func(t *testing.T) {
		n := newNetwork(t)
		left = n.prefix
		_, first := n.add()
		_, second := n.add()
		a, b, outside := listenIn(t, n.namespace(0), first), listenIn(t, n.namespace(1), second), listenIn(t, "", n.host())
		reaches := func(what string, from, to *net.UDPConn, want bool) {
			t.Helper()
			if got := sends(t, from, to); got != want {
				t.Errorf("%s: a packet arrives: %v, want %v", what, got, want)
			}
		}
		reaches("first to second", a, b, true)
		reaches("second to first", b, a, true)
		n.drop(0, 1)
		reaches("first to second, cut", a, b, false)
		reaches("second to first, the other cut", b, a, true)
		reaches("test to second", outside, b, true)
		reaches("second to test", b, outside, true)
		reaches("first to test", a, outside, true)
		n.heal()
		reaches("first to second, healed", a, b, true)
	})
	if left == "" {
		return // skipped
	}
	if names, err := filepath.Glob(filepath.Join(namespaces, left+"*")); err != nil || len(names) > 0 {
		t.Errorf("left behind: %q, %v", names, err)
	}
}

// listenIn opens a socket in a namespace.
func listenIn(t *testing.T, namespace, host string) *net.UDPConn {
	t.Helper()
	type opened struct {
		conn *net.UDPConn
		err  error
	}
	done := make(chan opened)
	go func() { // ends at once, and its thread with it
		runtime.LockOSThread()
		err := enterNamespace(namespace)
		var conn *net.UDPConn
		if err == nil {
			conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(host)})
		}
		done <- opened{conn, err}
	}()
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	t.Cleanup(func() { o.conn.Close() })
	return o.conn
}

// sends reports whether what one socket sends reaches another.
func sends(t *testing.T, from, to *net.UDPConn) bool {
	t.Helper()
	for range 3 { // a packet may be dropped while an address is being resolved
		if _, err := from.WriteTo([]byte("x"), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := to.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, _, err := to.ReadFrom(make([]byte, 1))
		if err == nil {
			return true
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	return false
}
