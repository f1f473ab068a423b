package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
)

// TestCluster_LostQuorum: two of three replicas are gone for good. The third goes on to
// answer lookups, takes nothing, and with a list of members written by hand it is the
// cluster again, with all that was acknowledged; empty replicas join it.
func TestCluster_LostQuorum(t *testing.T) {
	c := StartCluster(t, 3, ClusterOptions{Args: clusterArgs})
	last := c.Followers()[0]
	at := newClient(t, last)
	w := startWorker(t, last, simworker.Options{Instance: "kept", HeartbeatEvery: 200 * time.Millisecond})
	prompt := make([]int64, 2*crashChunk)
	w.Store(prompt)
	found := func() error {
		hits, err := at.lookup(prompt)
		if err == nil && hits["kept"] != len(prompt) {
			err = fmt.Errorf("a lookup answers %v", hits)
		}
		return err
	}
	Eventually(t, 20*time.Second, "the prompt", found)
	pin := map[string]any{"instance_id": "kept", "location": simworker.LocalCPU, "tokens": prompt, "event_id": "pin-1"}
	c.must(last, http.StatusOK, "/pin", pin)
	s, err := c.Status(last)
	if err != nil {
		t.Fatal(err)
	}
	c.Converge() // what only the others have is lost with them

	for _, r := range c.replicas {
		if r != last {
			r.Kill()
		}
	}
	began := time.Now()
	pin["event_id"] = "pin-2"
	status, answer, err := at.post("/pin", pin)
	if err != nil || status != http.StatusServiceUnavailable || !strings.Contains(string(answer), "no_leader") {
		t.Errorf("a command without a quorum is answered %d %s: %v, want 503 no_leader", status, answer, err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("a command without a quorum is answered after %s", took)
	}
	if err := found(); err != nil {
		t.Errorf("without a quorum: %v", err)
	}
	var newcomer *simworker.Worker
	if *long { // LMCache's workers wait for 30 s and are mute for good when nothing comes
		began := time.Now()
		newcomer = startWorker(t, last, simworker.Options{Instance: "newcomer", HeartbeatEvery: 500 * time.Millisecond, AnswerTimeout: 30 * time.Second})
		t.Logf("a registration without a quorum is answered after %s", time.Since(began).Round(time.Millisecond))
		if newcomer.HeartbeatURL() == "" {
			t.Error("a registration without a quorum is not answered with a heartbeat address")
		}
	}

	if code := last.Terminate(); code != 0 {
		t.Errorf("SIGTERM ended the last replica with exit code %d", code)
	}
	peers, err := json.Marshal([]map[string]any{{"id": s.NodeID, "address": last.PeerAddr(), "non_voter": false}})
	if err == nil {
		err = os.WriteFile(filepath.Join(last.DataDir, "peers.json"), peers, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	last.Restart()
	c.AwaitMembers(1)
	Eventually(t, 20*time.Second, "the prompt, after the recovery", found)
	if e, known, err := at.event("pin-1"); err != nil || !known || e.Status != "done" {
		t.Errorf("after the recovery the answered command is %+v, known %v, %v", e, known, err)
	}
	pin["event_id"] = "pin-3"
	c.must(last, http.StatusOK, "/pin", pin)
	for _, r := range c.replicas {
		if r != last {
			c.Replace(r)
		}
	}
	c.AwaitMembers(3)
	c.Await()
	c.Converge()
	if newcomer != nil {
		Eventually(t, 20*time.Second, "who registered without a quorum", func() error {
			views, err := at.workers()
			if _, known := views["newcomer/0"]; err == nil && !known {
				err = fmt.Errorf("the workers are %v", views)
			}
			return err
		})
	}
	if st := w.Stats(); st.Syncs > 0 || st.Heartbeats == 0 {
		t.Errorf("the worker was asked for %d full syncs with %d heartbeats, want none: it lost nothing", st.Syncs, st.Heartbeats)
	}
	reached := map[string]int{}
	for id, n := range countDeliveries([]*simworker.Worker{w}) {
		reached[strings.TrimPrefix(id, "Worker0")] = n
	}
	if reached["pin-1"] != 1 || reached["pin-2"] > 1 || reached["pin-3"] != 1 {
		t.Errorf("the worker got %v", reached)
	}
}

// startWorker starts a simulated worker at a replica; the test's cleanup kills it.
func startWorker(t testing.TB, at *Replica, o simworker.Options) *simworker.Worker {
	t.Helper()
	o.Pull, o.Reply, o.ChunkSize = at.PullAddr(), at.ReplyAddr(), crashChunk
	w, err := simworker.New(o)
	if err == nil {
		err = w.Start(t.Context())
	}
	if err != nil {
		t.Fatalf("worker %s: %v", o.Instance, err)
	}
	t.Cleanup(func() {
		if err := w.Kill(); err != nil {
			t.Error(err)
		}
	})
	return w
}
