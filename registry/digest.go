package registry

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
)

// DigestVersion changes with what a digest covers or how it is computed; replicas
// of different versions must not compare theirs.
const (
	DigestVersion    = 3
	oldDigestVersion = 2 // without failed syncs, times of completed ones, and confirmations
)

// String returns the digest as people compare it.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// State returns the present state but the index, for its Digest, which is computed
// beside the writer: the sets in it are in no order before. Cost: it writes all of it
// down, under the lock, milliseconds with thousands of workers; keys cost nothing, they
// are summed up as they come and go.
func (r *Registry) State() State {
	r.mu.RLock()
	st, _ := r.capture()
	r.mu.RUnlock()
	return st
}

// Digest returns the digest of the present state. Cost: State, and a hash of it beside
// the writer.
func (r *Registry) Digest() Digest {
	st := r.State()
	return st.Digest()
}

// Digest returns the digest of a state. What keys a holder has goes in as their count
// and sum, so a state and its index are proven to fit by Loader.Finish alone.
func (s *State) Digest() Digest { return s.digest(DigestVersion) }

// OldDigest returns the digest of the version before, which covers less: what a
// snapshot of an earlier build ends with.
func (s *State) OldDigest() Digest { return s.digest(oldDigestVersion) }

func (s *State) digest(version uint64) Digest {
	s.settle()
	d := digester{hash: sha256.New(), version: version}
	d.u64(version)
	d.i64(int64(s.Time))
	d.u64(s.Term)
	d.str(s.Leader)
	d.i64(s.Gaps)
	d.i64(s.Late)
	d.u64(s.LastNumber)
	d.u64(uint64(s.Holders))
	d.u64(uint64(len(s.Instances)))
	for _, inst := range s.Instances {
		d.str(inst.ID)
		d.u64(inst.Number)
	}
	d.u64(uint64(len(s.Workers)))
	for i := range s.Workers {
		d.worker(&s.Workers[i])
	}
	d.u64(uint64(len(s.Events)))
	for i := range s.Events {
		d.u64(s.Events[i].Number)
		d.event(&s.Events[i].Event)
	}
	d.u64(uint64(len(s.Finished)))
	for _, n := range s.Finished {
		d.u64(n)
	}
	d.u64(uint64(len(s.Members)))
	for _, m := range s.Members {
		d.str(m.NodeID)
		d.str(m.PeerAddr)
		d.str(m.URL)
		d.flags(m.Voter)
	}
	d.u64(uint64(len(s.Sessions)))
	for _, e := range s.Sessions {
		d.str(string(e.ID[:]))
		d.u64(e.Last)
		d.i64(int64(e.Seen))
	}
	d.flush()
	var out Digest
	copy(out[:], d.hash.Sum(nil))
	return out
}

// digester hashes values so that no two sequences of them look alike: each has a
// fixed width or its length before it.
type digester struct {
	hash    hash.Hash
	buf     []byte
	version uint64
}

func (d *digester) flush() {
	d.hash.Write(d.buf)
	d.buf = d.buf[:0]
}

func (d *digester) u64(v uint64) {
	d.buf = binary.LittleEndian.AppendUint64(d.buf, v)
	if len(d.buf) >= 4096 {
		d.flush()
	}
}

func (d *digester) i64(v int64) { d.u64(uint64(v)) }

func (d *digester) str(s string) {
	d.u64(uint64(len(s)))
	d.buf = append(d.buf, s...)
}

func (d *digester) flags(flags ...bool) {
	var v uint64
	for i, f := range flags {
		if f {
			v |= 1 << i
		}
	}
	d.u64(v)
}

func (d *digester) worker(w *WorkerState) {
	d.ref(w.WorkerRef)
	d.u64(w.Number)
	d.str(w.IP)
	d.i64(w.Port)
	d.flags(w.PeerInitURL != nil, w.Beats, w.Adopted, w.Suspect)
	if w.PeerInitURL != nil {
		d.str(*w.PeerInitURL)
	}
	d.i64(int64(w.Registered))
	d.i64(int64(w.LastHeartbeat))
	d.i64(int64(w.LastHeard))
	d.str(w.Wanted)
	if d.version > oldDigestVersion {
		d.i64(int64(w.SyncFailures))
		d.i64(int64(w.SyncFailed))
	}
	d.u64(uint64(len(w.Streams)))
	for i := range w.Streams {
		d.stream(&w.Streams[i])
	}
}

func (d *digester) ref(r WorkerRef) {
	d.str(r.Instance)
	d.i64(r.Worker)
}

func (d *digester) stream(s *StreamState) {
	d.str(s.Location)
	d.u64(s.Number)
	d.holder(s.Holder)
	q := s.Sequence
	d.flags(s.Stores, s.Lossy, s.Synced, s.Sync != nil, q.Begun, q.Unnumbered, q.LoneZero, q.Counted)
	d.i64(s.Gaps)
	d.i64(q.Next)
	d.str(string(q.Writer[:]))
	d.u64(uint64(len(q.Holes)))
	for _, h := range q.Holes {
		d.i64(h.From)
		d.i64(h.To)
		d.i64(int64(h.Until))
		d.flags(h.Extended)
	}
	d.str(s.LastSync)
	if d.version > oldDigestVersion {
		d.i64(int64(s.SyncedAt))
	}
	if y := s.Sync; y != nil {
		d.str(y.ID)
		d.i64(int64(y.Started))
		d.i64(y.TotalKeys)
		d.i64(y.BatchCount)
		d.flags(y.Ended, y.Tainted)
		d.holder(y.Shadow)
		d.u64(uint64(len(y.Received)))
		for _, id := range y.Received {
			d.i64(id)
		}
		d.u64(uint64(len(y.Evicted)))
		for _, k := range y.Evicted {
			d.u64(uint64(k))
		}
	}
}

func (d *digester) holder(h HolderState) {
	d.u64(uint64(h.Holder))
	d.i64(h.Count)
	d.u64(h.Sum)
}

func (d *digester) event(e *Event) {
	d.str(e.ID)
	d.str(string(e.Kind))
	d.str(string(e.State))
	for _, t := range []Target{e.Source, e.Dest} {
		d.str(t.Instance)
		d.str(t.Location)
	}
	d.str(string(e.Fingerprint[:]))
	d.i64(e.Tokens)
	d.i64(e.NumTokens)
	d.str(e.Cause)
	d.str(e.Detail)
	d.u64(uint64(len(e.Workers)))
	for _, w := range e.Workers {
		d.ref(w.WorkerRef)
		d.str(string(w.State))
		d.i64(w.NumTokens)
		d.str(w.Error)
	}
	d.u64(e.Term)
	d.i64(int64(e.Created))
	d.i64(int64(e.Finished))
	if d.version > oldDigestVersion {
		d.str(string(e.Confirmed))
		d.confirm(e.Confirm)
	}
}

func (d *digester) confirm(c *Confirmation) {
	if c == nil {
		d.u64(0)
		return
	}
	d.u64(uint64(len(c.Ranks)))
	for _, rank := range c.Ranks {
		d.i64(rank)
	}
	d.u64(uint64(c.Key))
}
