package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The exit codes of docs/operating.md.
const (
	codeConfig  = 2
	codeDataDir = 3
	codeAddress = 4
	codeStorage = 5
	codeRemoved = 7
	codeEntry   = 6
)

// startOnce runs serve to its end and returns exit code and output. A start that works
// is a failure of the test; it is killed.
func startOnce(t *testing.T, env []string, args ...string) (code int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t), append([]string{"serve"}, args...)...)
	cmd.Env, cmd.SysProcAttr, cmd.Dir = append(plainEnvironment(), env...), attributes(), t.TempDir()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("the replica runs with %q:\n%s", args, tail(out.String(), 2000))
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

// wantNoFaults looks for faults of ours in the log of a replica.
func wantNoFaults(t *testing.T, r *Replica) {
	t.Helper()
	log := r.Log()
	for _, word := range []string{"panic", "DATA RACE", "goroutine 1 [", "bug:"} {
		if strings.Contains(log, word) {
			t.Errorf("the log of the replica on %s has %q", r.PeerAddr(), word)
		}
	}
}

// wantEnd holds an end against what it must say: in its last line, for people.
func wantEnd(t *testing.T, code int, output string, wantCode int, words ...string) {
	t.Helper()
	if code != wantCode {
		t.Errorf("exit code %d, want %d", code, wantCode)
	}
	said := output[max(0, strings.LastIndex(output, "kvctrld: ")):]
	for _, w := range words {
		if !strings.Contains(said, w) {
			t.Errorf("the last words have no %q", w)
		}
	}
	if strings.Contains(output, "panic:") || strings.Contains(output, "goroutine 1 [") || strings.Contains(output, "DATA RACE") {
		t.Error("the process ended with a trace")
	}
	if t.Failed() {
		t.Logf("output:\n%s", tail(output, 4000))
	}
}

// freeArgs are flags of a replica on free ports.
func freeArgs(t *testing.T, dir string) []string {
	base := FreePorts(t, 5)
	return []string{"--host", "127.0.0.1", "--port", fmt.Sprint(base), "--data-dir", dir, "--peer-addr", addr(base + 4),
		"--monitor-ports", fmt.Sprintf(`{"pull":%d,"reply":%d,"heartbeat":%d}`, base+1, base+2, base+3)}
}

// separate runs a case that is a process of its own.
func (b *badBench) separate(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	b.cases++
	t.Run(name, f)
}

// badStart are command lines, environments and files that name what is not there, or
// values that cannot be: exit code 2, every fault named, nothing written.
func badStart(t *testing.T, b *badBench) {
	file := func(text string) []string {
		return []string{"--config", mustFile(t, filepath.Join(t.TempDir(), "kvctrl.yaml"), text)}
	}
	for _, c := range []struct {
		name  string
		args  []string
		env   []string
		words []string
	}{
		{"an unknown flag", []string{"--prot", "9000"}, nil, []string{"--prot"}},
		{"an unknown short flag", []string{"-z"}, nil, []string{"'z'"}},
		{"a flag without its value", []string{"--port"}, nil, []string{"--port"}},
		{"a port of letters", []string{"--port", "http"}, nil, []string{"--port", "http"}},
		{"a port below zero", []string{"--port", "-1"}, nil, []string{"port is -1"}},
		{"port 65536", []string{"--port", "65536"}, nil, []string{"65536", "65535"}},
		{"ports that are no JSON", []string{"--monitor-ports", "8300,8400"}, nil, []string{"monitor-ports", "JSON"}},
		{"ports without reply", []string{"--monitor-ports", `{"pull":8300}`}, nil, []string{`"reply" is missing`}},
		{"ports with an unknown name", []string{"--monitor-ports", `{"pull":1,"reply":2,"hartbeat":3}`}, nil, []string{"hartbeat"}},
		{"a pull port of 70000", []string{"--monitor-ports", `{"pull":70000,"reply":2}`}, nil, []string{"pull is 70000"}},
		{"a pull port in words", []string{"--monitor-ports", `{"pull":"a","reply":2}`}, nil, []string{"monitor-ports"}},
		{"an old port of 70000", []string{"--monitor-port", "70000"}, nil, []string{"monitor-port is 70000"}},
		{"a port twice", []string{"--monitor-ports", `{"pull":8300,"reply":8300}`}, nil, []string{"8300", "pull"}},
		{"a check every 0 seconds", []string{"--health-check-interval", "0"}, nil, []string{"health-check-interval is 0"}},
		{"a worker timeout of 0", []string{"--lmcache-worker-timeout", "0"}, nil, []string{"lmcache-worker-timeout"}},
		{"a peer address without a port", []string{"--peer-addr", "127.0.0.1"}, nil, []string{"peer-addr", "host:port"}},
		{"a peer address that nobody can dial", []string{"--peer-addr", "0.0.0.0:9400"}, nil, []string{"0.0.0.0:9400", "--peer-advertise"}},
		{"a peer address to advertise without a port", []string{"--peer-advertise", "here"}, nil, []string{"peer-advertise", "host:port"}},
		{"a node id with blanks", []string{"--node-id", "node one"}, nil, []string{"node one"}},
		{"a node id of 100 letters", []string{"--node-id", strings.Repeat("n", 100)}, nil, []string{"node", "64"}},
		{"an unknown log store", []string{"--log-store", "paper"}, nil, []string{"paper", "bolt or wal"}},
		{"a snapshot every byte", []string{"--log-bytes-snapshot", "1"}, nil, []string{"log-bytes-snapshot is 1"}},
		{"an unknown hash profile", []string{"--hash", "md5"}, nil, []string{"md5"}},
		{"a hash profile that cannot be computed", []string{"--hash", "builtin@seed=random"}, nil, []string{"random"}},
		{"chunks of 0 tokens", []string{"--chunk-size", "0"}, nil, []string{"chunk size 0"}},
		{"chunks of a third of a token", []string{"--chunk-size", "0.3"}, nil, []string{"chunk-size", "0.3"}},
		{"a threshold of 2", []string{"--full-sync-completion-threshold", "2"}, nil, []string{"full-sync-completion-threshold is 2"}},
		{"a threshold in words", []string{"--full-sync-completion-threshold", "most"}, nil, []string{"most"}},
		{"a threshold of NaN", []string{"full_sync_completion_threshold=nan"}, nil, []string{"full-sync-completion-threshold"}},
		{"a sync timeout of a millisecond", []string{"--full-sync-timeout", "1ms"}, nil, []string{"full-sync-timeout is 1ms"}},
		{"no syncs", []string{"--max-syncs", "0"}, nil, []string{"max-syncs is 0"}},
		{"a worker deadline of nothing", []string{"--worker-deadline", "0s"}, nil, []string{"worker-deadline"}},
		{"a worker deadline in words", []string{"--worker-deadline", "soon"}, nil, []string{"worker-deadline", "soon"}},
		{"bodies of 1 byte", []string{"--max-body", "1"}, nil, []string{"max-body is 1"}},
		{"an unknown log level", []string{"--log-level", "loud"}, nil, []string{"loud", "trace, debug"}},
		{"an unknown log format", []string{"--log-format", "xml"}, nil, []string{"xml", "text or json"}},
		{"a certificate without a key", []string{"--tls-cert", "c.pem"}, nil, []string{"tls-cert and tls-key"}},
		{"an authority without a certificate", []string{"--tls-ca", "ca.pem"}, nil, []string{"tls-ca"}},
		{"a certificate that is not there", []string{"--tls-cert", "/nonexistent/c.pem", "--tls-key", "/nonexistent/k.pem"}, nil, []string{"/nonexistent/c.pem"}},
		{"an address to advertise of 2000 bytes", []string{"--advertise-url", "http://" + strings.Repeat("x", 2000)}, nil, []string{"2007 bytes"}},
		{"a word without =", []string{"fast"}, nil, []string{`"fast"`, "key=value"}},
		{"an unknown key in a word", []string{"speed=9"}, nil, []string{"speed", "nearest"}},
		{"all faults at once", []string{"--port", "-1", "--log-level", "loud", "--chunk-size", "0"}, nil, []string{"port is -1", "loud", "chunk size 0"}},
		{"environment: an unknown name", nil, []string{"KVCTRL_PROT=1"}, []string{"KVCTRL_PROT", `"port"`}},
		{"environment: a bad value", nil, []string{"KVCTRL_PORT=http"}, []string{"KVCTRL_PORT", "http"}},
		{"environment: LMCache's, unknown", nil, []string{"LMCACHE_CONTROLLER_CONTROLER_PORT=1"}, []string{"LMCACHE_CONTROLLER_CONTROLER_PORT"}},
		{"environment: LMCache's, a bad value", nil, []string{"LMCACHE_CONTROLLER_CONTROLLER_PORT=x"}, []string{"LMCACHE_CONTROLLER_CONTROLLER_PORT"}},
		{"environment: a file that is not there", nil, []string{"KVCTRL_CONFIG=/nonexistent/kvctrl.yaml"}, []string{"KVCTRL_CONFIG", "/nonexistent/kvctrl.yaml"}},
		{"file: not there", []string{"--config", "/nonexistent/kvctrl.yaml"}, nil, []string{"/nonexistent/kvctrl.yaml"}},
		{"file: a directory", []string{"--config", t.TempDir()}, nil, []string{"directory"}},
		{"file: an unknown key", file("port: 9000\nchunk_sise: 16\n"), nil, []string{"chunk_sise", `"chunk-size"`}},
		{"file: no YAML", file("port: [9000\n"), nil, []string{"kvctrl.yaml"}},
		{"file: tabs", file("\tport: 9000\n"), nil, []string{"kvctrl.yaml"}},
		{"file: a list", file("- port\n- 9000\n"), nil, []string{"kvctrl.yaml"}},
		{"file: a word", file("port\n"), nil, []string{"kvctrl.yaml"}},
		{"file: a key twice", file("port: 1\nport: 2\n"), nil, []string{"port"}},
		{"file: a port of letters", file("port: http\n"), nil, []string{"port", "http"}},
		{"file: a map for a number", file("chunk-size:\n  tokens: 16\n"), nil, []string{"chunk-size"}},
		{"file: a list for a number", file("chunk-size: [16, 32]\n"), nil, []string{"chunk-size"}},
		{"file: random bytes", file("\x00\x01\xff\xfe{{{"), nil, []string{"kvctrl.yaml"}},
		{"file: pickle", file("!!python/object/apply:os.system ['true']\n"), nil, []string{"kvctrl.yaml"}},
	} {
		b.separate(t, c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			code, output := startOnce(t, c.env, append([]string{"--data-dir", dir}, c.args...)...)
			wantEnd(t, code, output, codeConfig, c.words...)
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the data directory was made: %v", err)
			}
		})
	}
	badAddresses(t, b)
}

func mustFile(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// badAddresses are ports in use and addresses of others: exit code 4, and the data
// directory as it was.
func badAddresses(t *testing.T, b *badBench) {
	taken := b.r.Ports
	replace := func(args []string, flag, value string) []string {
		return append(args, flag, value) // the last one counts
	}
	for _, c := range []struct {
		name  string
		flag  string
		value string
		words []string
	}{
		{"REST port in use", "--port", fmt.Sprint(taken.REST), []string{fmt.Sprint(taken.REST), "in use"}},
		{"pull port in use", "--monitor-ports", fmt.Sprintf(`{"pull":%d,"reply":0,"heartbeat":0}`, taken.Pull), []string{fmt.Sprint(taken.Pull), "monitor-ports", "pull", "in use"}},
		{"old pull port in use", "--monitor-port", fmt.Sprint(taken.Pull), []string{fmt.Sprint(taken.Pull), "--monitor-port", "in use"}},
		{"reply port in use", "--monitor-ports", fmt.Sprintf(`{"pull":0,"reply":%d,"heartbeat":0}`, taken.Reply), []string{fmt.Sprint(taken.Reply), "reply", "in use"}},
		{"heartbeat port in use", "--monitor-ports", fmt.Sprintf(`{"pull":0,"reply":0,"heartbeat":%d}`, taken.Heartbeat), []string{fmt.Sprint(taken.Heartbeat), "heartbeat", "in use"}},
		{"peer port in use", "--peer-addr", addr(taken.Peer), []string{addr(taken.Peer), "--peer-addr", "in use"}},
		{"an address of another host", "--host", "203.0.113.1", []string{"203.0.113.1", "--host"}},
		{"a peer address of another host", "--peer-addr", "203.0.113.1:9400", []string{"203.0.113.1:9400", "--peer-addr"}},
		{"a host name that nobody has", "--host", "nobody.invalid", []string{"nobody.invalid", "--host"}},
	} {
		b.separate(t, c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			code, output := startOnce(t, nil, replace(freeArgs(t, dir), c.flag, c.value)...)
			wantEnd(t, code, output, codeAddress, c.words...)
			if _, err := os.Stat(dir); c.flag != "--peer-addr" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the data directory was made: %v", err)
			}
		})
	}
	b.separate(t, "a port that a program without SO_REUSEADDR has", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		code, output := startOnce(t, nil, append(freeArgs(t, filepath.Join(t.TempDir(), "data")), "--port", port)...)
		wantEnd(t, code, output, codeAddress, port, "in use")
	})
}
