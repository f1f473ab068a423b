package fsm

import "fmt"

// cause says why an entry was refused, and with it what an operator does.
type cause uint8

const (
	damaged  cause = iota + 1 // its bytes are not an entry
	unknown                   // a newer build wrote it
	panicked                  // a bug of ours
	outdated                  // a build from before the first release wrote it
)

// refusal is the codec's word on an entry; the FSM adds the index.
type refusal struct {
	cause cause
	why   string
}

func refuse(c cause, format string, args ...any) *refusal {
	return &refusal{cause: c, why: fmt.Sprintf(format, args...)}
}

// RefusedError is the answer to an entry that this build cannot apply. The FSM
// stops at it: this entry and all after it stay unapplied.
type RefusedError struct {
	Index   uint64 // in the log; 0 when the entry is not in a log (Check, Decode)
	Type    Type
	Version uint8
	Unknown bool // written by a newer build, the bytes are whole
	Reason  string
	advice  string
}

func (e *RefusedError) Error() string {
	where := "entry"
	if e.Index != 0 {
		where = fmt.Sprintf("log entry %d", e.Index)
	}
	s := fmt.Sprintf("%s (type %d, version %d): %s", where, uint8(e.Type), e.Version, e.Reason)
	if e.Index != 0 {
		s += ": " + e.advice
	}
	return s
}

var advice = map[cause]string{
	damaged: "this replica's log is damaged here: stop it, wipe its data directory and let it rejoin, " +
		"or restore the cluster from a snapshot if every replica says so",
	unknown: "a newer build wrote it: upgrade this replica, its data is in order",
	panicked: "nothing after it is applied here: report this with the entry's index and the stack in the log, " +
		"and restore from a snapshot with a build that has the fix",
	outdated: "a build from before the first release wrote it: use that build, or begin with an empty data directory",
}

func (r *refusal) at(index uint64, env envelope) *RefusedError {
	return &RefusedError{
		Index: index, Type: env.typ, Version: env.version,
		Unknown: r.cause == unknown, Reason: r.why, advice: advice[r.cause],
	}
}
