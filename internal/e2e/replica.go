package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	readyLimit = 30 * time.Second // generous: the race detector on a busy machine
	endLimit   = 30 * time.Second
)

// Options say how a replica differs from the plain one.
type Options struct {
	DataDir     string   // "": a new one that goes with the test
	Args        []string // further flags of serve
	Env         []string // further environment, NAME=value
	NoHeartbeat bool     // no heartbeat port
	NoWait      bool     // return when it is started, not when it is ready

	host      string // default 127.0.0.1
	ports     Ports  // default: free ones
	namespace string // network namespace, by name; default: the test's own
}

// Ports of a replica, all on its one address.
type Ports struct {
	REST, Pull, Reply, Heartbeat, Peer int // Heartbeat is 0 without one
}

// Replica is a running (or ended) kvctrld serve.
//
// Concurrency: one goroutine, except URL, Addr methods, Log, Life and
// Starts.
type Replica struct {
	Host    string
	Ports   Ports
	DataDir string

	t       testing.TB
	opts    Options
	logPath string
	client  *http.Client
	proc    *process
	life    atomic.Uint64 // odd while it is meant to answer; see Life
	starts  atomic.Int64
}

// Start starts a replica and returns when /readyz says 200. The test's cleanup kills
// it if it still runs, and a failed test prints its log.
func Start(t testing.TB, o Options) *Replica {
	t.Helper()
	r := newReplica(t, o)
	r.launch()
	if o.NoWait {
		return r
	}
	// Another process may take a port between the look and the bind.
	for range 3 {
		err := r.awaitReady()
		if err == nil {
			return r
		}
		if !r.portTaken() {
			t.Fatal(err)
		}
		r.takePorts()
		r.launch()
	}
	if err := r.awaitReady(); err != nil {
		t.Fatal(err)
	}
	return r
}

// newReplica is Start without the start.
func newReplica(t testing.TB, o Options) *Replica {
	t.Helper()
	r := &Replica{t: t, opts: o, Host: o.host, Ports: o.ports, DataDir: o.DataDir,
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	if r.Host == "" {
		r.Host = loopback
	}
	if r.DataDir == "" {
		r.DataDir = filepath.Join(t.TempDir(), "data")
	}
	r.logPath = filepath.Join(t.TempDir(), "kvctrld.log")
	Binary(t)
	if r.Ports == (Ports{}) {
		r.takePorts()
	}
	t.Cleanup(func() {
		r.Kill()
		_, benchmark := t.(*testing.B) // fails when it is slow
		if t.Failed() && (!benchmark || testing.Verbose()) {
			t.Logf("log of the replica on %s:\n%s", r.address(r.Ports.REST), tail(r.Log(), 16<<10))
		}
	})
	return r
}

// portTaken reports whether the replica has ended because somebody has one of its ports.
func (r *Replica) portTaken() bool {
	return r.proc.ended() && strings.Contains(strings.ToLower(r.Log()), "address already in use")
}

func (r *Replica) takePorts() {
	r.t.Helper()
	base := FreePorts(r.t, 5)
	r.Ports = Ports{REST: base, Pull: base + 1, Reply: base + 2, Heartbeat: base + 3, Peer: base + 4}
	if r.opts.NoHeartbeat {
		r.Ports.Heartbeat = 0
	}
}

// CommandLine is what the replica is started with, without the program's name.
func (r *Replica) CommandLine() []string {
	monitor := fmt.Sprintf(`{"pull":%d,"reply":%d}`, r.Ports.Pull, r.Ports.Reply)
	if r.Ports.Heartbeat != 0 {
		monitor = fmt.Sprintf(`{"pull":%d,"reply":%d,"heartbeat":%d}`, r.Ports.Pull, r.Ports.Reply, r.Ports.Heartbeat)
	}
	args := []string{"serve", "--host", r.Host, "--port", strconv.Itoa(r.Ports.REST), "--monitor-ports", monitor,
		"--peer-addr", r.PeerAddr(), "--data-dir", r.DataDir}
	return append(args, r.opts.Args...)
}

func (r *Replica) launch() {
	r.t.Helper()
	p, err := launch(Binary(r.t), r.CommandLine(), append(plainEnvironment(), r.opts.Env...), r.logPath, r.opts.namespace)
	if err != nil {
		r.t.Fatal(err)
	}
	r.proc = p
	r.starts.Add(1)
}

// plainEnvironment is the test's without any setting of a controller.
func plainEnvironment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "KVCTRL_") && !strings.HasPrefix(kv, "LMCACHE_") && !strings.HasPrefix(kv, "PYTHONHASHSEED=") {
			env = append(env, kv)
		}
	}
	return env
}

// AwaitReady waits until /readyz says 200.
func (r *Replica) AwaitReady() {
	r.t.Helper()
	if err := r.awaitReady(); err != nil {
		r.t.Fatal(err)
	}
}

var errEnded = errors.New("the replica has ended")

func (r *Replica) awaitReady() error {
	var ended error
	err := Poll(readyLimit, func() error {
		if r.proc.ended() {
			ended = fmt.Errorf("%w: %v", errEnded, r.proc.err)
			return nil
		}
		resp, err := r.client.Get(r.URL("/readyz"))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz answers %d: %s", resp.StatusCode, body)
		}
		return nil
	})
	if err = errors.Join(ended, err); err != nil {
		return fmt.Errorf("replica on %s is not ready: %w", r.address(r.Ports.REST), err)
	}
	r.setLive(true)
	return nil
}

// Life says whether the replica is meant to answer now: it was ready, and nobody has
// killed, stopped or paused it since. What is asked of it must be answered when the same
// life is there before and after.
func (r *Replica) Life() (life uint64, live bool) {
	life = r.life.Load()
	return life, life%2 == 1
}

// Starts is how many processes the replica has had.
func (r *Replica) Starts() int { return int(r.starts.Load()) }

// ExpectDown says that from now on the replica may end at any moment.
func (r *Replica) ExpectDown() { r.setLive(false) }

func (r *Replica) setLive(live bool) {
	if _, is := r.Life(); is != live {
		r.life.Add(1)
	}
}

// URL is the REST address of a path such as "/lookup".
func (r *Replica) URL(path string) string { return "http://" + r.address(r.Ports.REST) + path }

// PullAddr, ReplyAddr and HeartbeatAddr are the worker sockets as host:port, PeerAddr is
// where other replicas reach this one.
func (r *Replica) PullAddr() string      { return r.address(r.Ports.Pull) }
func (r *Replica) ReplyAddr() string     { return r.address(r.Ports.Reply) }
func (r *Replica) HeartbeatAddr() string { return r.address(r.Ports.Heartbeat) }
func (r *Replica) PeerAddr() string      { return r.address(r.Ports.Peer) }

func (r *Replica) address(port int) string { return net.JoinHostPort(r.Host, strconv.Itoa(port)) }

const loopback = "127.0.0.1"

func addr(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }

// Pid is the process id of the last start.
func (r *Replica) Pid() int { return r.proc.cmd.Process.Pid }

// Running reports whether the process still runs.
func (r *Replica) Running() bool { return r.proc != nil && !r.proc.ended() }

// Done is closed when the process of the last start has ended.
func (r *Replica) Done() <-chan struct{} { return r.proc.done }

// Kill ends the process as kill -9 does and waits until it is gone. A replica that has
// ended already is left alone.
func (r *Replica) Kill() {
	r.t.Helper()
	r.setLive(false)
	if r.proc == nil {
		return
	}
	if err := r.proc.signal(syscall.SIGKILL); err != nil {
		r.t.Error(err)
	}
	<-r.proc.done
}

// Signal sends a signal and does not wait.
func (r *Replica) Signal(s os.Signal) {
	r.t.Helper()
	if err := r.proc.signal(s); err != nil {
		r.t.Error(err)
	}
}

// Pause stops the process where it is (SIGSTOP) and returns when it stands still.
func (r *Replica) Pause() {
	r.t.Helper()
	r.setLive(false)
	r.Signal(syscall.SIGSTOP)
	if err := r.proc.awaitStopped(endLimit); err != nil {
		r.t.Fatal(err)
	}
}

// Resume lets a paused process go on. It is not live before AwaitReady.
func (r *Replica) Resume() {
	r.t.Helper()
	r.Signal(syscall.SIGCONT)
}

// Terminate asks the process to stop with SIGTERM and returns its exit code.
func (r *Replica) Terminate() int {
	r.t.Helper()
	r.setLive(false)
	r.Signal(syscall.SIGTERM)
	return r.AwaitEnd()
}

// AwaitEnd waits for the process to end by itself and returns its exit code, -1 when a
// signal ended it.
func (r *Replica) AwaitEnd() int {
	r.t.Helper()
	select {
	case <-r.proc.done:
	case <-time.After(endLimit):
		r.t.Fatalf("replica on %s has not ended within %s", r.address(r.Ports.REST), endLimit)
	}
	return r.proc.code()
}

// Restart starts the binary again on the same data directory and ports, with args in
// place of Options.Args if any are given, and returns when it is ready. The previous
// process must have ended.
func (r *Replica) Restart(args ...string) {
	r.t.Helper()
	r.Relaunch(args...)
	r.AwaitReady()
}

// Relaunch is Restart that does not wait.
func (r *Replica) Relaunch(args ...string) {
	r.t.Helper()
	if r.Running() {
		r.t.Fatalf("restart of the replica on %s, which still runs", r.address(r.Ports.REST))
	}
	if len(args) > 0 {
		r.opts.Args = args
	}
	r.launch()
}

// Log is everything all starts have written.
func (r *Replica) Log() string {
	b, err := os.ReadFile(r.logPath)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "no log: " + err.Error()
	}
	return string(b)
}

func tail(s string, most int) string {
	if len(s) > most {
		return "... " + s[len(s)-most:]
	}
	return s
}
