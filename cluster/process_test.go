package cluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// childMain is the test binary as a replica of its own: it proposes as fast as it
// can and says what is acknowledged, until it is killed.
func childMain(dir string) int {
	n, err := Open(context.Background(), Options{
		DataDir: dir, BootstrapExpect: 1, LogStore: os.Getenv("CLUSTER_CHILD_STORE"), PeerAddr: "127.0.0.1:0", FSM: &ledger{}, MinFreeBytes: -1,
		SnapshotThreshold: 64, TrailingLogs: 128, SnapshotInterval: 20 * time.Millisecond, // snapshots happen meanwhile
	})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				line := fmt.Sprintf("x:%d.%d.%d.%s", os.Getpid(), g, i, strings.Repeat("v", 1000))
				if _, err := n.Propose(context.Background(), []byte(line)); err != nil {
					fmt.Println("error:", err)
					return
				}
				fmt.Println(line) // one write per line
			}
		}()
	}
	wg.Wait()
	return 1
}

func startChild(t *testing.T, dir, store string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CLUSTER_CHILD_DIR="+dir, "CLUSTER_CHILD_STORE="+store)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewScanner(out)
}

// Everything that was acknowledged is there after kill -9 (promise 1, for a
// majority of one).
func TestProcess_KilledUnderLoad(t *testing.T) {
	for _, store := range []string{LogStoreBolt, LogStoreWAL} {
		t.Run(store, func(t *testing.T) {
			dir := t.TempDir()
			acked := map[string]bool{}
			for _, round := range []int{150, 300} { // the second on what the first left behind
				cmd, out := startChild(t, dir, store)
				seen := 0
				for out.Scan() {
					if !strings.HasPrefix(out.Text(), "x:") {
						t.Fatalf("child says %q", out.Text())
					}
					acked[out.Text()] = true
					if seen++; seen == round {
						if err := cmd.Process.Kill(); err != nil {
							t.Fatal(err)
						}
					}
				}
				if err := cmd.Wait(); err == nil || seen < round {
					t.Fatalf("child ended by itself after %d lines: %v", seen, err)
				}
			}
			state := &ledger{}
			o := testOptions(t, dir)
			o.FSM, o.LogStore = state, store
			n := mustOpen(t, o)
			await(t, "ready", n.Ready)
			have := map[string]bool{}
			for _, line := range state.all() {
				have[line] = true
			}
			missing := 0
			for line := range acked {
				if !have[line] {
					missing++
				}
			}
			if missing > 0 {
				t.Errorf("%d of %d acknowledged entries are gone", missing, len(acked))
			}
			t.Logf("%d acknowledged, %d in the state, snapshot at %d", len(acked), len(have), n.Status().LastSnapshotIndex)
			mustClose(t, n)
		})
	}
}

// A second process is told who is in its way.
func TestProcess_DirectoryInUse(t *testing.T) {
	dir := t.TempDir()
	cmd, out := startChild(t, dir, LogStoreBolt)
	if !out.Scan() {
		t.Fatalf("child says nothing: %v", out.Err())
	}
	_, err := Open(context.Background(), testOptions(t, dir))
	if want := fmt.Sprintf("process %d", cmd.Process.Pid); !errors.Is(err, ErrDataDir) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want ErrDataDir naming %s", err, want)
	}
}
