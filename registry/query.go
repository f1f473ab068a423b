package registry

// This file holds the registry's output: copies, free to keep.

// Liveness is what the last lease says of a worker.
type Liveness string

const (
	Alive   Liveness = "alive"
	Suspect Liveness = "suspect"
)

// WorkerInfo is a worker as people see it.
type WorkerInfo struct {
	WorkerRef
	IP            string
	Port          int64
	PeerInitURL   *string
	Registered    Micros
	LastHeartbeat Micros // starts as Registered
	LastHeard     Micros
	Beats         bool // it has sent heartbeats since it was registered
	Liveness      Liveness
	Keys          int64  // (chunk, location) pairs held
	Stores        bool   // it has held chunks since it was registered: its instance is found only by what it holds too
	SyncState     string // "none", "wanted", "unrepaired", "syncing", "completed"
	SyncFailures  int    // full syncs given up since the last that completed
	SyncFailed    Micros // when the last of them was; 0 for never
	Locations     []LocationInfo
}

// LocationInfo is one stream of a worker.
type LocationInfo struct {
	Location string
	Keys     int64
	Gaps     int64 // messages whose numbers did not follow
	Lossy    bool  // events were lost and have not been made good
	Numbered bool
	NextSeq  int64
}

// InstanceInfo is an instance with its workers in order of registration.
type InstanceInfo struct {
	Instance string
	Keys     int64
	Workers  []WorkerInfo
}

// Hit is an instance that holds the beginning of a prompt.
type Hit struct {
	Instance string
	Location string
	Chunks   int    // contiguous from chunk 0, held by every rank that stores anything
	Suspect  bool   // a rank of the instance has been silent for too long
	Lossy    bool   // on some rank, a chunk is known from streams alone that have lost events
	Order    uint64 // its instance's place in the order of registration, larger for a later one
}

// P2PHit is the best answer to a peer's lookup.
type P2PHit struct {
	Instance    string
	Location    string
	Chunks      int
	PeerInitURL string
}

// Owed says why a worker owes a full sync, and how its last ones went.
type Owed struct {
	Reason   string
	Failures int    // full syncs given up since the last that completed
	FailedAt Micros // when the last of them was; 0 for never
}

// SyncStatus answers a worker's FullSyncStatusMsg.
type SyncStatus struct {
	Complete       bool
	Progress       float64 // see Totals.SyncProgress
	CanExitFreeze  bool
	MissingBatches []int64 // the first MaxMissingListed of them, ascending
}

// Totals are the registry's counts.
type Totals struct {
	Instances      int
	Workers        int
	Keys           int64 // per (chunk, holder), exact
	Chunks         int64 // distinct; an estimate: dead entries that wait count
	DeadSlots      int64 // entries that wait for the sweep
	IndexBytes     int64
	Gaps           int64 // over all streams there ever were: it only grows
	Late           int64 // operations that came too late and were not applied: it only grows
	SuspectWorkers int
	LossyStreams   int
	WantedWorkers  int // workers that owe a full sync
	// UnrepairedWorkers are those of them that have sent no heartbeat since they were
	// registered: a full sync is asked for in the answer to one.
	UnrepairedWorkers int
	SyncingWorkers    int
	SyncedWorkers     int
	// SyncProgress is, of the workers that are in a full sync and those that have
	// completed one since the oldest of these began, the share of the latter: 1 when
	// nobody syncs, 0 without workers, as LMCache's.
	SyncProgress   float64
	MissingBatches int64
	OpenEvents     int
	AwaitedMoves   int // finished moves whose destination has not reported yet
	Events         int
	Sessions       int
}

// Digest is an order-independent hash of the logical state: equal on every
// replica at equal index, whatever the history of tables, sweeps and snapshots.
type Digest [16]byte
