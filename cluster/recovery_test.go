package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/fsm"
)

// lostQuorum is a cluster of three with entries, of which n1 alone is left, stopped.
func lostQuorum(t *testing.T, store string) (v *village, clusterID string, lines []string) {
	t.Helper()
	v = newVillage(t)
	names := []string{"n1", "n2", "n3"}
	v.found(names...)
	for _, id := range names {
		o := v.options(id, 3, names...)
		o.LogStore = store
		v.open(o)
	}
	v.ready(names...)
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("x:%d", i))
		v.propose(lines[i])
		if i == 40 {
			for _, n := range v.nodes {
				if err := n.Snapshot(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	await(t, "entries", isTrue("n1 has not got them", func() bool { return v.state["n1"].has(lines[99]) }))
	clusterID = v.nodes["n1"].Identity().ClusterID
	for _, id := range names {
		v.close(id)
	}
	return v, clusterID, lines
}

func putPeers(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, peersFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// One survivor of three goes on alone with everything, keeps the cluster's id, and
// others join it.
func TestRecovery_OneOfThree(t *testing.T) {
	for _, store := range []string{LogStoreBolt, LogStoreWAL} {
		t.Run(store, func(t *testing.T) {
			v, clusterID, lines := lostQuorum(t, store)
			o := v.options("n1", 3, "n1", "n2", "n3")
			o.LogStore = store
			putPeers(t, v.dirs["n1"], `[{"id": "n1", "address": "n1:9400"}]`)
			n1 := v.open(o)
			v.ready("n1")
			v.want("n1", lines...)
			if got := n1.Identity().ClusterID; got != clusterID {
				t.Errorf("cluster id is %q, was %q", got, clusterID)
			}
			v.propose("x:alone")
			for _, name := range []string{peersFile, usedPeersFile} {
				_, err := os.Stat(filepath.Join(v.dirs["n1"], name))
				if (err == nil) != (name == usedPeersFile) {
					t.Errorf("%s: %v", name, err)
				}
			}
			// It is followed once.
			v.close("n1")
			o = v.options("n1", 3, "n1", "n2", "n3")
			o.LogStore = store
			v.open(o)
			v.ready("n1")
			delete(v.dirs, "n2") // an empty one
			n2 := v.open(v.options("n2", 1, "n1"))
			await(t, "n2", func() error { return n2.Ready() })
			v.want("n2", append(lines, "x:alone")...)
		})
	}
}

// Two survivors are given the same file and are a cluster of two.
func TestRecovery_TwoOfThree(t *testing.T) {
	v, clusterID, lines := lostQuorum(t, LogStoreBolt)
	for _, id := range []string{"n1", "n3"} {
		putPeers(t, v.dirs[id], `[{"id": "n1", "address": "n1:9400"}, {"id": "n3", "address": "n3:9400"}]`)
		v.open(v.options(id, 1))
	}
	v.ready("n1", "n3")
	v.want("n1", lines...)
	v.propose("x:two")
	if got := v.nodes["n3"].Identity().ClusterID; got != clusterID {
		t.Errorf("cluster id is %q, was %q", got, clusterID)
	}
}

func TestRecovery_Refusals(t *testing.T) {
	v, _, lines := lostQuorum(t, LogStoreBolt)
	dir := v.dirs["n1"]
	for _, c := range []struct{ name, text, word string }{
		{"no JSON", `n1`, "cannot be followed"},
		{"nobody", `[]`, "at least one voter"},
		{"without this node", `[{"id": "n2", "address": "n2:9400"}]`, `does not name this node, "n1"`},
		{"one twice", `[{"id": "n1", "address": "a:1"}, {"id": "n1", "address": "b:1"}]`, "duplicate ID"},
	} {
		putPeers(t, dir, c.text)
		_, err := Open(t.Context(), v.options("n1", 1))
		wantError(t, c.name, err, ErrDataDir, peersFile, c.word)
	}
	// An entry that this program cannot apply must not vanish in the snapshot.
	putPeers(t, dir, `[{"id": "n1", "address": "n1:9400"}]`)
	o := v.options("n1", 1)
	o.FSM = &poisoned{ledger: &ledger{}, line: lines[70]}
	_, err := Open(t.Context(), o)
	wantError(t, "poisoned", err, ErrDataDir, "peers.json was not followed", "entry ")
	if _, err := os.Stat(filepath.Join(dir, peersFile)); err != nil {
		t.Errorf("peers.json after a recovery that failed: %v", err)
	}
	// And it has harmed nothing.
	v.open(v.options("n1", 1))
	v.ready("n1")
	v.want("n1", lines...)

	v.dirs["n9"] = t.TempDir()
	if err := os.WriteFile(filepath.Join(v.dirs["n9"], versionFile), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	putPeers(t, v.dirs["n9"], `[{"id": "n9", "address": "n9:9400"}]`)
	_, err = Open(t.Context(), v.options("n9", 1))
	wantError(t, "nothing to recover", err, ErrDataDir, "peers.json", "no initial state")
}

// poisoned cannot apply one entry.
type poisoned struct {
	*ledger
	line string
}

func (p *poisoned) ApplyBatch(logs []*raft.Log) []any {
	out := p.ledger.ApplyBatch(logs)
	if i := slices.IndexFunc(logs, func(l *raft.Log) bool { return bytes.Equal(l.Data, []byte(p.line)) }); i >= 0 {
		out[i] = &fsm.RefusedError{}
	}
	return out
}

func TestRecoveryMachine_VerdictsAreNoRefusals(t *testing.T) {
	m := &recoveryMachine{StateMachine: &ledger{}}
	m.Apply(&raft.Log{Index: 1, Data: []byte("x:refuse")})
	if _, err := m.Snapshot(); err != nil {
		t.Errorf("a verdict on an entry that was applied: %v", err)
	}
}
