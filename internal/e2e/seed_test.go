package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
)

// The two lines of the project's seed, as written there.
const (
	seedLookup = `curl -X POST http://localhost:9000/lookup \
    -H "Content-Type: application/json" \
    -d '{"instance_id": "lmcache_instance_1", "tokens": [1, 2, 3, 4]}'`
	seedClear = `curl -X POST http://localhost:9000/clear \
    -H "Content-Type: application/json" \
    -d '{"event_id": "clear_001", "instance_id": "lmcache_instance_1", "location": "local_cpu"}'`
)

// TestSeedCurlLines runs the seed's commands against a replica and a simulated worker.
func TestSeedCurlLines(t *testing.T) {
	t.Parallel()
	r := Start(t, Options{})
	w, err := simworker.New(simworker.Options{Instance: "lmcache_instance_1", Pull: r.PullAddr(), Reply: r.ReplyAddr()})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Stop(); err != nil {
			t.Error(err)
		}
	})
	profile, err := lmcache.ParseProfile("builtin@0")
	if err != nil {
		t.Fatal(err)
	}
	keys := profile.Chain([]int64{1, 2, 3, 4}, lmcache.DefaultChunkSize, true)
	if n := w.StoreKeys("LocalCPUBackend", keys); n != 1 {
		t.Fatalf("the worker holds %d of 1 chunk", n)
	}

	const miss = `{"event_id":"Lookup<uuid>","layout_info":{}}`
	lookup := func(want string) {
		t.Helper()
		Eventually(t, 10*time.Second, "lookup as the seed writes it", func() error {
			for _, a := range []any{curl(t, r, seedLookup), asked(t, r, seedLookup)} {
				if d := differences(mustJSON(want), a, false); len(d) > 0 {
					return errors.New(d[0])
				}
			}
			return nil
		})
	}
	lookup(`{"event_id":"Lookup<uuid>","layout_info":{"lmcache_instance_1":["LocalCPUBackend",4]}}`)

	tokens := strconv.Itoa(lmcache.DefaultChunkSize) // the simulated worker counts whole chunks
	for range 2 {                                    // the same id again is the same event
		if d := differences(mustJSON(`{"event_id":"clear_001","num_tokens":`+tokens+`}`), curl(t, r, seedClear), false); len(d) > 0 {
			t.Fatalf("clear as the seed writes it: %q", d)
		}
	}
	got := w.Received()
	if len(got) != 1 {
		t.Fatalf("want one command at the worker, got %d: %+v", len(got), got)
	}
	sent, ok := got[0].Message.(*lmcache.ClearWorkerMsg)
	if !ok || sent.Location != "LocalCPUBackend" || sent.WorkerEventID != "Worker0clear_001" {
		t.Fatalf("want a ClearWorkerMsg of LocalCPUBackend, got %+v", got[0].Message)
	}
	lookup(miss) // the worker's own evict has arrived

	resp, err := http.Post(r.URL("/check_finish"), "application/json", strings.NewReader(`{"event_id":"clear_001"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var finished struct{ Status string }
	if err := json.NewDecoder(resp.Body).Decode(&finished); err != nil {
		t.Fatal(err)
	}
	if finished.Status != "done" {
		t.Fatalf("check_finish says %q, want done", finished.Status)
	}
}

// curl runs a line in the shell, with the replica's port, and returns the answer, which
// must be 200. Without curl the same request is made here.
func curl(t *testing.T, r *Replica, line string) any {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Log("no curl here: the same request without it")
		return asked(t, r, line)
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", atPort(r, line)+` -s -w '\n%{http_code}'`)
	cmd.Env = append(cmd.Environ(), "no_proxy=localhost")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	end := bytes.LastIndexByte(out, '\n')
	if status := string(out[end+1:]); status != "200" {
		t.Fatalf("%s: status %s: %s", line, status, out[:end])
	}
	return parsed(t, line, out[:end])
}

func atPort(r *Replica, line string) string {
	return strings.Replace(line, "localhost:9000", "localhost:"+strconv.Itoa(r.Ports.REST), 1)
}

var curlLine = regexp.MustCompile(`(?s)^curl -X (\S+) (\S+) .*-H "([^:]+): ([^"]+)" .*-d '(.*)'$`)

// asked makes a line's request without curl.
func asked(t *testing.T, r *Replica, line string) any {
	t.Helper()
	part := curlLine.FindStringSubmatch(atPort(r, line))
	if part == nil {
		t.Fatalf("bug: no curl line: %s", line)
	}
	req, err := http.NewRequest(part[1], part[2], strings.NewReader(part[5]))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(part[3], part[4])
	resp, err := (&http.Client{Timeout: answerLimit, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %v: %s", line, resp.StatusCode, err, b)
	}
	return parsed(t, line, b)
}

func parsed(t *testing.T, line string, b []byte) any {
	t.Helper()
	v, err := parseJSON(b)
	if err != nil {
		t.Fatalf("%s: %q: %v", line, b, err)
	}
	return v
}
