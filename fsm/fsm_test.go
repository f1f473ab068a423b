package fsm

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"github.com/kvctrl/kvctrl/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newFSM gives an FSM with a small index and the errors that OnFatal got.
func newFSM(t testing.TB) (*FSM, *[]error) {
	t.Helper()
	var fatal []error
	return New(Options{
		Registry: registry.Options{Shards: 4},
		OnFatal:  func(err error) { fatal = append(fatal, err) },
	}), &fatal
}

func command(index uint64, entry []byte) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: entry}
}

func TestFSM_WorkerBatch(t *testing.T) {
	f, fatal := newFSM(t)
	entry := encodeBatch(WorkerBatch{Session: sampleSession, Number: 1, At: sampleAt + 50, Records: sampleRecords()})
	got, ok := f.Apply(command(5, entry)).(BatchResult)
	if !ok || got.Duplicate || len(got.Records) != len(sampleRecords()) {
		t.Fatalf("%+v", got)
	}
	if !got.Records[5].SyncStart.Accepted || !got.Records[7].Sync.Complete || !got.Records[8].Deregistered || !got.Records[3].Ops.Gap {
		t.Errorf("%+v", got.Records)
	}
	reg := f.Registry()
	if h := reg.Holders(3); !reflect.DeepEqual(h, []registry.StreamRef{streamA}) {
		t.Errorf("holders of key 3: %v", h)
	}
	if h := reg.Holders(2); len(h) != 0 {
		t.Errorf("key 2 was not announced by the sync, holders: %v", h)
	}
	if _, ok := reg.Worker(workerB); ok {
		t.Error("worker B is still there")
	}
	digest := reg.Digest()
	for _, again := range []uint64{6, 7} {
		if got := f.Apply(command(again, entry)).(BatchResult); !got.Duplicate || got.Records != nil {
			t.Errorf("applied again: %+v", got)
		}
	}
	if reg.Digest() != digest || f.Applied() != 7 {
		t.Errorf("a duplicate changed the state, or the index did not move: %d", f.Applied())
	}
	if s := f.Stats(); s.Entries != 3 || s.Duplicates != 2 || s.Operations != 8 {
		t.Errorf("%+v", s)
	}
	if len(*fatal) != 0 {
		t.Error(*fatal)
	}
}

func TestFSM_Results(t *testing.T) {
	f, _ := newFSM(t)
	create := registry.EventCreate{ID: "e1", Kind: registry.CommandPin, Term: 1, At: sampleAt}
	isNil := func(v any) bool { return v == nil }
	isErr := func(v any) bool { _, ok := v.(error); return ok }
	for i, step := range []struct {
		name  string
		entry []byte
		ok    func(any) bool
	}{
		{"term", EncodeTermBegin(registry.TermBegin{Term: 1, Node: "n", At: sampleAt}), func(v any) bool { ids, ok := v.([]string); return ok && len(ids) == 0 }},
		{"create", EncodeCreateEvent(create), func(v any) bool { return v.(registry.EventCreateResult).Event.ID == "e1" }},
		{"create again", EncodeCreateEvent(create), func(v any) bool { return v.(registry.EventCreateResult).Existing }},
		{"run", EncodeRunEvent(registry.EventRun{ID: "e1", Term: 1, At: sampleAt}), isNil},
		{"run of none", EncodeRunEvent(registry.EventRun{ID: "e9", Term: 1}), isErr},
		{"next term", EncodeTermBegin(registry.TermBegin{Term: 2, Node: "n", At: sampleAt}), func(v any) bool { return reflect.DeepEqual(v, []string{"e1"}) }},
		{"finish of an interrupted", EncodeFinishEvent(registry.EventFinish{ID: "e1", Term: 1, State: registry.EventDone}), isErr},
		{"lease", EncodeLease(registry.Lease{At: sampleAt}), isNil},
		{"member", EncodeSetMember(registry.Member{NodeID: "n"}), isNil},
		{"no member", EncodeRemoveMember("n"), isNil},
		{"ignorable", seal([]byte{200, 1, 0, 8}), isNil},
	} {
		if got := f.Apply(command(uint64(i)+1, step.entry)); !step.ok(got) {
			t.Errorf("%s: %T %+v", step.name, got, got)
		}
	}
	if s := f.Stats(); s.Ignored != 1 || s.Stopped {
		t.Errorf("%+v", s)
	}
}

// Raft hands its configuration entries to a BatchingFSM, in its own encoding.
func TestFSM_ConfigurationEntries(t *testing.T) {
	f, fatal := newFSM(t)
	conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "n", Address: "a"}}})
	results := f.ApplyBatch([]*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: conf},
		command(3, EncodeSetMember(registry.Member{NodeID: "n"})),
		{Index: 4, Term: 2, Type: raft.LogConfiguration, Data: conf},
	})
	if len(results) != 3 || f.Applied() != 4 || len(f.Registry().Members()) != 1 || len(*fatal) != 0 {
		t.Errorf("results %v, applied %d, members %v, fatal %v", results, f.Applied(), f.Registry().Members(), *fatal)
	}
}

func TestFSM_WaitApplied(t *testing.T) {
	f, _ := newFSM(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.WaitApplied(ctx, 2) }()
	f.Apply(command(1, EncodeRemoveMember("n")))
	f.Apply(command(2, EncodeRemoveMember("n")))
	if err := <-done; err != nil {
		t.Error(err)
	}
	go func() { done <- f.WaitApplied(ctx, 3) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestFSM_StopsAtWhatItCannotApply(t *testing.T) {
	member := EncodeSetMember(registry.Member{NodeID: "n"})
	damage := bytes.Clone(member)
	damage[7] ^= 4
	// the first record is whole, the second is not: neither may be applied
	half := encodeBatch(WorkerBatch{Session: sampleSession, Number: 1, At: sampleAt, Records: sampleRecords()})
	half = reseal(half, func(b []byte) []byte { return b[:len(b)-1] })
	for _, c := range []struct {
		name  string
		entry []byte
		want  []string
	}{
		{"newer type", seal([]byte{70, 1, 0, 8}), []string{"log entry 11 (type 70, version 1)", "knows the types 1, 2, 3", "upgrade this replica"}},
		{"newer version", reseal(member, func(b []byte) []byte { b[1] = 3; return b }),
			[]string{"log entry 11 (type 7, version 3)", "set member up to version 2", "upgrade this replica"}},
		{"before the first release", reseal(member, func(b []byte) []byte { b[1] = 1; return b }),
			[]string{"log entry 11 (type 7, version 1)", "set member from version 2 on", "begin with an empty data directory"}},
		{"damage", damage, []string{"log entry 11 (type 7, version 2)", "checksum", "wipe its data directory", "rejoin", "restore"}},
		{"damage behind the checksum's back", half, []string{"log entry 11 (type 1, version 1)", "number cut off"}},
		{"not an entry", []byte("hello"), []string{"5 bytes"}},
		{"nothing", nil, []string{"0 bytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, fatal := newFSM(t)
			f.Apply(command(9, EncodeSetMember(registry.Member{NodeID: "before"})))
			digest := f.Registry().Digest()
			waiter := make(chan error)
			go func() { waiter <- f.WaitApplied(t.Context(), 12) }()

			results := f.ApplyBatch([]*raft.Log{
				command(10, EncodeRemoveMember("nobody")),
				command(11, c.entry),
				command(12, member),
				{Index: 13, Type: raft.LogConfiguration},
			})
			var refused *RefusedError
			for i, want := range []bool{false, true, true, true} {
				err, _ := results[i].(error)
				if errors.As(err, &refused) != want {
					t.Errorf("result %d: %v", i, results[i])
				}
			}
			for _, text := range c.want {
				if !strings.Contains(refused.Error(), text) {
					t.Errorf("%q does not say %q", refused, text)
				}
			}
			if refused.Index != 11 || f.Applied() != 10 || f.Registry().Digest() != digest || !f.Stats().Stopped {
				t.Errorf("index %d, applied %d", refused.Index, f.Applied())
			}
			if err := <-waiter; err != error(refused) {
				t.Errorf("waiter got %v", err)
			}
			if err := f.WaitApplied(t.Context(), 10); err != nil {
				t.Errorf("what was applied stays applied: %v", err)
			}
			if again := f.Apply(command(14, member)); again != any(refused) {
				t.Errorf("later entry: %v", again)
			}
			if _, err := f.Snapshot(); !errors.Is(err, error(refused)) {
				t.Errorf("snapshot of a stopped FSM: %v", err)
			}
			if err := f.Restore(nil); !errors.Is(err, error(refused)) {
				t.Errorf("restore into a stopped FSM: %v", err)
			}
			if len(*fatal) != 1 || (*fatal)[0] != error(refused) {
				t.Errorf("OnFatal got %v", *fatal)
			}
			if f.Applied() != 10 || f.Registry().Digest() != digest || len(f.Registry().Members()) != 1 {
				t.Error("the state moved after the stop")
			}
		})
	}
}

// Entries sweep away, a little each, what died with a holder.
func TestFSM_EntriesSweep(t *testing.T) {
	f, _ := newFSM(t)
	b := NewBatch(sampleSession)
	b.Register(registry.Registration{WorkerRef: workerA, At: sampleAt})
	b.Ops(registry.Ops{Stream: streamA, Keys: someKeys(10_000), At: sampleAt})
	f.Apply(command(1, b.Encode(1, sampleAt)))
	b.Reset()
	b.Deregister(workerA, sampleAt)
	f.Apply(command(2, b.Encode(2, sampleAt)))
	first := f.Registry().Totals().DeadSlots
	for i := range uint64(10) {
		f.Apply(command(3+i, EncodeRemoveMember("n")))
	}
	if last := f.Registry().Totals().DeadSlots; first == 0 || last != 0 {
		t.Errorf("%d dead entries when the worker left, %d after ten entries, want some and none", first, last)
	}
}

// A panic below is a bug of ours; the FSM must not go on as if nothing had been.
func TestFSM_StopsAtPanic(t *testing.T) {
	var logged bytes.Buffer
	var fatal error
	f := New(Options{Logger: hclog.New(&hclog.LoggerOptions{Output: &logged}), OnFatal: func(err error) { fatal = err }})
	f.registry.Store(nil) // whatever is called now panics
	result := f.Apply(command(3, EncodeRemoveMember("n")))
	var refused *RefusedError
	if !errors.As(fatal, &refused) || result != any(refused) || refused.Index != 3 || refused.Type != TypeRemoveMember {
		t.Fatalf("fatal %v, result %v", fatal, result)
	}
	if !strings.Contains(refused.Error(), "bug: panic") || !strings.Contains(logged.String(), "fsm.(*FSM).dispatch") {
		t.Errorf("error %q; the log has no stack:\n%s", refused, logged.String())
	}
}

// Raft owns the bytes of a log entry: nothing may live on in them.
func TestFSM_KeepsNothingOfTheLog(t *testing.T) {
	a, _ := newFSM(t)
	b, _ := newFSM(t)
	for _, log := range writeScript(3, 300) {
		a.Apply(log)
		scratch := *log
		scratch.Data = bytes.Clone(log.Data)
		b.Apply(&scratch)
		for i := range scratch.Data {
			scratch.Data[i] = 0xdb
		}
	}
	if a.Registry().Digest() != b.Registry().Digest() {
		t.Error("digests differ after the entries' bytes were overwritten")
	}
	if x, y := a.Registry().Workers(""), b.Registry().Workers(""); !reflect.DeepEqual(x, y) || len(x) == 0 {
		t.Errorf("workers %v\nand %v", x, y)
	}
}

// TestFSM_DigestOfItsIndex takes digests while entries are applied: each must be the
// one that the entries up to its index give.
func TestFSM_DigestOfItsIndex(t *testing.T) {
	const entries, batch = 2000, 8
	logs := make([]*raft.Log, entries)
	want := make([]registry.Digest, entries+1) // by index
	alone, _ := newFSM(t)
	want[0] = alone.Registry().Digest()
	for i := range logs {
		logs[i] = command(uint64(i+1), EncodeSetMember(registry.Member{NodeID: "n", URL: strconv.Itoa(i)}))
		alone.Apply(logs[i])
		want[i+1] = alone.Registry().Digest()
	}

	f, _ := newFSM(t)
	done := make(chan struct{})
	go func() { // ends with the entries
		defer close(done)
		for part := range slices.Chunk(logs, batch) {
			f.ApplyBatch(part)
		}
	}()
	for busy := true; busy; {
		select {
		case <-done:
			busy = false
		default:
		}
		if index, got := f.Digest(); got != want[index] {
			t.Fatalf("digest with index %d is %v, want %v", index, got, want[index])
		}
	}
	if index, _ := f.Digest(); index != entries {
		t.Errorf("last digest has index %d, want %d", index, entries)
	}
}
