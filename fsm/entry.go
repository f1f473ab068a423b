package fsm

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
)

// Type says what a log entry is. The ranges are part of the format: an unknown
// type from TypeIgnorable up is applied as a counted no-op, an unknown type below
// stops the replica, because skipping it would fork the state.
type Type uint8

// The entry types. docs/formats.md has the table with "since version".
const (
	typeInvalid      Type = 0 // an entry of zeros is not an entry
	TypeWorkerBatch  Type = 1
	TypeTermBegin    Type = 2
	TypeLease        Type = 3
	TypeCreateEvent  Type = 4
	TypeRunEvent     Type = 5
	TypeFinishEvent  Type = 6
	TypeSetMember    Type = 7
	TypeRemoveMember Type = 8
	// up to 63: core; 64 to 127: kept for the parts of backup and restore, and for
	// LMCache's multi-process plane.

	// TypeIgnorable is the first type that a build may skip when it does not know
	// it. Nothing that changes the registry may ever be given such a type.
	TypeIgnorable Type = 128
)

// Limits of an entry. A decoder refuses what is beyond them, so they can only be
// raised together with a version.
const (
	// MaxEntry is the size of the largest entry, raft's own suggestion. Batchers
	// flush well below it, at 256 KiB or less.
	MaxEntry = 512 << 10
	// MaxName bounds identifiers: instance, location, sync id, event id, address,
	// URL, node.
	MaxName = 1024
	// MaxText bounds free text (an event's detail, a worker's error). Encoders cut
	// it, they do not refuse it.
	MaxText = 1024
)

const (
	planeInProcess = 0 // LMCache's in-process plane
	keyWidth       = 8

	headerSize  = 4 // type, version, plane, key width
	trailerSize = 4 // CRC32C, little endian, over everything before it
)

// EntryVersion is the newest version of any type that this build reads.
const EntryVersion = 2

// versions holds, by type, its name and the versions that this build reads. The
// oldest is the one of the first release: what was before it is not read.
var versions = map[Type]struct {
	name           string
	oldest, newest uint8
}{
	TypeWorkerBatch:  {"worker batch", 1, 1},
	TypeTermBegin:    {"term begin", 1, 1},
	TypeLease:        {"lease", 1, 1},
	TypeCreateEvent:  {"create event", 1, 1},
	TypeRunEvent:     {"run event", 1, 1},
	TypeFinishEvent:  {"finish event", 1, 2}, // from 2 on with what is to be confirmed
	TypeSetMember:    {"set member", 2, 2},
	TypeRemoveMember: {"remove member", 1, 1},
}

// String gives the type's name, or its number when this build does not know it.
func (t Type) String() string {
	if v, ok := versions[t]; ok {
		return v.name
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// knownTypes lists them for messages.
func knownTypes() string {
	var b strings.Builder
	for i, t := range slices.Sorted(maps.Keys(versions)) {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d", uint8(t))
	}
	return b.String()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendHeader opens an entry of the newest version of its type.
func appendHeader(dst []byte, t Type) []byte {
	return append(dst, byte(t), versions[t].newest, planeInProcess, keyWidth)
}

// seal closes an entry with its checksum.
func seal(entry []byte) []byte {
	return binary.LittleEndian.AppendUint32(entry, crc32.Checksum(entry, castagnoli))
}

// envelope is what every entry of every version has, now and later: four bytes in
// front and the checksum behind. Only the body may change with the version.
type envelope struct {
	typ     Type
	version uint8
	ignored bool // of an ignorable type that this build does not know
}

// open checks an entry's envelope and gives a cursor over its body. Its offsets
// count from the entry's first byte.
func open(entry []byte) (envelope, cursor, *refusal) {
	if len(entry) < headerSize+trailerSize {
		return envelope{}, cursor{}, refuse(damaged, "%d bytes, an entry has at least %d", len(entry), headerSize+trailerSize)
	}
	env := envelope{typ: Type(entry[0]), version: entry[1]}
	if len(entry) > MaxEntry {
		return env, cursor{}, refuse(damaged, "%d bytes, limit %d", len(entry), MaxEntry)
	}
	body, sum := entry[:len(entry)-trailerSize], binary.LittleEndian.Uint32(entry[len(entry)-trailerSize:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return env, cursor{}, refuse(damaged, "checksum %08x, want %08x", got, sum)
	}
	known, ok := versions[env.typ]
	switch {
	case !ok && env.typ >= TypeIgnorable:
		env.ignored = true
		return env, cursor{}, nil
	case env.typ == typeInvalid:
		return env, cursor{}, refuse(damaged, "type 0 is not an entry")
	case !ok:
		return env, cursor{}, refuse(unknown, "this build knows the types %s", knownTypes())
	case env.version == 0:
		return env, cursor{}, refuse(damaged, "version 0 is not a version")
	case env.version < known.oldest:
		return env, cursor{}, refuse(outdated, "this build knows a %s from version %d on", known.name, known.oldest)
	case env.version > known.newest:
		return env, cursor{}, refuse(unknown, "this build knows a %s up to version %d", known.name, known.newest)
	case entry[2] != planeInProcess || entry[3] != keyWidth:
		return env, cursor{}, refuse(unknown, "plane %d with keys of %d bytes, this build knows plane %d with keys of %d bytes",
			entry[2], entry[3], planeInProcess, keyWidth)
	}
	return env, cursor{data: body, off: headerSize}, nil
}
