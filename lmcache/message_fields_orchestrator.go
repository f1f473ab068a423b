package lmcache

// The fields of the orchestrator's messages, in the order of the wire.

var lookupFields = []field[LookupMsg]{
	str("event_id", func(m *LookupMsg) *string { return &m.EventID }),
	nums("tokens", func(m *LookupMsg) *[]int64 { return &m.Tokens }),
}

var queryInstFields = []field[QueryInstMsg]{
	str("event_id", func(m *QueryInstMsg) *string { return &m.EventID }),
	str("ip", func(m *QueryInstMsg) *string { return &m.IP }),
}

var queryWorkerInfoFields = []field[QueryWorkerInfoMsg]{
	str("event_id", func(m *QueryWorkerInfoMsg) *string { return &m.EventID }),
	str("instance_id", func(m *QueryWorkerInfoMsg) *string { return &m.InstanceID }),
	nilableNums("worker_ids", func(m *QueryWorkerInfoMsg) **[]int64 { return &m.WorkerIDs }),
}

var clearFields = []field[ClearMsg]{
	str("event_id", func(m *ClearMsg) *string { return &m.EventID }),
	str("instance_id", func(m *ClearMsg) *string { return &m.InstanceID }),
	str("location", func(m *ClearMsg) *string { return &m.Location }),
}

var pinFields = []field[PinMsg]{
	str("event_id", func(m *PinMsg) *string { return &m.EventID }),
	str("instance_id", func(m *PinMsg) *string { return &m.InstanceID }),
	str("location", func(m *PinMsg) *string { return &m.Location }),
	nums("tokens", func(m *PinMsg) *[]int64 { return &m.Tokens }),
}

var compressFields = []field[CompressMsg]{
	str("event_id", func(m *CompressMsg) *string { return &m.EventID }),
	str("instance_id", func(m *CompressMsg) *string { return &m.InstanceID }),
	str("method", func(m *CompressMsg) *string { return &m.Method }),
	str("location", func(m *CompressMsg) *string { return &m.Location }),
	withDefault(nilableNums("tokens", func(m *CompressMsg) **[]int64 { return &m.Tokens })),
}

var decompressFields = []field[DecompressMsg]{
	str("event_id", func(m *DecompressMsg) *string { return &m.EventID }),
	str("instance_id", func(m *DecompressMsg) *string { return &m.InstanceID }),
	str("method", func(m *DecompressMsg) *string { return &m.Method }),
	str("location", func(m *DecompressMsg) *string { return &m.Location }),
	withDefault(nilableNums("tokens", func(m *DecompressMsg) **[]int64 { return &m.Tokens })),
}

var moveFields = []field[MoveMsg]{
	str("event_id", func(m *MoveMsg) *string { return &m.EventID }),
	pair("old_position", func(m *MoveMsg) *[2]string { return &m.OldPosition }),
	pair("new_position", func(m *MoveMsg) *[2]string { return &m.NewPosition }),
	withDefault(nilableNums("tokens", func(m *MoveMsg) **[]int64 { return &m.Tokens })),
	defaultBool(false, "copy", func(m *MoveMsg) **bool { return &m.Copy }),
}

var healthFields = []field[HealthMsg]{
	newerThan(Gen0303, str("event_id", func(m *HealthMsg) *string { return &m.EventID })),
	str("instance_id", func(m *HealthMsg) *string { return &m.InstanceID }),
}

var checkFinishFields = []field[CheckFinishMsg]{
	str("event_id", func(m *CheckFinishMsg) *string { return &m.EventID }),
}

var lookupRetFields = []field[LookupRetMsg]{
	str("event_id", func(m *LookupRetMsg) *string { return &m.EventID }),
	dict("layout_info", 4, func(m *LookupRetMsg) *[]InstanceLayout { return &m.LayoutInfo },
		func(l *InstanceLayout) string { return l.InstanceID },
		func(r *reader, l *InstanceLayout) {
			if l.InstanceID = r.str(); r.tuple(2) {
				l.Location, l.Tokens = r.str(), r.int64()
			}
		},
		func(dst []byte, l *InstanceLayout, _ Options) []byte {
			dst = appendArrayHeader(appendStr(dst, l.InstanceID), 2)
			return appendInt(appendStr(dst, l.Location), l.Tokens)
		}),
}

var queryInstRetFields = []field[QueryInstRetMsg]{
	str("event_id", func(m *QueryInstRetMsg) *string { return &m.EventID }),
	nilableStr("instance_id", func(m *QueryInstRetMsg) **string { return &m.InstanceID }),
}

var queryWorkerInfoRetFields = []field[QueryWorkerInfoRetMsg]{
	str("event_id", func(m *QueryWorkerInfoRetMsg) *string { return &m.EventID }),
	structs("worker_infos", 80, func(m *QueryWorkerInfoRetMsg) *[]WorkerInfo { return &m.WorkerInfos },
		workerInfoFields),
}

var workerInfoFields = []field[WorkerInfo]{
	str("instance_id", func(i *WorkerInfo) *string { return &i.InstanceID }),
	num("worker_id", func(i *WorkerInfo) *int64 { return &i.WorkerID }),
	str("ip", func(i *WorkerInfo) *string { return &i.IP }),
	num("port", func(i *WorkerInfo) *int64 { return &i.Port }),
	peerInitURL(func(i *WorkerInfo) **string { return &i.PeerInitURL }),
	float("registration_time", func(i *WorkerInfo) *float64 { return &i.RegistrationTime }),
	float("last_heartbeat_time", func(i *WorkerInfo) *float64 { return &i.LastHeartbeatTime }),
}

var clearRetFields = []field[ClearRetMsg]{
	str("event_id", func(m *ClearRetMsg) *string { return &m.EventID }),
	num("num_tokens", func(m *ClearRetMsg) *int64 { return &m.NumTokens }),
}

var pinRetFields = []field[PinRetMsg]{
	str("event_id", func(m *PinRetMsg) *string { return &m.EventID }),
	num("num_tokens", func(m *PinRetMsg) *int64 { return &m.NumTokens }),
}

var compressRetFields = []field[CompressRetMsg]{
	str("event_id", func(m *CompressRetMsg) *string { return &m.EventID }),
	num("num_tokens", func(m *CompressRetMsg) *int64 { return &m.NumTokens }),
}

var decompressRetFields = []field[DecompressRetMsg]{
	str("event_id", func(m *DecompressRetMsg) *string { return &m.EventID }),
	num("num_tokens", func(m *DecompressRetMsg) *int64 { return &m.NumTokens }),
}

var moveRetFields = []field[MoveRetMsg]{
	str("event_id", func(m *MoveRetMsg) *string { return &m.EventID }),
	num("num_tokens", func(m *MoveRetMsg) *int64 { return &m.NumTokens }),
}

var healthRetFields = []field[HealthRetMsg]{
	str("event_id", func(m *HealthRetMsg) *string { return &m.EventID }),
	renamed(Gen0303,
		alive(
			func(m *HealthRetMsg, alive bool) { m.ErrorCodes = []WorkerCode{{Code: codeOf(alive)}} },
			allHealthy),
		dict("error_codes", 2, func(m *HealthRetMsg) *[]WorkerCode { return &m.ErrorCodes },
			func(c *WorkerCode) int64 { return c.WorkerID },
			func(r *reader, c *WorkerCode) { c.WorkerID, c.Code = r.int64(), r.int64() },
			func(dst []byte, c *WorkerCode, _ Options) []byte {
				return appendInt(appendInt(dst, c.WorkerID), c.Code)
			})),
}

func allHealthy(m *HealthRetMsg) bool {
	for _, c := range m.ErrorCodes {
		if c.Code != 0 {
			return false
		}
	}
	return true
}

var checkFinishRetFields = []field[CheckFinishRetMsg]{
	str("status", func(m *CheckFinishRetMsg) *string { return &m.Status }),
}
