// Package ingest is where workers are heard: the ZeroMQ sockets that LMCache's
// workers connect to, on every replica.
//
//	PULL    admits, evicts, full-sync batches, deregistrations; no answers
//	reply   ROUTER: registration, peer lookups, full-sync start and status
//	beat    ROUTER: heartbeats, answered with commands
//
// What changes the registry goes, in the order in which it came, into one batcher,
// which proposes it to the replicated log, one batch at a time. What only asks is
// answered from the local registry. Heartbeats of known workers go nowhere but into
// memory, and from there to the leader; its LeaseTask turns what was heard into one log
// entry every few seconds.
//
// It never executes a command, never answers HTTP, never looks at the log's content,
// and never trusts a frame: a bad one is counted by reason, logged at most once a
// minute per sender, answered with ErrorMsg where the socket has answers, and changes
// nothing.
//
// Usage:
//
//	s, err := ingest.New(ingest.Options{Host: "0.0.0.0", PullPorts: []int{8300, 9001},
//		ReplyPort: 8400, HeartbeatPort: 8082, Log: node, State: fsm, Session: session})
//	err = s.Open()      // binds; Ports tells which
//	err = s.Serve(ctx)  // until ctx ends; drains what was taken
//	err = s.Close()
//
// Callers: cmd/kvctrld (life, LeaseTask), httpapi (Stats), cluster (PeerHandler, for
// the other replicas).
//
// Goroutines, all started by Serve and waited for before it returns: one per socket,
// which alone touches that socket, one wake-up pump per socket, the batcher's two,
// one that tells the leader who was heard (and on the leader looks who has started a
// sync), and one that asks it for sync slots.
// A socket's goroutine calls the answers (answer.go); the second of the batcher's calls
// the outcomes of log entries, which may only resolve an answer.
//
// Locks: batcher.mu, pending.mu, notes.mu, syncSlots.mu, flights.mu. None is held
// while another is taken, and none while the log or a socket is called; the registry is
// asked under syncSlots.mu alone, where a look through all workers comes at most once a
// second.
//
// DESIGN.md has the invariants (I1 ...) that comments here refer to.
package ingest
