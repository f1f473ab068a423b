package memnet

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// net/http runs over it in virtual time: keep-alive, bodies beyond the window, a
// client that gives up on a cut link, a server that stops in order.
func TestHTTP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		l := mustListen(t, n.Host("server"), ":80")
		srv := &http.Server{
			ReadHeaderTimeout: 5 * time.Second,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				w.Header().Set("From", r.RemoteAddr)
				w.Write(bytes.ToUpper(body))
			}),
		}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		transport := &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			return n.Host("client").Dial(ctx, addr)
		}}
		client := &http.Client{Transport: transport, Timeout: 2 * time.Second}
		post := func(body string) (answer, from string, err error) {
			resp, err := client.Post("http://server:80/", "text/plain", strings.NewReader(body))
			if err != nil {
				return "", "", err
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			return string(b), resp.Header.Get("From"), err
		}

		n.Delay("client", "server", 10*time.Millisecond, 0)
		_, first, err := post("x")
		if err != nil {
			t.Fatal(err)
		}
		big := strings.Repeat("abc", Window)
		answer, second, err := post(big)
		if err != nil || answer != strings.ToUpper(big) {
			t.Fatalf("%d bytes back, %v", len(answer), err)
		}
		if first != second {
			t.Errorf("connections %s and %s: not kept alive", first, second)
		}

		n.Cut("server", "client")
		begin := time.Now()
		if _, _, err := post("x"); !os.IsTimeout(err) || time.Since(begin) != 2*time.Second {
			t.Errorf("over a cut link: %v after %v, want a timeout after 2s", err, time.Since(begin))
		}
		n.HealAll()
		if answer, _, err := post("again"); err != nil || answer != "AGAIN" {
			t.Errorf("after the link was healed: %q, %v", answer, err)
		}

		// A client that says nothing is given up.
		slow, err := n.Host("client").Dial(context.Background(), "server:80")
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, slow, "GET / HT")
		begin = time.Now()
		if _, err := io.ReadAll(slow); err != nil || time.Since(begin) > 7*time.Second {
			t.Errorf("slow client: %v after %v", err, time.Since(begin))
		}
		slow.Close()

		transport.CloseIdleConnections()
		if err := srv.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
		if k := n.Conns("server"); k != 0 {
			t.Errorf("%d connections left at the server", k)
		}
	})
}
