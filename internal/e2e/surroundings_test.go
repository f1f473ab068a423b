package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
)

// TestSurroundings_LogReaderEnds: the program that the log is piped to dies, and the
// replica does not.
func TestSurroundings_LogReaderEnds(t *testing.T) {
	r := Start(t, Options{})
	if code := r.Terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(Binary(t), r.CommandLine()...)
	cmd.Env, cmd.Stdout, cmd.Stderr = plainEnvironment(), write, write
	err = cmd.Start()
	write.Close()
	read.Close()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process
	t.Cleanup(func() { cmd.Process.Kill() })
	c := newClient(t, r)
	Eventually(t, readyLimit, "a replica without a reader of its log", func() error {
		select {
		case err := <-ended:
			t.Fatalf("the replica has ended: %v", err)
		default:
		}
		status, _, err := c.do(http.MethodGet, "/readyz", nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("/readyz answers %d", status)
		}
		return err
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("a clean stop without a reader of the log: %v", err)
		}
	case <-time.After(endLimit):
		t.Error("the replica does not stop")
	}
}

// TestSurroundings_IPv6: REST, the worker sockets, the heartbeat address and a command
// by IPv6 alone.
func TestSurroundings_IPv6(t *testing.T) {
	probe, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	probe.Close()
	r := Start(t, Options{NoWait: true, Args: []string{"--host", "::1"}})
	at := func(port int) string { return fmt.Sprintf("[::1]:%d", port) }
	Eventually(t, readyLimit, "a replica on ::1", func() error {
		resp, err := http.Get("http://" + at(r.Ports.REST) + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz answers %s", resp.Status)
		}
		return nil
	})
	w, err := simworker.New(simworker.Options{Instance: "six", Pull: at(r.Ports.Pull), Reply: at(r.Ports.Reply), IP: "::1",
		ChunkSize: crashChunk, HeartbeatEvery: 50 * time.Millisecond})
	if err == nil {
		err = w.Start(context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if want := at(r.Ports.Heartbeat); w.HeartbeatURL() != want {
		t.Errorf("heartbeat address %q, want %q", w.HeartbeatURL(), want)
	}
	Eventually(t, 10*time.Second, "heartbeats by IPv6", func() error {
		if w.Stats().Heartbeats == 0 {
			return fmt.Errorf("none is answered")
		}
		return nil
	})
	resp, err := http.Post("http://"+at(r.Ports.REST)+"/clear", "application/json", strings.NewReader(`{"instance_id":"six","location":"LocalCPUBackend"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK || len(w.Received()) != 1 {
		t.Errorf("a command to a worker by IPv6 is answered %s and reached it %d times", resp.Status, len(w.Received()))
	}
}
