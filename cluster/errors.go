package cluster

import (
	"errors"
	"fmt"
)

// The errors that callers branch on. Those of a proposal say what it proves:
// after ErrNotLeader, ErrNoLeader, ErrTooLarge, ErrInvalid, ErrBusy and ErrStopped the
// entry is not in the log and never will be; after ErrUnknownOutcome it may be, now or
// later. A context's error comes wrapped together with ErrUnknownOutcome when the
// entry may have been proposed, and alone when it was not.
var (
	// ErrNotLeader is returned when another replica leads. It is a *NotLeaderError.
	ErrNotLeader = errors.New("this replica is not the leader")
	// ErrNoLeader is returned when no replica leads, after waiting for an election.
	ErrNoLeader = errors.New("the cluster has no leader at present")
	// ErrUnknownOutcome is returned when the entry may or may not commit. Retry it
	// with the same session and number only.
	ErrUnknownOutcome = errors.New("the entry may or may not be committed")
	// ErrTooLarge is returned for an entry beyond Options.MaxEntry.
	ErrTooLarge = errors.New("entry too large")
	// ErrInvalid is returned for an entry that the state machine could not apply.
	ErrInvalid = errors.New("the entry cannot be applied, it was not proposed")
	// ErrBusy is returned when raft did not take the entry in time.
	ErrBusy = errors.New("the log is busy, the entry was not proposed")
	// ErrStopped is returned once Close has been called or the node has failed.
	ErrStopped = errors.New("this replica is stopped")
	// ErrStale is returned by Read when the asked freshness was not reached in time.
	ErrStale = errors.New("not fresh enough")
	// ErrNotVoter is returned by Transfer for a target that cannot lead.
	ErrNotVoter = errors.New("not a voting member")
	// ErrIsLeader is returned by what goes to the leader when this replica leads.
	ErrIsLeader = errors.New("this replica leads itself")
	// ErrUnreachable is returned when a replica cannot be reached at its peer address,
	// or refuses to talk to this one: nothing was sent to it.
	ErrUnreachable = errors.New("replica cannot be reached")
	// ErrUnknownNode is returned for a node that is no member.
	ErrUnknownNode = errors.New("no such node in the cluster")
	// ErrQuorum is returned for a change after which too few voters would be left.
	ErrQuorum = errors.New("the cluster would lose its quorum")
	// ErrConflict is returned for a node id or a peer address that is in use.
	ErrConflict = errors.New("in use by another node")
	// ErrForming is returned while this node is in no cluster yet.
	ErrForming = errors.New("this node is in no cluster yet")
	// ErrRemoved is what OnFatal is told, and Open returns, when this node was removed
	// from its cluster.
	ErrRemoved = errors.New("this node was removed from its cluster")
	// ErrStore is what OnFatal is told when the log store failed or hangs.
	ErrStore = errors.New("log store failed")
	// ErrDiskSpace is what OnFatal is told, and Open returns, when free disk space
	// is under the floor.
	ErrDiskSpace = errors.New("too little disk space")
	// ErrOptions is returned by Open for options that cannot be.
	ErrOptions = errors.New("cluster options")
	// ErrDataDir is returned by Open for a directory that it cannot or must not use.
	ErrDataDir = errors.New("data directory")
	// ErrDamaged is returned by Open, beside ErrDataDir, when log or snapshots cannot
	// be read back.
	ErrDamaged = errors.New("damaged")
)

// Leader is the replica that leads.
type Leader struct {
	NodeID string `json:"node_id"`
	URL    string `json:"url"` // empty when the state does not know it
}

// NotLeaderError says who leads instead.
type NotLeaderError struct{ Leader Leader }

func (e *NotLeaderError) Error() string {
	if e.Leader.URL == "" {
		return fmt.Sprintf("%v; %q is", ErrNotLeader, e.Leader.NodeID)
	}
	return fmt.Sprintf("%v; %q at %s is", ErrNotLeader, e.Leader.NodeID, e.Leader.URL)
}

// Is makes errors.Is(err, ErrNotLeader) hold.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// inWords gives a sentinel words of its own, where its general ones would be beside the
// point.
func inWords(is error, format string, args ...any) error {
	return &wordedError{is: is, words: fmt.Errorf(format, args...)}
}

type wordedError struct{ is, words error }

func (e *wordedError) Error() string { return e.words.Error() }

func (e *wordedError) Unwrap() []error { return []error{e.is, e.words} }

func unknown(cause error) error { return fmt.Errorf("%w: %w", ErrUnknownOutcome, cause) }
