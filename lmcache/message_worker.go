package lmcache

// Messages from a worker. "PeerInitURL" is nil without P2P and also carries the
// "distributed_url" of releases up to 0.3.9.post2. KeySigns is what the keys looked
// like on the wire: Decode sets it, Append ignores it.
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
		KeySigns   Signs
	}
	// KVAdmitMsg and KVEvictMsg are the unbatched events of releases up to 0.3.10.
	// SeqNum is 0 there whether or not the field was sent: such streams have no numbers.
	KVAdmitMsg struct {
		InstanceID string
		WorkerID   WorkerID
		Key        Key
		Location   string
		SeqNum     int64
		KeySigns   Signs
	}
	KVEvictMsg struct {
		InstanceID string
		WorkerID   WorkerID
		Key        Key
		Location   string
		SeqNum     int64
		KeySigns   Signs
	}
	BatchedP2PLookupMsg struct {
		Hashes     []Key
		InstanceID string
		WorkerID   WorkerID
		KeySigns   Signs
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
		KeySigns   Signs
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

func (*RegisterMsg) Type() string           { return "RegisterMsg" }
func (*HeartbeatMsg) Type() string          { return "HeartbeatMsg" }
func (*DeRegisterMsg) Type() string         { return "DeRegisterMsg" }
func (*BatchedKVOperationMsg) Type() string { return "BatchedKVOperationMsg" }
func (*KVAdmitMsg) Type() string            { return "KVAdmitMsg" }
func (*KVEvictMsg) Type() string            { return "KVEvictMsg" }
func (*BatchedP2PLookupMsg) Type() string   { return "BatchedP2PLookupMsg" }
func (*FullSyncStartMsg) Type() string      { return "FullSyncStartMsg" }
func (*FullSyncBatchMsg) Type() string      { return "FullSyncBatchMsg" }
func (*FullSyncEndMsg) Type() string        { return "FullSyncEndMsg" }
func (*FullSyncStatusMsg) Type() string     { return "FullSyncStatusMsg" }

// keyed is a message with keys.
type keyed interface{ setKeySigns(Signs) }

func (m *BatchedKVOperationMsg) setKeySigns(s Signs) { m.KeySigns = s }
func (m *KVAdmitMsg) setKeySigns(s Signs)            { m.KeySigns = s }
func (m *KVEvictMsg) setKeySigns(s Signs)            { m.KeySigns = s }
func (m *BatchedP2PLookupMsg) setKeySigns(s Signs)   { m.KeySigns = s }
func (m *FullSyncBatchMsg) setKeySigns(s Signs)      { m.KeySigns = s }
