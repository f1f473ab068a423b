package httpapi

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/internal/testcert"
	"github.com/kvctrl/kvctrl/registry"
)

// serve runs the server until the test ends, or stop is called.
func (r *rig) serve() (base string, stop func() error) {
	r.t.Helper()
	if err := r.s.Open(); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.s.Serve(ctx) }()
	var err error
	done := false
	stop = func() error {
		if !done {
			cancel()
			err, done = <-ended, true
		}
		return err
	}
	r.t.Cleanup(func() {
		if err := stop(); err != nil {
			r.t.Errorf("serve: %v", err)
		}
	})
	return "http://" + r.s.Addr(), stop
}

// newClient keeps no connection behind.
func newClient(t testing.TB) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func read(t testing.TB, resp *http.Response, err error) (int, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestServer_Life(t *testing.T) {
	r := newRig(t)
	if r.s.Addr() != "" {
		t.Errorf("address %q before Open", r.s.Addr())
	}
	base, stop := r.serve()
	client := newClient(t)
	resp, err := client.Post(base+"/lookup", "application/json", strings.NewReader(`{"tokens":[1]}`))
	if code, body := read(t, resp, err); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := r.s.Close(context.Background()); err != nil {
		t.Error("a second Close:", err)
	}
	if resp, err := client.Get(base + "/healthz"); err == nil {
		resp.Body.Close()
		t.Error("still answers after Close")
	}
	want(t, r.get("/healthz"), 503, "") // an embedded handler too
}

func TestServer_OpenSaysWhichAddressIsTaken(t *testing.T) {
	a := newRig(t)
	if err := a.s.Open(); err != nil {
		t.Fatal(err)
	}
	defer a.s.Close(context.Background())
	b := newRig(t, func(o *Options) { o.Addr = a.s.Addr() })
	if err := b.s.Open(); err == nil || !strings.Contains(err.Error(), a.s.Addr()) {
		t.Errorf("second Open: %v", err)
	}
	if err := b.s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestServer_StopLetsRequestsFinish: a command under way is answered.
func TestServer_StopLetsRequestsFinish(t *testing.T) {
	r := newRig(t)
	begun, finish := make(chan struct{}), make(chan struct{})
	r.exec.do = func(ctx context.Context, _ executor.Command) (registry.Event, error) {
		close(begun)
		select {
		case <-finish:
			return registry.Event{ID: "Clear1", NumTokens: 3}, nil
		case <-ctx.Done():
			return registry.Event{}, ctx.Err()
		}
	}
	base, stop := r.serve()
	client := newClient(t)
	answer := make(chan string, 1)
	go func() {
		resp, err := client.Post(base+"/clear", "application/json", strings.NewReader(`{"instance_id":"a","location":"l"}`))
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	close(finish)
	if got := <-answer; got != `{"event_id":"Clear1","num_tokens":3}` {
		t.Error(got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// TestServer_StopCutsOffWhatDoesNotFinish: the drain is bounded, and no handler is left.
// Every command that was cut off is answered with its id: "ask another replica" would
// have it done twice.
func TestServer_StopCutsOffWhatDoesNotFinish(t *testing.T) {
	const commands = 50
	r := newRig(t, func(o *Options) { o.DrainTimeout = 20 * time.Millisecond })
	var begun sync.WaitGroup
	begun.Add(commands)
	r.exec.do = func(ctx context.Context, c executor.Command) (registry.Event, error) {
		begun.Done()
		<-ctx.Done()
		return registry.Event{ID: c.EventID, State: registry.EventRunning}, ctx.Err()
	}
	base, stop := r.serve()
	client := newClient(t)
	answers := make(chan string, commands)
	for i := range commands {
		go func() { // ends with the answer; its channel has room
			resp, err := client.Post(base+"/clear", "application/json", strings.NewReader(fmt.Sprintf(`{"instance_id":"a","location":"l","event_id":"e%d"}`, i)))
			if err != nil {
				answers <- err.Error()
				return
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			answers <- fmt.Sprint(resp.StatusCode, " ", string(b), " ", err)
		}()
	}
	begun.Wait()
	if err := stop(); err != nil {
		t.Error(err)
	}
	for range commands {
		a := <-answers
		if !strings.HasPrefix(a, "503 ") || !strings.Contains(a, `"code":"unknown_outcome","event_id":"e`) || !strings.Contains(a, "with the same event_id") {
			t.Error(a)
		}
	}
	if n := r.s.requests.waiting(); n != 0 {
		t.Errorf("%d handlers are left", n)
	}
}

// TestServer_ClientGoesAway: its command is not waited for, and counted as 499.
func TestServer_ClientGoesAway(t *testing.T) {
	r := newRig(t)
	begun, ended := make(chan struct{}), make(chan struct{})
	r.exec.do = func(ctx context.Context, _ executor.Command) (registry.Event, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return registry.Event{ID: "Clear1"}, ctx.Err()
	}
	base, stop := r.serve()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "POST", base+"/clear", strings.NewReader(`{"instance_id":"a","location":"l"}`))
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t)
	go func() { <-begun; cancel() }()
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
		t.Error("an answer came")
	}
	<-ended
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	families, err := r.s.gather.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "kvctrl_http_requests_total" {
			for _, m := range f.GetMetric() {
				if s := fmt.Sprint(m.GetLabel()); strings.Contains(s, "499") && strings.Contains(s, "/clear") {
					return
				}
			}
		}
	}
	t.Error("no 499 counted")
}

// TestServer_BodyTimeout: a body that does not come is given up, and a command that
// takes longer than that is not.
func TestServer_BodyTimeout(t *testing.T) {
	r := newRig(t, func(o *Options) { o.BodyTimeout = 50 * time.Millisecond })
	r.exec.do = func(ctx context.Context, _ executor.Command) (registry.Event, error) {
		select {
		case <-ctx.Done():
			return registry.Event{}, ctx.Err()
		case <-time.After(150 * time.Millisecond):
			return registry.Event{ID: "Clear1"}, nil
		}
	}
	base, _ := r.serve()
	client := newClient(t)
	resp, err := client.Post(base+"/clear", "application/json", strings.NewReader(`{"instance_id":"a","location":"l"}`))
	if code, body := read(t, resp, err); code != 200 {
		t.Errorf("%d %s", code, body)
	}
	conn, err := net.Dial("tcp", r.s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"tokens\":")
	half, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if code, body := read(t, half, err); code != 400 || !strings.Contains(body, "did not come to its end") {
		t.Errorf("%d %s", code, body)
	}
	// Nor may it be held open where nobody wants the body.
	idle, err := net.Dial("tcp", r.s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if err := idle.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(idle, "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	if _, err := io.Copy(io.Discard, idle); err != nil {
		t.Errorf("the connection stays: %v", err)
	}
}

// TestServer_SlowReadersAreCutOff: whoever asks and never reads the answer, whatever
// was asked.
func TestServer_SlowReadersAreCutOff(t *testing.T) {
	for _, path := range []string{"/metrics", "/env/", "/openapi.json"} {
		r := newRig(t, func(o *Options) { o.WriteTimeout = 50 * time.Millisecond })
		r.serve()
		conn, err := net.Dial("tcp", r.s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// Pipelined requests until the answers fill what the kernel buffers. The server
		// then hangs up, and writing fails.
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		request := []byte(strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n", 100))
		for err == nil {
			_, err = conn.Write(request)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: a client that reads nothing is not cut off", path)
		}
	}
}

func TestServer_BodyLimits(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxBody, o.MaxBodies = 1024, 2048 })
	big := `{"tokens":[` + strings.Repeat("1,", 1024) + `1]}`
	want(t, r.post("/lookup", big), 413, "")
	w := r.post("/lookup", big)
	if !strings.Contains(w.Body.String(), `"code":"too_large"`) {
		t.Error(w.Body)
	}
	base, _ := r.serve()
	client := newClient(t)
	resp, err := client.Post(base+"/lookup", "application/json", io.MultiReader(strings.NewReader(big))) // of unknown length
	if code, body := read(t, resp, err); code != 413 {
		t.Errorf("%d %s", code, body)
	}
	// Others have taken what there is for bodies.
	r.s.bodies.Add(2000)
	w = r.post("/lookup", `{"tokens":[`+strings.Repeat("1,", 100)+`1]}`)
	if w.Code != 503 || !strings.Contains(w.Body.String(), `"code":"busy"`) || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	want(t, r.post("/lookup", `{"tokens":[1]}`), 200, "")
	r.s.bodies.Add(-2000)
	if n := r.s.bodies.Load(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
}

// TestServer_AnnouncedBodiesKeepNobodyOut: what counts is what has come.
func TestServer_AnnouncedBodiesKeepNobodyOut(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxBody, o.MaxBodies = 1024, 2048 })
	r.serve()
	for range 8 {
		conn, err := net.Dial("tcp", r.s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /lookup HTTP/1.1\r\nHost: x\r\nContent-Length: 1024\r\n\r\n{")
		chunked, err := net.Dial("tcp", r.s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer chunked.Close()
		fmt.Fprintf(chunked, "POST /lookup HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
	}
	for deadline := time.Now().Add(10 * time.Second); r.s.bodies.Load() < 16; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes have come, want 16", r.s.bodies.Load())
		}
	}
	want(t, r.post("/lookup", `{"tokens":[1]}`), 200, "")
}

// TestServer_ConnectionsAreBounded: at the bound one more is closed at once, and taken
// again once there is room.
func TestServer_ConnectionsAreBounded(t *testing.T) {
	r := newRig(t, func(o *Options) { o.MaxConns = 3 })
	r.serve()
	alive := func() (net.Conn, error) {
		conn, err := net.Dial("tcp", r.s.Addr())
		if err != nil {
			return nil, err
		}
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return nil, err
		}
		fmt.Fprint(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			conn.Close()
			return nil, err
		}
		defer resp.Body.Close()
		return conn, nil
	}
	var held []net.Conn
	for range 3 {
		conn, err := alive()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		held = append(held, conn)
	}
	if _, err := alive(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the fourth connection: %v", err)
	}
	body := r.get("/metrics").Body.String()
	for _, line := range []string{"kvctrl_http_connections_max 3", "kvctrl_http_connections_refused_total 1"} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	held[0].Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := alive()
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no connection after one has gone: %v", err)
		}
	}
}

func TestServer_PanicIsA500(t *testing.T) {
	r := newRig(t)
	r.exec.do = func(context.Context, executor.Command) (registry.Event, error) { panic("a bug") }
	w := r.post("/clear", `{"instance_id":"a","location":"l"}`)
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"code":"internal"`) || strings.Contains(w.Body.String(), "a bug") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	body := r.get("/metrics").Body.String()
	for _, line := range []string{"kvctrl_http_panics_total 1", `kvctrl_http_requests_total{method="POST",route="/clear",status="500"} 1`} {
		if !strings.Contains(body, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if r.s.requests.waiting() != 0 || r.s.bodies.Load() != 0 {
		t.Error("the panic left something reserved")
	}
}

func TestServer_TLS(t *testing.T) {
	ca := testcert.New(t, "test")
	cert, key := ca.Leaf()
	r := newRig(t, func(o *Options) { o.TLSCert, o.TLSKey, o.TLSClientCA = cert, key, ca.File })
	_, _ = r.serve()
	pemBytes, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pemBytes)
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		with []tls.Certificate
		ok   bool
	}{{"with a client certificate", []tls.Certificate{own}, true}, {"without", nil, false}} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: c.with}, ForceAttemptHTTP2: true}
		client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
		resp, err := client.Post("https://"+r.s.Addr()+"/lookup/", "application/json", strings.NewReader(`{"tokens":[1]}`)) // by way of a 307
		if err == nil {
			code, body := read(t, resp, nil)
			if !c.ok || code != 200 || resp.ProtoMajor != 2 {
				t.Errorf("%s: %d %s over HTTP/%d", c.name, code, body, resp.ProtoMajor)
			}
		} else if c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		transport.CloseIdleConnections()
	}
}

func TestOptions_Validate(t *testing.T) {
	err := Options{Addr: "nowhere", TLSKey: "k", MaxBody: 10, ReadWait: -1}.withDefaults().Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, has := range []string{"no Node", "no State", "no Executor", "no Ingest", "no Finder", `"nowhere"`, `key "k"`, "largest body 10", "read wait -1ns"} {
		if !strings.Contains(err.Error(), has) {
			t.Errorf("no word of %s in: %v", has, err)
		}
	}
	bad := newRig(t, func(o *Options) { o.TLSCert, o.TLSKey = "/nonexistent/cert", "/nonexistent/key" })
	if err := bad.s.Open(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open without its certificate: %v", err)
	}
}
