package fsm

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/kvctrl/kvctrl/registry"
)

// sink is a raft.SnapshotSink in memory that fails after limit bytes.
type sink struct {
	bytes.Buffer
	limit             int // 0: none
	closed, cancelled bool
	closeErr          error
}

var errDiskFull = errors.New("no space left on device")

func (s *sink) Write(p []byte) (int, error) {
	if s.limit > 0 && s.Len()+len(p) > s.limit {
		return 0, errDiskFull
	}
	return s.Buffer.Write(p)
}
func (s *sink) ID() string    { return "1-1-1" }
func (s *sink) Close() error  { s.closed = true; return s.closeErr }
func (s *sink) Cancel() error { s.cancelled = true; return nil }

func persist(t testing.TB, f *FSM) []byte {
	t.Helper()
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	var s sink
	if err := snap.Persist(&s); err != nil || !s.closed || s.cancelled {
		t.Fatalf("%v, closed %v, cancelled %v", err, s.closed, s.cancelled)
	}
	return s.Bytes()
}

func restore(f *FSM, b []byte) error { return f.Restore(io.NopCloser(bytes.NewReader(b))) }

// applied gives an FSM that has applied a script.
func applied(t testing.TB, seed uint64, entries int) *FSM {
	t.Helper()
	f, fatal := newFSM(t)
	f.ApplyBatch(writeScript(seed, entries))
	if len(*fatal) != 0 {
		t.Fatal(*fatal)
	}
	return f
}

func sameState(t testing.TB, got, want *FSM) {
	t.Helper()
	a, b := got.Registry(), want.Registry()
	if a.Digest() != b.Digest() || got.Applied() != want.Applied() {
		t.Errorf("digest %x at %d, want %x at %d", a.Digest(), got.Applied(), b.Digest(), want.Applied())
	}
	if !reflect.DeepEqual(a.Workers(""), b.Workers("")) || !reflect.DeepEqual(a.Events(100), b.Events(100)) ||
		!reflect.DeepEqual(a.Members(), b.Members()) {
		t.Error("equal digests, other answers")
	}
	for i := range uint64(400) {
		k := registry.Key(i * 0x9e3779b97f4a7c15)
		x, y := a.Holders(k), b.Holders(k)
		if len(x) != len(y) {
			t.Fatalf("key %x: holders %v, want %v", k, x, y)
		}
		for _, h := range x {
			if !slices.Contains(y, h) {
				t.Fatalf("key %x: holders %v, want %v", k, x, y)
			}
		}
	}
}

func TestSnapshot_RoundTrip(t *testing.T) {
	f := applied(t, 1, 600)
	b := persist(t, f)
	g, _ := newFSM(t)
	if err := restore(g, b); err != nil {
		t.Fatal(err)
	}
	sameState(t, g, f)
	if g.index != f.index || g.term != f.term || g.Stats().Restores != 1 {
		t.Errorf("index %d, term %d, want %d, %d", g.index, g.term, f.index, f.term)
	}
	if err := g.WaitApplied(t.Context(), f.Applied()); err != nil {
		t.Error(err)
	}
	empty, _ := newFSM(t)
	h, _ := newFSM(t)
	if err := restore(h, persist(t, empty)); err != nil {
		t.Fatal(err)
	}
	sameState(t, h, empty)
}

// A snapshot that was long under way does not take the state back, and what raft gives
// again behind it is not applied again.
func TestRestore_OlderThanTheState(t *testing.T) {
	log := writeScript(1, 400)
	f, _ := newFSM(t)
	f.ApplyBatch(log[:200])
	older := persist(t, f)
	f.ApplyBatch(log[200:300])
	want, _ := newFSM(t)
	want.ApplyBatch(log[:300])
	if err := restore(f, older); err != nil {
		t.Errorf("older snapshot: %v", err)
	}
	sameState(t, f, want)
	if n := f.Stats(); n.Restores != 0 {
		t.Errorf("%+v: the state was kept, nothing was restored", n)
	}
	for i, result := range f.ApplyBatch(log[200:350])[:100] {
		if result != nil {
			t.Errorf("entry %d again: %v", log[200+i].Index, result)
		}
	}
	f.ApplyBatch(log[350:])
	want.ApplyBatch(log[300:])
	sameState(t, f, want)
	if a, b := f.Stats(), want.Stats(); a.Entries != b.Entries || a.Duplicates != b.Duplicates {
		t.Errorf("%+v, want %+v", a, b)
	}
	if err := restore(f, persist(t, f)); err != nil || f.Stats().Restores != 1 {
		t.Errorf("snapshot of the same index: %v, %+v", err, f.Stats())
	}
	sameState(t, f, want)
}

// What is applied after Snapshot is not in it, however late Persist runs.
func TestSnapshot_IsOfItsMoment(t *testing.T) {
	log := writeScript(2, 500)
	f, _ := newFSM(t)
	f.ApplyBatch(log[:250])
	then, _ := newFSM(t)
	then.ApplyBatch(log[:250])
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	f.ApplyBatch(log[250:])
	var s sink
	if err := snap.Persist(&s); err != nil {
		t.Fatal(err)
	}
	snap.Release()
	g, _ := newFSM(t)
	if err := restore(g, s.Bytes()); err != nil {
		t.Fatal(err)
	}
	sameState(t, g, then)
	g.ApplyBatch(log[250:])
	sameState(t, g, f)
}

// The scripts are worth their name: what replicas do to each other is in them.
func TestScript_HasItAll(t *testing.T) {
	f := applied(t, 3, 2000)
	totals, stats := f.Registry().Totals(), f.Stats()
	if totals.Late == 0 || totals.Gaps == 0 || totals.LossyStreams == 0 || stats.Duplicates == 0 || totals.Sessions < 3 {
		t.Errorf("%+v, %+v", totals, stats)
	}
}

// The same log gives the same state, however it is cut into batches and whichever
// snapshots lie between.
func TestFSM_Determinism(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		log := writeScript(rapid.Uint64().Draw(rt, "seed"), 200)
		one, _ := newFSM(t)
		var results, cutResults []any
		for _, l := range log {
			results = append(results, one.Apply(l))
		}
		two, _ := newFSM(t)
		for rest := log; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			cutResults = append(cutResults, two.ApplyBatch(rest[:n])...)
			rest = rest[n:]
			if rapid.IntRange(0, 2).Draw(rt, "restart") == 0 {
				b := persist(t, two)
				two = New(Options{Registry: registry.Options{Shards: 1 << rapid.IntRange(0, 5).Draw(rt, "shards")}})
				if err := restore(two, b); err != nil {
					rt.Fatal(err)
				}
			}
		}
		if !reflect.DeepEqual(results, cutResults) {
			for i := range results {
				if !reflect.DeepEqual(results[i], cutResults[i]) {
					rt.Fatalf("entry %d: %+v, cut into batches %+v", i+1, results[i], cutResults[i])
				}
			}
		}
		if one.Registry().Digest() != two.Registry().Digest() || one.Applied() != two.Applied() {
			rt.Fatalf("digest %x at %d, cut into batches %x at %d",
				one.Registry().Digest(), one.Applied(), two.Registry().Digest(), two.Applied())
		}
	})
}

func TestPersist_ReportsEveryFault(t *testing.T) {
	f := applied(t, 4, 100)
	whole := persist(t, f)
	for limit := 1; limit < len(whole); limit += 97 {
		snap, err := f.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		s := sink{limit: limit}
		if err := snap.Persist(&s); !errors.Is(err, errDiskFull) || !s.cancelled || s.closed {
			t.Errorf("disk full after %d bytes: %v, cancelled %v, closed %v", limit, err, s.cancelled, s.closed)
		}
		snap.Release()
	}
	snap, _ := f.Snapshot()
	defer snap.Release()
	if err := snap.Persist(&sink{closeErr: errDiskFull}); !errors.Is(err, errDiskFull) {
		t.Errorf("close fails: %v", err)
	}
	if err := (&snapshot{}).Persist(&sink{}); err == nil || !strings.Contains(err.Error(), "bug: panic") {
		t.Errorf("panic below: %v", err)
	}
}

// smallSnapshot has a bit of everything and stays small enough to turn each bit.
func smallSnapshot(t testing.TB) []byte {
	t.Helper()
	f, _ := newFSM(t)
	f.ApplyBatch(writeScript(5, 24))
	return persist(t, f)
}

// Whatever bit turns and wherever it ends, a snapshot is refused, by name, and the
// state is what it was.
func TestRestore_RefusesDamage(t *testing.T) {
	b := smallSnapshot(t)
	f := applied(t, 6, 50)
	reg, digest, index := f.Registry(), f.Registry().Digest(), f.Applied()
	refused := func(b []byte, what string, n int) {
		t.Helper()
		var se *SnapshotError
		if err := restore(f, b); !errors.As(err, &se) {
			t.Errorf("%s %d: %v", what, n, err)
		}
		if f.Registry() != reg || f.Applied() != index {
			t.Fatalf("%s %d: the state was replaced", what, n)
		}
	}
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		refused(b, "turned bit", bit)
		b[bit/8] ^= 1 << (bit % 8)
	}
	for n := range b {
		refused(b[:n], "cut to", n)
	}
	refused(append(slices.Clone(b), 0), "longer by", 1)
	if reg.Digest() != digest {
		t.Error("the old state changed")
	}
	g, _ := newFSM(t)
	if err := restore(g, b); err != nil {
		t.Errorf("whole again: %v", err)
	}
}

// sections cuts a snapshot into its header and sections, each with its head.
func sections(b []byte) [][]byte {
	out := [][]byte{b[:snapshotHeaderSize]}
	for b = b[snapshotHeaderSize:]; len(b) >= sectionHeaderSize; {
		n := sectionHeaderSize + int(uint32(b[1])|uint32(b[2])<<8|uint32(b[3])<<16|uint32(b[4])<<24)
		if n > len(b) {
			break
		}
		out = append(out, b[:n])
		b = b[n:]
	}
	return out
}

func section(t sectionType, payload []byte) []byte {
	var w bytes.Buffer
	s := newSectionWriter(&w)
	s.buf = append(s.buf, payload...)
	s.flush(t)
	return w.Bytes()
}

// What no checksum sees: sections that are whole and do not belong together.
func TestRestore_RefusesContradictions(t *testing.T) {
	b := persist(t, applied(t, 7, 120))
	parts := sections(b)
	last := len(parts) - 1
	header := func(change func([]byte)) []byte {
		h := slices.Clone(parts[0][:snapshotHeaderSize-4])
		change(h)
		return seal(h)
	}
	with := func(change func(p [][]byte) [][]byte) []byte {
		return bytes.Join(change(slices.Clone(parts)), nil)
	}
	end := func(change func(*snapshotEnd)) []byte {
		e := readEnd(&cursor{data: parts[last][sectionHeaderSize:]})
		change(&e)
		return with(func(p [][]byte) [][]byte { p[last] = section(sectionEnd, appendEnd(nil, e)); return p })
	}
	for _, c := range []struct {
		name, want string
		snapshot   []byte
	}{
		{"empty", "header: cut off after 0 of 32", nil},
		{"other file", "not a snapshot of kvctrl", make([]byte, 100)},
		{"newer version", "version 2, this build reads version 1", with(func(p [][]byte) [][]byte {
			p[0] = header(func(h []byte) { h[8] = 2 })
			return p
		})},
		{"other plane", "plane 1", with(func(p [][]byte) [][]byte { p[0] = header(func(h []byte) { h[9] = 1 }); return p })},
		{"other key width", "keys of 32 bytes", with(func(p [][]byte) [][]byte { p[0] = header(func(h []byte) { h[10] = 32 }); return p })},
		{"newer section", "type 9 section: type 9 is not known", with(func(p [][]byte) [][]byte {
			return slices.Insert(p, 2, section(9, []byte("x")))
		})},
		{"newer state", "state version 4", with(func(p [][]byte) [][]byte { p[1] = section(sectionState, []byte{4}); return p })},
		{"no state", "state before it", with(func(p [][]byte) [][]byte { return slices.Delete(p, 1, 2) })},
		{"keys missing", "sections, want", with(func(p [][]byte) [][]byte { return slices.Delete(p, 2, 3) })},
		{"keys twice", "twice", with(func(p [][]byte) [][]byte { return slices.Insert(p, 2, p[2]) })},
		{"state again", "state behind keys", with(func(p [][]byte) [][]byte { return slices.Insert(p, 3, p[1]) })},
		{"key count", "keys, want", end(func(e *snapshotEnd) { e.keys++ })},
		{"section count", "sections, want", end(func(e *snapshotEnd) { e.sections++ })},
		{"digest", "digest", end(func(e *snapshotEnd) { e.digest[3] ^= 1 })},
		{"key without holder", "no holder", with(func(p [][]byte) [][]byte { p[2] = section(sectionKeys, appendKey(nil, 1, nil)); return p })},
		{"key of unknown holder", "holder 999 of", with(func(p [][]byte) [][]byte {
			p[2] = section(sectionKeys, appendKey(nil, 1, []uint32{999}))
			return p
		})},
		{"other key", "sum", with(func(p [][]byte) [][]byte {
			payload := slices.Clone(p[2][sectionHeaderSize:])
			payload[0] ^= 1
			p[2] = section(sectionKeys, payload)
			return p
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, _ := newFSM(t)
			digest := f.Registry().Digest()
			err := restore(f, c.snapshot)
			var se *SnapshotError
			if !errors.As(err, &se) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant a SnapshotError with %q", err, c.want)
			}
			if f.Registry().Digest() != digest || f.Applied() != 0 {
				t.Error("the state changed")
			}
		})
	}
	f, _ := newFSM(t)
	ignorable := with(func(p [][]byte) [][]byte {
		e := readEnd(&cursor{data: p[last][sectionHeaderSize:]})
		e.sections++
		p[last] = section(sectionEnd, appendEnd(nil, e))
		return slices.Insert(p, 2, section(sectionIgnorable, []byte("newer")))
	})
	if err := restore(f, ignorable); err != nil {
		t.Errorf("ignorable section: %v", err)
	}
}

// A source that fails is not a source that ends.
func TestRestore_SourceFails(t *testing.T) {
	b := smallSnapshot(t)
	f, _ := newFSM(t)
	for _, n := range []int{0, 10, 40, len(b)} {
		src := io.MultiReader(bytes.NewReader(b[:n]), failingReader{})
		if err := f.Restore(io.NopCloser(src)); !errors.Is(err, errDiskFull) {
			t.Errorf("fails after %d bytes: %v", n, err)
		}
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errDiskFull }

// A field of the state that the encoding forgets would be lost at every restart.
func TestState_EveryField(t *testing.T) {
	want := filled[registry.State]()
	b := appendState(nil, &want)
	c := cursor{data: b}
	got, _ := readState(&c)
	if c.err != nil || !reflect.DeepEqual(*got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", c.err, *got, want)
	}
	for n := range b {
		c := cursor{data: b[:n]}
		if readState(&c); c.err == nil {
			t.Errorf("first %d of %d bytes accepted", n, len(b))
		}
	}
}

// Sections are cut well below their limit, whatever the size of the state.
func TestSnapshot_CutsSections(t *testing.T) {
	f := New(Options{Registry: registry.Options{Shards: 1}})
	b := NewBatch(sampleSession)
	b.Register(registry.Registration{WorkerRef: workerA, At: sampleAt})
	b.Ops(registry.Ops{Stream: streamA, Keys: manyKeys(1, 28_000), At: sampleAt})
	f.Apply(command(1, b.Encode(1, sampleAt)))
	for i := range 300 {
		f.Apply(command(uint64(i)+2, EncodeCreateEvent(registry.EventCreate{
			ID: strings.Repeat("e", 1000) + string(rune('a'+i)), Kind: registry.CommandClear, At: sampleAt,
		})))
	}
	snapshot := persist(t, f)
	states, keys := 0, 0
	for _, s := range sections(snapshot)[1:] {
		if len(s) > sectionHeaderSize+cutSection+1000 {
			t.Errorf("section of %d bytes", len(s))
		}
		switch sectionType(s[0]) {
		case sectionState:
			states++
		case sectionKeys:
			keys++
		}
	}
	if states != 2 || keys != 2 {
		t.Errorf("%d sections of state, %d of keys, want 2 and 2", states, keys)
	}
	g, _ := newFSM(t)
	if err := restore(g, snapshot); err != nil {
		t.Fatal(err)
	}
	sameState(t, g, f)
}

func manyKeys(seed, n int) []registry.Key {
	rng := rand.New(rand.NewPCG(uint64(seed), 9))
	keys := make([]registry.Key, n)
	for i := range keys {
		keys[i] = registry.Key(rng.Uint64())
	}
	return keys
}

// Raft itself takes and restores the snapshot, through its file store.
func TestSnapshot_ThroughRaftsFileStore(t *testing.T) {
	store, err := raft.NewFileSnapshotStore(t.TempDir(), 1, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	f := applied(t, 8, 200)
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	_, transport := raft.NewInmemTransport("")
	s, err := store.Create(raft.SnapshotVersionMax, f.index, f.term, raft.Configuration{}, 0, transport)
	if err != nil {
		t.Fatal(err)
	}
	if err := snap.Persist(s); err != nil {
		t.Fatal(err)
	}
	snap.Release()
	_, source, err := store.Open(s.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	g, _ := newFSM(t)
	if err := g.Restore(source); err != nil {
		t.Fatal(err)
	}
	sameState(t, g, f)
}
