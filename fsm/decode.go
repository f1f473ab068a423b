package fsm

import (
	"slices"

	"github.com/kvctrl/kvctrl/registry"
)

// Entry is a decoded log entry, for tests and for people who look at a log; the
// FSM itself does not build one. Value is a WorkerBatch, registry.TermBegin,
// registry.Lease, registry.EventCreate, registry.EventRun, registry.EventFinish,
// registry.Member or RemoveMember, and nil for an ignorable type that this build
// does not know.
type Entry struct {
	Type    Type
	Version uint8
	Value   any
}

// WorkerBatch is a batch of what workers said. A record is a registry.Ops,
// registry.Registration, Deregistration, registry.SyncStart, registry.SyncBatch or
// registry.SyncEnd.
type WorkerBatch struct {
	Session registry.SessionID
	Number  uint64
	At      registry.Micros
	Records []any
}

// Deregistration is a worker's leave.
type Deregistration struct {
	registry.WorkerRef
	At registry.Micros
}

// RemoveMember forgets a replica.
type RemoveMember struct{ NodeID string }

// Decode reads an entry. The result shares no memory with it. The error is a
// *RefusedError.
func Decode(entry []byte) (Entry, error) {
	var d decoder
	env, c, r := open(entry)
	if r == nil && !env.ignored {
		var value any
		if value, r = d.value(env, c); r == nil {
			if batch, ok := value.(cursor); ok {
				value = d.collect(batch)
			}
			return Entry{Type: env.typ, Version: env.version, Value: value}, nil
		}
	}
	if r != nil {
		return Entry{}, r.at(0, env)
	}
	return Entry{Type: env.typ, Version: env.version}, nil
}

// Check says whether an FSM of this build would apply the entry. A leader asks it
// before it proposes: an entry that is refused after it has been committed stops
// every replica. The error is a *RefusedError.
func Check(entry []byte) error {
	var d decoder
	env, c, r := open(entry)
	if r == nil && !env.ignored {
		_, r = d.value(env, c)
	}
	if r != nil {
		return r.at(0, env)
	}
	return nil
}

// Check is Check of the package, for whoever proposes entries to this FSM.
func (f *FSM) Check(entry []byte) error { return Check(entry) }

// value decodes and checks the body of an entry. A worker batch is only checked;
// its value is the cursor over its body, to be read record by record.
func (d *decoder) value(env envelope, c cursor) (any, *refusal) {
	var value any
	switch env.typ {
	case TypeWorkerBatch:
		return c, d.checkBatch(c)
	case TypeTermBegin:
		value = decodeTermBegin(&c)
	case TypeLease:
		value = d.lease(&c)
	case TypeCreateEvent:
		value = decodeCreateEvent(&c)
	case TypeRunEvent:
		value = decodeRunEvent(&c)
	case TypeFinishEvent:
		value = decodeFinishEvent(&c, env.version)
	case TypeSetMember:
		value = decodeMember(&c)
	case TypeRemoveMember:
		value = RemoveMember{NodeID: c.name("node")}
	default:
		return nil, refuse(panicked, "bug: no decoder for a %s", env.typ)
	}
	c.end()
	return value, c.refusal()
}

// collect copies all records of a batch that has been checked.
func (d *decoder) collect(c cursor) WorkerBatch {
	h := d.openBatch(&c)
	b := WorkerBatch{Session: h.session, Number: h.number, At: h.at}
	for range h.records {
		switch r := d.next(&c, true); r.kind {
		case recOps:
			o := r.ops
			o.Keys, o.Evict = slices.Clone(o.Keys), slices.Clone(o.Evict)
			b.Records = append(b.Records, o)
		case recRegister:
			b.Records = append(b.Records, r.register)
		case recDeregister:
			b.Records = append(b.Records, r.deregister)
		case recSyncStart:
			b.Records = append(b.Records, r.syncStart)
		case recSyncBatch:
			s := r.syncBatch
			s.Keys = slices.Clone(s.Keys)
			b.Records = append(b.Records, s)
		case recSyncEnd:
			b.Records = append(b.Records, r.syncEnd)
		}
	}
	return b
}
