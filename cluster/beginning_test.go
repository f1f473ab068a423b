package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A cluster of one whose first run was killed between raft's first two writes begins
// its log at the next.
func TestBeginning_CutShort(t *testing.T) {
	for _, c := range []struct {
		name   string
		vote   uint64
		begins bool
	}{{"no vote", 0, true}, {"with a vote: there has been a log", 1, false}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory(t, 1)
				p := m.parts(1)
				p.clusterID, p.hadState = "", c.begins // the mark comes before the entry
				mustSet(t, p.store, raftTermKey, 1)
				mustSet(t, p.store, raftVoteKey, c.vote)
				n := mustStart(t, testOptions(t, ""), p)
				if c.begins {
					await(t, "ready", n.Ready)
					mustPropose(t, n, "x:1")
				} else if conf := n.configuration(); len(conf.Servers) > 0 {
					t.Errorf("began a log: %v", conf)
				}
				mustClose(t, n)
				<-time.After(time.Minute)
			})
		})
	}
}

// So does a founder that has decided.
func TestBeginning_FounderCutShort(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := w.three()
		p := promise{Cluster: "c1"}
		for _, h := range []*house{n1, n2, n3} {
			p.Nodes = append(p.Nodes, Identity{NodeID: h.id, PeerAddr: h.addr(), URL: h.url})
		}
		for _, h := range []*house{n1, n2, n3} {
			if err := h.disk.files.write(promiseFile, string(mustMarshal(p))); err != nil {
				t.Fatal(err)
			}
		}
		if err := n1.disk.files.write(clusterIDFile, p.Cluster); err != nil {
			t.Fatal(err)
		}
		mustSet(t, n1.disk.store, raftTermKey, 1)
		for _, h := range []*house{n1, n2, n3} {
			h.start()
		}
		w.together(n1, n2, n3)
	})
}

func mustSet(t *testing.T, s raft.StableStore, key []byte, v uint64) {
	t.Helper()
	if err := s.SetUint64(key, v); err != nil {
		t.Fatal(err)
	}
}
