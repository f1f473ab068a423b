package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// nameServer answers who has which address, over UDP.
type nameServer struct {
	conn    net.PacketConn
	serving sync.WaitGroup

	mu    sync.Mutex
	names map[string]string
}

func startNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", loopback+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{conn: conn, names: map[string]string{}}
	s.serving.Go(func() {
		packet := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(packet)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if answer := s.answer(packet[:max(n, 0)]); err == nil && answer != nil {
				_, _ = conn.WriteTo(answer, from) // who asks asks again
			}
		}
	})
	t.Cleanup(func() {
		conn.Close()
		s.serving.Wait()
	})
	return s
}

func (s *nameServer) set(names map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = maps.Clone(names)
}

// answer knows one question for an address; a name that is not set does not exist.
func (s *nameServer) answer(query []byte) []byte {
	const header, rest = 12, 4 // rest: type and class of the question
	if len(query) < header {
		return nil
	}
	var labels []string
	at := header
	for at < len(query) && query[at] != 0 {
		end := at + 1 + int(query[at])
		if end > len(query) {
			return nil
		}
		labels = append(labels, string(query[at+1:end]))
		at = end
	}
	end := at + 1 + rest
	if end > len(query) {
		return nil
	}
	s.mu.Lock()
	ip := net.ParseIP(s.names[strings.Join(labels, ".")]).To4()
	s.mu.Unlock()
	isA := binary.BigEndian.Uint16(query[at+1:]) == 1

	out := append([]byte{}, query[:end]...)
	binary.BigEndian.PutUint16(out[2:], 0x8580) // an answer, with authority
	binary.BigEndian.PutUint16(out[4:], 1)
	binary.BigEndian.PutUint64(out[6:], 0) // with what follows: answers, authority, additional, and two bytes of the name
	copy(out[header:], query[header:end])
	switch {
	case ip == nil:
		out[3] |= 3 // no such name
	case isA:
		binary.BigEndian.PutUint16(out[6:], 1)
		out = append(out, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4) // the name above, A, IN, 1 s, 4 bytes
		out = append(out, ip...)
	}
	return out
}

// TestFront_Names: replicas that are known by names get these after the front has
// started, as in a set of containers, and come back with other addresses.
func TestFront_Names(t *testing.T) {
	t.Parallel()
	HAProxy(t)
	names := startNameServer(t)
	o := FrontNetwork(t)
	addresses := o.Replicas
	var replicas []*standIn
	for i := range addresses {
		replicas = append(replicas, startStandIn(t, o, i))
	}
	o.Replicas = [3]string{"kv-1.invalid", "kv-2.invalid", "kv-3.invalid"}
	o.Env = []string{"FRONT_NAMESERVER=" + names.conn.LocalAddr().String()}
	f := StartFront(t, o)
	wantNoReplica(t, f)

	known := map[string]string{}
	for i, name := range o.Replicas {
		known[name] = addresses[i]
	}
	names.set(known)
	for _, r := range replicas {
		for _, backend := range []string{"replicas", "alive", "workers"} {
			f.AwaitState(backend, r.name, "UP")
		}
	}
	if _, err := f.post(t.Context(), "/lookup", "{}"); err != nil {
		t.Error(err)
	}

	// Also those that answer when none is ready.
	for _, r := range replicas {
		r.notReady.Store(true)
	}
	for _, r := range replicas {
		f.AwaitState("workers", r.name, "NOLB")
	}
	answered := map[string]bool{}
	for range 9 {
		a := f.ask(t, http.MethodPost, "/lookup")
		if a.status != http.StatusOK {
			t.Fatalf("lookup while nobody is ready: %d %s", a.status, a.body)
		}
		answered[a.body] = true
	}
	if len(answered) != len(replicas) {
		t.Errorf("lookups while nobody is ready are answered by %v, want all three", answered)
	}
	for _, port := range f.Ports.Worker() {
		f.workerAt(t, f.fleetAddress(0), port)
	}

	// kv-2 comes back elsewhere.
	moved := replicas[1]
	moved.stop()
	f.AwaitState("replicas", moved.name, "DOWN")
	moved.host = f.fleetAddress(100)
	moved.start()
	for _, r := range replicas {
		r.notReady.Store(false)
	}
	known["kv-2.invalid"] = moved.host
	names.set(known)
	f.AwaitState("replicas", moved.name, "UP")
	f.AwaitState("workers", moved.name, "UP")

	// The name server is lost: nobody goes with it.
	names.conn.Close()
	names.serving.Wait()
	for i := range 9 {
		if a := f.ask(t, http.MethodPost, "/lookup"); a.status != http.StatusOK {
			t.Fatal(fmt.Errorf("lookup %d without a name server: %d %s", i, a.status, a.body))
		}
	}
}
