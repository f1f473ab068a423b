package registry

// State is all that a registry holds but the index, as plain data: what a snapshot
// writes before the shards, and what a Loader starts from. Its order is fixed by the
// state, so equal states are equal field by field.
//
// Ownership: it must not be changed; the workers of its events are the registry's.
type State struct {
	Time       Micros
	Term       uint64
	Leader     string // node of the term
	Gaps       int64
	Late       int64
	LastNumber uint64 // the largest number given to anything
	Holders    uint32 // holders in the index, numbered from 0

	Instances []InstanceState // by number
	Workers   []WorkerState   // by number
	Events    []EventEntry    // by number
	Finished  []uint64        // numbers of the final events, in order of finish
	Members   []Member        // by node id
	Sessions  []SessionState  // the longest silent first
}

// InstanceState is an instance and its place in the order of registration.
type InstanceState struct {
	ID     string
	Number uint64
}

// WorkerState is a worker. Its instance is among State.Instances.
type WorkerState struct {
	WorkerRef
	Number        uint64
	IP            string
	Port          int64
	PeerInitURL   *string
	Registered    Micros
	LastHeartbeat Micros
	LastHeard     Micros
	Beats         bool   // has sent a heartbeat since it was registered
	Adopted       bool   // was registered by a heartbeat
	Suspect       bool   // by the last lease
	Wanted        string // reason of the full sync it owes
	SyncFailures  int    // full syncs given up since the last that completed
	SyncFailed    Micros // when the last of them was
	Streams       []StreamState
}

// StreamState is a stream of a worker, in order of first use.
type StreamState struct {
	Location string
	Number   uint64
	Holder   HolderState
	Stores   bool
	Lossy    bool
	Gaps     int64
	Sequence SequenceState
	LastSync string     // id of the last full sync that completed or was given up
	Synced   bool       // it completed
	SyncedAt Micros     // when it ended; 0 for never
	Sync     *SyncState // nil when none is running
}

// HolderState says what the index must hold under a number.
type HolderState struct {
	Holder uint32
	Count  int64
	Sum    uint64 // see index.Holder.Sum
}

// SequenceState is what is known of a stream's numbers.
type SequenceState struct {
	Begun      bool
	Unnumbered bool
	LoneZero   bool  // one number so far, and it was 0
	Counted    bool  // a gap of the current message has been counted
	Next       int64 // the number that would follow
	Writer     SessionID
	Holes      []HoleState // ascending
}

// HoleState is a range of numbers that were passed over, from From up to and without To.
type HoleState struct {
	From, To int64
	Until    Micros // see hole.until
	Extended bool
}

// SyncState is a full sync that runs.
type SyncState struct {
	ID         string
	Started    Micros
	TotalKeys  int64
	BatchCount int64
	Received   []int64 // batch ids, ascending
	Ended      bool    // End is in
	Tainted    bool    // events were lost since the start
	Shadow     HolderState
	Evicted    []Key // ascending
}

// EventEntry is an event and its place in the order of creation.
type EventEntry struct {
	Number uint64
	Event  Event
}

// SessionState is a batch session: its last batch, and when that was.
type SessionState struct {
	ID   SessionID
	Last uint64
	Seen Micros
}
