package e2e

import (
	"net/http"
	"os"
	"testing"
)

// TestReplica_LifeOfAProcess: what the helper promises other tests.
func TestReplica_LifeOfAProcess(t *testing.T) {
	r := Start(t, Options{})
	pid := r.Pid()
	if err := get(r.URL("/healthz")); err != nil {
		t.Fatal(err)
	}
	r.Kill()
	if r.Running() || r.AwaitEnd() != -1 {
		t.Fatalf("after Kill: running %v, exit code %d, want false and -1", r.Running(), r.AwaitEnd())
	}
	if err := get(r.URL("/healthz")); err == nil {
		t.Fatal("a killed replica answers")
	}
	r.Restart()
	if r.Pid() == pid {
		t.Fatalf("restart kept process %d", pid)
	}
	if code := r.Terminate(); code != 0 {
		t.Fatalf("SIGTERM ended the replica with exit code %d, want 0", code)
	}
	if _, err := os.Stat(r.DataDir); err != nil {
		t.Fatal(err)
	}
	if r.Log() == "" {
		t.Fatal("two starts left no log")
	}
}

func get(url string) error {
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get(url)
	if err == nil {
		err = resp.Body.Close()
	}
	return err
}
