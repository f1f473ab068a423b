package lmcache

// The fields of the messages from a worker, in the order of the wire.

var registerFields = []field[RegisterMsg]{
	str("instance_id", func(m *RegisterMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *RegisterMsg) *int64 { return &m.WorkerID }),
	str("ip", func(m *RegisterMsg) *string { return &m.IP }),
	num("port", func(m *RegisterMsg) *int64 { return &m.Port }),
	peerInitURL(func(m *RegisterMsg) **string { return &m.PeerInitURL }),
}

var heartbeatFields = []field[HeartbeatMsg]{
	str("instance_id", func(m *HeartbeatMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *HeartbeatMsg) *int64 { return &m.WorkerID }),
	str("ip", func(m *HeartbeatMsg) *string { return &m.IP }),
	num("port", func(m *HeartbeatMsg) *int64 { return &m.Port }),
	peerInitURL(func(m *HeartbeatMsg) **string { return &m.PeerInitURL }),
}

// peerInitURL is the address for P2P: peer_init_url, else distributed_url, else nil.
// LMCache itself refuses a message without the field of its own release.
func peerInitURL[T any](p func(*T) **string) field[T] {
	return withDefault(renamed(Gen0309, nilableStr("distributed_url", p), nilableStr("peer_init_url", p)))
}

var deRegisterFields = []field[DeRegisterMsg]{
	str("instance_id", func(m *DeRegisterMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *DeRegisterMsg) *int64 { return &m.WorkerID }),
	str("ip", func(m *DeRegisterMsg) *string { return &m.IP }),
	num("port", func(m *DeRegisterMsg) *int64 { return &m.Port }),
}

var batchedKVOperationFields = []field[BatchedKVOperationMsg]{
	str("instance_id", func(m *BatchedKVOperationMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *BatchedKVOperationMsg) *int64 { return &m.WorkerID }),
	str("location", func(m *BatchedKVOperationMsg) *string { return &m.Location }),
	{
		name: "operations",
		get:  func(r *reader, m *BatchedKVOperationMsg) { m.Operations = r.operations() },
		put: func(dst []byte, m *BatchedKVOperationMsg, o Options) []byte {
			return appendOperations(dst, m.Operations, o)
		},
	},
}

var kvAdmitFields = []field[KVAdmitMsg]{
	str("instance_id", func(m *KVAdmitMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *KVAdmitMsg) *int64 { return &m.WorkerID }),
	key("key", func(m *KVAdmitMsg) *Key { return &m.Key }),
	str("location", func(m *KVAdmitMsg) *string { return &m.Location }),
	newerThan(Gen0309, seqNum(func(m *KVAdmitMsg) *int64 { return &m.SeqNum })),
}

var kvEvictFields = []field[KVEvictMsg]{
	str("instance_id", func(m *KVEvictMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *KVEvictMsg) *int64 { return &m.WorkerID }),
	key("key", func(m *KVEvictMsg) *Key { return &m.Key }),
	str("location", func(m *KVEvictMsg) *string { return &m.Location }),
	newerThan(Gen0309, seqNum(func(m *KVEvictMsg) *int64 { return &m.SeqNum })),
}

var batchedP2PLookupFields = []field[BatchedP2PLookupMsg]{
	keys("hashes", func(m *BatchedP2PLookupMsg) *[]Key { return &m.Hashes }),
	str("instance_id", func(m *BatchedP2PLookupMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *BatchedP2PLookupMsg) *int64 { return &m.WorkerID }),
}

var fullSyncStartFields = []field[FullSyncStartMsg]{
	str("instance_id", func(m *FullSyncStartMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *FullSyncStartMsg) *int64 { return &m.WorkerID }),
	str("location", func(m *FullSyncStartMsg) *string { return &m.Location }),
	str("sync_id", func(m *FullSyncStartMsg) *string { return &m.SyncID }),
	num("total_keys", func(m *FullSyncStartMsg) *int64 { return &m.TotalKeys }),
	num("batch_count", func(m *FullSyncStartMsg) *int64 { return &m.BatchCount }),
}

var fullSyncBatchFields = []field[FullSyncBatchMsg]{
	str("instance_id", func(m *FullSyncBatchMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *FullSyncBatchMsg) *int64 { return &m.WorkerID }),
	str("location", func(m *FullSyncBatchMsg) *string { return &m.Location }),
	str("sync_id", func(m *FullSyncBatchMsg) *string { return &m.SyncID }),
	num("batch_id", func(m *FullSyncBatchMsg) *int64 { return &m.BatchID }),
	keys("keys", func(m *FullSyncBatchMsg) *[]Key { return &m.Keys }),
}

var fullSyncEndFields = []field[FullSyncEndMsg]{
	str("instance_id", func(m *FullSyncEndMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *FullSyncEndMsg) *int64 { return &m.WorkerID }),
	str("location", func(m *FullSyncEndMsg) *string { return &m.Location }),
	str("sync_id", func(m *FullSyncEndMsg) *string { return &m.SyncID }),
	num("actual_total_keys", func(m *FullSyncEndMsg) *int64 { return &m.ActualTotalKeys }),
}

var fullSyncStatusFields = []field[FullSyncStatusMsg]{
	str("instance_id", func(m *FullSyncStatusMsg) *string { return &m.InstanceID }),
	num("worker_id", func(m *FullSyncStatusMsg) *int64 { return &m.WorkerID }),
	str("sync_id", func(m *FullSyncStatusMsg) *string { return &m.SyncID }),
}
