package fsm

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/kvctrl/kvctrl/registry"
)

// Restore replaces the state by a snapshot's, or leaves it as it is and returns an
// error, a *SnapshotError where the bytes are at fault. The new registry is built
// aside and compared with the snapshot's digest; swapping it in is the last step,
// after which nothing can fail. The caller closes the source.
//
// A snapshot older than the state changes nothing: the state does not go back. It was
// long under way, over a connection that the leader has given up meanwhile, or the
// leader does not know yet how far this replica is. raft goes on behind the snapshot;
// the entries that it then gives once more are passed over (ApplyBatch).
func (f *FSM) Restore(source io.ReadCloser) error {
	if f.failure != nil {
		return fmt.Errorf("no restore into a stopped state machine: %w", f.failure)
	}
	header, reg, err := load(source, f.opts.Registry)
	if err != nil {
		return err
	}
	if header.index < f.index {
		f.logger.Info("snapshot is older than the state, which stays", "index", header.index, "applied", f.index)
		return nil
	}
	f.mu.Lock()
	f.registry.Store(reg)
	f.index, f.term = header.index, header.term
	f.mu.Unlock()
	f.counts.restores.Add(1)
	f.applied.Publish(f.index)
	f.logger.Info("snapshot restored", "index", header.index, "term", header.term)
	return nil
}

// load reads a snapshot and builds its registry.
func load(source io.Reader, opts registry.Options) (header snapshotHeader, reg *registry.Registry, err error) {
	r := newSectionReader(source)
	defer func() {
		if p := recover(); p != nil {
			reg, err = nil, r.faultf("bug: panic while restoring: %v\n%s", p, debug.Stack())
		}
	}()
	if header, err = r.header(); err != nil {
		return header, nil, err
	}
	b := builder{opts: opts}
	for {
		sections := uint64(r.section)
		typ, payload, err := r.sectionBody()
		if err != nil {
			return header, nil, err
		}
		var end *snapshotEnd
		switch {
		case typ == sectionState:
			err = b.addState(payload)
		case typ == sectionKeys:
			err = b.addKeys(payload)
		case typ == sectionEnd:
			if end, err = b.end(payload, sections); err == nil {
				reg, err = b.finish(end)
			}
		case typ >= sectionIgnorable: // a newer build's, safe to skip
		default:
			err = fmt.Errorf("%v is not known to this build: use a newer one", typ)
		}
		if err != nil {
			return header, nil, r.fault(fmt.Errorf("%v section: %w", typ, err))
		}
		if end != nil {
			return header, reg, r.end()
		}
	}
}

// builder makes a registry of sections.
type builder struct {
	opts    registry.Options
	state   []byte           // of the state sections so far
	version uint64           // of the state's encoding
	loader  *registry.Loader // made when the state is complete
	keys    uint64
	holders []uint32 // scratch
}

func (b *builder) addState(payload []byte) error {
	if b.loader != nil {
		return errors.New("state behind keys")
	}
	b.state = append(b.state, payload...)
	return nil
}

// start makes the loader of the state; the first section that is not state calls
// it.
func (b *builder) start() error {
	if b.loader != nil {
		return nil
	}
	c := cursor{data: b.state}
	state, version := readState(&c)
	if c.err != nil {
		return fmt.Errorf("state before it: %w", c.err)
	}
	b.state, b.version = nil, version
	loader, err := registry.NewLoader(*state, b.opts)
	if err != nil {
		return fmt.Errorf("state before it: %w", err)
	}
	b.loader = loader
	return nil
}

func (b *builder) addKeys(payload []byte) error {
	if err := b.start(); err != nil {
		return err
	}
	c := cursor{data: payload}
	for c.left() > 0 {
		k := registry.Key(c.fixed64())
		b.holders = b.holders[:0]
		for range c.count("holders", 1) {
			b.holders = append(b.holders, c.uint32("holder"))
		}
		if c.err != nil {
			return c.err
		}
		if err := b.loader.Add(k, b.holders); err != nil {
			return fmt.Errorf("before byte %d: %w", c.off, err)
		}
		b.keys++
	}
	return nil
}

func (b *builder) end(payload []byte, sections uint64) (*snapshotEnd, error) {
	c := cursor{data: payload}
	e := readEnd(&c)
	switch {
	case c.err != nil:
		return nil, c.err
	case e.sections != sections:
		return nil, fmt.Errorf("%d sections, want %d", sections, e.sections)
	case e.keys != b.keys:
		return nil, fmt.Errorf("%d keys, want %d", b.keys, e.keys)
	}
	return &e, b.start()
}

func (b *builder) finish(end *snapshotEnd) (*registry.Registry, error) {
	reg, err := b.loader.Finish()
	if err != nil {
		return nil, err
	}
	state := reg.State()
	got := state.Digest()
	if b.version == oldestStateVersion {
		got = state.OldDigest()
	}
	if got != end.digest {
		return nil, fmt.Errorf("digest %v, want %v", got, end.digest)
	}
	return reg, nil
}
