package lmcache

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
	// HeartbeatCommand is the full_sync command; nothing else is sent.
	HeartbeatCommand struct {
		CommandType string // "full_sync"
		Reason      *string
		// Args is the field's map as MessagePack, nil for nil, which is what the
		// controller sends. It is kept for receivers only.
		Args []byte
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

func (*RegisterRetMsg) Type() string         { return "RegisterRetMsg" }
func (*HeartbeatRetMsg) Type() string        { return "HeartbeatRetMsg" }
func (*BatchedP2PLookupRetMsg) Type() string { return "BatchedP2PLookupRetMsg" }
func (*FullSyncStartRetMsg) Type() string    { return "FullSyncStartRetMsg" }
func (*FullSyncStatusRetMsg) Type() string   { return "FullSyncStatusRetMsg" }
func (*ErrorMsg) Type() string               { return "ErrorMsg" }
