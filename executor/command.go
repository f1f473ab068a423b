package executor

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// MaxEventID is the longest event id a caller may choose, in characters.
const MaxEventID = 128

// Command is an operator's command.
type Command struct {
	Kind registry.CommandKind
	// EventID is the caller's own id, or empty for one made here. The same id again
	// returns the first event's outcome and sends nothing.
	EventID string
	Source  registry.Target  // the instance and location to act on
	Dest    registry.Target  // of a move
	Method  string           // of compress and decompress
	Tokens  *[]lmcache.Token // nil is sent as nil; clear sends none
	Copy    *bool            // of a move: leave the source's chunks; nil is sent as nil, and means false
	// Deadline bounds the wait for each worker's answer; 0 is the executor's own.
	Deadline time.Duration
	// Detach makes Do return once the event is in the log.
	Detach bool
}

// prefixes are what LMCache puts before the uuid of an event id.
var prefixes = map[registry.CommandKind]string{
	registry.CommandClear:      "Clear",
	registry.CommandPin:        "Pin",
	registry.CommandCompress:   "Compress",
	registry.CommandDecompress: "Decompress",
	registry.CommandMove:       "Move",
}

// NewEventID makes an event id the way LMCache does: the command's name and a uuid4.
func NewEventID(kind registry.CommandKind) string { return prefixes[kind] + uuid.NewString() }

// validate refuses what no worker could make sense of.
func (c *Command) validate() error {
	if _, ok := prefixes[c.Kind]; !ok {
		return fmt.Errorf("command %q is not one of clear, pin, compress, decompress, move", c.Kind)
	}
	if n := utf8.RuneCountInString(c.EventID); n > MaxEventID {
		return fmt.Errorf("event_id has %d characters, at most %d are kept", n, MaxEventID)
	}
	if c.Kind == registry.CommandPin && c.Tokens == nil {
		return errors.New("pin needs tokens")
	}
	return nil
}

func (c *Command) tokens() []lmcache.Token {
	if c.Tokens == nil {
		return nil
	}
	return *c.Tokens
}

// Fingerprint tells commands apart that share an event id. Deadline and Detach are
// not part of what a command is.
func (c Command) Fingerprint() [16]byte {
	h := sha256.New()
	text(h, string(c.Kind), c.Source.Instance, c.Source.Location, c.Dest.Instance, c.Dest.Location, c.Method)
	flags := byte(0)
	if c.Copy != nil && *c.Copy {
		flags |= 1
	}
	if c.Tokens != nil {
		flags |= 2
	}
	buf := []byte{flags}
	for _, t := range c.tokens() {
		buf = t.Append(buf)
	}
	h.Write(buf)
	return [16]byte(h.Sum(nil)[:16])
}

func text(h hash.Hash, parts ...string) {
	var length [8]byte
	for _, p := range parts {
		binary.LittleEndian.PutUint64(length[:], uint64(len(p)))
		h.Write(length[:])
		h.Write([]byte(p))
	}
}
