package fsm

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/internal/indexwait"
	"github.com/kvctrl/kvctrl/registry"
)

// sweepSlots is how many index slots each entry sweeps for what died with a
// holder: nothing when none died, else some ten microseconds, and up to 80 where
// most slots are dead. An index of 8 M slots is through after 2 000 entries. It may change between builds: a sweep never shows in an answer or in
// the digest.
const sweepSlots = 4096

// Options configure an FSM. The zero value works.
type Options struct {
	Registry registry.Options
	Logger   hclog.Logger // nil: silent
	// OnFatal is told, once, why the FSM has stopped for good; the process should
	// say so and end. It is called on raft's FSM goroutine and must not wait for
	// raft. It is a *RefusedError.
	OnFatal func(error)
}

// FSM is the replicated state machine: raft.FSM and raft.BatchingFSM around one
// registry.
//
// Concurrency: raft calls Apply, ApplyBatch, Snapshot and Restore, one at a time.
// The other methods may be called from any goroutine.
type FSM struct {
	opts   Options
	logger hclog.Logger

	// registry is swapped whole by Restore. Readers load it for each request.
	registry atomic.Pointer[registry.Registry]
	applied  indexwait.Mark // published after the registry has changed
	counts   counters

	// of raft's FSM goroutine
	dec     decoder
	failure *RefusedError

	// mu is held while one entry changes the registry and index moves on to it, so
	// that who holds it stands between two entries. Raft's FSM goroutine alone
	// writes what it guards. It is taken before the registry's own lock.
	mu          sync.Mutex
	index, term uint64 // of the last entry seen
}

var (
	_ raft.BatchingFSM = (*FSM)(nil)
	_ raft.FSMSnapshot = (*snapshot)(nil)
)

// New gives an FSM with an empty registry.
func New(opts Options) *FSM {
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	f := &FSM{opts: opts, logger: opts.Logger}
	f.registry.Store(registry.New(opts.Registry))
	return f
}

// Registry is the state as it stands. Ask again for every request: a restored
// snapshot replaces it.
func (f *FSM) Registry() *registry.Registry { return f.registry.Load() }

// Applied is the index of the last entry that the registry shows. It counts what
// raft hands to an FSM, so it stands still over raft's own no-ops: wait for the
// index of an entry that was proposed, never for raft's commit index.
func (f *FSM) Applied() uint64 { return f.applied.Reached() }

// WaitApplied returns nil once Applied has reached the index, a *RefusedError when
// the FSM has stopped below it, or the context's cause.
func (f *FSM) WaitApplied(ctx context.Context, index uint64) error {
	return f.applied.Wait(ctx, index)
}

// Digest returns the state's digest and the index that it stands for. The index may
// be a little ahead of Applied.
//
// Cost: entries wait while the state but the keys is written down, milliseconds with
// thousands of workers; it is hashed beside them.
func (f *FSM) Digest() (index uint64, d registry.Digest) {
	f.mu.Lock()
	index = f.index
	state := f.Registry().State()
	f.mu.Unlock()
	return index, state.Digest()
}

// Apply applies one entry; doc.go says what it answers.
func (f *FSM) Apply(log *raft.Log) any {
	return f.ApplyBatch([]*raft.Log{log})[0]
}

// ApplyBatch applies entries in order and publishes the last index. Nothing of
// the logs is kept. An entry that the state has in it is passed over: raft gives it
// again behind a snapshot that was older than the state (Restore), to nobody who waits.
func (f *FSM) ApplyBatch(logs []*raft.Log) []any {
	results := make([]any, len(logs))
	for i, log := range logs {
		if log.Index <= f.index {
			continue
		}
		if f.failure == nil {
			results[i], f.failure = f.step(log)
		}
		if f.failure != nil {
			for ; i < len(logs); i++ {
				results[i] = f.failure
			}
			break
		}
	}
	if f.index != f.applied.Reached() {
		f.applied.Publish(f.index)
	}
	if f.failure != nil {
		f.stop()
	}
	return results
}

// stop ends the FSM's life, once.
func (f *FSM) stop() {
	if f.counts.stopped.Swap(true) {
		return
	}
	f.applied.Fail(f.failure)
	f.logger.Error("state machine stopped: this replica no longer follows the log", "error", f.failure)
	if f.opts.OnFatal != nil {
		f.opts.OnFatal(f.failure)
	}
}

// step goes from one entry to the next.
func (f *FSM) step(log *raft.Log) (result any, failure *RefusedError) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if log.Type == raft.LogCommand {
		result, failure = f.apply(log)
	}
	if failure == nil {
		f.index, f.term = log.Index, log.Term
	}
	return result, failure
}

// apply applies one command entry, whole or not at all. A panic below is a bug of
// ours that may have left the registry between two states: it ends the FSM like
// an entry that cannot be read.
func (f *FSM) apply(log *raft.Log) (result any, failure *RefusedError) {
	var env envelope
	defer func() {
		if p := recover(); p != nil {
			f.logger.Error("panic while applying", "index", log.Index, "type", env.typ, "panic", p, "stack", string(debug.Stack()))
			failure = refuse(panicked, "bug: panic while applying it: %v", p).at(log.Index, env)
		}
	}()
	env, c, refused := open(log.Data)
	var value any
	if refused == nil && !env.ignored {
		value, refused = f.dec.value(env, c)
	}
	if refused != nil {
		return nil, refused.at(log.Index, env)
	}
	reg := f.registry.Load()
	result = f.dispatch(reg, value)
	reg.Sweep(sweepSlots)
	f.counts.entries.Add(1)
	if env.ignored {
		f.counts.ignored.Add(1)
		f.logger.Warn("entry of a newer build skipped: its type says that this is safe",
			"index", log.Index, "type", uint8(env.typ), "version", env.version)
	}
	return result, nil
}

// dispatch hands a checked entry to the registry.
func (f *FSM) dispatch(reg *registry.Registry, value any) any {
	switch v := value.(type) {
	case cursor:
		return f.applyBatch(reg, v)
	case registry.Lease:
		reg.Lease(v)
	case registry.TermBegin:
		return reg.BeginTerm(v)
	case registry.EventCreate:
		return reg.CreateEvent(v)
	case registry.EventRun:
		return verdict(reg.RunEvent(v))
	case registry.EventFinish:
		return verdict(reg.FinishEvent(v))
	case registry.Member:
		reg.SetMember(v)
	case RemoveMember:
		reg.RemoveMember(v.NodeID)
	case nil: // ignorable
	default:
		panic(fmt.Sprintf("bug: no one applies a %T", value))
	}
	return nil
}

// verdict makes an untyped nil of no error.
func verdict(err error) any {
	if err == nil {
		return nil
	}
	return err
}

// applyBatch applies a worker batch that has been checked, unless it was applied
// before.
func (f *FSM) applyBatch(reg *registry.Registry, c cursor) BatchResult {
	h := f.dec.openBatch(&c)
	if !reg.AcceptBatch(h.session, h.number, h.at) {
		f.counts.duplicates.Add(1)
		return BatchResult{Duplicate: true}
	}
	out := BatchResult{Records: make([]RecordResult, h.records)}
	operations := 0
	for i := range out.Records {
		r, res := f.dec.next(&c, true), &out.Records[i]
		switch r.kind {
		case recOps:
			operations += len(r.ops.Keys)
			r.ops.Session = h.session
			res.Ops = reg.ApplyOps(r.ops)
		case recRegister:
			res.Register = reg.Register(r.register)
		case recDeregister:
			res.Deregistered = reg.Deregister(r.deregister.WorkerRef, r.deregister.At)
		case recSyncStart:
			res.SyncStart = reg.SyncStart(r.syncStart)
		case recSyncBatch:
			operations += len(r.syncBatch.Keys)
			res.Sync = reg.SyncBatch(r.syncBatch)
		case recSyncEnd:
			res.Sync = reg.SyncEnd(r.syncEnd)
		}
	}
	f.counts.operations.Add(uint64(operations))
	return out
}
