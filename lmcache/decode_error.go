package lmcache

import (
	"errors"
	"fmt"
)

// Reason says in one word why a frame was refused. The set is closed (see
// Reasons), so a reason can be the label of a metric.
type Reason string

const (
	ReasonEmpty        Reason = "empty"         // a frame of no bytes
	ReasonTruncated    Reason = "truncated"     // the frame ends before the message does
	ReasonTrailing     Reason = "trailing"      // bytes after the message
	ReasonSyntax       Reason = "syntax"        // neither MessagePack nor JSON
	ReasonType         Reason = "type"          // a value of another type than the field's
	ReasonMissingField Reason = "missing_field" // a field without default is not there
	ReasonUnknownType  Reason = "unknown_type"  // no such message or heartbeat command
	ReasonUTF8         Reason = "utf8"          // a string that is no UTF-8
	ReasonRange        Reason = "range"         // right type, but a value the field cannot take
	ReasonDepth        Reason = "depth"         // more than MaxDepth containers inside each other
)

// Reasons returns every Reason, for callers that count by it.
func Reasons() []Reason {
	return []Reason{
		ReasonEmpty, ReasonTruncated, ReasonTrailing, ReasonSyntax, ReasonType,
		ReasonMissingField, ReasonUnknownType, ReasonUTF8, ReasonRange, ReasonDepth,
	}
}

// DecodeError is the only error Decode returns.
type DecodeError struct {
	Reason Reason
	// Message is the message's type, "" when the frame was refused before it was known.
	Message string
	// Field is the path to the value, as in "operations[3].key"; "" is the message itself.
	Field string
	// Detail names what was wanted and what was found. It quotes at most
	// maxQuoted bytes of the frame.
	Detail string
}

// Error gives all parts in lower case, except for names taken from the protocol.
func (e *DecodeError) Error() string {
	switch {
	case e.Message == "":
		return e.Detail
	case e.Field == "":
		return e.Message + ": " + e.Detail
	default:
		return e.Message + ": " + e.Field + ": " + e.Detail
	}
}

// ReasonOf returns the reason of an error of Decode, however wrapped, and "" for
// nil and for other errors.
func ReasonOf(err error) Reason {
	var de *DecodeError
	if errors.As(err, &de) {
		return de.Reason
	}
	return ""
}

// within puts the error one level deeper: name is a field or "[index]".
func (e *DecodeError) within(name string) {
	switch {
	case e.Field == "":
		e.Field = name
	case e.Field[0] == '[':
		e.Field = name + e.Field
	default:
		e.Field = name + "." + e.Field
	}
}

// maxQuoted bounds how much of a frame an error text repeats: such texts go into
// logs and answers, and the frame is anybody's.
const maxQuoted = 48

// quoted renders bytes of the frame for an error text.
func quoted(b []byte) string {
	if len(b) > maxQuoted {
		return fmt.Sprintf("%q... (%d bytes)", b[:maxQuoted], len(b))
	}
	return fmt.Sprintf("%q", b)
}
