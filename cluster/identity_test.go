package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The id of a cluster of one is made with the cluster and stays; a directory from
// before there were ids gets one.
func TestIdentity_ClusterOfOne(t *testing.T) {
	o := testOptions(t, t.TempDir())
	file := filepath.Join(o.DataDir, clusterIDFile)
	start := func() string {
		t.Helper()
		o.FSM = &ledger{}
		n := mustOpen(t, o)
		await(t, "ready", n.Ready)
		id := n.Identity().ClusterID
		mustClose(t, n)
		b, err := os.ReadFile(file)
		if err != nil || id == "" || strings.TrimSpace(string(b)) != id {
			t.Fatalf("file says %q, %v, the node %q", b, err, id)
		}
		return id
	}
	first := start()
	if again := start(); again != first {
		t.Errorf("cluster id %q after a restart, was %q", again, first)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if old := start(); old == first {
		t.Errorf("the same id %q twice", first)
	}
	if err := os.WriteFile(file, []byte("no id\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), o); !errors.Is(err, ErrDataDir) || !strings.Contains(err.Error(), clusterIDFile) {
		t.Errorf("with a file that is no id: %v", err)
	}
}

// A node that is in a cluster and has not had an entry of it yet waits for one; it
// does not form a cluster of its own.
func TestIdentity_WaitsForEntries(t *testing.T) {
	o := testOptions(t, t.TempDir())
	dir, err := openDataDir(o.withDefaults(), testLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dir.keepClusterID("c"), dir.lock.Release()); err != nil {
		t.Fatal(err)
	}
	n := mustOpen(t, o)
	if s := n.configuration().Servers; len(s) != 0 || n.Identity().ClusterID != "c" {
		t.Errorf("members %v of cluster %q, want none yet of \"c\"", s, n.Identity().ClusterID)
	}
	mustClose(t, n)
}

// One of several that has lost its file cannot make up another.
func TestIdentity_FileGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(t, 2)
		p := m.parts(1)
		p.clusterID = ""
		if _, err := start(testOptions(t, "data").withDefaults(), p); !errors.Is(err, ErrDataDir) || !strings.Contains(err.Error(), clusterIDFile) {
			t.Errorf("error %v", err)
		}
		if err := p.transport.close(); err != nil {
			t.Error(err)
		}
		<-time.After(time.Minute)
	})
}
