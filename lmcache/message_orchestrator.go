package lmcache

// Requests of an orchestrator. In LMCache they have no socket of their own: whoever
// runs the controller calls it in its process. The controller's worker sockets decode
// and execute them all the same, which is why a receiver has to ask IsOrchestrator.
type (
	LookupMsg struct {
		EventID string
		Tokens  []int64
	}
	QueryInstMsg struct {
		EventID string
		IP      string
	}
	QueryWorkerInfoMsg struct {
		EventID    string
		InstanceID string
		WorkerIDs  *[]WorkerID // nil: all
	}
	ClearMsg struct {
		EventID    string
		InstanceID string
		Location   string
	}
	PinMsg struct {
		EventID    string
		InstanceID string
		Location   string
		Tokens     []int64
	}
	CompressMsg struct {
		EventID    string
		InstanceID string
		Method     string
		Location   string
		Tokens     *[]int64 // nil: all
	}
	DecompressMsg struct {
		EventID    string
		InstanceID string
		Method     string
		Location   string
		Tokens     *[]int64 // nil: all
	}
	MoveMsg struct {
		EventID     string
		OldPosition [2]string // instance, location
		NewPosition [2]string // instance, location
		Tokens      *[]int64  // nil: all
		Copy        *bool
	}
	// HealthMsg has no event id in 0.3.3: it is "" then.
	HealthMsg struct {
		EventID    string
		InstanceID string
	}
	CheckFinishMsg struct {
		EventID string
	}
)

// Answers to an orchestrator.
type (
	LookupRetMsg struct {
		EventID string
		// LayoutInfo is a map on the wire, with the instance as key. Its order means
		// something there and is kept here; instances differ from each other.
		LayoutInfo []InstanceLayout
	}
	InstanceLayout struct {
		InstanceID string
		Location   string
		Tokens     int64 // length of the prefix held, in tokens
	}
	QueryInstRetMsg struct {
		EventID    string
		InstanceID *string // nil: no such instance
	}
	QueryWorkerInfoRetMsg struct {
		EventID     string
		WorkerInfos []WorkerInfo
	}
	// WorkerInfo has times in seconds since 1970. PeerInitURL also carries the
	// "distributed_url" of releases up to 0.3.9.post2.
	WorkerInfo struct {
		InstanceID        string
		WorkerID          WorkerID
		IP                string
		Port              int64
		PeerInitURL       *string
		RegistrationTime  float64
		LastHeartbeatTime float64
	}
	ClearRetMsg struct {
		EventID   string
		NumTokens int64
	}
	PinRetMsg struct {
		EventID   string
		NumTokens int64
	}
	CompressRetMsg struct {
		EventID   string
		NumTokens int64
	}
	DecompressRetMsg struct {
		EventID   string
		NumTokens int64
	}
	MoveRetMsg struct {
		EventID   string
		NumTokens int64
	}
	HealthRetMsg struct {
		EventID string
		// ErrorCodes is a map on the wire, with the rank as key. The one "alive" of
		// 0.3.3 becomes the code of rank 0.
		ErrorCodes []WorkerCode
	}
	WorkerCode struct {
		WorkerID WorkerID
		Code     int64
	}
	CheckFinishRetMsg struct {
		Status string
	}
)

func (*LookupMsg) Type() string             { return "LookupMsg" }
func (*QueryInstMsg) Type() string          { return "QueryInstMsg" }
func (*QueryWorkerInfoMsg) Type() string    { return "QueryWorkerInfoMsg" }
func (*ClearMsg) Type() string              { return "ClearMsg" }
func (*PinMsg) Type() string                { return "PinMsg" }
func (*CompressMsg) Type() string           { return "CompressMsg" }
func (*DecompressMsg) Type() string         { return "DecompressMsg" }
func (*MoveMsg) Type() string               { return "MoveMsg" }
func (*HealthMsg) Type() string             { return "HealthMsg" }
func (*CheckFinishMsg) Type() string        { return "CheckFinishMsg" }
func (*LookupRetMsg) Type() string          { return "LookupRetMsg" }
func (*QueryInstRetMsg) Type() string       { return "QueryInstRetMsg" }
func (*QueryWorkerInfoRetMsg) Type() string { return "QueryWorkerInfoRetMsg" }
func (*ClearRetMsg) Type() string           { return "ClearRetMsg" }
func (*PinRetMsg) Type() string             { return "PinRetMsg" }
func (*CompressRetMsg) Type() string        { return "CompressRetMsg" }
func (*DecompressRetMsg) Type() string      { return "DecompressRetMsg" }
func (*MoveRetMsg) Type() string            { return "MoveRetMsg" }
func (*HealthRetMsg) Type() string          { return "HealthRetMsg" }
func (*CheckFinishRetMsg) Type() string     { return "CheckFinishRetMsg" }
