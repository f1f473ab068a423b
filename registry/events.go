package registry

// CommandKind names an operator's command.
type CommandKind string

// The commands that become events. Health is answered without the log: it
// changes nothing.
const (
	CommandClear      CommandKind = "clear"
	CommandPin        CommandKind = "pin"
	CommandCompress   CommandKind = "compress"
	CommandDecompress CommandKind = "decompress"
	CommandMove       CommandKind = "move"
)

// EventState is where an event stands. Pending and Running are open, the others
// are final.
type EventState string

const (
	EventPending     EventState = "pending"     // in the log, nothing sent yet
	EventRunning     EventState = "running"     // may have been sent to its workers
	EventDone        EventState = "done"        // every worker did it
	EventPartial     EventState = "partial"     // some workers did it
	EventFailed      EventState = "failed"      // no worker did it
	EventTimedOut    EventState = "timed_out"   // a worker did not answer in time
	EventInterrupted EventState = "interrupted" // its leader was lost before the end
)

// Final reports whether the state can no longer change.
func (s EventState) Final() bool { return s != EventPending && s != EventRunning }

// Target is a place that a command names.
type Target struct {
	Instance string
	Location string
}

// EventCreate opens an event: the command is in the log, nothing has been sent.
type EventCreate struct {
	ID     string
	Kind   CommandKind
	Source Target
	Dest   Target // of a move
	// Fingerprint tells whether a second request with the same id is the same
	// command (tokens and all); the command's tokens are not kept.
	Fingerprint [16]byte
	Tokens      int64 // how many tokens the command names
	Term        uint64
	At          Micros
}

// EventCreateResult carries the event of that id. Existing is set when it was
// there before; Conflict when that one was a different command. Refused says why
// nothing was opened, and is empty otherwise.
type EventCreateResult struct {
	Event    Event
	Existing bool
	Conflict bool
	Refused  string
}

// EventRun marks an event as about to be sent. Only the term that created it may
// run it.
type EventRun struct {
	ID      string
	Term    uint64
	Workers []WorkerRef
	At      Micros
}

// EventFinish closes an event.
type EventFinish struct {
	ID        string
	Term      uint64
	State     EventState
	NumTokens int64 // the ranks' common answer, when State is done
	// Cause is the executor's word for why it is not done, by which a repeated event id
	// is answered like the first time; Detail says it to people.
	Cause   string
	Detail  string
	Workers []WorkerOutcome
	// Confirm is what the destination of a move is to report of itself; nil when there is
	// nothing to wait for.
	Confirm *Confirmation
	At      Micros
}

// Confirmation is how a move is seen to have arrived: the destination's own events, not
// the answers to the command, say that it holds the last chunk moved.
type Confirmation struct {
	Key   Key     // of that chunk
	Ranks []int64 // of the destination, all of which are to hold it at its location
}

// Confirmed says whether the destination of a finished move has reported what was
// moved. It is empty when there is nothing to report.
type Confirmed string

const (
	MoveAwaited     Confirmed = "awaited"
	MoveConfirmed   Confirmed = "confirmed"
	MoveUnconfirmed Confirmed = "unconfirmed" // not within Options.ConfirmWithin; Detail says it in words
)

// WorkerOutcome is one worker's part of an event.
type WorkerOutcome struct {
	WorkerRef
	State     EventState // running until it is known
	NumTokens int64
	Error     string // in the worker's own words, or why there are none
}

// Event is a command and what became of it.
type Event struct {
	ID          string
	Kind        CommandKind
	State       EventState
	Source      Target
	Dest        Target
	Fingerprint [16]byte
	Tokens      int64
	NumTokens   int64
	Cause       string // see EventFinish; "interrupted" when a leader was lost
	Detail      string
	Workers     []WorkerOutcome
	Term        uint64
	Created     Micros
	Finished    Micros // 0 while open
	Confirmed   Confirmed
	Confirm     *Confirmation // what is awaited; nil when nothing is. Not to be changed
}
