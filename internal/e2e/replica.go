package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
}

// Ports of a replica; all on 127.0.0.1.
type Ports struct {
	REST, Pull, Reply, Heartbeat, Peer int // Heartbeat is 0 without one
}

// Replica is a running (or ended) kvctrld serve.
//
// Concurrency: one goroutine, except URL, Addr methods, Pid and Log.
type Replica struct {
	Ports   Ports
	DataDir string

	t       testing.TB
	opts    Options
	logPath string
	client  *http.Client
	proc    *process
}

// Start starts a replica and returns when /readyz says 200. The test's cleanup kills
// it if it still runs, and a failed test prints its log.
func Start(t testing.TB, o Options) *Replica {
	t.Helper()
	r := &Replica{t: t, opts: o, DataDir: o.DataDir,
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	if r.DataDir == "" {
		r.DataDir = filepath.Join(t.TempDir(), "data")
	}
	r.logPath = filepath.Join(t.TempDir(), "kvctrld.log")
	Binary(t)
	r.takePorts()
	t.Cleanup(func() {
		r.Kill()
		if t.Failed() {
			t.Logf("log of the replica on port %d:\n%s", r.Ports.REST, tail(r.Log(), 16<<10))
		}
	})
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
		if !r.proc.ended() || !strings.Contains(strings.ToLower(r.Log()), "address already in use") {
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
	args := []string{"serve", "--host", "127.0.0.1", "--port", strconv.Itoa(r.Ports.REST), "--monitor-ports", monitor,
		"--peer-addr", addr(r.Ports.Peer), "--data-dir", r.DataDir}
	return append(args, r.opts.Args...)
}

func (r *Replica) launch() {
	r.t.Helper()
	p, err := launch(Binary(r.t), r.CommandLine(), append(plainEnvironment(), r.opts.Env...), r.logPath)
	if err != nil {
		r.t.Fatal(err)
	}
	r.proc = p
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
		return fmt.Errorf("replica on port %d is not ready: %w", r.Ports.REST, err)
	}
	return nil
}

// URL is the REST address of a path such as "/lookup".
func (r *Replica) URL(path string) string { return "http://" + addr(r.Ports.REST) + path }

// PullAddr, ReplyAddr and HeartbeatAddr are the worker sockets as host:port.
func (r *Replica) PullAddr() string      { return addr(r.Ports.Pull) }
func (r *Replica) ReplyAddr() string     { return addr(r.Ports.Reply) }
func (r *Replica) HeartbeatAddr() string { return addr(r.Ports.Heartbeat) }

func addr(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

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

// Terminate asks the process to stop with SIGTERM and returns its exit code.
func (r *Replica) Terminate() int {
	r.t.Helper()
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
		r.t.Fatalf("replica on port %d has not ended within %s", r.Ports.REST, endLimit)
	}
	return r.proc.code()
}

// Restart starts the binary again on the same data directory and ports, with args in
// place of Options.Args if any are given, and returns when it is ready. The previous
// process must have ended.
func (r *Replica) Restart(args ...string) {
	r.t.Helper()
	if r.Running() {
		r.t.Fatalf("restart of the replica on port %d, which still runs", r.Ports.REST)
	}
	if len(args) > 0 {
		r.opts.Args = args
	}
	r.launch()
	r.AwaitReady()
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
