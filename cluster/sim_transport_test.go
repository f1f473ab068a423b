package cluster

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// noSnapshots is for tests that want the whole log.
func noSnapshots(o *Options) { o.SnapshotThreshold, o.TrailingLogs = 1<<20, 2<<20 }

// A heartbeat of a newer term takes the main loop like every other request
// (hashicorp/raft #695). On raft's fast path it would change term and state beside the
// leader's loop, which would then store the next entry under a term that it does not
// lead: an entry that no later check can tell from the true leader's.
func TestSim_HeartbeatsTakeTheMainLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1, tune: noSnapshots})
		for range 5 {
			leader, other := c.mustLead(), c.followers()[0]
			term := leader.Term() + 7 // nobody will ever be elected for it
			var answer raft.AppendEntriesResponse
			err := other.parts.transport.AppendEntries(raft.ServerID(leader.NodeID()), leader.parts.transport.LocalAddr(), &raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(other.NodeID()), Addr: []byte(other.PeerAddr())},
				Term:      term,
			}, &answer)
			if err != nil || answer.Term != term {
				t.Fatalf("heartbeat: %+v, %v", answer, err)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			if _, err := leader.Propose(ctx, fsm.EncodeLease(registry.Lease{At: now()})); err == nil {
				t.Error("an entry was committed by who leads no more")
			}
			cancel()
			c.settle()
			for _, r := range c.all() {
				if index := r.disk.holdsTerm(term); index != 0 {
					t.Errorf("%s has stored index %d under term %d, which nobody led", r.id, index, term)
				}
			}
		}
	})
}

// A follower whose main loop is held up answers no heartbeat: else its leader would
// count on it.
func TestSim_HeartbeatsWaitForTheMainLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1})
		leader, follower := c.mustLead(), c.followers()[0]
		beat := func() (answer raft.AppendEntriesResponse, err error) {
			err = leader.parts.transport.AppendEntries(raft.ServerID(follower.NodeID()), follower.parts.transport.LocalAddr(), &raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.NodeID()), Addr: []byte(leader.PeerAddr())},
				Term:      leader.Term(),
			}, &answer)
			return answer, err
		}
		c.mark()
		if answer, err := beat(); err != nil || !answer.Success {
			t.Fatalf("heartbeat with nothing in its way: %+v, %v", answer, err)
		}
		release := follower.replica.disk.hang()
		c.mark() // an entry for it to hang on
		c.wait(100 * time.Millisecond)
		begin := time.Now()
		if answer, err := beat(); err == nil {
			t.Errorf("heartbeat answered after %v: %+v", time.Since(begin), answer)
		}
		release()
		c.settle()
	})
}

// A leader that was cut off, and learns of a newer term by the answers to what it had
// sent, ends its replication: later it stops in order (hashicorp/raft #612: with two
// requests under way the sender hangs for good, and where a follower only refuses one,
// it is never sent an entry again).
func TestSim_CutOffLeaderEndsItsReplication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1, delay: time.Millisecond, events: true})
		c.load.start()
		for range 12 {
			c.wait(500 * time.Millisecond)
			leader := c.mustLead()
			c.isolate(leader.NodeID())
			c.wait(1500 * time.Millisecond)
			if now := c.mustLead(); now == leader {
				t.Fatalf("%s still leads", leader.NodeID())
			}
			c.heal()
		}
		c.load.stop()
		c.settle()
		c.load.verify(c.mustLead())
	}) // the replicas stop here, each within its limits
}

// A snapshot that was sent long ago, over a connection that is given up by now, does
// not take a follower back to what it was then: raft itself would install it.
func TestSim_LateSnapshotDoesNotTakeTheStateBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startSim(t, simOptions{seed: 1, tune: noSnapshots}) // a store that has two newer ones would drop it
		leader, follower := c.mustLead(), c.followers()[0]
		c.load.start()
		c.wait(time.Second)
		if err := leader.Snapshot(context.Background()); err != nil {
			t.Fatal(err)
		}
		snap := leader.replica.disk.newest()
		c.wait(time.Second)
		c.load.stop()
		c.settle()
		was := follower.machine.Applied()
		if was <= snap.meta.Index {
			t.Fatalf("the snapshot is of index %d, the follower at %d", snap.meta.Index, was)
		}

		var answer raft.InstallSnapshotResponse
		err := leader.parts.transport.InstallSnapshot(raft.ServerID(follower.NodeID()), follower.parts.transport.LocalAddr(), &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.NodeID()), Addr: []byte(leader.PeerAddr())},
			SnapshotVersion: snap.meta.Version, Term: leader.Term(),
			LastLogIndex: snap.meta.Index, LastLogTerm: snap.meta.Term,
			Configuration: raft.EncodeConfiguration(snap.meta.Configuration), ConfigurationIndex: snap.meta.ConfigurationIndex,
			Size: snap.meta.Size,
		}, &answer, bytes.NewReader(snap.data))
		if err != nil || !answer.Success {
			t.Errorf("the follower has what is in it, and says %+v, %v", answer, err)
		}
		if now := follower.machine.Applied(); now < was {
			t.Errorf("the follower went from index %d back to %d", was, now)
		}
		c.settle()
		c.load.verify(follower)
		c.load.start()
		c.wait(time.Second)
		c.load.stop()
		c.settle()
		c.load.verify(follower)
		if n := c.h.seen(); n.keptStates != 1 {
			t.Errorf("%+v: want one snapshot that changed nothing", n)
		}
	})
}
