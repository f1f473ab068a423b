package fsm

import (
	"encoding/binary"
	"slices"

	"github.com/kvctrl/kvctrl/registry"
)

// Kinds and states of events travel as numbers out of closed lists: a build that
// does not know one stops instead of guessing. Append only; an addition needs no
// new version.
var (
	eventKinds = []registry.CommandKind{
		1: registry.CommandClear,
		2: registry.CommandPin,
		3: registry.CommandCompress,
		4: registry.CommandDecompress,
		5: registry.CommandMove,
	}
	eventStates = []registry.EventState{
		1: registry.EventPending,
		2: registry.EventRunning,
		3: registry.EventDone,
		4: registry.EventPartial,
		5: registry.EventFailed,
		6: registry.EventTimedOut,
		7: registry.EventInterrupted,
	}
)

// appendEnum writes v's place in its list; 0, which no decoder takes, when it has
// none.
func appendEnum[T ~string](dst []byte, list []T, v T) []byte {
	return append(dst, byte(max(0, slices.Index(list, v))))
}

func readEnum[T ~string](c *cursor, what string, list []T) T {
	n := c.byte()
	if c.err == nil && n == 0 {
		c.off--
		c.fail("%s 0", what)
	}
	if c.err == nil && int(n) >= len(list) {
		c.off--
		c.failNewer("%s %d, this build knows 1 to %d", what, n, len(list)-1)
	}
	if c.err != nil {
		return ""
	}
	return list[n]
}

// EncodeCreateEvent gives the entry that opens an event.
func EncodeCreateEvent(e registry.EventCreate) []byte {
	b := appendHeader(nil, TypeCreateEvent)
	b = appendString(b, e.ID)
	b = appendEnum(b, eventKinds, e.Kind)
	b = appendTarget(b, e.Source)
	b = appendTarget(b, e.Dest)
	b = append(b, e.Fingerprint[:]...)
	b = appendInt(b, e.Tokens)
	b = appendUint(b, e.Term)
	b = appendInt(b, int64(e.At))
	return seal(b)
}

func decodeCreateEvent(c *cursor) registry.EventCreate {
	e := registry.EventCreate{
		ID:     c.name("event id"),
		Kind:   readEnum(c, "command kind", eventKinds),
		Source: readTarget(c),
		Dest:   readTarget(c),
	}
	copy(e.Fingerprint[:], c.bytes(len(e.Fingerprint)))
	e.Tokens = c.int()
	e.Term = c.uint()
	e.At = registry.Micros(c.int())
	return e
}

// EncodeRunEvent gives the entry that marks an event as about to be sent.
func EncodeRunEvent(e registry.EventRun) []byte {
	b := appendHeader(nil, TypeRunEvent)
	b = appendString(b, e.ID)
	b = appendUint(b, e.Term)
	b = appendUint(b, uint64(len(e.Workers)))
	for _, w := range e.Workers {
		b = appendWorker(b, w)
	}
	b = appendInt(b, int64(e.At))
	return seal(b)
}

func decodeRunEvent(c *cursor) registry.EventRun {
	e := registry.EventRun{ID: c.name("event id"), Term: c.uint()}
	for range c.count("workers", 2) {
		w := readWorker(c)
		if c.err != nil {
			break
		}
		e.Workers = append(e.Workers, w)
	}
	e.At = registry.Micros(c.int())
	return e
}

// EncodeFinishEvent gives the entry that closes an event. Cause, Detail and the
// workers' errors are cut to MaxText.
func EncodeFinishEvent(e registry.EventFinish) []byte {
	b := appendHeader(nil, TypeFinishEvent)
	b = appendString(b, e.ID)
	b = appendUint(b, e.Term)
	b = appendEnum(b, eventStates, e.State)
	b = appendInt(b, e.NumTokens)
	b = appendText(b, e.Cause)
	b = appendText(b, e.Detail)
	b = appendUint(b, uint64(len(e.Workers)))
	for _, w := range e.Workers {
		b = appendWorker(b, w.WorkerRef)
		b = appendEnum(b, eventStates, w.State)
		b = appendInt(b, w.NumTokens)
		b = appendText(b, w.Error)
	}
	b = appendInt(b, int64(e.At))
	b = appendConfirmation(b, e.Confirm)
	return seal(b)
}

func decodeFinishEvent(c *cursor, version uint8) registry.EventFinish {
	e := registry.EventFinish{
		ID:        c.name("event id"),
		Term:      c.uint(),
		State:     readEnum(c, "event state", eventStates),
		NumTokens: c.int(),
		Cause:     c.text("cause"),
		Detail:    c.text("detail"),
	}
	for range c.count("workers", 5) {
		w := registry.WorkerOutcome{
			WorkerRef: readWorker(c),
			State:     readEnum(c, "worker state", eventStates),
			NumTokens: c.int(),
			Error:     c.text("worker error"),
		}
		if c.err != nil {
			break
		}
		e.Workers = append(e.Workers, w)
	}
	e.At = registry.Micros(c.int())
	if version >= 2 {
		e.Confirm = readConfirmation(c)
	}
	return e
}

// appendConfirmation writes ranks, and the key if there are any: without ranks there is
// nothing to confirm.
func appendConfirmation(dst []byte, c *registry.Confirmation) []byte {
	if c == nil || len(c.Ranks) == 0 {
		return appendUint(dst, 0)
	}
	dst = appendUint(dst, uint64(len(c.Ranks)))
	for _, rank := range c.Ranks {
		dst = appendInt(dst, rank)
	}
	return binary.LittleEndian.AppendUint64(dst, uint64(c.Key))
}

func readConfirmation(c *cursor) *registry.Confirmation {
	ranks := readList(c, "ranks", 1, c.int)
	if len(ranks) == 0 {
		return nil
	}
	return &registry.Confirmation{Ranks: ranks, Key: registry.Key(c.fixed64())}
}

func appendTarget(dst []byte, t registry.Target) []byte {
	return appendString(appendString(dst, t.Instance), t.Location)
}

func readTarget(c *cursor) registry.Target {
	return registry.Target{Instance: c.name("instance"), Location: c.name("location")}
}

func appendWorker(dst []byte, w registry.WorkerRef) []byte {
	return appendInt(appendString(dst, w.Instance), w.Worker)
}

func readWorker(c *cursor) registry.WorkerRef {
	return registry.WorkerRef{Instance: c.name("instance"), Worker: c.int()}
}
