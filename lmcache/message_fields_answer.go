package lmcache

// The fields of the answers to a worker, in the order of the wire.

var registerRetFields = []field[RegisterRetMsg]{
	withDefault(dict("extra_config", 2, func(m *RegisterRetMsg) *[]StringPair { return &m.ExtraConfig },
		func(p *StringPair) string { return p.Key },
		func(r *reader, p *StringPair) { p.Key, p.Value = r.str(), r.str() },
		func(dst []byte, p *StringPair, _ Options) []byte {
			return appendStr(appendStr(dst, p.Key), p.Value)
		})),
}

var heartbeatRetFields = []field[HeartbeatRetMsg]{
	withDefault(structs("commands", 24, func(m *HeartbeatRetMsg) *[]HeartbeatCommand { return &m.Commands },
		heartbeatCommandFields)),
}

// heartbeatCommandFields: the tag of a command is command_type, an ordinary field
// here. reason and args have defaults.
var heartbeatCommandFields = []field[HeartbeatCommand]{
	{
		name: "command_type",
		get:  func(r *reader, c *HeartbeatCommand) { c.CommandType = r.commandType() },
		put: func(dst []byte, c *HeartbeatCommand, _ Options) []byte {
			return appendStr(dst, c.CommandType)
		},
	},
	withDefault(nilableStr("reason", func(c *HeartbeatCommand) **string { return &c.Reason })),
	{
		name:     "args",
		optional: true,
		get:      func(r *reader, c *HeartbeatCommand) { c.Args = r.args() },
		put: func(dst []byte, c *HeartbeatCommand, _ Options) []byte {
			if c.Args == nil {
				return appendNil(dst)
			}
			return append(dst, c.Args...)
		},
	},
}

// commandType reads the tag of a heartbeat command. The second name is the abstract
// base class, which msgspec takes too.
func (r *reader) commandType() string {
	b := r.strBytes()
	switch string(b) {
	case "full_sync":
		return "full_sync"
	case "HeartbeatCommand":
		return "HeartbeatCommand"
	}
	r.fail(ReasonUnknownType, "unknown heartbeat command %s", quoted(b))
	return ""
}

// args keeps a map with string keys as it is on the wire.
func (r *reader) args() []byte {
	if r.isNil() {
		return nil
	}
	start := r.pos
	for n := r.mapHeader(); n > 0 && r.err == nil; n-- {
		r.str()
		r.skipStrict()
	}
	if r.err != nil {
		return nil
	}
	return append([]byte(nil), r.buf[start:r.pos]...)
}

var batchedP2PLookupRetFields = []field[BatchedP2PLookupRetMsg]{
	list("layout_info", 5, func(m *BatchedP2PLookupRetMsg) *[]P2PLayout { return &m.LayoutInfo },
		func(r *reader, l *P2PLayout) {
			if r.tuple(4) {
				l.InstanceID, l.Location, l.HitChunks, l.PeerInitURL = r.str(), r.str(), r.int64(), r.str()
			}
		},
		func(dst []byte, l *P2PLayout, _ Options) []byte {
			dst = appendArrayHeader(dst, 4)
			dst = appendStr(appendStr(dst, l.InstanceID), l.Location)
			return appendStr(appendInt(dst, l.HitChunks), l.PeerInitURL)
		}),
}

var fullSyncStartRetFields = []field[FullSyncStartRetMsg]{
	str("sync_id", func(m *FullSyncStartRetMsg) *string { return &m.SyncID }),
	boolean("accepted", func(m *FullSyncStartRetMsg) *bool { return &m.Accepted }),
	withDefault(nilableStr("error_msg", func(m *FullSyncStartRetMsg) **string { return &m.ErrorMsg })),
}

var fullSyncStatusRetFields = []field[FullSyncStatusRetMsg]{
	str("sync_id", func(m *FullSyncStatusRetMsg) *string { return &m.SyncID }),
	boolean("is_complete", func(m *FullSyncStatusRetMsg) *bool { return &m.IsComplete }),
	float("global_progress", func(m *FullSyncStatusRetMsg) *float64 { return &m.GlobalProgress }),
	boolean("can_exit_freeze", func(m *FullSyncStatusRetMsg) *bool { return &m.CanExitFreeze }),
	withDefault(nums("missing_batches", func(m *FullSyncStatusRetMsg) *[]int64 { return &m.MissingBatches })),
}

var errorFields = []field[ErrorMsg]{
	str("error", func(m *ErrorMsg) *string { return &m.Error }),
}
