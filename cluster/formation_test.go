package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Three empty replicas become one cluster, whatever order they are started in.
func TestForm_AnyOrder(t *testing.T) {
	for _, order := range [][]string{
		{"n1", "n2", "n3"}, {"n1", "n3", "n2"}, {"n2", "n1", "n3"}, {"n2", "n3", "n1"}, {"n3", "n1", "n2"}, {"n3", "n2", "n1"},
	} {
		for _, pause := range []time.Duration{0, 300 * time.Millisecond, 2500 * time.Millisecond} {
			t.Run(strings.Join(order, " ")+" "+pause.String(), func(t *testing.T) {
				inTown(t, func(t *testing.T, w *town) {
					n1, n2, n3 := w.three()
					by := map[string]*house{"n1": n1, "n2": n2, "n3": n3}
					for _, id := range order {
						by[id].start()
						wait(pause)
					}
					begin := time.Now()
					w.together(n1, n2, n3)
					if took := time.Since(begin); took > 10*time.Second {
						t.Errorf("formed %v after the last start", took)
					}
					mustPropose(t, w.leader().node, "x:1")
				})
			})
		}
	}
}

// A replica that waits says for whom.
func TestForm_SaysWhoIsMissing(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := w.three()
		n1.start()
		n2.start()
		wait(10 * time.Second)
		for _, h := range []*house{n1, n2} {
			err := h.node.Ready()
			if !errors.Is(err, ErrForming) {
				t.Fatalf("%s: %v", h.id, err)
			}
			for _, word := range []string{`"n1" at http://n1:9000`, `"n2" at http://n2:9000`, "missing: http://n3:9000 (connection refused)", "3 replicas"} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%s does not say %q: %v", h.id, word, err)
				}
			}
		}
		n3.start()
		w.together(n1, n2, n3)
	})
}

// One that is started later than the others have formed joins them; one that is
// started twice while they form is there once.
func TestForm_LateAndTwice(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		names := []string{"n1", "n2", "n3"}
		n1, n2 := w.house("n1", 2, names...), w.house("n2", 2, names...)
		n3 := w.house("n3", 2, names...)
		n1.start()
		wait(1500 * time.Millisecond)
		n1.stop()
		n1.start()
		n2.start()
		w.together(n1, n2)
		id := n1.node.Identity().ClusterID
		n3.start()
		w.together(n1, n2, n3)
		if got := n3.node.Identity().ClusterID; got != id {
			t.Errorf("n3 is in cluster %q, n1 in %q", got, id)
		}
	})
}

// Restarts at any moment of the forming do no harm.
func TestForm_RestartsWhileForming(t *testing.T) {
	for seed := range max(*simRuns/2, 1) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inTown(t, func(t *testing.T, w *town) {
				r := rand.New(rand.NewPCG(uint64(seed), 1))
				n1, n2, n3 := w.three()
				all := []*house{n1, n2, n3}
				for _, h := range all {
					h.start()
				}
				for range 6 {
					wait(time.Duration(r.IntN(1500)) * time.Millisecond)
					h := all[r.IntN(3)]
					if r.IntN(2) == 0 {
						h.kill()
					} else {
						h.stop()
					}
					wait(time.Duration(r.IntN(500)) * time.Millisecond)
					h.start()
				}
				w.together(all...)
				mustPropose(t, w.leader().node, "x:1")
			})
		})
	}
}

// A cut between two of them delays the forming; it never makes two clusters.
func TestForm_ThroughPartitions(t *testing.T) {
	for seed := range max(*simRuns/3, 1) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inTown(t, func(t *testing.T, w *town) {
				r := rand.New(rand.NewPCG(uint64(seed), 2))
				names := []string{"n1", "n2", "n3", "n4", "n5"}
				var all []*house
				for _, id := range names {
					all = append(all, w.house(id, 3, names...).start())
				}
				for range 8 {
					a, b := names[r.IntN(5)], names[r.IntN(5)]
					if a != b {
						w.net.Cut(a, b)
					}
					wait(time.Duration(r.IntN(2500)) * time.Millisecond)
					if r.IntN(3) == 0 {
						w.net.HealAll()
					}
				}
				w.net.HealAll()
				w.together(all...)
			})
		})
	}
}

// Empty replicas join a cluster that is there, also when they are enough to form one.
func TestForm_JoinIsPreferred(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		old := w.house("n9", 1).start()
		w.together(old)
		mustPropose(t, old.node, "x:old")
		names := []string{"n1", "n2", "n9"}
		n1, n2 := w.house("n1", 2, names...), w.house("n2", 2, names...)
		n1.start()
		n2.start()
		w.together(n1, n2, old)
		if !n1.state.has("x:old") || !n2.state.has("x:old") {
			t.Error("the new replicas have not what the old one had")
		}
	})
}

// A replica with the data of a cluster of its own forms no second one and is not
// mixed into another.
func TestForm_OneHasACluster(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n3 := w.house("n3", 1).start()
		w.together(n3)
		id := n3.node.Identity().ClusterID
		n3.stop()
		// Started anew with the flags of the others: it ignores them.
		n3.expect, n3.join = 3, []string{urlOf("n1"), urlOf("n2"), urlOf("n3")}
		n3.start()
		w.together(n3)
		n1, n2 := w.house("n1", 3, "n1", "n2", "n3"), w.house("n2", 3, "n1", "n2", "n3")
		n1.start()
		n2.start()
		w.together(n1, n2, n3)
		if got := n1.node.Identity().ClusterID; got != id {
			t.Errorf("n1 is in cluster %q, want n3's %q", got, id)
		}
	})
}

// Two clusters among those to join: the replica joins neither.
func TestForm_TwoClustersToJoin(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		a, b := w.house("a", 1).start(), w.house("b", 1).start()
		w.together(a)
		w.together(b)
		c := w.house("c", 0, "a", "b").start()
		wait(10 * time.Second)
		if err := c.node.Ready(); !errors.Is(err, ErrForming) || !strings.Contains(err.Error(), "different clusters") {
			t.Errorf("ready: %v", err)
		}
		if id := c.node.Identity().ClusterID; id != "" {
			t.Errorf("c is in cluster %q", id)
		}
	})
}

// One node id on two replicas: neither is taken for the other.
func TestForm_SameNodeID(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1 := w.house("n1", 3, "n1", "n2", "n3").start()
		w.house("n2", 3, "n1", "n2", "n3").start()
		twin := w.house("n1", 3, "n1", "n2", "n3")
		twin.host, twin.url = "n3", urlOf("n3")
		twin.start()
		wait(8 * time.Second)
		for _, h := range []*house{n1, twin} {
			if err := h.node.Ready(); !errors.Is(err, ErrForming) || !strings.Contains(err.Error(), `it is node "n1" as well`) {
				t.Errorf("at %s: %v", h.host, err)
			}
		}
	})
}

// Replicas that were not told the same number form nothing and say so.
func TestForm_DifferentExpectations(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1 := w.house("n1", 3, "n1", "n2", "n3").start()
		w.house("n2", 2, "n1", "n2", "n3").start()
		w.house("n3", 3, "n1", "n2", "n3").start()
		wait(8 * time.Second)
		if err := n1.node.Ready(); !errors.Is(err, ErrForming) || !strings.Contains(err.Error(), `"n2" at http://n2:9000 was started with --bootstrap-expect=2`) {
			t.Errorf("ready: %v", err)
		}
	})
}

// Without others to join, or by its own URL, a node expects no one: at once. With others
// it only joins, also by a name that leads to itself: that may be a front, which would
// have each replica form a cluster of its own. With 0 it waits to be added.
func TestForm_Alone(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		own := w.house("n1", 1)
		own.join = []string{"http://n1:9000"}
		own.start()
		w.together(own)

		front := w.house("n5", 1)
		front.join = []string{"http://front:9000"}
		w.open["http://front:9000"] = front
		front.start()
		joins := w.house("n2", 1, "n2", "n3").start()
		waits := w.house("n4", 0).start()
		wait(8 * time.Second)
		if err := joins.node.Ready(); !errors.Is(err, ErrForming) || !strings.Contains(err.Error(), "only joins") || !strings.Contains(err.Error(), "http://n3:9000 (connection refused)") {
			t.Errorf("one that only joins: %v", err)
		}
		if err := front.node.Ready(); !errors.Is(err, ErrForming) || !strings.Contains(err.Error(), "only joins") || !strings.Contains(err.Error(), "start it without --join") {
			t.Errorf("one that a front leads to itself: %v", err)
		}
		if err := waits.node.Ready(); !errors.Is(err, ErrForming) || !strings.Contains(err.Error(), `node_id "n4" and peer_addr "n4:9400"`) {
			t.Errorf("one that waits: %v", err)
		}
	})
}

// The founder stops after some have agreed. When it comes back it gives up and the
// cluster forms; while it is gone those that agreed are bound, and say so.
func TestFound_FounderStops(t *testing.T) {
	for _, back := range []string{"with its disk", "with an empty one"} {
		t.Run(back, func(t *testing.T) {
			inTown(t, func(t *testing.T, w *town) {
				n1, n2, n3 := w.three()
				crashed := w.crashWhen(n2, promiseFile, n1)
				for _, h := range []*house{n1, n2, n3} {
					h.start()
				}
				crash := <-crashed
				n1.stop()
				wait(8 * time.Second)
				if crash[promiseFile] == "" {
					t.Fatal("the founder asked before it had written down that it does")
				}
				if err := n2.node.Ready(); !errors.Is(err, ErrForming) || !strings.Contains(err.Error(), `promised node "n1"`) || !strings.Contains(err.Error(), "empty the data directory") {
					t.Errorf("n2: %v", err)
				}
				// Bound also after a restart.
				n2.stop()
				n2.start()
				wait(8 * time.Second)
				if n2.node.promised() == nil {
					t.Error("n2 forgot its promise")
				}
				n1.wipe()
				if back == "with its disk" {
					n1.disk.files.texts = crash
				}
				w.net.Host("n1").Up()
				n1.start()
				w.together(n1, n2, n3)
			})
		})
	}
}

// The founder stops when it has decided and before the log has begun: it goes on.
func TestFound_StopsAfterTheDecision(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := w.three()
		crashed := w.crashWhen(n1, clusterIDFile, n1)
		for _, h := range []*house{n1, n2, n3} {
			h.start()
		}
		crash := <-crashed
		n1.stop()
		wait(8 * time.Second)
		n1.wipe()
		n1.disk.files.texts = crash
		w.net.Host("n1").Up()
		n1.start()
		w.together(n1, n2, n3)
		if got := n1.node.Identity().ClusterID; got != strings.TrimSpace(crash[clusterIDFile]) {
			t.Errorf("cluster %q, decided was %q", got, crash[clusterIDFile])
		}
	})
}

// Two that think they are to found, because each does not see the other: at most one
// does.
func TestFound_TwoFounders(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		names := []string{"n1", "n2", "n3", "n4", "n5"}
		var all []*house
		w.net.Cut("n1", "n2")
		for _, id := range names {
			all = append(all, w.house(id, 3, names...).start())
		}
		wait(10 * time.Second)
		ids := map[string]bool{}
		for _, h := range all {
			if id := h.node.Identity().ClusterID; id != "" {
				ids[id] = true
			}
		}
		if len(ids) > 1 {
			t.Fatalf("clusters %v", ids)
		}
		w.net.HealAll()
		w.together(all...)
	})
}

// Bound to a founder that is gone, a replica joins no other cluster: the founder alone
// can say that nothing has come of it.
func TestFound_BoundJoinsNoOther(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		other := w.house("n9", 1).start()
		w.together(other)
		n1, n2 := w.house("n1", 3, "n1", "n2", "n9"), w.house("n2", 3, "n1", "n2", "n9")
		p := promise{Cluster: "c1"}
		for _, id := range []string{"n1", "n2", "n3"} {
			p.Nodes = append(p.Nodes, Identity{NodeID: id, PeerAddr: id + ":9400"})
		}
		if err := n2.disk.files.write(promiseFile, string(mustMarshal(p))); err != nil {
			t.Fatal(err)
		}
		n2.start()
		wait(8 * time.Second)
		wantError(t, "bound", n2.node.Ready(), ErrForming, `promised node "n1"`, other.node.Identity().ClusterID)
		n1.start()
		w.together(n1, n2, other)
	})
}

// Replicas whose lists leave out themselves: the number must be more than half of all.
func TestForm_HalfIsTooFew(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		names := []string{"n1", "n2", "n3", "n4"}
		for i, id := range names {
			w.house(id, 2, slices.Delete(slices.Clone(names), i, i+1)...).start()
		}
		wait(8 * time.Second)
		for _, h := range w.all {
			wantError(t, h.id, h.node.Ready(), ErrForming, "--bootstrap-expect=2 of 4 replicas could form two clusters")
		}
	})
}

// What a node does not agree to.
func TestFound_Refusals(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := w.three()
		n1.start()
		n2.start()
		wait(5 * time.Second)
		who := func(ids ...string) (out []Identity) {
			for _, id := range ids {
				out = append(out, Identity{NodeID: id, PeerAddr: id + ":9400", URL: urlOf(id)})
			}
			return out
		}
		for _, c := range []struct {
			name string
			p    promise
			want error
			word string
		}{
			{"not all seen", promise{"c1", who("n1", "n2", "n3")}, ErrForming, `does not see node "n3" yet`},
			{"too few", promise{"c1", who("n1", "n2")}, ErrConflict, "cluster of 2"},
			{"not among them", promise{"c1", who("n1", "n3", "n4")}, ErrConflict, "is not among"},
			{"another's word", promise{"c1", who("n0", "n1", "n2")}, ErrConflict, `asks for the word to node "n0"`},
			{"out of order", promise{"c1", who("n1", "n3", "n2")}, ErrConflict, `"n2" stands behind "n3"`},
			{"no cluster id", promise{"", who("n1", "n2", "n3")}, ErrConflict, "is none"},
		} {
			_, err := n1.node.callPeer(context.Background(), peerTarget{"n2", n2.addr()}, agreePath, mustMarshal(c.p))
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.word) {
				t.Errorf("%s: %v, want %q", c.name, err, c.word)
			}
		}
		n3.start()
		w.together(n1, n2, n3)
		_, err := n1.node.callPeer(context.Background(), peerTarget{"n2", n2.addr()}, agreePath, mustMarshal(promise{"c2", who("n1", "n2", "n3")}))
		if !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "in cluster") {
			t.Errorf("in a cluster: %v", err)
		}
	})
}

func TestPromise_BindsToOne(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := w.three()
		w.net.Partition([]string{"n1"}, []string{"n2", "n3"}) // n1 is to found and cannot
		n1.start()
		n2.start()
		n3.start()
		wait(5 * time.Second)
		see := func(h *house, ids ...string) {
			h.node.formation.mu.Lock()
			h.node.formation.seen = map[string]sighting{}
			for _, id := range ids {
				h.node.formation.seen[id] = sighting{}
			}
			h.node.formation.mu.Unlock()
		}
		set := []Identity{n1.node.Identity(), n2.node.Identity(), n3.node.Identity()}
		see(n2, "n1", "n3")
		first, second := &promise{"c1", set}, &promise{"c2", set}
		if err := n2.node.give(first); err != nil {
			t.Fatal(err)
		}
		if err := n2.node.give(first); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := n2.node.give(second); !errors.Is(err, ErrConflict) {
			t.Errorf("to another attempt: %v", err)
		}
		// Who is not the founder cannot release it, nor can a word on another attempt.
		if _, err := n3.node.callPeer(context.Background(), peerTarget{"n2", n2.addr()}, abortPath, mustMarshal(attempt{"c1"})); err != nil || n2.node.promised() == nil {
			t.Errorf("released by n3: %v", err)
		}
		if _, err := n2.node.answerAbort(context.Background(), n1.node.Identity(), mustMarshal(attempt{"c2"})); err != nil || n2.node.promised() == nil {
			t.Errorf("released by a word on another attempt: %v", err)
		}
		if _, err := n2.node.answerAbort(context.Background(), n1.node.Identity(), mustMarshal(attempt{"c1"})); err != nil || n2.node.promised() != nil {
			t.Errorf("not released by the founder: %v", err)
		}
		w.net.HealAll()
		w.together(n1, n2, n3)
	})
}

// A node that asked to join a cluster may be taken in at any moment: from then on, and
// not only from when the next look around shows it, it gives its word to nobody.
func TestPromise_NoneOfAMember(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, _ := w.three()
		n2.start()
		p := &promise{"c1", []Identity{{NodeID: "n1", PeerAddr: n1.addr()}, n2.node.Identity(), {NodeID: "n3", PeerAddr: "n3:9400"}}}
		n2.node.formation.mu.Lock()
		n2.node.formation.seen = map[string]sighting{"n1": {}, "n3": {}}
		n2.node.formation.mu.Unlock()
		taken := make(chan *helloRefused, 1)
		n2.disk.files.mu.Lock()
		n2.disk.files.written = func(name string) {
			if name == promiseFile { // its word is about to be given
				taken <- n2.node.cluster.admit(streamRaft, hello{ClusterID: "c0", NodeID: "n0", PeerAddr: "n0:9400"})
			}
		}
		n2.disk.files.mu.Unlock()
		n2.node.cluster.agree("c0") // it has asked c0
		err := n2.node.give(p)
		select {
		case refused := <-taken:
			if (refused == nil) == (err == nil) {
				t.Errorf("its word: %v; cluster c0: %+v; want one of them", err, refused)
			}
		default:
			t.Errorf("it did not come to giving its word: %v", err)
		}
		n2.node.cluster.agree("")
	})
}

// The founder's word that it has given an attempt up releases nobody from another
// attempt, however late it comes.
func TestPromise_ALateWordReleasesNoOther(t *testing.T) {
	who := func(addr string) []Identity {
		return []Identity{{NodeID: "n1", PeerAddr: addr}, {NodeID: "n2", PeerAddr: "n2:9400"}}
	}
	bound := startPeer(t, "n2", "", nil, nil)
	bound.log = hclog.NewNullLogger()
	files := &memFiles{}
	bound.parts.files = files
	var second *promise
	founder := startPeer(t, "n1", "", func(n *Node) {
		n.handlePeer(attemptPath, func(context.Context, Identity, []byte) ([]byte, error) {
			// While this answer is under way the abort arrives, and then the next attempt.
			bound.formation.mu.Lock()
			bound.formation.promise = second
			bound.formation.mu.Unlock()
			return json.Marshal(attemptAnswer{GivenUp: true})
		})
	}, nil)
	first := &promise{"c1", who(string(founder.addr()))}
	second = &promise{"c2", first.Nodes}
	bound.formation.promise = first
	if err := files.write(promiseFile, "c2"); err != nil {
		t.Fatal(err)
	}
	if got := bound.askFounder(ctxFor(t, 10*time.Second), first); got != second {
		t.Errorf("bound by %+v, want %+v", got, second)
	}
	if text, _ := files.read(promiseFile); text != "c2" || bound.promised() != second {
		t.Errorf("released from %+v (file says %q) by a word on another attempt", second, text)
	}
}
