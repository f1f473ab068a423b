package fsm

import "github.com/kvctrl/kvctrl/registry"

// sample is one entry of the golden set: built by the encoders, kept as hex under
// testdata/entries, shown in docs/formats.md.
type sample struct {
	name  string
	typ   Type
	entry func() []byte
	want  any // what Decode gives
	// before is what it gives of earlier versions' golden files; nil for the same.
	before any
}

const sampleAt = registry.Micros(1_760_000_000_000_000)

var (
	sampleSession = registry.SessionID{0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	sampleURL     = "10.0.0.7:8400"
	workerA       = registry.WorkerRef{Instance: "vllm-0", Worker: 0}
	workerB       = registry.WorkerRef{Instance: "vllm-0", Worker: 1}
	streamA       = registry.StreamRef{WorkerRef: workerA, Location: "LocalCPUBackend"}
	streamB       = registry.StreamRef{WorkerRef: workerB, Location: "LocalDiskBackend"}
)

// sampleRecords has every kind of record and every flag.
func sampleRecords() []any {
	return []any{
		registry.Registration{WorkerRef: workerA, IP: "10.0.0.7", Port: 8000, PeerInitURL: &sampleURL, At: sampleAt},
		registry.Registration{WorkerRef: workerB, IP: "10.0.0.7", Port: 8001, ByHeartbeat: true, At: sampleAt + 10},
		registry.Ops{Stream: streamA, Keys: []registry.Key{0x1122334455667788, 2}, Numbered: true, At: sampleAt + 20},
		registry.Ops{Stream: streamA, Keys: []registry.Key{3, 4, 2}, Evict: registry.Bitmap{0b100},
			First: 7, Numbered: true, Continues: true, At: sampleAt + 20},
		registry.Ops{Stream: streamB, Keys: []registry.Key{0xffffffffffffffff}, At: sampleAt + 15},
		registry.SyncStart{Stream: streamA, SyncID: "sync-1", TotalKeys: 2, BatchCount: 1, At: sampleAt + 30},
		registry.SyncBatch{Stream: streamA, SyncID: "sync-1", BatchID: 0, Keys: []registry.Key{3, 4}, At: sampleAt + 31},
		registry.SyncEnd{Stream: streamA, SyncID: "sync-1", TotalKeys: 2, At: sampleAt + 32},
		Deregistration{WorkerRef: workerB, At: sampleAt + 40},
	}
}

// addRecord appends one decoded record to a batch again.
func addRecord(b *Batch, rec any) int {
	switch r := rec.(type) {
	case registry.Ops:
		return b.Ops(r)
	case registry.Registration:
		return b.Register(r)
	case Deregistration:
		return b.Deregister(r.WorkerRef, r.At)
	case registry.SyncStart:
		return b.SyncStart(r)
	case registry.SyncBatch:
		return b.SyncBatch(r)
	case registry.SyncEnd:
		return b.SyncEnd(r)
	}
	panic("not a record")
}

func encodeBatch(w WorkerBatch) []byte {
	b := NewBatch(w.Session)
	for i, r := range w.Records {
		if addRecord(b, r) != i {
			panic("record refused")
		}
	}
	return b.Encode(w.Number, w.At)
}

func samples() []sample {
	batch := WorkerBatch{Session: sampleSession, Number: 42, At: sampleAt + 50, Records: sampleRecords()}
	term := registry.TermBegin{Term: 3, Node: "node-1", At: sampleAt}
	lease := registry.Lease{
		At:           sampleAt,
		Heard:        []registry.Heard{{WorkerRef: workerA, Any: sampleAt - 5, Heartbeat: sampleAt - 900}, {WorkerRef: workerB, Any: sampleAt - 7}},
		Expired:      []registry.WorkerRef{{Instance: "vllm-1", Worker: 0}},
		SuspectAfter: 30_000_000,
		SyncTimeout:  -1,
	}
	create := registry.EventCreate{
		ID: "Move-7d5e", Kind: registry.CommandMove,
		Source:      registry.Target{Instance: "vllm-0", Location: "LocalCPUBackend"},
		Dest:        registry.Target{Instance: "vllm-1", Location: "LocalDiskBackend"},
		Fingerprint: [16]byte{0xde, 0xad, 0xbe, 0xef}, Tokens: 512, Term: 3, At: sampleAt,
	}
	run := registry.EventRun{ID: "Move-7d5e", Term: 3, Workers: []registry.WorkerRef{workerA, workerB}, At: sampleAt + 100}
	finish := registry.EventFinish{
		ID: "Move-7d5e", Term: 3, State: registry.EventPartial, NumTokens: 256, Cause: "partial", Detail: "1 of 2 workers",
		Workers: []registry.WorkerOutcome{
			{WorkerRef: workerA, State: registry.EventDone, NumTokens: 256},
			{WorkerRef: workerB, State: registry.EventTimedOut, Error: "no answer within 30s"},
		},
		Confirm: &registry.Confirmation{Key: 0x1122334455667788, Ranks: []int64{0, 1}},
		At:      sampleAt + 200,
	}
	finishBefore := finish
	finishBefore.Confirm = nil
	member := registry.Member{NodeID: "node-1", PeerAddr: "10.0.0.1:7400", URL: "http://10.0.0.1:9000", Voter: true}
	return []sample{
		{"worker-batch", TypeWorkerBatch, func() []byte { return encodeBatch(batch) }, batch, nil},
		{"term-begin", TypeTermBegin, func() []byte { return EncodeTermBegin(term) }, term, nil},
		{"lease", TypeLease, func() []byte { return EncodeLease(lease) }, lease, nil},
		{"create-event", TypeCreateEvent, func() []byte { return EncodeCreateEvent(create) }, create, nil},
		{"run-event", TypeRunEvent, func() []byte { return EncodeRunEvent(run) }, run, nil},
		{"finish-event", TypeFinishEvent, func() []byte { return EncodeFinishEvent(finish) }, finish, finishBefore},
		{"set-member", TypeSetMember, func() []byte { return EncodeSetMember(member) }, member, nil},
		{"remove-member", TypeRemoveMember, func() []byte { return EncodeRemoveMember("node-1") }, RemoveMember{NodeID: "node-1"}, nil},
	}
}
