package registry

// This file holds the registry's input: one plain struct per change. A change
// arrives as a log entry, is applied by the one writer (the FSM), and names the
// time by what the entry says (Micros), never by a clock.

// Key is a chunk's key in LMCache's in-process plane: the 64-bit pattern of its
// chunk hash.
type Key uint64

// Micros is a time in microseconds since the Unix epoch, stamped by whoever
// proposed the entry.
type Micros int64

// WorkerRef names a worker: an instance and a rank in it.
type WorkerRef struct {
	Instance string
	Worker   int64
}

// StreamRef names a stream of events: one backend of one worker. LMCache numbers
// the operations of each stream on its own.
type StreamRef struct {
	WorkerRef
	Location string
}

// Registration is what a worker says of itself when it starts (RegisterMsg), or
// repeats with a heartbeat.
type Registration struct {
	WorkerRef
	IP          string
	Port        int64
	PeerInitURL *string // nil without P2P
	At          Micros
	// ByHeartbeat marks a registration made from a heartbeat: a worker that is
	// unknown is registered and owes a full sync; of a known worker the address is
	// brought up to date and nothing is dropped. Without it the worker's process
	// is new: what an earlier process of this name held is dropped.
	ByHeartbeat bool
}

// RegisterResult says what a Registration found.
type RegisterResult struct {
	Known   bool   // the worker was registered before
	Refused string // why the worker is not registered now; empty when it is
}

// Ops is a run of admits and evicts of one stream, in the worker's order.
type Ops struct {
	Stream StreamRef
	// Session is the batch's. Operations of one session come in the order in which the
	// worker said them; those of another may be late.
	Session SessionID
	// Keys and Evict run side by side: operation i is an evict of Keys[i] when
	// Evict.Has(i), else an admit. ApplyOps keeps neither.
	Keys  []Key
	Evict Bitmap
	// First is the number of the first operation; the others follow without a gap
	// (ingest starts a new run at every break). Meaningless when Numbered is false.
	First    int64
	Numbered bool
	// Continues is set on a further run cut from the same message, so that
	// several breaks in one message count as one gap, as LMCache's gauge does.
	Continues bool
	At        Micros
}

// Bitmap is a set of small integers, bit i in byte i/8.
type Bitmap []byte

// Has reports whether i is in the set; beyond the end it is not.
func (b Bitmap) Has(i int) bool { return i>>3 < len(b) && b[i>>3]&(1<<(i&7)) != 0 }

// OpsResult says what became of an Ops.
type OpsResult struct {
	Unknown bool   // the worker is not registered: everything was dropped
	Gap     bool   // the numbers did not follow the stream's last one
	Late    int    // so many at the beginning came too late and were not applied
	Refused string // why a known worker's operations were dropped; empty when they were applied
}

// SyncStart opens a full sync of one stream. The keys known so far stay visible
// until the sync ends.
type SyncStart struct {
	Stream     StreamRef
	SyncID     string
	TotalKeys  int64
	BatchCount int64
	At         Micros
}

// SyncStartResult is the answer to a SyncStart; Reason says why it was refused.
type SyncStartResult struct {
	Accepted bool
	Reason   string
}

// SyncBatch is one batch of a full sync. Batches may come twice and in any order.
type SyncBatch struct {
	Stream  StreamRef
	SyncID  string
	BatchID int64
	Keys    []Key // not kept
	At      Micros
}

// SyncEnd closes a full sync. It completes only when every batch is in.
type SyncEnd struct {
	Stream    StreamRef
	SyncID    string
	TotalKeys int64
	At        Micros
}

// SyncResult says whether a SyncBatch or SyncEnd belonged to a running sync, and
// whether that sync is complete now.
type SyncResult struct {
	Ignored  bool
	Complete bool
}

// Lease is the leader's periodic word on liveness: whom any replica heard of
// since the last one, and whom the leader gives up. It carries the leader's
// periods, so that replicas with different settings still decide alike.
type Lease struct {
	At      Micros
	Heard   []Heard
	Expired []WorkerRef
	// SuspectAfter is the silence after which a worker that sends heartbeats
	// becomes suspect; 0 means DefaultSuspectAfter, less than 0 never.
	SuspectAfter Micros
	// SyncTimeout is the age at which a full sync is given up; 0 means
	// DefaultSyncTimeout, less than 0 never.
	SyncTimeout Micros
}

// Heard is the time at which a worker last said something, or last sent a
// heartbeat (the two differ: LMCache's last_heartbeat_time is the latter).
type Heard struct {
	WorkerRef
	Any       Micros
	Heartbeat Micros // 0: none since the last lease
}

// TermBegin is the first entry of a leader's term. Commands that an earlier
// leader had sent and not finished become interrupted.
type TermBegin struct {
	Term uint64
	Node string
	At   Micros
}

// Member is a replica as the others reach it, and whether it is meant to vote.
type Member struct {
	NodeID   string
	PeerAddr string
	URL      string
	// Voter is the wish: raft's own configuration says whether it votes now. A replica
	// that is meant to and does not yet is still catching up.
	Voter bool
}

// SessionID names one run of one replica's batcher.
type SessionID [16]byte
