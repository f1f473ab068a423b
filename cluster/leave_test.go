package cluster

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// gone waits until a replica has noticed that it was removed, and holds its data
// directory to refuse.
func (h *house) gone() {
	t := h.town.t
	t.Helper()
	select {
	case err := <-h.fatal:
		wantError(t, h.id, err, ErrRemoved, h.id, "--data-dir")
	case <-time.After(30 * time.Second):
		t.Fatalf("%s has not noticed that it was removed", h.id)
	}
	wantError(t, "ready", h.node.Ready(), ErrStopped)
	h.stop()
	wantError(t, "open", h.open(), ErrRemoved, "empty --data-dir")
}

func TestLeave_Follower(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		rest := without([]*house{n1, n2, n3}, leader)
		stop := w.load()
		wait(time.Second)
		if err := rest[0].node.Leave(context.Background(), rest[0].id, false); !errors.Is(err, ErrNotLeader) {
			t.Errorf("asked of a follower: %v", err)
		}
		if err := leader.node.Leave(context.Background(), rest[0].id, false); err != nil {
			t.Fatal(err)
		}
		rest[0].gone()
		w.together(leader, rest[1])
		wantError(t, "again", leader.node.Leave(context.Background(), rest[0].id, false), ErrUnknownNode, rest[0].id, leader.id, rest[1].id)
		w.wantAll(stop(), leader, rest[1])
		// With an empty disk it is a new member.
		rest[0].wipe()
		rest[0].start()
		w.together(n1, n2, n3)
	})
}

// A leader that leaves hands over first; its tasks end, and the next one removes it.
func TestLeave_Leader(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		rest := without([]*house{n1, n2, n3}, leader)
		stop := w.load()
		wait(time.Second)
		begin := time.Now()
		if err := leader.node.Leave(context.Background(), leader.id, false); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("took %v", took)
		}
		w.leader(rest...)
		leader.gone()
		w.together(rest...)
		w.wantAll(stop(), rest...)
		// And the next, until one is left, who stays.
		leader = w.leader(rest...)
		last := without(rest, leader)[0]
		if err := leader.node.Leave(context.Background(), leader.id, false); err != nil {
			t.Fatal(err)
		}
		leader.gone()
		w.together(last)
		for _, force := range []bool{false, true} {
			wantError(t, "the last", last.node.Leave(context.Background(), last.id, force), ErrQuorum, "last voter")
		}
		mustPropose(t, last.node, "x:still")
	})
}

func TestLeave_Quorum(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		rest := without([]*house{n1, n2, n3}, leader)
		down, up := rest[0], rest[1]
		down.stop()
		wait(3 * time.Second)
		err := leader.node.Leave(context.Background(), up.id, false)
		wantError(t, "the one that is needed", err, ErrQuorum, down.id, down.addr(), "force")
		wantError(t, "the leader", leader.node.Leave(context.Background(), leader.id, false), ErrQuorum, down.id)
		if !leader.node.IsLeader() {
			t.Error("the leader handed over for a leave that it refused")
		}
		if err := leader.node.Leave(context.Background(), down.id, false); err != nil {
			t.Errorf("the one that is down: %v", err)
		}
		w.together(leader, up)
		// It returns with its old data, at an address that answers nobody any more.
		if err := down.open(); err != nil {
			t.Fatal(err)
		}
		down.gone()
		w.together(leader, up)
	})
}

// By force a voter goes although the rest is no majority: the cluster stands still
// until the others are back.
func TestLeave_Force(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		rest := without([]*house{n1, n2, n3}, leader)
		down, up := rest[0], rest[1]
		down.stop()
		err := leader.node.Leave(context.Background(), up.id, true)
		if err != nil && !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("by force: %v", err)
		}
		down.start()
		w.together(leader, down)
		up.gone()
	})
}

func TestLeave_Unknown(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		wantError(t, "unknown", w.leader().node.Leave(context.Background(), "n9", false), ErrUnknownNode, `"n9"`, `"n1", "n2", "n3"`)
		w.together(n1, n2, n3)
	})
}

// A member that does not vote goes whatever the voters do.
func TestLeave_NonVoter(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		n4 := w.house("n4", 0).start()
		r := request(n4)
		r.Voter = false
		if _, err := w.leader().node.Join(context.Background(), r); err != nil {
			t.Fatal(err)
		}
		await(t, "member", n4.node.Ready)
		if err := w.leader().node.Leave(context.Background(), "n4", false); err != nil {
			t.Fatal(err)
		}
		n4.gone()
		w.together(n1, n2, n3)
	})
}

// Removed while it was away, by a cluster that has moved on to other replicas since:
// it learns it from who leads now, whom it does not know.
func TestRemoved_WhileAway(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		n3.stop()
		n4 := w.house("n4", 1, "n1", "n2").start()
		await(t, "vote", func() error { return n4.node.Ready() })
		wait(10 * time.Second)
		if err := w.leader().node.Leave(context.Background(), "n3", false); err != nil {
			t.Fatal(err)
		}
		w.together(n1, n2, n4)
		if err := w.leader().node.Transfer(context.Background(), "n4"); err != nil && w.leader() != n4 {
			t.Fatal(err)
		}
		n3.start()
		n3.gone()
		w.together(n1, n2, n4)
	})
}

// Who is alone with an old word stays: only a leader of a term that has begun, and no
// older than its own, can say that it was removed.
func TestRemoved_NotByLess(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		f := without([]*house{n1, n2, n3}, leader)[0]
		w.net.Partition([]string{f.host}, []string{"n1", "n2", "n3"})
		wait(10 * time.Second)
		select {
		case err := <-f.fatal:
			t.Errorf("cut off: %v", err)
		default:
		}
		w.net.HealAll()
		w.together(n1, n2, n3)

		// A removal that is in the leader's log and not committed is none.
		leader = w.leader()
		ask := func(id string) (s standing) {
			b, err := leader.node.answerMember(context.Background(), Identity{NodeID: id}, nil)
			if err == nil {
				err = unmarshal(b, &s)
			}
			if err != nil || !s.Leading || s.Term != leader.node.Term() {
				t.Fatalf("%+v, %v", s, err)
			}
			return s
		}
		leader.node.pending.add("n9")
		if s := ask("n9"); !s.Member || s.Settled {
			t.Errorf("whose removal or addition is under way: %+v", s)
		}
		leader.node.pending.drop("n9")
		if s := ask("n9"); s.Member || s.Settled {
			t.Errorf("a stranger: %+v", s)
		}
		if s := ask("n1"); !s.Member || !s.Settled {
			t.Errorf("a member: %+v", s)
		}
	})
}

// A removed node asks nothing of the cluster any more: its directory does not open.
func TestRemoved_MarkSaysWho(t *testing.T) {
	inTown(t, func(t *testing.T, w *town) {
		n1, n2, n3 := formThree(w)
		leader := w.leader()
		f := without([]*house{n1, n2, n3}, leader)[0]
		if err := leader.node.Leave(context.Background(), f.id, false); err != nil {
			t.Fatal(err)
		}
		f.gone()
		mark, _ := f.disk.files.read(removedFile)
		for _, word := range []string{leader.id, leader.node.Identity().ClusterID} {
			if !strings.Contains(mark, word) {
				t.Errorf("the mark does not say %q: %s", word, mark)
			}
		}
	})
}
