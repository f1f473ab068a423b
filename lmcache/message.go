package lmcache

// Key is the 64-bit pattern of a chunk hash, whatever form it had on the wire
// (int64, uint64, or the first eight bytes of a bin, big-endian).
type Key uint64

// Message is one protocol message. Its wire tag is the name of its Go type.
type Message interface {
	// Type returns the value of the message's "type" field.
	Type() string
}

// WorkerID is a worker's rank within its instance.
type WorkerID = int64

// OpKind tells an admit from an evict.
type OpKind uint8

const (
	Admit OpKind = iota
	Evict
)

// KVOp is one operation of a BatchedKVOperationMsg.
type KVOp struct {
	Kind OpKind
	Key  Key
	Seq  int64
}

// Messages from a worker. "PeerInitURL" is nil without P2P and also carries the
// "distributed_url" of releases up to 0.3.9.
type (
	RegisterMsg struct {
		InstanceID  string
		WorkerID    WorkerID
		IP          string
		Port        int64
		PeerInitURL *string
	}
	HeartbeatMsg struct {
		InstanceID  string
		WorkerID    WorkerID
		IP          string
		Port        int64
		PeerInitURL *string
	}
	DeRegisterMsg struct {
		InstanceID string
		WorkerID   WorkerID
		IP         string
		Port       int64
	}
	BatchedKVOperationMsg struct {
		InstanceID string
		WorkerID   WorkerID
		Location   string
		Operations []KVOp
	}
	// KVAdmitMsg and KVEvictMsg are the unbatched events of releases up to 0.3.10.
	// Seq is 0 there whether or not the field was sent: such streams have no numbers.
	KVAdmitMsg struct {
		InstanceID string
		WorkerID   WorkerID
		Key        Key
		Location   string
		SeqNum     int64
	}
	KVEvictMsg struct {
		InstanceID string
		WorkerID   WorkerID
		Key        Key
		Location   string
		SeqNum     int64
	}
	BatchedP2PLookupMsg struct {
		Hashes     []Key
		InstanceID string
		WorkerID   WorkerID
	}
	FullSyncStartMsg struct {
		InstanceID string
		WorkerID   WorkerID
		Location   string
		SyncID     string
		TotalKeys  int64
		BatchCount int64
	}
	FullSyncBatchMsg struct {
		InstanceID string
		WorkerID   WorkerID
		Location   string
		SyncID     string
		BatchID    int64
		Keys       []Key
	}
	FullSyncEndMsg struct {
		InstanceID      string
		WorkerID        WorkerID
		Location        string
		SyncID          string
		ActualTotalKeys int64
	}
	FullSyncStatusMsg struct {
		InstanceID string
		WorkerID   WorkerID
		SyncID     string
	}
)

// Answers to a worker.
type (
	RegisterRetMsg struct {
		// ExtraConfig goes out in the order given; the only key in use is "heartbeat_url".
		ExtraConfig []StringPair
	}
	StringPair struct{ Key, Value string }

	HeartbeatRetMsg struct {
		Commands []HeartbeatCommand
	}
	// HeartbeatCommand is always the full_sync command; Args is always nil here.
	HeartbeatCommand struct {
		CommandType string // "full_sync"
		Reason      *string
	}
	BatchedP2PLookupRetMsg struct {
		// LayoutInfo has exactly one entry; a miss is the zero P2PLayout.
		LayoutInfo []P2PLayout
	}
	P2PLayout struct {
		InstanceID  string
		Location    string
		HitChunks   int64
		PeerInitURL string
	}
	FullSyncStartRetMsg struct {
		SyncID   string
		Accepted bool
		ErrorMsg *string
	}
	FullSyncStatusRetMsg struct {
		SyncID         string
		IsComplete     bool
		GlobalProgress float64
		CanExitFreeze  bool
		MissingBatches []int64
	}
	ErrorMsg struct {
		Error string
	}
)

// Commands to a worker, and its answers.
type (
	ClearWorkerMsg struct {
		WorkerEventID string
		Location      string
	}
	PinWorkerMsg struct {
		WorkerEventID string
		Location      string
		Tokens        []int64
	}
	CompressWorkerMsg struct {
		WorkerEventID string
		Method        string
		Location      string
		Tokens        *[]int64 // nil is sent as nil
	}
	DecompressWorkerMsg struct {
		WorkerEventID string
		Method        string
		Location      string
		Tokens        *[]int64
	}
	MoveWorkerMsg struct {
		WorkerEventID string
		OldPosition   string
		NewPosition   [2]string // target's peer_init_url, location
		Tokens        *[]int64
		Copy          *bool
	}
	HealthWorkerMsg struct {
		WorkerEventID string
	}
	CheckFinishWorkerMsg struct {
		WorkerEventID string
	}

	ClearWorkerRetMsg       struct{ NumTokens int64 }
	PinWorkerRetMsg         struct{ NumTokens int64 }
	CompressWorkerRetMsg    struct{ NumTokens int64 }
	DecompressWorkerRetMsg  struct{ NumTokens int64 }
	MoveWorkerRetMsg        struct{ NumTokens int64 }
	HealthWorkerRetMsg      struct{ ErrorCode int64 }
	CheckFinishWorkerRetMsg struct{ Status string }
)
