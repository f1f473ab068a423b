package executor

import (
	"errors"
	"fmt"

	"github.com/kvctrl/kvctrl/registry"
)

// What callers branch on.
var (
	// ErrNotLeading is returned when this replica does not lead, or no longer: the
	// command was not sent by it.
	ErrNotLeading = errors.New("this replica does not lead")

	// ErrBusy is returned when as many commands are open as there may be, or when
	// earlier commands held a worker for the whole deadline: nothing was sent.
	ErrBusy = errors.New("too many commands are waiting")

	// ErrOutcomeUnknown is returned when leadership or the log was lost while the
	// command ran. The event tells, once the cluster has a leader again.
	ErrOutcomeUnknown = errors.New("the leader was lost while the command ran")
)

// UnknownInstanceError is returned when a command names an instance without workers.
type UnknownInstanceError struct{ Instance string }

func (e *UnknownInstanceError) Error() string {
	return fmt.Sprintf("no worker of instance %q is registered", e.Instance)
}

// PlanError is returned when the workers of a command do not fit it, and nothing was
// sent. Nothing was logged either, unless they changed while the command waited.
type PlanError struct {
	Code   string // "ranks", "no_p2p" or "same_place"
	Detail string
}

func (e *PlanError) Error() string { return e.Detail }

// ConflictError is returned when an event id stands for another command already.
type ConflictError struct{ Event registry.Event }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("event id %q was used for another command (%s on %q): choose a new id", e.Event.ID, e.Event.Kind, e.Event.Source.Instance)
}

// Cause says why a command did not succeed.
type Cause string

const (
	CauseWorkerError Cause = "worker_error" // a worker answered with an error
	CauseBadAnswer   Cause = "bad_answer"   // a worker's answer was not understood
	CauseTimeout     Cause = "timeout"      // a worker did not answer in time
	CauseUnreachable Cause = "unreachable"  // no connection to a worker: not sent to it
	CauseDisagree    Cause = "disagree"     // all ranks did it, with different counts
	CausePartial     Cause = "partial"      // some ranks did it, others did not
	CauseUnsent      Cause = "unsent"       // the log or earlier commands kept it from being sent
	CauseInterrupted Cause = "interrupted"  // an earlier leader was lost with it
)

// CommandError is returned when a command ended other than done.
type CommandError struct {
	Event registry.Event
	Cause Cause
}

func (e *CommandError) Error() string { return e.Event.Detail }
