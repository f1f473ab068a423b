package cluster

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A leader is sure of the past by the stamps that a majority of the voters brings back.
func TestVouchers(t *testing.T) {
	t0 := time.Now()
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	voters := func(ids ...string) (c raft.Configuration) {
		for _, id := range ids {
			c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(id), Suffrage: raft.Voter})
		}
		return c
	}
	three, five := voters("a", "b", "c"), voters("a", "b", "c", "d", "e")
	withReader := voters("a", "b", "c")
	withReader.Servers = append(withReader.Servers, raft.Server{ID: "r", Suffrage: raft.Nonvoter})
	type back struct {
		node  string
		term  uint64
		stamp int // ms; -1: a stamp of nobody
	}
	for name, c := range map[string]struct {
		members raft.Configuration
		backs   []back
		want    int // ms; -1: unknown
	}{
		"nobody has answered":            {three, nil, -1},
		"alone":                          {voters("a"), nil, 1000},
		"one of two others":              {three, []back{{"b", 7, 900}}, 900},
		"the later of two":               {three, []back{{"b", 7, 900}, {"c", 7, 950}}, 950},
		"the latest of each":             {three, []back{{"b", 7, 900}, {"b", 7, 100}}, 900},
		"the process stood still":        {three, []back{{"b", 7, 300}, {"c", 7, 310}}, 310},
		"a reader has no vote":           {withReader, []back{{"r", 7, 900}}, -1},
		"somebody unknown":               {three, []back{{"x", 7, 900}}, -1},
		"two of four others":             {five, []back{{"b", 7, 900}, {"c", 7, 800}, {"d", 7, 700}}, 800},
		"one of four others":             {five, []back{{"b", 7, 900}}, -1},
		"in an earlier term":             {three, []back{{"b", 6, 900}}, -1},
		"in an earlier and in this term": {three, []back{{"b", 6, 900}, {"c", 7, 910}}, 910},
		"of the future":                  {three, []back{{"b", 7, 2000}}, -1},
		"none":                           {three, []back{{"b", 7, -1}}, -1},
		"not a voter itself":             {voters("b", "c", "d"), []back{{"b", 7, 900}, {"c", 7, 800}}, 800},
	} {
		t.Run(name, func(t *testing.T) {
			var v vouchers
			v.stamp(t0)
			for _, b := range c.backs {
				stamp := int64(0)
				if b.stamp >= 0 {
					stamp = v.stamp(at(b.stamp))
				}
				v.back(b.term, b.node, stamp, at(1000))
			}
			until, ok := v.until(at(1000), 7, "a", c.members)
			if ok != (c.want >= 0) || ok && !until.Equal(at(c.want)) {
				t.Errorf("sure until %v (%v), want %d ms", until.Sub(t0), ok, c.want)
			}
		})
	}
}

// Of a question that was held up while others were answered, the answer is of its own time:
// what has been committed since it does not know.
func TestVouchers_NotBeyondTheQuestion(t *testing.T) {
	t0 := time.Now()
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	var v vouchers
	v.stamp(t0)
	var members raft.Configuration
	for _, id := range []raft.ServerID{"a", "b", "c"} {
		members.Servers = append(members.Servers, raft.Server{ID: id, Suffrage: raft.Voter})
	}
	for _, node := range []string{"b", "c"} {
		v.back(7, node, v.stamp(at(1010)), at(1020))
	}
	if until, ok := v.until(at(1000), 7, "a", members); !ok || !until.Equal(at(1000)) {
		t.Errorf("sure until %v (%v), asked at 1s", until.Sub(t0), ok)
	}
}

// Who is in another term than the leader vouches for nothing, however new the stamp is.
func TestServeCommit_OfAnotherTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 8})
		leader, follower := c.mustLead(), c.followers()[0]
		c.settle()
		c.wait(time.Second)
		c.isolate(leader.NodeID())
		const silence = 100 * time.Millisecond
		c.wait(silence)
		ask := func(term uint64, stamp int64) (a commitAnswer) {
			t.Helper()
			q, err := json.Marshal(commitQuestion{Term: term, Stamp: stamp})
			if err != nil {
				t.Fatal(err)
			}
			b, err := leader.serveCommit(context.Background(), follower.Identity(), q)
			if err == nil {
				err = json.Unmarshal(b, &a)
			}
			if err != nil || a.AgeNS == nil {
				t.Fatalf("answer %s: %v", b, err)
			}
			return a
		}
		stamp := ask(0, 0).Stamp
		for _, term := range []uint64{0, leader.Term() - 1, leader.Term() + 1} {
			if age := time.Duration(*ask(term, stamp).AgeNS); age < silence {
				t.Errorf("somebody of term %d vouched for the leader of term %d: sure until %v ago", term, leader.Term(), age)
			}
		}
		if age := time.Duration(*ask(leader.Term(), stamp).AgeNS); age != 0 { // no time has passed since the stamp
			t.Errorf("somebody of its term did not vouch for it: sure until %v ago", age)
		}
	})
}

// A staleness is close when all is well, and grows from the moment on that a leader hears
// nobody any more, whatever raft still takes it for.
func TestStaleness_IsVouchedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 4, delay: time.Millisecond})
		leader := c.mustLead()
		c.settle()
		c.wait(time.Second)
		stale := func(l *simLife) time.Duration {
			f, err := l.Read(context.Background(), Read{})
			if err != nil {
				t.Fatal(err)
			}
			return f.Staleness
		}
		for _, l := range c.up() {
			if old := stale(l); old > 4*freshTick {
				t.Errorf("%s (leads: %v), all is well: %v", l.NodeID(), l == leader, old)
			}
		}
		c.isolate(leader.NodeID())
		cut := time.Now()
		for range 6 {
			c.wait(leader.times.lease / 8)
			if old := stale(leader); old < time.Since(cut) {
				t.Errorf("%v after it was cut off (leads: %v): %v", time.Since(cut), leader.IsLeader(), old)
			}
		}
	})
}
