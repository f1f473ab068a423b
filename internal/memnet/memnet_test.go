package memnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a connection from host a to host b, and its network.
type pair struct {
	*Network
	a, b net.Conn
	port net.Listener
}

func mustPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{Network: New(1)}
	p.port = mustListen(t, p.Host("b"), "b:9400")
	p.a, p.b = mustDial(t, p.Host("a"), p.port)
	return p
}

func mustListen(t *testing.T, h *Host, addr string) net.Listener {
	t.Helper()
	l, err := h.Listen(context.Background(), addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func mustDial(t *testing.T, h *Host, l net.Listener) (ours, theirs net.Conn) {
	t.Helper()
	ours, err := h.Dial(context.Background(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

func mustWrite(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if k, err := c.Write([]byte(s)); err != nil || k != len(s) {
		t.Fatalf("write %q: %d, %v", s, k, err)
	}
}

// wantRead reads exactly want and returns how long that took.
func wantRead(t *testing.T, c net.Conn, want string) time.Duration {
	t.Helper()
	begin := time.Now()
	got := make([]byte, len(want))
	if k, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got[:k], err, want)
	}
	return time.Since(begin)
}

// wantSilence wants nothing to come for a while.
func wantSilence(t *testing.T, c net.Conn, d time.Duration) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(d))
	var b [1]byte
	k, err := c.Read(b[:])
	var ne net.Error
	if k != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &ne) || !ne.Timeout() {
		t.Fatalf("read %q, %v; want nothing for %v", b[:k], err, d)
	}
	c.SetReadDeadline(time.Time{})
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestConn_BothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustPair(t)
		mustWrite(t, p.a, "hello")
		mustWrite(t, p.b, "and back")
		wantRead(t, p.b, "hel")
		wantRead(t, p.b, "lo")
		wantRead(t, p.a, "and back")
		if got := p.b.LocalAddr().String() + p.b.RemoteAddr().String() + p.a.RemoteAddr().String(); got != "b:9400"+p.a.LocalAddr().String()+"b:9400" {
			t.Errorf("addresses %s", got)
		}
		mustWrite(t, p.a, "last")
		wantError(t, "close", p.a.Close(), nil)
		wantError(t, "second close", p.a.Close(), net.ErrClosed)
		if got, err := io.ReadAll(p.b); err != nil || string(got) != "last" {
			t.Errorf("read %q, %v after the other end closed", got, err)
		}
		_, err := p.b.Write([]byte("x"))
		wantError(t, "write to a closed end", err, syscall.EPIPE)
		_, err = p.a.Read(make([]byte, 1))
		wantError(t, "read of one's own closed end", err, net.ErrClosed)
		p.b.Close()
		if k := p.Conns("a") + p.Conns("b"); k != 0 {
			t.Errorf("%d ends open", k)
		}
	})
}

// The writer waits when the window is full, and a deadline ends that.
func TestConn_Backpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustPair(t)
		big := bytes.Repeat([]byte("x"), Window+1000)
		p.a.SetWriteDeadline(time.Now().Add(time.Second))
		k, err := p.a.Write(big)
		wantError(t, "write into a full window", err, os.ErrDeadlineExceeded)
		if k != Window {
			t.Errorf("wrote %d bytes, want the window of %d", k, Window)
		}
		p.a.SetWriteDeadline(time.Time{})
		done := make(chan error, 1)
		go func() { _, err := p.a.Write(big[k:]); done <- err }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("write into a full window returned: %v", err)
		default:
		}
		if _, err := io.ReadFull(p.b, make([]byte, len(big))); err != nil {
			t.Error(err)
		}
		wantError(t, "write with room", <-done, nil)
	})
}

func TestConn_DeadlineWakesAndIsLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustPair(t)
		done := make(chan error, 1)
		go func() { _, err := p.a.Read(make([]byte, 1)); done <- err }()
		synctest.Wait()
		p.a.SetDeadline(time.Unix(1, 0)) // in the past, while a read waits
		wantError(t, "read", <-done, os.ErrDeadlineExceeded)
		p.a.SetDeadline(time.Time{})
		mustWrite(t, p.b, "x")
		wantRead(t, p.a, "x")
		go func() { _, err := p.a.Read(make([]byte, 1)); done <- err }()
		synctest.Wait()
		p.a.Close()
		wantError(t, "read while it closes", <-done, net.ErrClosed)
	})
}

func TestDelay_KeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustPair(t)
		p.Delay("a", "b", 20*time.Millisecond, 10*time.Millisecond)
		begin := time.Now()
		for i := range 100 {
			mustWrite(t, p.a, fmt.Sprintf("%02d", i))
		}
		for i := range 100 {
			wantRead(t, p.b, fmt.Sprintf("%02d", i))
		}
		if took := time.Since(begin); took < 20*time.Millisecond || took > 30*time.Millisecond {
			t.Errorf("arrived after %v, want 20 to 30 ms", took)
		}
		mustWrite(t, p.b, "at once")
		if took := wantRead(t, p.a, "at once"); took != 0 {
			t.Errorf("the other way took %v", took)
		}
		p.Delay("b", "a", 5*time.Millisecond, 0)
		begin = time.Now()
		c, _ := mustDial(t, p.Host("a"), p.port)
		if took := time.Since(begin); took < 25*time.Millisecond || took > 35*time.Millisecond {
			t.Errorf("dial took %v, want one round trip of 25 to 35 ms", took)
		}
		c.Close()
	})
}

// A cut link holds what is under way and lets through what had arrived; the other
// direction goes on until the window is full, because nothing is acknowledged.
func TestCut_OneWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustPair(t)
		p.Delay("a", "b", 10*time.Millisecond, 0)
		mustWrite(t, p.a, "arrived ")
		<-time.After(10 * time.Millisecond)
		mustWrite(t, p.a, "under way ")
		p.Cut("a", "b")
		mustWrite(t, p.a, "held")
		wantRead(t, p.b, "arrived ")
		wantSilence(t, p.b, time.Hour)

		mustWrite(t, p.b, "the other way")
		wantRead(t, p.a, "the other way")
		drained := make(chan error, 1)
		go func() { _, err := io.CopyN(io.Discard, p.a, Window+1); drained <- err }()
		p.b.SetWriteDeadline(time.Now().Add(time.Hour))
		k, err := p.b.Write(make([]byte, 2*Window))
		wantError(t, "write without acknowledgements", err, os.ErrDeadlineExceeded)
		if k != Window-len("the other way") {
			t.Errorf("wrote %d bytes without acknowledgements, want the rest of the window", k)
		}
		p.b.SetWriteDeadline(time.Time{})

		p.Heal("a", "b")
		if took := wantRead(t, p.b, "under way held"); took != 10*time.Millisecond {
			t.Errorf("held bytes came %v after the link was healed, want its delay", took)
		}
		mustWrite(t, p.b, string(make([]byte, Window+1-k)))
		wantError(t, "drain", <-drained, nil)
	})
}

// Nobody learns over a cut link that the other end has closed or died.
func TestCut_HidesTheEnd(t *testing.T) {
	for _, end := range []string{"close", "down"} {
		t.Run(end, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustPair(t)
				p.Cut("b", "a")
				want := io.EOF
				if end == "close" {
					p.b.Close()
				} else {
					p.Host("b").Down()
					want = syscall.ECONNRESET
				}
				wantSilence(t, p.a, time.Hour)
				mustWrite(t, p.a, "into the void")
				done := make(chan error, 1)
				go func() { _, err := p.a.Write(make([]byte, Window)); done <- err }()
				synctest.Wait()
				if len(done) > 0 {
					t.Fatalf("write into the void: %v", <-done)
				}
				p.Heal("b", "a")
				_, err := p.a.Read(make([]byte, 1))
				wantError(t, "read", err, want)
				if err := <-done; err == nil {
					t.Error("a write that nobody reads succeeded")
				}
				p.a.Close()
			})
		})
	}
}

func TestDial_CutWaitsForHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		l := mustListen(t, n.Host("b"), "b:1")
		for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
			n.Cut(way[0], way[1])
			if n.Whole("a", "b") || n.Whole("b", "a") {
				t.Errorf("cut from %s to %s, and whole", way[0], way[1])
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			begin := time.Now()
			_, err := n.Host("a").Dial(ctx, "b:1")
			cancel()
			wantError(t, "dial over a cut link", err, context.DeadlineExceeded)
			var ne net.Error
			if !errors.As(err, &ne) || !ne.Timeout() || time.Since(begin) != time.Second {
				t.Errorf("%v after %v, want a timeout after a second", err, time.Since(begin))
			}
			time.AfterFunc(time.Minute, n.HealAll)
			begin = time.Now()
			mustDial(t, n.Host("a"), l)
			if took := time.Since(begin); took != time.Minute {
				t.Errorf("connected after %v, healed after a minute", took)
			}
		}
		n.Cut("a", "b")
		begin := time.Now()
		if _, err := n.Host("a").Dial(context.Background(), "b:1"); err == nil || time.Since(begin) != dialTimeout {
			t.Errorf("dial without a deadline: %v after %v", err, time.Since(begin))
		}
	})
}

func TestDial_Refused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustPair(t)
		a, b := p.Host("a"), p.Host("b")
		for _, addr := range []string{"b:2", "nobody:1"} {
			_, err := a.Dial(context.Background(), addr)
			wantError(t, addr, err, syscall.ECONNREFUSED)
		}
		if _, err := a.Dial(context.Background(), "b"); err == nil {
			t.Error("dialled an address without a port")
		}
		_, err := b.Listen(context.Background(), ":9400")
		wantError(t, "listen twice", err, syscall.EADDRINUSE)
		_, err = b.Listen(context.Background(), "a:1")
		wantError(t, "listen on another's address", err, syscall.EADDRNOTAVAIL)

		queued, err := a.Dial(context.Background(), "b:9400") // never accepted
		wantError(t, "dial", err, nil)
		p.port.Close()
		_, err = p.port.Accept()
		wantError(t, "accept", err, net.ErrClosed)
		_, err = queued.Read(make([]byte, 1))
		wantError(t, "read of a connection that nobody accepted", err, syscall.ECONNRESET)
		mustWrite(t, p.a, "x")
		wantRead(t, p.b, "x") // an accepted one outlives its listener
	})
}

func TestDial_FullBacklogWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustPair(t)
		a := p.Host("a")
		for range backlog {
			if _, err := a.Dial(context.Background(), "b:9400"); err != nil {
				t.Fatal(err)
			}
		}
		done := make(chan error, 1)
		go func() { _, err := a.Dial(context.Background(), "b:9400"); done <- err }()
		synctest.Wait()
		if len(done) > 0 {
			t.Fatalf("dial beyond the backlog: %v", <-done)
		}
		if _, err := p.port.Accept(); err != nil {
			t.Fatal(err)
		}
		wantError(t, "dial with room", <-done, nil)
	})
}

func TestResetAndDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := mustPair(t)
		cl := mustListen(t, p.Host("c"), ":7")
		c1, c2 := mustDial(t, p.Host("a"), cl)
		mustWrite(t, p.a, "lost")
		if k := p.Reset("b", "a"); k != 1 {
			t.Errorf("%d connections reset, want 1", k)
		}
		for _, c := range []net.Conn{p.a, p.b} {
			_, err := c.Read(make([]byte, 4))
			wantError(t, "read", err, syscall.ECONNRESET)
			_, err = c.Write([]byte("x"))
			wantError(t, "write", err, syscall.ECONNRESET)
			wantError(t, "close", c.Close(), nil)
		}
		mustWrite(t, c1, "unharmed")
		wantRead(t, c2, "unharmed")

		p.Host("c").Down()
		_, err := c1.Read(make([]byte, 1))
		wantError(t, "read of a dead host", err, syscall.ECONNRESET)
		_, err = cl.Accept()
		wantError(t, "accept of a dead host", err, net.ErrClosed)
		_, err = p.Host("a").Dial(context.Background(), "c:7")
		wantError(t, "dial of a dead host", err, syscall.ECONNREFUSED)
		_, err = p.Host("c").Listen(context.Background(), "c:7")
		wantError(t, "listen of a dead host", err, syscall.ENETDOWN)
		_, err = p.Host("c").Dial(context.Background(), "b:9400")
		wantError(t, "dial by a dead host", err, syscall.ENETDOWN)
		p.Host("c").Up()
		p.Cut("c", "b")
		late := make(chan error, 1)
		go func() { _, err := p.Host("c").Dial(context.Background(), "b:9400"); late <- err }()
		synctest.Wait()
		p.Host("c").Down()
		p.Host("c").Up()
		p.Heal("c", "b")
		wantError(t, "dial by who is dead since", <-late, syscall.ENETDOWN)
		cl = mustListen(t, p.Host("c"), "c:7")
		mustDial(t, p.Host("a"), cl)
	})
}

// Whatever the faults, what is read is what was written, in order, both ways.
func TestConn_RandomFaults(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := mustPair(t)
				chance := rand.New(rand.NewPCG(seed, 1))
				stop := make(chan struct{})
				var wg sync.WaitGroup
				wg.Go(func() {
					for {
						from, to := "a", "b"
						if chance.IntN(2) == 0 {
							from, to = to, from
						}
						switch chance.IntN(4) {
						case 0:
							p.Cut(from, to)
						case 1, 2:
							p.Heal(from, to)
						case 3:
							p.Delay(from, to, time.Duration(chance.IntN(20))*time.Millisecond, time.Duration(chance.IntN(20))*time.Millisecond)
						}
						select {
						case <-stop:
							return
						case <-time.After(time.Duration(chance.IntN(50)) * time.Millisecond):
						}
					}
				})
				const total = 3 * Window
				var ends sync.WaitGroup
				for i, way := range [][2]net.Conn{{p.a, p.b}, {p.b, p.a}} {
					source := func() *rand.ChaCha8 { return rand.NewChaCha8([32]byte{byte(seed), byte(i)}) }
					ends.Go(func() {
						pieces := rand.New(rand.NewPCG(seed, uint64(2+i)))
						stream := source()
						for left := total; left > 0; {
							b := make([]byte, min(left, 1+pieces.IntN(20000)))
							stream.Read(b)
							if _, err := way[0].Write(b); err != nil {
								t.Errorf("write: %v", err)
								return
							}
							left -= len(b)
						}
					})
					ends.Go(func() {
						want, got := make([]byte, total), make([]byte, total)
						pieces := rand.New(rand.NewPCG(seed, uint64(2+i)))
						stream := source()
						for at := 0; at < total; {
							k := min(total-at, 1+pieces.IntN(20000))
							stream.Read(want[at : at+k])
							at += k
						}
						if _, err := io.ReadFull(way[1], got); err != nil || !bytes.Equal(got, want) {
							t.Errorf("read differs from what was written (%v)", err)
						}
					})
				}
				ends.Wait()
				close(stop)
				wg.Wait()
			})
		})
	}
}
