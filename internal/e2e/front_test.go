package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// standIn takes a replica's place behind the front: REST that answers as it is told, and
// worker ports that say who they are.
type standIn struct {
	t         testing.TB
	name      string
	host      string
	ports     FrontPorts
	notReady  atomic.Bool
	frozen    atomic.Bool // takes connections and says nothing
	dropping  atomic.Bool // closes the connection where an answer should be
	listeners []net.Listener
	serving   sync.WaitGroup
	ended     context.Context // of stop
	end       context.CancelFunc

	mu    sync.Mutex
	asked map[string]int // requests by path
}

// startStandIn listens on all ports of one replica.
func startStandIn(t testing.TB, o FrontOptions, number int) *standIn {
	t.Helper()
	s := &standIn{t: t, name: fmt.Sprintf("kv-%d", number+1), host: o.Replicas[number], ports: o.Ports, asked: map[string]int{}}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *standIn) start() {
	s.t.Helper()
	s.ended, s.end = context.WithCancel(context.Background())
	rest := s.listen(s.ports.REST)
	server := &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	s.serving.Go(func() {
		if err := server.Serve(rest); !errors.Is(err, http.ErrServerClosed) && s.ended.Err() == nil {
			s.t.Errorf("stand-in %s: %v", s.name, err)
		}
	})
	context.AfterFunc(s.ended, func() { server.Close() })
	for _, port := range s.ports.Worker() {
		l := s.listen(port)
		s.serving.Go(func() { s.greet(l) })
	}
}

func (s *standIn) listen(port int) net.Listener {
	s.t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(s.host, strconv.Itoa(port)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.listeners = append(s.listeners, l)
	return l
}

// greet says this stand-in's name on every connection and holds it until stop.
func (s *standIn) greet(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.serving.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(s.ended, func() { conn.Close() })
			defer stop()
			fmt.Fprintln(conn, s.name)
			_, _ = io.Copy(io.Discard, conn) // until either side ends
		})
	}
}

// stop closes everything, as the death of a process does.
func (s *standIn) stop() {
	s.end()
	for _, l := range s.listeners {
		l.Close()
	}
	s.serving.Wait()
	s.listeners = nil
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.frozen.Load() {
		select {
		case <-r.Context().Done():
		case <-s.ended.Done():
		}
		return
	}
	check := r.URL.Path == "/readyz" || r.URL.Path == "/healthz"
	s.mu.Lock()
	s.asked[r.URL.Path]++
	s.mu.Unlock()
	switch {
	case r.URL.Path == "/readyz" && s.notReady.Load():
		w.WriteHeader(http.StatusServiceUnavailable)
	case !check && s.dropping.Load():
		s.reset(w)
		return
	case !check:
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
	}
	fmt.Fprint(w, s.name)
}

// reset ends a connection as the kernel does for a process that is killed before it has
// read what came.
func (s *standIn) reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.t.Errorf("stand-in %s: %v", s.name, err)
		return
	}
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		s.t.Errorf("stand-in %s: %v", s.name, err)
	}
	conn.Close()
}

func (s *standIn) count(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[path]
}

// startFront starts three stand-ins and a front that has found all of them.
func startFront(t *testing.T, env ...string) (*Front, []*standIn) {
	t.Helper()
	HAProxy(t)
	o := FrontNetwork(t)
	o.Env = env
	var replicas []*standIn
	for i := range o.Replicas {
		replicas = append(replicas, startStandIn(t, o, i))
	}
	f := StartFront(t, o)
	for _, r := range replicas {
		f.AwaitState("replicas", r.name, "UP")
		f.AwaitState("alive", r.name, "UP")
	}
	return f, replicas
}

// workerAt opens a connection to a worker port from one of the fleet's addresses and
// returns the name of the replica that it reached.
func (f *Front) workerAt(t *testing.T, from string, port int) (net.Conn, string) {
	t.Helper()
	conn, who, err := f.dialWorker(from, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, who
}

func (f *Front) dialWorker(from string, port int) (net.Conn, string, error) {
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", f.Addr(port))
	if err != nil {
		return nil, "", err
	}
	who := make([]byte, len("kv-1\n"))
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, "", errors.Join(err, conn.Close())
	}
	if _, err := io.ReadFull(conn, who); err != nil {
		return nil, "", errors.Join(fmt.Errorf("worker at %s on port %d: %w", from, port, err), conn.Close())
	}
	return conn, strings.TrimSpace(string(who)), nil
}

// held reports whether a connection is still open: nothing arrives on it, no end either.
func held(conn net.Conn) error {
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil
	}
	return fmt.Errorf("a connection that should be held: %v", err)
}

// awaitClosed waits until the other side has closed a connection.
func awaitClosed(conn net.Conn, limit time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	switch {
	case n > 0:
		return errors.New("something arrived on a connection that should be closed")
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("the connection is still open after %s", limit)
	}
	return nil
}

// fleetAddress is the address of a worker's host. Neighbours, as in a real rack.
func (f *Front) fleetAddress(i int) string {
	return f.Host[:strings.LastIndex(f.Host, ".")+1] + strconv.Itoa(20+i)
}

type frontAnswer struct {
	status int
	header http.Header
	body   string
}

func (f *Front) ask(t *testing.T, method, path string) frontAnswer {
	t.Helper()
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(`{"tokens": [1, 2, 3]}`)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, f.URL(path), body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return frontAnswer{resp.StatusCode, resp.Header, string(b)}
}

// TestFront_ConfigIsValid: haproxy has nothing to say about the file, not even a warning.
func TestFront_ConfigIsValid(t *testing.T) {
	t.Parallel()
	f := &Front{FrontOptions: FrontNetwork(t)}
	for name, env := range map[string][]string{
		"plain":             nil,
		"user and a socket": {"FRONT_USER=root", "FRONT_SOCKET=" + t.TempDir() + "/front.sock"},
	} {
		f.Env = env
		cmd := exec.Command(HAProxy(t), "-c", "-f", FrontConfig(t))
		cmd.Env = f.environment()
		out, err := cmd.CombinedOutput()
		if err != nil || strings.Contains(string(out), "WARNING") || strings.Contains(string(out), "ALERT") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestFront_StartsBeforeItsReplicasHaveNames: in a cluster that comes up all at once.
func TestFront_StartsBeforeItsReplicasHaveNames(t *testing.T) {
	t.Parallel()
	o := FrontNetwork(t)
	o.Replicas = [3]string{"kv-1.invalid", "kv-2.invalid", "kv-3.invalid"}
	f := StartFront(t, o)
	wantNoReplica(t, f)
}

// TestFront_OneWorkerOneReplica: all connections of a worker's host go to one replica,
// and neighbouring hosts are spread over all three.
func TestFront_OneWorkerOneReplica(t *testing.T) {
	t.Parallel()
	f, _ := startFront(t)
	const hosts = 90
	workers := map[string]int{}
	for i := range hosts {
		from := f.fleetAddress(i)
		var first string
		for _, port := range f.Ports.Worker() {
			conn, who := f.workerAt(t, from, port)
			conn.Close()
			if first == "" {
				first = who
			}
			if who != first {
				t.Errorf("worker at %s: port %d reaches %s, an earlier one %s", from, port, who, first)
			}
		}
		workers[first]++
	}
	t.Logf("%d hosts with neighbouring addresses: %v", hosts, workers)
	for _, name := range []string{"kv-1", "kv-2", "kv-3"} {
		if workers[name] < hosts/9 {
			t.Errorf("%s has %d of %d hosts: badly spread: %v", name, workers[name], hosts, workers)
		}
	}
}

// TestFront_FrozenReplicaLosesItsWorkers: its connections are closed, the others' are
// not, and only its workers get another replica.
func TestFront_FrozenReplicaLosesItsWorkers(t *testing.T) {
	t.Parallel()
	f, replicas := startFront(t)
	frozen := replicas[1]
	conns, at := map[string]net.Conn{}, map[string]string{}
	for i := range 40 {
		from := f.fleetAddress(i)
		conns[from], at[from] = f.workerAt(t, from, f.Ports.Pull)
	}
	frozen.frozen.Store(true)
	// Nobody has noticed yet. A lookup that it has is asked of another in time.
	for range len(replicas) {
		if a := f.ask(t, http.MethodPost, "/lookup"); a.status != http.StatusOK || a.body == frozen.name {
			t.Errorf("lookup while %s freezes: %d from %q", frozen.name, a.status, a.body)
		}
	}
	moved := 0
	for from, conn := range conns {
		if at[from] != frozen.name {
			continue
		}
		moved++
		if err := awaitClosed(conn, 10*time.Second); err != nil {
			t.Fatalf("worker at %s on the frozen replica: %v", from, err)
		}
	}
	if moved == 0 {
		t.Fatal("no worker was on the frozen replica")
	}
	f.AwaitState("workers", frozen.name, "DOWN")
	for from, conn := range conns {
		_, who := f.workerAt(t, from, f.Ports.Pull)
		if at[from] == frozen.name {
			if who == frozen.name {
				t.Errorf("worker at %s reaches the frozen replica", from)
			}
			continue
		}
		if err := held(conn); err != nil {
			t.Errorf("worker at %s on %s: %v", from, at[from], err)
		}
		if who != at[from] {
			t.Errorf("worker at %s reached %s and now reaches %s, although its replica is well", from, at[from], who)
		}
	}
	for range 6 {
		if a := f.ask(t, http.MethodPost, "/lookup"); a.status != http.StatusOK || a.body == frozen.name {
			t.Errorf("lookup: %d from %q", a.status, a.body)
		}
	}
	frozen.frozen.Store(false)
	f.AwaitState("workers", frozen.name, "UP")
}

// TestFront_ReplicaThatIsNotReady keeps its workers and gets no new ones: an election is
// no reason to cut anybody off.
func TestFront_ReplicaThatIsNotReady(t *testing.T) {
	t.Parallel()
	f, replicas := startFront(t)
	from := f.fleetAddress(0)
	conn, at := f.workerAt(t, from, f.Ports.Reply)
	for _, r := range replicas {
		r.notReady.Store(r.name == at)
	}
	f.AwaitState("workers", at, "NOLB")
	f.AwaitState("replicas", at, "NOLB")
	if err := held(conn); err != nil {
		t.Error(err)
	}
	if _, who := f.workerAt(t, from, f.Ports.Reply); who == at {
		t.Errorf("a new connection reaches %s, which is not ready", who)
	}
	for range 6 {
		if a := f.ask(t, http.MethodPost, "/lookup"); a.status != http.StatusOK || a.body == at {
			t.Errorf("lookup while %s is not ready: %d from %q", at, a.status, a.body)
		}
	}

	// None is: whoever is alive answers, and keeps what it has.
	for _, r := range replicas {
		r.notReady.Store(true)
	}
	for _, r := range replicas {
		f.AwaitState("workers", r.name, "NOLB")
		f.AwaitState("replicas", r.name, "NOLB")
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
	var first string
	for _, port := range f.Ports.Worker() {
		_, who := f.workerAt(t, from, port)
		if first == "" {
			first = who
		}
		if who != first {
			t.Errorf("while nobody is ready port %d reaches %s, an earlier one %s", port, who, first)
		}
	}
	if err := held(conn); err != nil {
		t.Error(err)
	}

	// A replica dies meanwhile: the ones that are left answer.
	dead := replicas[2]
	dead.stop()
	f.AwaitState("alive", dead.name, "DOWN")
	for range 6 {
		if a := f.ask(t, http.MethodPost, "/lookup"); a.status != http.StatusOK || a.body == dead.name {
			t.Errorf("lookup with one dead and nobody ready: %d from %q", a.status, a.body)
		}
	}
}

// TestFront_DeadReplica: its workers and clients are taken by others at once, before any
// check has noticed.
func TestFront_DeadReplica(t *testing.T) {
	t.Parallel()
	f, replicas := startFront(t)
	from := f.fleetAddress(3)
	conn, at := f.workerAt(t, from, f.Ports.Heartbeat)
	var dead *standIn
	for _, r := range replicas {
		if r.name == at {
			dead = r
		}
	}
	dead.stop()
	if err := awaitClosed(conn, time.Second); err != nil {
		t.Error(err)
	}
	if _, who := f.workerAt(t, from, f.Ports.Heartbeat); who == at {
		t.Errorf("reached %s, which is dead", who)
	}
	for range 9 {
		if a := f.ask(t, http.MethodPost, "/pin"); a.status != http.StatusOK || a.body == at {
			t.Errorf("command after the death of %s: %d from %q", at, a.status, a.body)
		}
	}
	f.AwaitState("replicas", at, "DOWN")
	dead.start()
	f.AwaitState("replicas", at, "UP")
	f.AwaitState("workers", at, "UP")
	if _, who := f.workerAt(t, from, f.Ports.Heartbeat); who != at {
		t.Errorf("reached %s, want %s, which is back", who, at)
	}
}

// TestFront_RepeatsReadsOnly: of a connection that breaks before the answer, whatever the
// size of the request and whether or not the client's connection is its first.
func TestFront_RepeatsReadsOnly(t *testing.T) {
	t.Parallel()
	f, replicas := startFront(t)
	breaking := replicas[0]
	breaking.dropping.Store(true)
	for _, read := range []struct{ method, path string }{
		{"POST", "/lookup"}, {"POST", "/query_instance"}, {"POST", "/query_worker_info"}, {"POST", "/check_finish"}, {"POST", "/diagnose"}, {"GET", "/instances"}, {"GET", "/events/Pin1"},
	} {
		for range 3 { // one of three goes to the replica that breaks
			if a := f.ask(t, read.method, read.path); a.status != http.StatusOK {
				t.Errorf("%s %s: %d %s", read.method, read.path, a.status, a.body)
			}
		}
		if breaking.count(read.path) == 0 {
			t.Errorf("%s %s never reached the replica that breaks: nothing was tested", read.method, read.path)
		}
	}
	const commands = 3
	var lost int
	for range commands {
		a := f.ask(t, http.MethodPost, "/move")
		if a.status == http.StatusBadGateway {
			lost++
			wantDetail(t, a, "replica_lost")
		} else if a.status != http.StatusOK {
			t.Errorf("move: %d %s", a.status, a.body)
		}
	}
	sent := replicas[0].count("/move") + replicas[1].count("/move") + replicas[2].count("/move")
	if lost != 1 || sent != commands {
		t.Errorf("%d commands, of which %d were lost, were sent %d times: want 1 lost, and each sent once", commands, lost, sent)
	}

	keeping := &http.Transport{}
	defer keeping.CloseIdleConnections()
	f.client = &http.Client{Timeout: 10 * time.Second, Transport: keeping}
	for _, size := range []int{100, 5000, 50_000} {
		before := breaking.count("/lookup")
		for i := range 30 {
			breaking.dropping.Store(i%10 >= 4) // sessions have connections of their own to it
			resp, err := f.client.Post(f.URL("/lookup"), "application/json", strings.NewReader(strings.Repeat("x", size)))
			if err != nil {
				t.Fatalf("lookup %d of %d bytes: %v", i, size, err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("lookup %d of %d bytes: %d, %v", i, size, resp.StatusCode, err)
			}
			resp.Body.Close()
		}
		if breaking.count("/lookup") == before {
			t.Errorf("no lookup of %d bytes reached the replica that breaks: nothing was tested", size)
		}
	}
}

// TestFront_NoReplica: the answer is JSON with words and a time to come back.
func TestFront_NoReplica(t *testing.T) {
	t.Parallel()
	wantNoReplica(t, StartFront(t, FrontNetwork(t)))
}

func wantNoReplica(t *testing.T, f *Front) {
	t.Helper()
	Eventually(t, 15*time.Second, "the front knows that there is no replica", func() error {
		if a := f.ask(t, http.MethodPost, "/lookup"); a.status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d %s", a.status, a.body)
		}
		return nil
	})
	a := f.ask(t, http.MethodPost, "/lookup")
	wantDetail(t, a, "no_replica")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// wantDetail: LMCache's clients read detail, ours code.
func wantDetail(t *testing.T, a frontAnswer, code string) {
	t.Helper()
	var words struct{ Detail, Code string }
	if err := json.Unmarshal([]byte(a.body), &words); err != nil || words.Code != code || words.Detail == "" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("answer %d %q of type %q: want JSON with detail and code %q (%v)", a.status, a.body, a.header.Get("Content-Type"), code, err)
	}
}

// TestFront_Maintenance: what docs/operating.md tells to do with a replica that is cut
// off from the others, or that is to be rebooted.
func TestFront_Maintenance(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "front.sock")
	f, replicas := startFront(t, "FRONT_SOCKET="+socket)
	from := f.fleetAddress(0)
	conn, at := f.workerAt(t, from, f.Ports.Pull)

	command := func(words string) {
		t.Helper()
		c, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintln(c, words)
		if out, err := io.ReadAll(c); err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Fatalf("%s: %q, %v", words, out, err)
		}
	}
	command("set server replicas/" + at + " state drain")
	f.AwaitState("workers", at, "DRAIN")
	if err := held(conn); err != nil {
		t.Errorf("drain: %v", err)
	}
	if _, who := f.workerAt(t, from, f.Ports.Pull); who == at {
		t.Errorf("a new connection reaches %s, which is drained", who)
	}
	command("set server replicas/" + at + " state maint")
	f.AwaitState("workers", at, "MAINT")
	if err := awaitClosed(conn, 5*time.Second); err != nil {
		t.Errorf("maintenance: %v", err)
	}
	for range len(replicas) {
		if a := f.ask(t, http.MethodPost, "/lookup"); a.status != http.StatusOK || a.body == at {
			t.Errorf("lookup during the maintenance of %s: %d from %q", at, a.status, a.body)
		}
	}
	command("set server replicas/" + at + " state ready")
	f.AwaitState("workers", at, "UP")
	if _, who := f.workerAt(t, from, f.Ports.Pull); who != at {
		t.Errorf("reached %s, want %s, which is back", who, at)
	}
}
