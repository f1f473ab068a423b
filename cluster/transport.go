package cluster

import (
	"io"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raftTransport is raft's network transport over the peer port, with two changes:
//   - Heartbeats take the main loop like every other request (I1). raft's own fast path
//     handles them on the connection's goroutine, beside the leader loop, and can store
//     an entry under a term that this node does not lead (hashicorp/raft #695).
//   - Entries wait for a peer that is away until it answers heartbeats (patience).
//
// Embedding keeps pre-vote and Close visible to raft.
type raftTransport struct {
	*raft.NetworkTransport
	patience *patience
}

var (
	_ raft.WithPreVote = raftTransport{}
	_ raft.WithClose   = raftTransport{}
)

// SetHeartbeatHandler does nothing, see above.
func (raftTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntries sends entries, or a heartbeat.
func (t raftTransport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if !isHeartbeat(args) {
		if err := t.patience.await(id); err != nil {
			return err
		}
	}
	err := t.NetworkTransport.AppendEntries(id, addr, args, resp)
	t.patience.note(id, err)
	return err
}

// InstallSnapshot sends a snapshot.
func (t raftTransport) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := t.patience.await(id); err != nil {
		return err
	}
	err := t.NetworkTransport.InstallSnapshot(id, addr, args, resp, data)
	t.patience.note(id, err)
	return err
}

// isHeartbeat tells raft's heartbeats from entries, as raft's own transport does.
func isHeartbeat(r *raft.AppendEntriesRequest) bool {
	return r.PrevLogEntry == 0 && r.PrevLogTerm == 0 && r.LeaderCommitIndex == 0 && len(r.Entries) == 0
}

// newRaftTransport makes it over a stream layer: the peer port.
func newRaftTransport(streams raft.StreamLayer, log hclog.Logger) raftTransport {
	return raftTransport{patience: newPatience(), NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  streams,
		MaxPool: 3,
		// 1 is no pipelining. raft's pipeline hangs for good when a follower answers no
		// while entries come in (hashicorp/raft #612): a follower that has refused one is
		// never sent another, and a leader that has learned of a newer term cannot stop.
		MaxRPCsInFlight:         1,
		Timeout:                 3 * time.Second, // 10 s leaves the connections of a black-holed peer waiting that long after it is back
		Logger:                  log.Named("raft-net"),
		MsgpackUseNewTimeFormat: true,
	})}
}

// close ends the listener, every accepted connection and the pooled ones.
func (t raftTransport) close() error {
	t.patience.end()
	err := t.NetworkTransport.Close()
	t.CloseStreams()
	return err
}
