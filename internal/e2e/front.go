package e2e

import (
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// FrontOptions say whom a front stands before.
type FrontOptions struct {
	Host     string    // the address it listens on
	Replicas [3]string // the addresses of the replicas
	Ports    FrontPorts
	Env      []string // further environment, NAME=value
}

// FrontPorts are those of the front and of every replica.
type FrontPorts struct {
	REST, Pull, OldPull, Reply, Heartbeat int
	Stats                                 int // the front's own
	peer                                  int // the replicas' own
}

// Worker are the ports that LMCache's workers connect to.
func (p FrontPorts) Worker() []int { return []int{p.Pull, p.OldPull, p.Reply, p.Heartbeat} }

// Front is a running haproxy with deploy/haproxy.cfg.
//
// Concurrency: one goroutine, except URL, Addr and State.
type Front struct {
	FrontOptions

	t       testing.TB
	logPath string
	client  *http.Client
	proc    *process
}

// replica is where the front looks for replica i.
func (o FrontOptions) replica(i int) (host string, ports Ports) {
	p := o.Ports
	return o.Replicas[i], Ports{REST: p.REST, Pull: p.Pull, Reply: p.Reply, Heartbeat: p.Heartbeat, Peer: p.peer}
}

// HAProxy is the path of the program. Where it is missing the test is skipped, aloud;
// with CI in the environment it fails.
func HAProxy(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("haproxy")
	if errors.Is(err, exec.ErrNotFound) {
		path, err = exec.LookPath("/usr/sbin/haproxy") // not on everybody's PATH
	}
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("haproxy is not installed, see scripts/need-haproxy.sh: %v", err)
	}
	if err != nil {
		t.Skipf("SKIPPED, THE FRONT IS NOT TESTED: haproxy is not installed (Debian: apt-get install haproxy): %v", err)
	}
	return path
}

// FrontConfig is the path of deploy/haproxy.cfg.
func FrontConfig(t testing.TB) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "deploy", "haproxy.cfg")
}

// FrontNetwork draws addresses of 127.0.0.0/8 for a front and three replicas, and ports
// that all of them can have.
func FrontNetwork(t testing.TB) FrontOptions {
	t.Helper()
	prefix := fmt.Sprintf("127.%d.%d.", 1+rand.IntN(200), rand.IntN(250))
	base := FreePorts(t, 7)
	return FrontOptions{
		Host: prefix + "10", Replicas: [3]string{prefix + "1", prefix + "2", prefix + "3"},
		Ports: FrontPorts{REST: base, Pull: base + 1, OldPull: base + 2, Reply: base + 3, Heartbeat: base + 4, Stats: base + 5, peer: base + 6},
	}
}

// StartFront starts haproxy and returns when its ports are open. The test's cleanup
// kills it, and a failed test prints its log.
func StartFront(t testing.TB, o FrontOptions) *Front {
	t.Helper()
	f := &Front{FrontOptions: o, t: t, logPath: filepath.Join(t.TempDir(), "haproxy.log"),
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}}
	p, err := launch(HAProxy(t), []string{"-db", "-f", FrontConfig(t)}, f.environment(), f.logPath, "")
	if err != nil {
		t.Fatal(err)
	}
	f.proc = p
	t.Cleanup(func() {
		if err := p.signal(os.Kill); err != nil {
			t.Error(err)
		}
		<-p.done
		if t.Failed() {
			t.Logf("log of the front:\n%s", tail(f.Log(), 16<<10))
		}
	})
	var ended error
	err = Poll(readyLimit, func() error {
		if p.ended() {
			ended = fmt.Errorf("haproxy has ended: %w\n%s", p.err, f.Log())
			return nil
		}
		_, err := f.State("replicas", "kv-1")
		return err
	})
	if err := errors.Join(ended, err); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *Front) environment() []string {
	env := plainEnvironment()
	for name, value := range map[string]string{
		"FRONT_HOST": f.Host, "FRONT_REPLICA_1": f.Replicas[0], "FRONT_REPLICA_2": f.Replicas[1], "FRONT_REPLICA_3": f.Replicas[2],
		"FRONT_REST_PORT": strconv.Itoa(f.Ports.REST), "FRONT_PULL_PORT": strconv.Itoa(f.Ports.Pull), "FRONT_OLD_PULL_PORT": strconv.Itoa(f.Ports.OldPull),
		"FRONT_REPLY_PORT": strconv.Itoa(f.Ports.Reply), "FRONT_HEARTBEAT_PORT": strconv.Itoa(f.Ports.Heartbeat),
		"FRONT_STATS": f.Addr(f.Ports.Stats),
	} {
		env = append(env, name+"="+value)
	}
	return append(env, f.Env...)
}

// Addr is a port of the front as host:port.
func (f *Front) Addr(port int) string { return net.JoinHostPort(f.Host, strconv.Itoa(port)) }

// URL is the front's REST address of a path.
func (f *Front) URL(path string) string { return "http://" + f.Addr(f.Ports.REST) + path }

// Log is what haproxy has written.
func (f *Front) Log() string {
	b, err := os.ReadFile(f.logPath)
	if err != nil {
		return "no log: " + err.Error()
	}
	return string(b)
}

// State is the state of a server as haproxy's statistics name it: UP, DOWN, NOLB (keeps
// its connections, gets no new ones), with what they add.
func (f *Front) State(backend, server string) (string, error) {
	const statusColumn = 17
	return f.statistic(backend, server, statusColumn)
}

// statistic is a field of haproxy's statistics.
func (f *Front) statistic(proxy, server string, column int) (string, error) {
	resp, err := f.client.Get("http://" + f.Addr(f.Ports.Stats) + "/;csv")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	rows, err := csv.NewReader(resp.Body).ReadAll()
	if err != nil {
		return "", fmt.Errorf("statistics of the front: %w", err)
	}
	const proxyColumn, serverColumn = 0, 1
	for _, row := range rows {
		if len(row) > column && row[proxyColumn] == proxy && row[serverColumn] == server {
			return row[column], nil
		}
	}
	return "", fmt.Errorf("no %s/%s in the statistics of the front", proxy, server)
}

// AwaitState waits until a server is in a state.
func (f *Front) AwaitState(backend, server, want string) {
	f.t.Helper()
	Eventually(f.t, 15*time.Second, backend+"/"+server+" is "+want, func() error {
		got, err := f.State(backend, server)
		if err == nil && got != want && !strings.HasPrefix(got, want+" ") {
			err = fmt.Errorf("it is %q", got)
		}
		return err
	})
}
