package lmcache

// Commands to a worker, and its answers.
type (
	ClearWorkerMsg struct {
		WorkerEventID string
		Location      string
	}
	PinWorkerMsg struct {
		WorkerEventID string
		Location      string
		Tokens        []Token
	}
	CompressWorkerMsg struct {
		WorkerEventID string
		Method        string
		Location      string
		Tokens        *[]Token // nil is sent as nil
	}
	DecompressWorkerMsg struct {
		WorkerEventID string
		Method        string
		Location      string
		Tokens        *[]Token
	}
	MoveWorkerMsg struct {
		WorkerEventID string
		OldPosition   string
		NewPosition   [2]string // target's peer_init_url, location
		Tokens        *[]Token
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

func (*ClearWorkerMsg) Type() string          { return "ClearWorkerMsg" }
func (*PinWorkerMsg) Type() string            { return "PinWorkerMsg" }
func (*CompressWorkerMsg) Type() string       { return "CompressWorkerMsg" }
func (*DecompressWorkerMsg) Type() string     { return "DecompressWorkerMsg" }
func (*MoveWorkerMsg) Type() string           { return "MoveWorkerMsg" }
func (*HealthWorkerMsg) Type() string         { return "HealthWorkerMsg" }
func (*CheckFinishWorkerMsg) Type() string    { return "CheckFinishWorkerMsg" }
func (*ClearWorkerRetMsg) Type() string       { return "ClearWorkerRetMsg" }
func (*PinWorkerRetMsg) Type() string         { return "PinWorkerRetMsg" }
func (*CompressWorkerRetMsg) Type() string    { return "CompressWorkerRetMsg" }
func (*DecompressWorkerRetMsg) Type() string  { return "DecompressWorkerRetMsg" }
func (*MoveWorkerRetMsg) Type() string        { return "MoveWorkerRetMsg" }
func (*HealthWorkerRetMsg) Type() string      { return "HealthWorkerRetMsg" }
func (*CheckFinishWorkerRetMsg) Type() string { return "CheckFinishWorkerRetMsg" }
