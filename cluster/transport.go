package cluster

import (
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raftTransport is raft's network transport over the peer port, with one change:
// heartbeats take the main loop like every other request (I1). raft's own fast path
// handles them on the connection's goroutine, beside the leader loop, and can store
// an entry under a term that this node does not lead (hashicorp/raft #695).
//
// Embedding keeps pre-vote and Close visible to raft.
type raftTransport struct{ *raft.NetworkTransport }

var (
	_ raft.WithPreVote = raftTransport{}
	_ raft.WithClose   = raftTransport{}
)

// SetHeartbeatHandler does nothing, see above.
func (raftTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// newRaftTransport makes it over a stream layer: the peer port.
func newRaftTransport(streams raft.StreamLayer, log hclog.Logger) raftTransport {
	return raftTransport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
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
	err := t.NetworkTransport.Close()
	t.CloseStreams()
	return err
}
