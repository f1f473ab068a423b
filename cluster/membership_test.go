package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// formThree is a cluster of three.
func formThree(w *town) (n1, n2, n3 *house) {
	w.t.Helper()
	n1, n2, n3 = w.three()
	for _, h := range []*house{n1, n2, n3} {
		h.start()
	}
	w.together(n1, n2, n3)
	return n1, n2, n3
}

func without(all []*house, one *house) (rest []*house) {
	for _, h := range all {
		if h != one {
			rest = append(rest, h)
		}
	}
	return rest
}

// wantError holds an error to a sentinel and the words that it must have.
func wantError(t *testing.T, what string, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v, want it to say %q", what, err, w)
		}
	}
}

func request(h *house) JoinRequest {
	return JoinRequest{NodeID: h.id, PeerAddr: h.addr(), URL: h.url, Voter: true}
}

// load proposes all the time until stop is called; it returns what was acknowledged.
func (w *town) load() (stop func() []string) {
	end, done := make(chan struct{}), make(chan []string, 1)
	over := sync.OnceFunc(func() { close(end) })
	w.ends = append(w.ends, over)
	go func() {
		var acked []string
		for i := 0; ; i++ {
			select {
			case <-end:
				done <- acked
				return
			case <-time.After(40 * time.Millisecond):
			}
			line := fmt.Sprintf("x:%d", i)
			w.mu.Lock()
			var leader *Node
			for _, h := range w.all {
				if h.node != nil && h.node.IsLeader() {
					leader = h.node
				}
			}
			w.mu.Unlock()
			if leader == nil {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			if _, err := leader.Propose(ctx, []byte(line)); err == nil {
				acked = append(acked, line)
			}
			cancel()
		}
	}()
	return func() []string { over(); return <-done }
}

// wantAll holds the houses to have applied all lines.
func (w *town) wantAll(lines []string, houses ...*house) {
	w.t.Helper()
	if len(lines) == 0 {
		w.t.Error("nothing was acknowledged")
		return
	}
	for _, h := range houses {
		await(w.t, "last line", isTrue(h.id+" has not got it", func() bool { return h.state.has(lines[len(lines)-1]) }))
		got := map[string]bool{}
		for _, l := range h.state.all() {
			got[l] = true
		}
		for _, l := range lines {
			if !got[l] {
				w.t.Errorf("%s lost %s", h.id, l)
				return
			}
		}
	}
}

// A fourth joins under load, by its own flag: first without a vote, then with one. No
// election happens.
func TestJoin_UnderLoad(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		term := leader.node.Term()
		stop := w.load()
		wait(2 * time.Second)
		n4 := w.house("n4", 1, "n1", "n2", "n3", "n4").start()
		await(t, "member", isTrue("n4 is none", func() bool { return n4.node.inConfiguration() }))
		if s, _ := serverOf(n4.node.configuration(), "n4"); s.Suffrage != raft.Nonvoter {
			t.Error("n4 votes before it has caught up")
		}
		w.together(n1, n2, n3, n4)
		w.wantAll(stop(), n1, n2, n3, n4)
		if leader.node.Term() != term {
			t.Errorf("term %d after the join, was %d", leader.node.Term(), term)
		}
		for _, s := range leader.node.Status().Nodes {
			if !s.Voter {
				t.Errorf("%+v", s)
			}
		}
	})
}

// Join by an operator, of a replica that waits; asked again it changes nothing.
func TestJoin_TwiceChangesNothing(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		n4 := w.house("n4", 0).start()
		wait(5 * time.Second)
		r, err := leader.node.Join(context.Background(), request(n4))
		if err != nil || !r.Changed || r.Voter || r.URL != n4.url || r.PeerAddr != n4.addr() {
			t.Fatalf("first: %+v, %v", r, err)
		}
		if r, err = leader.node.Join(context.Background(), request(n4)); err != nil || r.Changed {
			t.Errorf("again at once: %+v, %v", r, err)
		}
		w.together(n1, n2, n3, n4)
		before := leader.node.raft.LastIndex()
		if r, err = leader.node.Join(context.Background(), request(n4)); err != nil || r.Changed || !r.Voter {
			t.Errorf("as a voter: %+v, %v", r, err)
		}
		n4.stop() // a member that is down: still one
		if r, err = leader.node.Join(context.Background(), request(n4)); err != nil || r.Changed || !r.Voter {
			t.Errorf("while it is down: %+v, %v", r, err)
		}
		self := request(leader)
		if r, err = leader.node.Join(context.Background(), self); err != nil || r.Changed || !r.Voter {
			t.Errorf("of the leader: %+v, %v", r, err)
		}
		if after := leader.node.raft.LastIndex(); after != before {
			t.Errorf("%d entries for nothing", after-before)
		}
		for _, h := range without([]*house{n1, n2, n3}, leader) {
			_, err := h.node.Join(context.Background(), request(n4))
			wantError(t, "on a follower", err, ErrNotLeader, leader.id)
		}
	})
}

// One that is not to vote stays without, also over its restart and a change of leader,
// and votes when it is asked for.
func TestJoin_NonVoter(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		n4 := w.house("n4", 0).start()
		r := request(n4)
		r.Voter = false
		if _, err := w.leader().node.Join(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		wait(8 * time.Second)
		n4.stop()
		n4.start()
		if err := w.leader().node.Transfer(context.Background(), ""); err != nil {
			t.Fatal(err)
		}
		wait(8 * time.Second)
		if s, _ := serverOf(w.leader().node.configuration(), "n4"); s.Suffrage != raft.Nonvoter {
			t.Error("n4 votes")
		}
		if err := n4.node.Ready(); err != nil {
			t.Errorf("a member without a vote that has caught up: %v", err)
		}
		if _, err := w.leader().node.Join(context.Background(), request(n4)); err != nil {
			t.Fatal(err)
		}
		w.together(n1, n2, n3, n4)
	})
}

// The leader goes before the new member votes: the next one makes it a voter.
func TestJoin_PromotedByTheNextLeader(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		n4 := w.house("n4", 0).start()
		old := w.leader()
		if _, err := old.node.Join(context.Background(), request(n4)); err != nil {
			t.Fatal(err)
		}
		old.kill()
		next := w.leader(without([]*house{n1, n2, n3}, old)...)
		await(t, "vote", func() error {
			if s, _ := serverOf(next.node.configuration(), "n4"); s.Suffrage != raft.Voter {
				return fmt.Errorf("n4 is %+v", s)
			}
			return nil
		})
		old.start()
		w.together(n1, n2, n3, n4)
	})
}

// A member that is far behind is not made a voter before it has caught up.
func TestJoin_NotPromotedWhileBehind(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		formThree(w)
		leader := w.leader()
		n4 := w.house("n4", 0)
		gate := make(chan struct{})
		n4.tweak = func(o *Options) { o.FSM.(*ledger).gate = gate }
		n4.start()
		for i := range 2 * promoteLag {
			mustPropose(t, leader.node, fmt.Sprintf("x:%d", i))
		}
		if _, err := leader.node.Join(context.Background(), request(n4)); err != nil {
			t.Fatal(err)
		}
		wait(10 * time.Second)
		if s, ok := serverOf(leader.node.configuration(), "n4"); !ok || s.Suffrage != raft.Nonvoter {
			t.Errorf("n4 with nothing applied is %+v", s)
		}
		n4.state.mu.Lock()
		n4.state.gate = nil
		n4.state.mu.Unlock()
		close(gate)
		await(t, "vote", isTrue("n4 has none", func() bool {
			s, _ := serverOf(leader.node.configuration(), "n4")
			return s.Suffrage == raft.Voter
		}))
	})
}

// Followers and the leader come back at other addresses: configuration and state
// follow.
func TestJoin_AddressChange(t *testing.T) {
	for _, who := range []string{"follower", "leader", "follower without the others' knowing the leader", "all"} {
		t.Run(who, func(t *testing.T) {
			inTown(t, func(t *testing.T, w *town) {
				n1, n2, n3 := formThree(w)
				all := []*house{n1, n2, n3}
				leader := w.leader()
				var move []*house
				switch who {
				case "leader":
					move = []*house{leader}
				case "all":
					// One after the other: three at new addresses at once find nobody.
					move = all
				default:
					move = without(all, leader)[:1]
				}
				for i, h := range move {
					h.stop()
					h.host, h.url = fmt.Sprintf("new%d", i), fmt.Sprintf("http://elsewhere%d:80", i)
					wait(3 * time.Second)
					h.start()
					w.together(all...)
				}
			})
		})
	}
}

// What cannot join, and why.
func TestJoin_Refusals(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader(n1, n2, n3).node
		other := w.house("o1", 1).start()
		w.together(other)
		free := w.house("f1", 0).start()
		busy := w.house("f2", 3, "f2", "f3", "f4").start()
		wait(5 * time.Second)
		before := leader.raft.LastIndex()
		join := func(id, addr string) error {
			_, err := leader.Join(context.Background(), JoinRequest{NodeID: id, PeerAddr: addr, Voter: true})
			return err
		}
		wantError(t, "nobody there", join("f9", "f9:9400"), ErrUnreachable, `"f9"`, "f9:9400")
		wantError(t, "no address", join("f9", "f9"), ErrUnreachable, `"f9"`, "host:port")
		wantError(t, "every address", join("f9", "0.0.0.0:9400"), ErrUnreachable, "dial")
		wantError(t, "no id", join("-", free.addr()), ErrConflict, `"-"`)
		wantError(t, "another id than it says", join("f9", free.addr()), ErrUnreachable, `"f1"`, `"f9"`)
		wantError(t, "of another cluster", join("o1", other.addr()), ErrConflict, other.node.Identity().ClusterID)
		wantError(t, "address of a member", join("f1", without([]*house{n1, n2, n3}, w.leader(n1, n2, n3))[0].addr()), ErrUnreachable, "not \"f1\"")
		wantError(t, "started to form another", join("f2", busy.addr()), ErrConflict, "--join")
		for _, h := range []*house{n1, n2, n3} {
			if h.node == leader {
				wantError(t, "leader at another address", join(h.id, free.addr()), ErrConflict, h.addr(), "--peer-advertise")
				wantError(t, "address of the leader", join("f1", h.addr()), ErrUnreachable, h.id)
			}
		}
		if after := leader.raft.LastIndex(); after != before {
			t.Errorf("%d entries by refused joins", after-before)
		}
		w.together(n1, n2, n3)
	})
}

// A second replica under the id of a member that is alive is refused; when the member
// has gone it takes its place.
func TestJoin_UsedID(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		f := without([]*house{n1, n2, n3}, leader)[0]
		twin := w.house(f.id, 0)
		twin.host, twin.url = "twin", "http://twin:9000"
		twin.start()
		_, err := leader.node.Join(context.Background(), request(twin))
		wantError(t, "while the other lives", err, ErrConflict, "still answers at "+f.addr(), "--node-id")
		if id := twin.node.Identity().ClusterID; id != "" {
			t.Errorf("the twin is in cluster %q", id)
		}
		f.stop()
		wait(5 * time.Second)
		if _, err := leader.node.Join(context.Background(), request(twin)); err != nil {
			t.Fatal(err)
		}
		var all []*house
		for _, h := range []*house{n1, n2, n3} {
			if h == f {
				h = twin
			}
			all = append(all, h)
		}
		w.together(all...)
	})
}

// One process at both addresses, the old one and the new, has moved.
func TestJoin_OneProcessAtBothAddresses(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		f := without([]*house{n1, n2, n3}, leader)[0]
		known, _ := serverOf(leader.node.configuration(), f.id)
		if err := leader.node.movedAway(context.Background(), known, f.node.runID); err != nil {
			t.Errorf("the same run: %v", err)
		}
		wantError(t, "another run", leader.node.movedAway(context.Background(), known, "another"), ErrConflict, f.addr())
	})
}

// A new replica at the address of a member that is gone takes its place, if the rest
// can do without.
func TestJoin_UsedAddress(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		rest := without([]*house{n1, n2, n3}, leader)
		gone, stays := rest[0], rest[1]
		gone.stop()
		n4 := w.house("n4", 0)
		n4.host = gone.host
		n4.start()
		stays.stop()
		_, err := leader.node.Join(context.Background(), request(n4))
		if !errors.Is(err, ErrQuorum) && !errors.Is(err, ErrNoLeader) && !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("without a quorum: %v", err)
		}
		stays.start()
		if _, err := w.leader().node.Join(context.Background(), request(n4)); err != nil {
			t.Fatal(err)
		}
		w.together(leader, stays, n4)
	})
}

// A voter that comes back with an empty disk is removed, added anew, and votes when it
// has caught up. Until the leader has taken its vote away it takes part in nothing.
func TestJoin_VoterLostItsDisk(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		rest := without([]*house{n1, n2, n3}, leader)
		lost, other := rest[0], rest[1]
		stop := w.load()
		wait(time.Second)
		lost.stop()
		lost.wipe()
		other.stop() // no quorum: nobody can take its vote away
		wait(5 * time.Second)
		lost.start()
		wait(8 * time.Second)
		if id := lost.node.Identity().ClusterID; id != "" || lost.node.hasLog() {
			t.Errorf("the empty one is in cluster %q with index %d, and its old vote still counts", id, lost.node.raft.LastIndex())
		}
		other.start()
		await(t, "a member without a vote", isTrue("n is none", func() bool {
			s, ok := serverOf(w.leader().node.configuration(), lost.id)
			return ok && s.Suffrage == raft.Nonvoter
		}))
		w.together(n1, n2, n3)
		w.wantAll(stop(), n1, n2, n3)
	})
}

// Joins of many at once are made one after the other.
func TestJoin_ManyAtOnce(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		all := []*house{n1, n2, n3}
		for i := 4; i <= 7; i++ {
			all = append(all, w.house(fmt.Sprintf("n%d", i), 1, "n1", "n2", "n3").start())
		}
		w.together(all...)
	})
}

// The entry that adds a replica reaches it and is lost with its leader: the replica is
// not one that was removed, it asks again.
func TestJoin_LostWithItsLeader(t *testing.T) {
	for _, by := range []string{"flag", "operator"} {
		t.Run(by, func(t *testing.T) {
			inTown(t, func(t *testing.T, w *town) {
				n1, n2, n3 := formThree(w)
				old := w.leader()
				rest := without([]*house{n1, n2, n3}, old)
				n4 := w.house("n4", 0)
				if by == "flag" {
					n4.join = []string{n1.url, n2.url, n3.url}
					w.net.Partition([]string{"n4"}, []string{rest[0].host, rest[1].host})
				}
				n4.start()
				w.net.Partition([]string{old.host}, []string{rest[0].host, rest[1].host})
				n4.node.cluster.agree(old.node.Identity().ClusterID)
				err := old.node.changed(context.Background(), "n4", func() raft.IndexFuture {
					return old.node.raft.AddNonvoter("n4", "n4:9400", 0, time.Second)
				})
				wantError(t, "addition without a quorum", err, ErrUnknownOutcome)
				if !old.node.pending.has("n4") {
					t.Error("the addition is not taken for undecided")
				}
				await(t, "entry", isTrue("n4 has not got it", func() bool { return n4.node.inConfiguration() }))
				w.leader(rest...)
				old.stop()
				w.net.HealAll()
				wait(8 * time.Second)
				select {
				case err := <-n4.fatal:
					t.Fatalf("n4, which has never been a member: %v", err)
				default:
				}
				if by == "operator" {
					if err := n4.node.Ready(); err == nil {
						t.Error("n4 is ready")
					}
					if _, err := w.leader().node.Join(context.Background(), request(n4)); err != nil {
						t.Fatal(err)
					}
				}
				old.start()
				w.together(n1, n2, n3, n4)
			})
		})
	}
}

// Members come and go, crash and are cut off, all at random. In the end those that were
// not removed are one cluster that has everything acknowledged.
//
// More seeds: go test -run TestMembership_Random ./cluster -sim.runs 500
func TestMembership_Random(t *testing.T) {
	for seed := range max(*simRuns/10, 1) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			inTown(t, func(t *testing.T, w *town) {
				r := rand.New(rand.NewPCG(uint64(seed), 3))
				n1, n2, n3 := formThree(w)
				members := []*house{n1, n2, n3} // or about to be
				removed := map[*house]bool{}
				stop := w.load()
				for i := range 15 {
					switch r.IntN(6) {
					case 0:
						if len(members) < 6 {
							h := w.house(fmt.Sprintf("m%d", i), 1, "n1", "n2", "n3", "m0", "m1")
							for _, m := range members {
								h.join = append(h.join, m.url)
							}
							members = append(members, h.start())
						}
					case 1:
						h := members[r.IntN(len(members))]
						if len(members) > 3 && h.node != nil {
							var leader *house
							for _, m := range members {
								if m.node != nil && m.node.IsLeader() {
									leader = m
								}
							}
							if leader == nil {
								continue
							}
							err := leader.node.Leave(context.Background(), h.id, false)
							switch {
							case err == nil:
								removed[h] = true
								members = without(members, h)
							case errors.Is(err, ErrUnknownOutcome):
								t.Logf("leave of %s: %v", h.id, err)
								// It may come true later: then it is removed, else it stays.
							}
						}
					case 2:
						h := members[r.IntN(len(members))]
						if h.node != nil {
							h.kill()
							wait(time.Duration(r.IntN(3000)) * time.Millisecond)
							if err := h.open(); err != nil && !errors.Is(err, ErrRemoved) {
								t.Fatal(err)
							}
						}
					case 3:
						a, b := members[r.IntN(len(members))], members[r.IntN(len(members))]
						if a != b {
							w.net.Cut(a.host, b.host)
						}
					case 4, 5:
						w.net.HealAll()
					}
					wait(time.Duration(r.IntN(4000)) * time.Millisecond)
				}
				w.net.HealAll()
				wait(10 * time.Second)
				acked := stop()
				var stay []*house
				for _, h := range members {
					select {
					case err := <-h.fatal:
						if !errors.Is(err, ErrRemoved) {
							t.Errorf("%s: %v", h.id, err)
						}
						h.stop()
					default:
						stay = append(stay, h)
					}
				}
				for h := range removed {
					if h.node != nil && h.node.failed() == nil {
						t.Errorf("%s was removed and goes on", h.id)
					}
				}
				w.together(stay...)
				w.wantAll(acked, stay...)
			})
		})
	}
}
