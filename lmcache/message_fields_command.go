package lmcache

// The fields of the commands to a worker and of its answers, in the order of the
// wire.

var clearWorkerFields = []field[ClearWorkerMsg]{
	str("worker_event_id", func(m *ClearWorkerMsg) *string { return &m.WorkerEventID }),
	str("location", func(m *ClearWorkerMsg) *string { return &m.Location }),
}

var pinWorkerFields = []field[PinWorkerMsg]{
	str("worker_event_id", func(m *PinWorkerMsg) *string { return &m.WorkerEventID }),
	str("location", func(m *PinWorkerMsg) *string { return &m.Location }),
	tokens("tokens", func(m *PinWorkerMsg) *[]Token { return &m.Tokens }),
}

var compressWorkerFields = []field[CompressWorkerMsg]{
	str("worker_event_id", func(m *CompressWorkerMsg) *string { return &m.WorkerEventID }),
	str("method", func(m *CompressWorkerMsg) *string { return &m.Method }),
	str("location", func(m *CompressWorkerMsg) *string { return &m.Location }),
	withDefault(nilableTokens("tokens", func(m *CompressWorkerMsg) **[]Token { return &m.Tokens })),
}

var decompressWorkerFields = []field[DecompressWorkerMsg]{
	str("worker_event_id", func(m *DecompressWorkerMsg) *string { return &m.WorkerEventID }),
	str("method", func(m *DecompressWorkerMsg) *string { return &m.Method }),
	str("location", func(m *DecompressWorkerMsg) *string { return &m.Location }),
	withDefault(nilableTokens("tokens", func(m *DecompressWorkerMsg) **[]Token { return &m.Tokens })),
}

// moveWorkerFields: a missing copy means true here and false in a MoveMsg.
var moveWorkerFields = []field[MoveWorkerMsg]{
	str("worker_event_id", func(m *MoveWorkerMsg) *string { return &m.WorkerEventID }),
	str("old_position", func(m *MoveWorkerMsg) *string { return &m.OldPosition }),
	pair("new_position", func(m *MoveWorkerMsg) *[2]string { return &m.NewPosition }),
	withDefault(nilableTokens("tokens", func(m *MoveWorkerMsg) **[]Token { return &m.Tokens })),
	defaultBool(true, "copy", func(m *MoveWorkerMsg) **bool { return &m.Copy }),
}

var healthWorkerFields = []field[HealthWorkerMsg]{
	str("worker_event_id", func(m *HealthWorkerMsg) *string { return &m.WorkerEventID }),
}

var checkFinishWorkerFields = []field[CheckFinishWorkerMsg]{
	str("worker_event_id", func(m *CheckFinishWorkerMsg) *string { return &m.WorkerEventID }),
}

var clearWorkerRetFields = []field[ClearWorkerRetMsg]{
	num("num_tokens", func(m *ClearWorkerRetMsg) *int64 { return &m.NumTokens }),
}

var pinWorkerRetFields = []field[PinWorkerRetMsg]{
	num("num_tokens", func(m *PinWorkerRetMsg) *int64 { return &m.NumTokens }),
}

var compressWorkerRetFields = []field[CompressWorkerRetMsg]{
	num("num_tokens", func(m *CompressWorkerRetMsg) *int64 { return &m.NumTokens }),
}

var decompressWorkerRetFields = []field[DecompressWorkerRetMsg]{
	num("num_tokens", func(m *DecompressWorkerRetMsg) *int64 { return &m.NumTokens }),
}

var moveWorkerRetFields = []field[MoveWorkerRetMsg]{
	num("num_tokens", func(m *MoveWorkerRetMsg) *int64 { return &m.NumTokens }),
}

var healthWorkerRetFields = []field[HealthWorkerRetMsg]{
	renamed(Gen0303,
		alive(
			func(m *HealthWorkerRetMsg, alive bool) { m.ErrorCode = codeOf(alive) },
			func(m *HealthWorkerRetMsg) bool { return m.ErrorCode == 0 }),
		num("error_code", func(m *HealthWorkerRetMsg) *int64 { return &m.ErrorCode })),
}

// notAlive is the error code we give a worker of 0.3.3 that says alive: false.
const notAlive = -1

func codeOf(alive bool) int64 {
	if alive {
		return 0
	}
	return notAlive
}

// alive is what 0.3.3 has instead of error codes.
func alive[T any](set func(*T, bool), is func(*T) bool) field[T] {
	return field[T]{
		name: "alive",
		get:  func(r *reader, m *T) { set(m, r.bool()) },
		put:  func(dst []byte, m *T, _ Options) []byte { return appendBool(dst, is(m)) },
	}
}

var checkFinishWorkerRetFields = []field[CheckFinishWorkerRetMsg]{
	str("status", func(m *CheckFinishWorkerRetMsg) *string { return &m.Status }),
}
