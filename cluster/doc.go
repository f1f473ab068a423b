// Package cluster runs the Raft node of a replica: it orders log entries, keeps
// them on disk, and says who leads and how fresh the state is.
//
// It never looks into an entry. What entries mean is package fsm's business; here
// they are bytes with a limit. It never decides what to propose either, but for
// four entries of its own: "term begins", "this member's addresses", "this member is
// gone", and an entry that changes nothing, which linearizable reads ride.
//
// Callers: ingest, executor and httpapi propose and read; cmd opens and closes;
// the executor and everything else that must run on one replica only is a
// LeaderTask. Usage:
//
//	n, err := cluster.Open(ctx, cluster.Options{DataDir: dir, FSM: machine, OnFatal: stop})
//	applied, err := n.Propose(ctx, entry)                    // leader only; see ErrNotLeader
//	applied, err = n.Submit(ctx, batch.Encode(number, now))  // any replica, worker batches
//	fresh, err := n.Read(ctx, cluster.Read{})                // any replica; then ask the state
//	err = n.Close(ctx)                                       // hands leadership over first
//
// A node without data finds its cluster (Options.Join) or founds one with others
// (Options.BootstrapExpect); until then Ready is ErrForming, in words. Join and Leave
// change who is a member.
//
// A single replica is a cluster of one and takes the same way: every change is an
// entry, committed by a majority of one.
//
// Goroutines, all owned by the Node and waited for in Close: the leadership loop
// and, while leading, one for the term, one per LeaderTask and one that makes every
// change of the membership; one that looks after this node's place in a cluster (it
// forms or joins one, says where the node is, notices its removal); one that turns
// raft's observations into the view of who leads; one that watches log bytes and
// disk space; one that keeps the freshness mark; one per outstanding proposal; two
// that carry the shared rounds of linearizable reads; the peer port's, of which one
// for each connection, and those of net/http for each of its connections. Raft runs
// its own besides, and Close waits for them within a limit.
//
// Every exported method may be called from any goroutine.
//
// DESIGN.md has the way of an entry, the invariants by number and the decisions.
package cluster
