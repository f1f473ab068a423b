package fsm

import (
	"fmt"
	"math/rand/v2"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/registry"
)

// script writes a log as a cluster would: a few workers that register, admit,
// evict, lose operations, move to other replicas, sync and leave, beside commands, leases and terms. The
// same seed gives the same log.
type script struct {
	rng      *rand.Rand
	log      []*raft.Log
	now      registry.Micros
	term     uint64
	sessions [3]registry.SessionID
	numbers  [3]uint64
	held     [3][]byte // a batch that the session's replica could not get into the log yet
	seq      map[registry.StreamRef]int64
	events   int
}

func writeScript(seed uint64, entries int) []*raft.Log {
	s := &script{rng: rand.New(rand.NewPCG(seed, 7)), now: sampleAt, seq: map[registry.StreamRef]int64{}}
	for i := range s.sessions {
		s.sessions[i][0] = byte(i + 1)
	}
	s.add(s.beginTerm())
	for len(s.log) < entries {
		s.now += registry.Micros(s.rng.IntN(3_000_000))
		s.add(s.entry())
	}
	return s.log
}

func (s *script) add(entry []byte) {
	s.log = append(s.log, &raft.Log{Index: uint64(len(s.log)) + 1, Term: s.term, Type: raft.LogCommand, Data: entry})
	if s.rng.IntN(20) == 0 { // raft's own bytes, not ours
		s.log = append(s.log, &raft.Log{Index: uint64(len(s.log)) + 1, Term: s.term, Type: raft.LogConfiguration, Data: []byte{0x81, 0xa7}})
	}
}

func (s *script) beginTerm() []byte {
	s.term++
	return EncodeTermBegin(registry.TermBegin{Term: s.term, Node: fmt.Sprintf("node-%d", s.rng.IntN(3)), At: s.now})
}

func (s *script) worker() registry.WorkerRef {
	return registry.WorkerRef{Instance: fmt.Sprintf("vllm-%d", s.rng.IntN(3)), Worker: int64(s.rng.IntN(2))}
}

func (s *script) stream() registry.StreamRef {
	return registry.StreamRef{WorkerRef: s.worker(), Location: []string{"LocalCPUBackend", "LocalDiskBackend"}[s.rng.IntN(2)]}
}

func (s *script) keys(n int) []registry.Key {
	keys := make([]registry.Key, n)
	for i := range keys {
		keys[i] = registry.Key(s.rng.Uint64N(400) * 0x9e3779b97f4a7c15)
	}
	return keys
}

func (s *script) entry() []byte {
	id := func() string { return fmt.Sprintf("Event-%d", s.rng.IntN(s.events+1)) }
	switch s.rng.IntN(16) {
	case 0:
		return s.beginTerm()
	case 1:
		l := registry.Lease{At: s.now, SyncTimeout: 40_000_000}
		for range s.rng.IntN(5) {
			l.Heard = append(l.Heard, registry.Heard{WorkerRef: s.worker(), Any: s.now, Heartbeat: s.now * registry.Micros(s.rng.IntN(2))})
		}
		if s.rng.IntN(4) == 0 {
			l.Expired = append(l.Expired, s.worker())
		}
		return EncodeLease(l)
	case 2:
		s.events++
		return EncodeCreateEvent(registry.EventCreate{ID: id(), Kind: registry.CommandPin, Source: registry.Target{Instance: "vllm-0"},
			Dest:   registry.Target{Instance: "vllm-0"},
			Tokens: 7, Term: s.term, At: s.now})
	case 3:
		return EncodeRunEvent(registry.EventRun{ID: id(), Term: s.term, Workers: []registry.WorkerRef{s.worker()}, At: s.now})
	case 4:
		return EncodeFinishEvent(registry.EventFinish{ID: id(), Term: s.term, State: registry.EventDone, NumTokens: 7, At: s.now,
			Workers: []registry.WorkerOutcome{{WorkerRef: s.worker(), State: registry.EventDone, NumTokens: 7}}, Confirm: s.confirmation()})
	case 5:
		n := fmt.Sprintf("node-%d", s.rng.IntN(3))
		return EncodeSetMember(registry.Member{NodeID: n, PeerAddr: n + ":1", URL: fmt.Sprintf("http://%s:%d", n, s.rng.IntN(2)), Voter: s.rng.IntN(2) == 0})
	case 6:
		return EncodeRemoveMember(fmt.Sprintf("node-%d", s.rng.IntN(3)))
	case 7:
		return seal([]byte{200, 1, 0, 8, 'x'})
	}
	return s.batch()
}

// confirmation is of every other event: some are confirmed, some wait in vain.
func (s *script) confirmation() *registry.Confirmation {
	if s.events%2 == 0 {
		return nil
	}
	return &registry.Confirmation{Key: registry.Key(uint64(s.events) * 0x9e3779b97f4a7c15), Ranks: []int64{0}}
}

func (s *script) batch() []byte {
	which := s.rng.IntN(len(s.sessions))
	if entry := s.held[which]; entry != nil {
		s.held[which] = nil
		return entry
	}
	b := NewBatch(s.sessions[which])
	for range 1 + s.rng.IntN(6) {
		s.record(b)
	}
	if s.rng.IntN(8) != 0 { // else the number of the batch before: a retry
		s.numbers[which]++
	}
	entry := b.Encode(s.numbers[which], s.now)
	if s.rng.IntN(8) != 0 {
		return entry
	}
	s.held[which] = entry
	return s.batch()
}

func (s *script) record(b *Batch) {
	stream := s.stream()
	sync := fmt.Sprintf("sync-%d", s.rng.IntN(2))
	switch s.rng.IntN(12) {
	case 0, 1:
		r := registry.Registration{WorkerRef: stream.WorkerRef, IP: "10.0.0.1", Port: int64(s.rng.IntN(2)), At: s.now, ByHeartbeat: s.rng.IntN(3) > 0}
		if s.rng.IntN(2) == 0 {
			r.PeerInitURL = &sampleURL
		}
		b.Register(r)
	case 2:
		if s.rng.IntN(4) == 0 {
			b.Deregister(stream.WorkerRef, s.now)
		}
	case 3:
		b.SyncStart(registry.SyncStart{Stream: stream, SyncID: sync, TotalKeys: 20, BatchCount: 2, At: s.now})
	case 4, 5:
		b.SyncBatch(registry.SyncBatch{Stream: stream, SyncID: sync, BatchID: int64(s.rng.IntN(2)), Keys: s.keys(10), At: s.now})
	case 6:
		b.SyncEnd(registry.SyncEnd{Stream: stream, SyncID: sync, TotalKeys: 20, At: s.now})
	default:
		o := registry.Ops{Stream: stream, Keys: s.keys(1 + s.rng.IntN(30)), Numbered: true, First: s.seq[stream], At: s.now}
		o.Evict = make(registry.Bitmap, 4)
		for i := range o.Keys {
			if s.rng.IntN(3) == 0 {
				o.Evict[i/8] |= 1 << (i % 8)
			}
		}
		if s.rng.IntN(20) == 0 {
			o.First++ // one was lost
		}
		s.seq[stream] = o.First + int64(len(o.Keys))
		b.Ops(o)
	}
}
