package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
)

// runVerb runs a client command of the binary against replicas.
func runVerb(t *testing.T, addrs string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t), append(args, "--addr", addrs)...)
	cmd.Env, cmd.SysProcAttr = plainEnvironment(), attributes()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("kvctrld %q: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// wantVerb holds an exit code and what is said, on either stream.
func wantVerb(t *testing.T, addrs string, code int, words []string, args ...string) {
	t.Helper()
	got, out, errs := runVerb(t, addrs, args...)
	if got != code {
		t.Errorf("kvctrld %q: exit code %d, want %d", args, got, code)
	}
	for _, w := range words {
		if !strings.Contains(out+errs, w) {
			t.Errorf("kvctrld %q says\n%s%swant %q in it", args, out, errs, w)
		}
	}
}

// TestVerbs_OfACluster gives an operator's commands to three replicas, of which one is
// lost: what they did and what the workers said of it, who leads, who leaves.
func TestVerbs_OfACluster(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, 3, ClusterOptions{Args: clusterArgs})
	addrs := c.urls()
	leader, followers := c.Leader(), c.Followers()
	var peers simworker.Peers
	prompt := make([]int64, 2*crashChunk)
	from := startWorker(t, leader, simworker.Options{Instance: "from", Peers: &peers})
	to := startWorker(t, followers[0], simworker.Options{Instance: "to", Peers: &peers})
	startWorker(t, followers[1], simworker.Options{Instance: "broken", Script: map[string]simworker.Scripted{
		"*": {Message: &lmcache.ErrorMsg{Error: "Worker error: the disk is on fire"}},
	}})
	from.Store(prompt)
	at := newClient(t, leader)
	Eventually(t, readyLimit, "the prompt is known", func() error {
		hits, err := at.lookup(prompt)
		if err == nil && hits["from"] != len(prompt) {
			err = fmt.Errorf("a lookup answers %v", hits)
		}
		return err
	})

	tokens := []string{"--tokens", strings.TrimSuffix(strings.Repeat("0,", len(prompt)), ",")}
	verb := func(args ...string) []string { return append(args, tokens...) }
	wantVerb(t, addrs, 0, []string{"moved 32 tokens (event mv)"}, verb("move", "from", "to", "--event-id", "mv")...)
	wantVerb(t, addrs, 0, []string{"moved 32 tokens (event mv)"}, verb("move", "from", "to", "--event-id", "mv")...) // not done twice
	Eventually(t, readyLimit, "the move is seen to have arrived", func() error {
		if _, out, errs := runVerb(t, addrs, "events", "mv"); !strings.Contains(out, "instance to has reported the chunks") {
			return errors.New(out + errs)
		}
		return nil
	})
	wantVerb(t, addrs, 1, []string{"are both"}, verb("move", "from", "from")...)
	for _, kind := range []string{"compress", "decompress"} { // in the worker's own words
		wantVerb(t, addrs, 1, []string{"the disk is on fire", "worker_error", kind + "-1"}, verb(kind, "broken", "--event-id", kind+"-1")...)
		wantVerb(t, leader.URL(""), 0, []string{kind + "-1: " + kind + " on broken/LocalCPUBackend is failed", "the disk is on fire"}, "events", kind+"-1")
	}
	wantVerb(t, addrs, 0, []string{"event cl is under way"}, "clear", "to", "--event-id", "cl", "--wait=false")
	Eventually(t, readyLimit, "what was not waited for is done", func() error {
		if _, out, _ := runVerb(t, addrs, "check-finish", "cl"); out != "done\n" {
			return errors.New(out)
		}
		return nil
	})
	code, out, errs := runVerb(t, addrs, "events", "--status", "done")
	if code != 0 || !strings.Contains(out, "from/LocalCPUBackend -> to/LocalCPUBackend") || !strings.Contains(out, " cl ") || strings.Contains(out, "compress-1") {
		t.Errorf("events that are done: %d\n%s%s", code, out, errs)
	}
	wantVerb(t, addrs, 0, []string{"from", "to", "broken", "alive"}, "instances")
	if *long { // what the destination says is lost: half a minute later it is called unconfirmed
		from.Store(prompt)
		Eventually(t, readyLimit, "the prompt is known again", func() error {
			hits, err := at.lookup(prompt)
			if err == nil && hits["from"] != len(prompt) {
				err = fmt.Errorf("a lookup answers %v", hits)
			}
			return err
		})
		to.LoseNext(1)
		wantVerb(t, addrs, 0, []string{"moved 32 tokens"}, verb("move", "from", "to", "--event-id", "lost")...)
		wantVerb(t, leader.URL(""), 0, []string{"instance to has not reported the chunks yet"}, "events", "lost")
		Eventually(t, 45*time.Second, "the move is unconfirmed", func() error {
			if _, out, _ := runVerb(t, addrs, "events", "lost"); !strings.Contains(out, `instance "to" has not reported the moved chunks within 30s: rank 0 does not hold`) {
				return errors.New(out)
			}
			return nil
		})
	}
	wantVerb(t, addrs, 1, []string{"no event", "nothing"}, "events", "nothing")

	lost, err := c.Status(followers[0])
	if err != nil {
		t.Fatal(err)
	}
	needed, err := c.Status(followers[1])
	if err != nil {
		t.Fatal(err)
	}
	followers[0].Kill()
	wantVerb(t, addrs, 1, []string{"quorum", "force", lost.NodeID}, "leave", needed.NodeID)
	wantVerb(t, addrs, 0, []string{`node "` + needed.NodeID + `" leads`}, "transfer") // not to the lost one
	wantVerb(t, addrs, 0, []string{`node "` + lost.NodeID + `" has left`}, "leave", lost.NodeID)
	c.Forget(followers[0])
	followers[1].ExpectDown()
	wantVerb(t, addrs, 0, []string{`node "` + needed.NodeID + `" has left`}, "leave", needed.NodeID) // it leads
	wantEnd(t, followers[1].AwaitEnd(), followers[1].Log(), codeRemoved, "removed")
	c.Forget(followers[1])
	c.AwaitMembers(1)
	wantVerb(t, addrs, 0, []string{"pinned "}, verb("pin", "to")...)
}
