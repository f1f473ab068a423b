package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/registry"
)

// Snapshot holds the state as it stands; Persist writes it while entries go on.
// A stopped FSM gives none: raft would trim the log by an index that the state
// has not reached.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	if f.failure != nil {
		return nil, fmt.Errorf("no snapshot of a stopped state machine: %w", f.failure)
	}
	return &snapshot{
		header: snapshotHeader{index: f.index, term: f.term},
		reg:    f.registry.Load().Snapshot(),
	}, nil
}

// snapshot is a registry at one index. Persist and Release are raft's, on its
// snapshot goroutine, beside Apply.
type snapshot struct {
	header snapshotHeader
	reg    *registry.Snapshot
}

// Persist writes the snapshot and closes the sink, or cancels it and returns an
// error: a fault that went unreported would let raft trim the log for nothing.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	err := s.write(sink)
	if err != nil {
		return errors.Join(fmt.Errorf("write snapshot %q: %w", sink.ID(), err), sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("close snapshot %q: %w", sink.ID(), err)
	}
	return nil
}

// Release lets go of what the registry keeps for the snapshot.
func (s *snapshot) Release() { s.reg.Release() }

// write writes header, state, keys shard by shard, and end. A panic of the
// registry becomes an error: it has damaged nothing, and raft goes on with its
// log untrimmed.
func (s *snapshot) write(w io.Writer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("bug: panic while reading the state: %v\n%s", p, debug.Stack())
		}
	}()
	if _, err := w.Write(s.header.append(nil)); err != nil {
		return err
	}
	out := newSectionWriter(w)
	state := s.reg.State()
	for rest := appendState(nil, &state); len(rest) > 0 && out.err == nil; {
		n := min(len(rest), cutSection)
		out.buf = append(out.buf, rest[:n]...)
		rest = rest[n:]
		out.flush(sectionState)
	}
	keys := uint64(0)
	for shard := range s.reg.Shards() {
		s.reg.Shard(shard, func(k registry.Key, holders []uint32) {
			keys++
			out.buf = appendKey(out.buf, k, holders)
			if out.size() >= cutSection {
				out.flush(sectionKeys)
			}
		})
		if out.size() > 0 {
			out.flush(sectionKeys)
		}
		if out.err != nil {
			return out.err
		}
	}
	out.buf = appendEnd(out.buf, snapshotEnd{sections: out.sections, keys: keys, digest: s.reg.Digest()})
	out.flush(sectionEnd)
	return out.err
}

func appendKey(dst []byte, k registry.Key, holders []uint32) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(k))
	dst = appendUint(dst, uint64(len(holders)))
	for _, h := range holders {
		dst = appendUint(dst, uint64(h))
	}
	return dst
}

// snapshotEnd is the last section: it proves that nothing is missing.
type snapshotEnd struct {
	sections uint64 // before this one
	keys     uint64 // distinct
	digest   registry.Digest
}

func appendEnd(dst []byte, e snapshotEnd) []byte {
	dst = appendUint(dst, e.sections)
	dst = appendUint(dst, e.keys)
	return append(dst, e.digest[:]...)
}

func readEnd(c *cursor) snapshotEnd {
	e := snapshotEnd{sections: c.uint(), keys: c.uint(), digest: registry.Digest(c.array16())}
	c.end()
	return e
}
