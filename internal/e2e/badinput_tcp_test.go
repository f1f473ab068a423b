package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// rawConn connects and sends bytes as they are.
func rawConn(t *testing.T, to string, send []byte) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", to, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(send); err != nil && !hungUp(err) {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// hungUp tells that the other side has closed: it need not read all of what is wrong.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || err != nil && (strings.Contains(err.Error(), "reset by peer") || strings.Contains(err.Error(), "broken pipe"))
}

// closes waits until the other side has closed the connection.
func closes(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, conn); err != nil && !hungUp(err) {
		t.Errorf("the connection is not closed: %v", err)
	}
}

// badHTTP sends what is no HTTP, or barely.
func badHTTP(t *testing.T, b *badBench) {
	const host = "Host: x\r\n"
	post := "POST /lookup HTTP/1.1\r\n" + host + "Content-Type: application/json\r\n"
	for _, c := range []struct {
		name, send string
		status     int
	}{
		{"a word", "hello\r\n\r\n", 400},
		{"zeros", strings.Repeat("\x00", 100) + "\r\n\r\n", 400},
		{"HTTP/0.9", "GET /healthz\r\n\r\n", 400},
		{"HTTP/9.9", "GET /healthz HTTP/9.9\r\n" + host + "\r\n", 505},
		{"HTTP/one", "GET /healthz HTTP/one\r\n" + host + "\r\n", 400},
		{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404},
		{"a TLS hello", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n", 400},
		{"a bad method", "G@T /healthz HTTP/1.1\r\n" + host + "\r\n", 400},
		{"no host", "GET /healthz HTTP/1.1\r\n\r\n", 400},
		{"two hosts", "GET /healthz HTTP/1.1\r\n" + host + "Host: y\r\n\r\n", 400},
		{"a host of blanks", "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", 400},
		{"a bad escape in the path", "GET /%zz HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a bad address", "GET http://[::1/healthz HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a blank in the path", "GET /health z HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a control character in the path", "GET /\x01 HTTP/1.1\r\n" + host + "\r\n", 400},
		{"a blank in a header's name", "GET /healthz HTTP/1.1\r\n" + host + "Bad Name: x\r\n\r\n", 400},
		{"a header without a colon", "GET /healthz HTTP/1.1\r\n" + host + "Nothing\r\n\r\n", 400},
		{"a zero byte in a header", "GET /healthz HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n", 400},
		{"a header of 200 KB", "GET /healthz HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", 200_000) + "\r\n\r\n", 431},
		{"20000 headers", "GET /healthz HTTP/1.1\r\n" + host + strings.Repeat("X: y\r\n", 20_000) + "\r\n", 431},
		{"a path of 200 KB", "GET /" + strings.Repeat("x", 200_000) + " HTTP/1.1\r\n" + host + "\r\n", 431},
		{"a length of letters", post + "Content-Length: ten\r\n\r\n", 400},
		{"a length below zero", post + "Content-Length: -1\r\n\r\n", 400},
		{"two lengths", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400},
		{"a length of 80 bits", post + "Content-Length: 1208925819614629174706176\r\n\r\n", 400},
		{"a length of a terabyte", post + "Content-Length: 1099511627776\r\n\r\n{}", 413},
		{"a body cut short", post + "Content-Length: 100\r\n\r\n{\"tokens\":", 400},
		{"an unknown encoding", post + "Transfer-Encoding: gzip\r\n\r\n", 501},
		{"chunks of garbage", post + "Transfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400},
		{"a chunk of 2^64 bytes", post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", 400},
		{"a chunk without an end", post + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"tokens\"", 400},
		{"chunks cut short", post + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"tok\r\n", 400},
		{"chunks beyond the limit", post + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1000\r\n"+strings.Repeat("x", 0x1000)+"\r\n", 20) + "0\r\n\r\n", 413},
		{"an unknown expectation", post + "Expect: a miracle\r\nContent-Length: 2\r\n\r\n{}", 417},
		{"a tunnel", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", 404},
	} {
		b.try(t, c.name, false, func(t *testing.T) {
			conn := rawConn(t, addr(b.r.Ports.REST), []byte(c.send))
			if err := conn.CloseWrite(); err != nil && !hungUp(err) && !strings.Contains(err.Error(), "not connected") {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != c.status {
				body, _ := io.ReadAll(resp.Body)
				t.Errorf("answered %s %q, want %d", resp.Status, shorten(string(body), 300), c.status)
			}
		})
	}
	b.try(t, "garbage behind a good request", false, func(t *testing.T) {
		conn := rawConn(t, addr(b.r.Ports.REST), []byte("GET /healthz HTTP/1.1\r\n"+host+"\r\n\x00\x01\x02\r\n\r\n"))
		answers := bufio.NewReader(conn)
		for _, want := range []int{200, 400} {
			resp, err := http.ReadResponse(answers, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != want {
				t.Errorf("answered %s (%v), want %d", resp.Status, err, want)
			}
		}
	})
	b.try(t, "300 connections that say nothing", false, func(t *testing.T) {
		for range 300 {
			rawConn(t, addr(b.r.Ports.REST), nil)
		}
		if err := b.goodLookup(); err != nil {
			t.Error(err)
		}
	})
}

// zmtpGreeting opens a connection as libzmq does, with any mechanism.
func zmtpGreeting(mechanism string) []byte {
	g := make([]byte, 64)
	g[0], g[8], g[9], g[10] = 0xff, 1, 0x7f, 3
	copy(g[12:32], mechanism)
	return g
}

// zmtpReady is the handshake of a socket of some type behind the greeting.
func zmtpReady(socketType string) []byte {
	body := append([]byte("\x05READY\x0bSocket-Type"), 0, 0, 0, byte(len(socketType)))
	body = append(body, socketType...)
	return append([]byte{4, byte(len(body))}, body...)
}

// badTCP sends raw bytes to the ports of the workers.
func badTCP(t *testing.T, b *badBench) {
	huge := binary.BigEndian.AppendUint64([]byte{2}, 1<<40) // a frame of a terabyte
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	greeting := zmtpGreeting("NULL")
	noise := make([]byte, 10_000)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	for _, port := range []struct {
		name, addr, peer string
	}{
		{"pull", b.r.PullAddr(), "PUSH"}, {"reply", b.r.ReplyAddr(), "DEALER"}, {"heartbeat", b.r.HeartbeatAddr(), "DEALER"},
	} {
		for _, c := range []struct {
			name   string
			send   []byte
			closes bool
		}{
			{"nothing", nil, false},
			{"one byte", []byte{0xff}, false},
			{"random bytes", noise, false},
			{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), false},
			{"a TLS hello", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 100)), false},
			{"half a greeting", greeting[:20], false},
			{"a greeting of 0xff", bytes.Repeat([]byte{0xff}, 64), false},
			{"an unknown mechanism", zmtpGreeting("SECRET"), true},
			{"a mechanism with a password", zmtpGreeting("PLAIN"), true},
			{"no handshake", join(greeting, []byte{0, 5}, []byte("hello")), true},
			{"a handshake of another socket type", join(greeting, zmtpReady("SUB")), true},
			{"a handshake cut short", join(greeting, zmtpReady(port.peer)[:9]), false},
			{"a handshake with a bad length", join(greeting, []byte("\x04\x17\x05READY\x0bSocket-Type\xff\xff\xff\xffP")), true},
			{"an unknown command", join(greeting, zmtpReady(port.peer), []byte("\x04\x06\x05WRECK")), false},
			{"a frame of a terabyte", join(greeting, zmtpReady(port.peer), huge), true},
			{"reserved flags", join(greeting, zmtpReady(port.peer), []byte{0xf8, 1, 0}), false},
			{"a frame without an end", join(greeting, zmtpReady(port.peer), []byte{0, 200}, []byte("short")), false},
			{"a message without an end", join(greeting, zmtpReady(port.peer), bytes.Repeat([]byte{1, 1, 'x'}, 1000)), false},
		} {
			b.try(t, port.name+": "+c.name, false, func(t *testing.T) {
				conn := rawConn(t, port.addr, c.send)
				if c.closes {
					closes(t, conn)
				}
			})
		}
		b.try(t, port.name+": 200 connections", false, func(t *testing.T) {
			for range 200 {
				rawConn(t, port.addr, greeting)
			}
			b.works(t)
		})
	}
}

// badPeer sends to the peer port what no replica sends. What begins with a replica's own
// first byte is trusted (docs/guarantees.md) and not tried here, but for its end.
func badPeer(t *testing.T, b *badBench) {
	peer := addr(b.r.Ports.Peer)
	for _, c := range []struct {
		name   string
		send   string
		closes bool
	}{
		{"a zero byte", "\x00", true},
		{"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", true},
		{"a TLS hello", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03", true},
		{"a ZeroMQ greeting", string(zmtpGreeting("NULL")), true},
		{"a megabyte of 0xff", strings.Repeat("\xff", 1<<20), true},
		{"nothing", "", false},
		{"the first byte and the end", "R", false},
	} {
		b.try(t, c.name, false, func(t *testing.T) {
			conn := rawConn(t, peer, []byte(c.send))
			if c.closes {
				closes(t, conn)
			}
		})
	}
	b.try(t, "300 connections that say nothing", false, func(t *testing.T) {
		var open []net.Conn
		for range 300 {
			open = append(open, rawConn(t, peer, nil))
		}
		closes(t, open[len(open)-1]) // beyond the bound
		for _, conn := range open {
			conn.Close()
		}
	})
	if !strings.Contains(b.r.Log(), "unknown first byte") {
		t.Error("the log does not name a connection with an unknown first byte")
	}
}

// slowClients send half a request and wait. They are there while all other groups run.
type slowClients struct {
	began   time.Time
	headers []net.Conn // half the headers
	bodies  []net.Conn // headers and half the body
}

func newSlowClients(t *testing.T, r *Replica) *slowClients {
	t.Helper()
	s := &slowClients{began: time.Now()}
	for range 100 {
		s.headers = append(s.headers, rawConn(t, addr(r.Ports.REST), []byte("POST /lookup HTTP/1.1\r\nHost: x\r\nX-Slow: ")))
	}
	for range 50 {
		s.bodies = append(s.bodies, rawConn(t, addr(r.Ports.REST), []byte("POST /lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"tokens\":[")))
	}
	return s
}

// badSlow: half the headers are not waited for for ever, and half a body keeps nobody
// else from being answered.
func badSlow(t *testing.T, b *badBench) {
	b.try(t, "100 clients with half the headers", false, func(t *testing.T) {
		for _, conn := range b.slow.headers {
			if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			closes(t, conn)
		}
		t.Logf("closed after at most %s", time.Since(b.slow.began).Round(time.Millisecond))
	})
	b.try(t, "50 clients with half the body", false, func(t *testing.T) {
		if err := b.goodLookup(); err != nil {
			t.Error(err)
		}
		for _, conn := range b.slow.bodies { // nothing has come yet, or the refusal has
			if err := conn.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 12)
			if _, err := io.ReadFull(conn, answer); err == nil && string(answer) != "HTTP/1.1 400" {
				t.Errorf("answered %q to half a body", answer)
			} else if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("half a body: %v", err)
			}
			conn.Close()
		}
	})
	b.try(t, "200 clients that leave in the middle of a body", false, func(t *testing.T) {
		for i := range 200 {
			rawConn(t, addr(b.r.Ports.REST), fmt.Appendf(nil, "POST /pin HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n{\"tokens\":[", 100+i)).Close()
		}
		if err := b.goodLookup(); err != nil {
			t.Error(err)
		}
	})
}
