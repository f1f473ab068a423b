package fsm

import (
	"encoding/binary"
	"math"

	"github.com/kvctrl/kvctrl/registry"
)

// This file writes registry.State, all of a registry but its index, as the bytes
// that state sections carry. It is by hand and not by reflection because a reader
// must not allocate by what a damaged length claims (DESIGN.md, D4).
//
// Strings have no limit of their own here: what the registry holds must come back.

// stateVersion changes with every change of this encoding. Versions from the oldest on
// are read; what they lack is zero.
const (
	stateVersion       = 3
	oldestStateVersion = 2 // without failed syncs, times of completed ones, and confirmations
)

func appendState(b []byte, s *registry.State) []byte {
	b = appendUint(b, stateVersion)
	b = appendInt(b, int64(s.Time))
	b = appendUint(b, s.Term)
	b = appendString(b, s.Leader)
	b = appendInt(b, s.Gaps)
	b = appendInt(b, s.Late)
	b = appendUint(b, s.LastNumber)
	b = appendUint(b, uint64(s.Holders))
	b = appendUint(b, uint64(len(s.Instances)))
	for i := range s.Instances {
		b = appendString(b, s.Instances[i].ID)
		b = appendUint(b, s.Instances[i].Number)
	}
	b = appendUint(b, uint64(len(s.Workers)))
	for i := range s.Workers {
		b = appendWorkerState(b, &s.Workers[i])
	}
	b = appendUint(b, uint64(len(s.Events)))
	for i := range s.Events {
		b = appendUint(b, s.Events[i].Number)
		b = appendEventState(b, &s.Events[i].Event)
	}
	b = appendUint(b, uint64(len(s.Finished)))
	for _, n := range s.Finished {
		b = appendUint(b, n)
	}
	b = appendUint(b, uint64(len(s.Members)))
	for _, m := range s.Members {
		b = appendMember(b, m)
	}
	b = appendUint(b, uint64(len(s.Sessions)))
	for _, x := range s.Sessions {
		b = append(b, x.ID[:]...)
		b = appendUint(b, x.Last)
		b = appendInt(b, int64(x.Seen))
	}
	return b
}

func readState(c *cursor) (s *registry.State, version uint64) {
	version = c.uint()
	if c.err == nil && (version < oldestStateVersion || version > stateVersion) {
		c.failNewer("state version %d, this build reads versions %d to %d", version, oldestStateVersion, stateVersion)
	}
	s = &registry.State{
		Time:       c.micros(),
		Term:       c.uint(),
		Leader:     c.string("leader"),
		Gaps:       c.int(),
		Late:       c.int(),
		LastNumber: c.uint(),
		Holders:    c.uint32("holders"),
	}
	s.Instances = readList(c, "instances", 2, func() registry.InstanceState {
		return registry.InstanceState{ID: c.string("instance"), Number: c.uint()}
	})
	s.Workers = readList(c, "workers", 11, func() registry.WorkerState { return readWorkerState(c, version) })
	s.Events = readList(c, "events", 32, func() registry.EventEntry {
		return registry.EventEntry{Number: c.uint(), Event: readEventState(c, version)}
	})
	s.Finished = readList(c, "finished events", 1, c.uint)
	s.Members = readList(c, "members", 4, func() registry.Member {
		return registry.Member{
			NodeID:   c.string("node"),
			PeerAddr: c.string("peer address"),
			URL:      c.string("url"),
			Voter:    c.flags(memberVoter) != 0,
		}
	})
	s.Sessions = readList(c, "sessions", sessionSize+2, func() registry.SessionState {
		return registry.SessionState{ID: registry.SessionID(c.array16()), Last: c.uint(), Seen: c.micros()}
	})
	c.end()
	return s, version
}

// readList reads a count and that many items. It grows with what has been read.
func readList[T any](c *cursor, what string, minSize int, item func() T) []T {
	var list []T
	for range c.count(what, minSize) {
		v := item()
		if c.err != nil {
			return nil
		}
		list = append(list, v)
	}
	return list
}

const (
	workerBeats, workerAdopted, workerSuspect, workerPeer = 1, 2, 4, 8
	streamStores, streamLossy, streamSynced, streamSync   = 1, 2, 4, 8
	seqBegun, seqUnnumbered, seqLoneZero, seqCounted      = 1, 2, 4, 8
	syncEnded, syncTainted                                = 1, 2
	holeExtended                                          = 1
)

func appendWorkerState(b []byte, w *registry.WorkerState) []byte {
	b = appendWorker(b, w.WorkerRef)
	b = appendUint(b, w.Number)
	b = append(b, bit(w.Beats, workerBeats)|bit(w.Adopted, workerAdopted)|bit(w.Suspect, workerSuspect)|
		bit(w.PeerInitURL != nil, workerPeer))
	b = appendString(b, w.IP)
	b = appendInt(b, w.Port)
	if w.PeerInitURL != nil {
		b = appendString(b, *w.PeerInitURL)
	}
	b = appendInt(b, int64(w.Registered))
	b = appendInt(b, int64(w.LastHeartbeat))
	b = appendInt(b, int64(w.LastHeard))
	b = appendString(b, w.Wanted)
	b = appendInt(b, int64(w.SyncFailures))
	b = appendInt(b, int64(w.SyncFailed))
	b = appendUint(b, uint64(len(w.Streams)))
	for i := range w.Streams {
		b = appendStreamState(b, &w.Streams[i])
	}
	return b
}

func readWorkerState(c *cursor, version uint64) registry.WorkerState {
	w := registry.WorkerState{
		WorkerRef: registry.WorkerRef{Instance: c.string("instance"), Worker: c.int()},
		Number:    c.uint(),
	}
	flags := c.flags(workerBeats | workerAdopted | workerSuspect | workerPeer)
	w.Beats, w.Adopted, w.Suspect = flags&workerBeats != 0, flags&workerAdopted != 0, flags&workerSuspect != 0
	w.IP = c.string("ip")
	w.Port = c.int()
	if flags&workerPeer != 0 {
		url := c.string("peer url")
		w.PeerInitURL = &url
	}
	w.Registered, w.LastHeartbeat, w.LastHeard = c.micros(), c.micros(), c.micros()
	w.Wanted = c.string("reason of a full sync")
	if version > oldestStateVersion {
		w.SyncFailures, w.SyncFailed = int(c.int()), c.micros()
	}
	w.Streams = readList(c, "streams", 33, func() registry.StreamState { return readStreamState(c, version) })
	return w
}

func appendStreamState(b []byte, s *registry.StreamState) []byte {
	b = appendString(b, s.Location)
	b = appendUint(b, s.Number)
	b = append(b, bit(s.Stores, streamStores)|bit(s.Lossy, streamLossy)|bit(s.Synced, streamSynced)|bit(s.Sync != nil, streamSync))
	b = appendHolder(b, s.Holder)
	b = appendInt(b, s.Gaps)
	q := s.Sequence
	b = append(b, bit(q.Begun, seqBegun)|bit(q.Unnumbered, seqUnnumbered)|bit(q.LoneZero, seqLoneZero)|bit(q.Counted, seqCounted))
	b = appendInt(b, q.Next)
	b = append(b, q.Writer[:]...)
	b = appendUint(b, uint64(len(q.Holes)))
	for _, h := range q.Holes {
		b = appendInt(b, h.From)
		b = appendInt(b, h.To)
		b = appendInt(b, int64(h.Until))
		b = append(b, bit(h.Extended, holeExtended))
	}
	b = appendString(b, s.LastSync)
	b = appendInt(b, int64(s.SyncedAt))
	if s.Sync != nil {
		b = appendSyncState(b, s.Sync)
	}
	return b
}

func readStreamState(c *cursor, version uint64) registry.StreamState {
	s := registry.StreamState{Location: c.string("location"), Number: c.uint()}
	flags := c.flags(streamStores | streamLossy | streamSynced | streamSync)
	s.Stores, s.Lossy, s.Synced = flags&streamStores != 0, flags&streamLossy != 0, flags&streamSynced != 0
	s.Holder = readHolder(c)
	s.Gaps = c.int()
	seq := c.flags(seqBegun | seqUnnumbered | seqLoneZero | seqCounted)
	s.Sequence = registry.SequenceState{
		Begun: seq&seqBegun != 0, Unnumbered: seq&seqUnnumbered != 0,
		LoneZero: seq&seqLoneZero != 0, Counted: seq&seqCounted != 0,
		Next: c.int(), Writer: c.array16(),
	}
	s.Sequence.Holes = readList(c, "holes", 4, func() registry.HoleState {
		return registry.HoleState{From: c.int(), To: c.int(), Until: c.micros(), Extended: c.flags(holeExtended) != 0}
	})
	s.LastSync = c.string("sync id")
	if version > oldestStateVersion {
		s.SyncedAt = c.micros()
	}
	if flags&streamSync != 0 {
		s.Sync = readSyncState(c)
	}
	return s
}

func appendHolder(b []byte, h registry.HolderState) []byte {
	b = appendUint(b, uint64(h.Holder))
	b = appendInt(b, h.Count)
	return binary.LittleEndian.AppendUint64(b, h.Sum)
}

func readHolder(c *cursor) registry.HolderState {
	return registry.HolderState{Holder: c.uint32("holder"), Count: c.int(), Sum: c.fixed64()}
}

// appendSyncState writes the received batches, which ascend, as steps.
func appendSyncState(b []byte, s *registry.SyncState) []byte {
	b = appendString(b, s.ID)
	b = append(b, bit(s.Ended, syncEnded)|bit(s.Tainted, syncTainted))
	b = appendInt(b, int64(s.Started))
	b = appendInt(b, s.TotalKeys)
	b = appendInt(b, s.BatchCount)
	b = appendHolder(b, s.Shadow)
	b = appendUint(b, uint64(len(s.Received)))
	var last int64
	for _, id := range s.Received {
		b = appendInt(b, id-last)
		last = id
	}
	b = appendUint(b, uint64(len(s.Evicted)))
	for _, k := range s.Evicted {
		b = binary.LittleEndian.AppendUint64(b, uint64(k))
	}
	return b
}

func readSyncState(c *cursor) *registry.SyncState {
	s := &registry.SyncState{ID: c.string("sync id")}
	flags := c.flags(syncEnded | syncTainted)
	s.Ended, s.Tainted = flags&syncEnded != 0, flags&syncTainted != 0
	s.Started = c.micros()
	s.TotalKeys, s.BatchCount = c.int(), c.int()
	s.Shadow = readHolder(c)
	var last int64
	s.Received = readList(c, "received batches", 1, func() int64 {
		last += c.int()
		return last
	})
	s.Evicted = readList(c, "evicted keys", keyWidth, func() registry.Key { return registry.Key(c.fixed64()) })
	return s
}

func appendEventState(b []byte, e *registry.Event) []byte {
	b = appendString(b, e.ID)
	b = appendString(b, string(e.Kind))
	b = appendString(b, string(e.State))
	b = appendTarget(b, e.Source)
	b = appendTarget(b, e.Dest)
	b = append(b, e.Fingerprint[:]...)
	b = appendInt(b, e.Tokens)
	b = appendInt(b, e.NumTokens)
	b = appendString(b, e.Cause)
	b = appendString(b, e.Detail)
	b = appendUint(b, uint64(len(e.Workers)))
	for i := range e.Workers {
		w := &e.Workers[i]
		b = appendWorker(b, w.WorkerRef)
		b = appendString(b, string(w.State))
		b = appendInt(b, w.NumTokens)
		b = appendString(b, w.Error)
	}
	b = appendUint(b, e.Term)
	b = appendInt(b, int64(e.Created))
	b = appendInt(b, int64(e.Finished))
	b = appendString(b, string(e.Confirmed))
	return appendConfirmation(b, e.Confirm)
}

func readEventState(c *cursor, version uint64) registry.Event {
	e := registry.Event{
		ID:          c.string("event id"),
		Kind:        registry.CommandKind(c.string("command kind")),
		State:       registry.EventState(c.string("event state")),
		Source:      registry.Target{Instance: c.string("instance"), Location: c.string("location")},
		Dest:        registry.Target{Instance: c.string("instance"), Location: c.string("location")},
		Fingerprint: c.array16(),
		Tokens:      c.int(),
		NumTokens:   c.int(),
		Cause:       c.string("cause"),
		Detail:      c.string("detail"),
	}
	e.Workers = readList(c, "outcomes", 5, func() registry.WorkerOutcome {
		return registry.WorkerOutcome{
			WorkerRef: registry.WorkerRef{Instance: c.string("instance"), Worker: c.int()},
			State:     registry.EventState(c.string("worker state")),
			NumTokens: c.int(),
			Error:     c.string("worker error"),
		}
	})
	e.Term = c.uint()
	e.Created, e.Finished = c.micros(), c.micros()
	if version > oldestStateVersion {
		e.Confirmed = registry.Confirmed(c.string("confirmed"))
		e.Confirm = readConfirmation(c)
	}
	return e
}

func bit(v bool, b byte) byte {
	if v {
		return b
	}
	return 0
}

func (c *cursor) string(what string) string { return string(c.rawString(what, math.MaxInt32)) }

func (c *cursor) micros() registry.Micros { return registry.Micros(c.int()) }

func (c *cursor) uint32(what string) uint32 {
	v := c.uint()
	if c.err == nil && v > math.MaxUint32 {
		c.fail("%s %d beyond 32 bits", what, v)
	}
	return uint32(v)
}

func (c *cursor) fixed64() uint64 {
	b := c.bytes(8)
	if c.err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

func (c *cursor) array16() (a [16]byte) {
	copy(a[:], c.bytes(len(a)))
	return a
}

// flags reads a byte of which only the known bits may be set.
func (c *cursor) flags(known byte) byte {
	b := c.byte()
	if c.err == nil && b&^known != 0 {
		c.off--
		c.failNewer("flags %08b, this build knows %08b", b, known)
	}
	return b
}
