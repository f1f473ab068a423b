package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// simulated is a running kvctrld simulate.
type simulated struct {
	t       testing.TB
	logPath string
	proc    *process
}

// startSimulated starts a fleet that knows the front only. Instance sim-0 stores the
// tokens 0 to 1023.
func startSimulated(t *testing.T, f *Front, flags ...string) *simulated {
	t.Helper()
	s := &simulated{t: t, logPath: filepath.Join(t.TempDir(), "fleet.log")}
	args := append([]string{"simulate", "--pull", f.Addr(f.Ports.Pull), "--reply", f.Addr(f.Ports.Reply), "--prompt", "0..1023", "--heartbeat", "100ms"}, flags...)
	p, err := launch(Binary(t), args, plainEnvironment(), s.logPath, "")
	if err != nil {
		t.Fatal(err)
	}
	s.proc = p
	t.Cleanup(func() {
		if err := p.signal(os.Kill); err != nil {
			t.Error(err)
		}
		<-p.done
		if t.Failed() {
			t.Logf("output of the fleet:\n%s", s.output())
		}
	})
	return s
}

func (s *simulated) output() string {
	b, err := os.ReadFile(s.logPath)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// stop ends the fleet and returns what it counted.
func (s *simulated) stop() (heartbeats, syncs int) {
	s.t.Helper()
	if err := s.proc.signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.proc.done:
	case <-time.After(endLimit):
		s.t.Fatalf("the fleet has not ended within %s", endLimit)
	}
	m := regexp.MustCompile(`(\d+) heartbeats, (\d+) full syncs`).FindStringSubmatch(s.output())
	if s.proc.code() != 0 || m == nil {
		s.t.Fatalf("the fleet ended with %d and %q", s.proc.code(), s.output())
	}
	heartbeats, _ = strconv.Atoi(m[1])
	syncs, _ = strconv.Atoi(m[2])
	return heartbeats, syncs
}

// post asks the front and returns the body of a 200.
func (f *Front) post(ctx context.Context, path, body string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.URL(path), strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("POST %s: %d %s", path, resp.StatusCode, b)
	}
	return string(b), nil
}

// tokens0to1023 is a body of a request for the fleet's prompt.
func tokens0to1023(t testing.TB, fields map[string]any) string {
	t.Helper()
	tokens := make([]int, 1024)
	for i := range tokens {
		tokens[i] = i
	}
	fields["tokens"] = tokens
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(fields); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// finds looks the prompt up through the front.
func (f *Front) finds(ctx context.Context, t testing.TB) error {
	answer, err := f.post(ctx, "/lookup", tokens0to1023(t, map[string]any{}))
	if err == nil && !strings.Contains(answer, `"sim-0"`) {
		err = fmt.Errorf("lookup finds %s", answer)
	}
	return err
}

// TestFront_Replica: workers and clients that know nothing but the front, before one
// replica. Two are missing.
func TestFront_Replica(t *testing.T) {
	t.Parallel()
	HAProxy(t)
	o := FrontNetwork(t)
	StartCluster(t, 1, ClusterOptions{front: &o, Args: []string{"--monitor-port", "0", "--advertise-host", o.Host}})
	f := StartFront(t, o)
	f.AwaitState("workers", "kv-1", "UP")
	fleet := startSimulated(t, f, "--instances", "3")
	Eventually(t, readyLimit, "the prompt is found through the front", func() error { return f.finds(t.Context(), t) })

	pinned, err := f.post(t.Context(), "/pin", tokens0to1023(t, map[string]any{"instance_id": "sim-0", "location": "LocalCPUBackend"}))
	if err != nil || !strings.Contains(pinned, "1024") {
		t.Errorf("pin through the front: %q, %v", pinned, err)
	}
	workers := f.ask(t, http.MethodGet, "/controller/workers")
	if workers.status != http.StatusOK || strings.Count(workers.body, `"sim-`) < 3 {
		t.Errorf("workers through the front: %d %s", workers.status, workers.body)
	}
	// The third connection is to the address that the replica names for heartbeats.
	Eventually(t, readyLimit, "three workers with three connections each", func() error {
		const sessionsColumn = 4
		open, err := f.statistic("workers", "FRONTEND", sessionsColumn)
		if err == nil && open != "9" {
			err = fmt.Errorf("%s connections", open)
		}
		return err
	})
	if _, syncs := fleet.stop(); syncs != 0 {
		t.Errorf("%d full syncs, want none", syncs)
	}
}

// TestFront_ThreeReplicas: behind the front, kill -9 of each replica in turn fails no
// lookup, and a command is done through the front within seconds, if need be asked again
// by its event id.
func TestFront_ThreeReplicas(t *testing.T) {
	HAProxy(t)
	o := FrontNetwork(t)
	c := StartCluster(t, 3, ClusterOptions{front: &o, Args: []string{"--monitor-port", "0", "--advertise-host", o.Host}})
	f := StartFront(t, o)
	for i := range o.Replicas {
		f.AwaitState("workers", fmt.Sprintf("kv-%d", i+1), "UP")
	}
	fleet := startSimulated(t, f, "--instances", "3")
	Eventually(t, readyLimit, "the prompt is found through the front", func() error { return f.finds(t.Context(), t) })
	c.Converge() // so that every replica has it

	for i, r := range c.Replicas() {
		name := fmt.Sprintf("kv-%d", i+1)
		status, err := c.Status(r)
		if err != nil {
			t.Fatal(err)
		}
		stop := f.keepLooking(t)
		r.Kill()
		killed := time.Now()
		pin := tokens0to1023(t, map[string]any{"instance_id": "sim-0", "location": "LocalCPUBackend", "event_id": "after-" + name})
		Eventually(t, readyLimit, "a command after the death of "+name, func() error {
			_, err := f.post(t.Context(), "/pin", pin)
			return err
		})
		took := time.Since(killed)
		f.AwaitState("workers", name, "DOWN")
		t.Logf("%s, %s: command done %s after its death, meanwhile %d lookups", name, status.Role, took.Round(time.Millisecond), stop())
		r.Restart()
		f.AwaitState("workers", name, "UP")
		c.Converge()
	}
	heartbeats, syncs := fleet.stop()
	gaps, err := newClient(t, c.Leader()).metric("kvctrl_registry_sequence_gaps_total")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the fleet had %d heartbeats answered and %d full syncs asked, for %v gaps", heartbeats, syncs, gaps)
	if heartbeats == 0 {
		t.Error("no heartbeat was answered")
	}
	if float64(syncs) > gaps {
		t.Errorf("%d full syncs were asked for, and there are %v gaps: a death alone is no reason", syncs, gaps)
	}
}

// keepLooking looks the prompt up through the front until stop, which returns how often.
// Every lookup must find it.
func (f *Front) keepLooking(t *testing.T) (stop func() int64) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	var lookups atomic.Int64
	looking.Go(func() {
		for ctx.Err() == nil {
			if err := f.finds(t.Context(), t); err != nil {
				t.Errorf("lookup %d: %v", lookups.Load(), err)
				return
			}
			lookups.Add(1)
		}
	})
	Eventually(t, readyLimit, "the first lookup", func() error {
		if lookups.Load() == 0 && !t.Failed() {
			return errors.New("none is answered yet")
		}
		return nil
	})
	return func() int64 {
		end()
		looking.Wait()
		return lookups.Load()
	}
}
