package registry

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// richRegistry has something in every field of its State.
func richRegistry(t *testing.T) *Registry {
	t.Helper()
	p := newPlayer(Options{})
	for line := range strings.Lines(`
		at 100
		member n1 peer=h:1 url=http://h voter
		batch one 7
		term 3 node=n1
		register a/0 peer=h:1
		heartbeat b/0 ip=10.0.0.9
		register b/1
		ops a/0 cpu seq=0 +1..5
		ops a/0 disk seq=0 +1..2
		ops b/0 cpu seq=4 +3..9
		ops b/1 cpu seq=0 +3
		at 90
		sync-start b/1 disk id=s3 batches=1 keys=1
		at 100
		ops a/0 cpu seq=9 by=A +7
		ops b/0 cpu seq=20 by=A +10
		ops b/0 cpu seq=30 by=B +11
		ops b/0 cpu seq=13 by=C +12
		sync-start a/0 cpu id=s1 batches=1 keys=1
		sync-batch a/0 cpu id=s1 batch=0 1..6
		sync-end a/0 cpu id=s1
		sync-start a/0 cpu id=s2 batches=80 keys=9
		sync-batch a/0 cpu id=s2 batch=3 1..4
		sync-batch a/0 cpu id=s2 batch=70 9
		ops a/0 cpu seq=10 -1 -9 +1
		ops a/0 cpu seq=12 -4
		event-create e1 clear term=3 fingerprint=5
		event-run e1 term=3 workers=a/0,b/0
		event-create e2 pin term=3
		event-finish e2 done term=3 tokens=5 workers=a/0
		event-create e3 move term=3 dest=b/cpu
		after 61
		event-finish e3 done term=3 tokens=5 confirm=99 ranks=0,1
		lease heard=a/0 sync-timeout=65`) {
		if line = strings.TrimSpace(line); line != "" {
			p.play(t, line)
		}
	}
	return p.reg
}

func contents(reg *Registry) (State, map[Key][]uint32) {
	s := reg.Snapshot()
	defer s.Release()
	keys := make(map[Key][]uint32)
	for i := range s.Shards() {
		s.Shard(i, func(k Key, holders []uint32) { keys[k] = slices.Clone(holders) })
	}
	return s.State(), keys
}

func load(st State, keys map[Key][]uint32) (*Registry, error) {
	l, err := NewLoader(st, Options{})
	if err != nil {
		return nil, err
	}
	for k, holders := range keys {
		if err := l.Add(k, holders); err != nil {
			return nil, err
		}
	}
	return l.Finish()
}

// TestState_SetsOfSyncsInOrder: the sets that are put in order beside the writer are so
// in what a snapshot gives and in what is hashed.
func TestState_SetsOfSyncsInOrder(t *testing.T) {
	reg := New(Options{})
	ref := WorkerRef{"a", 0}
	cpu := StreamRef{ref, CPULocation}
	reg.Register(Registration{WorkerRef: ref})
	reg.SyncStart(SyncStart{Stream: cpu, SyncID: "s", BatchCount: 10_000})
	for id := int64(9_999); id > 0; id -= 100 { // one or two to a word: in the order of a map
		reg.SyncBatch(SyncBatch{Stream: cpu, SyncID: "s", BatchID: id})
	}
	reg.ApplyOps(Ops{Stream: cpu, Keys: keyRange(1, 100), Evict: bytes.Repeat([]byte{0xff}, 13)})
	var digests []Digest
	for range 2 {
		st, _ := contents(reg)
		y := st.Workers[0].Streams[0].Sync
		if !slices.IsSorted(y.Received) || len(y.Received) != 100 {
			t.Errorf("%d batches received: %v, want 100 ascending", len(y.Received), y.Received)
		}
		if !slices.Equal(y.Evicted, keyRange(1, 100)) {
			t.Errorf("evicted %v, want 1 to 100", y.Evicted)
		}
		fresh := reg.State()
		digests = append(digests, st.Digest(), fresh.Digest(), reg.Digest())
	}
	if len(slices.Compact(digests)) != 1 {
		t.Errorf("digests of one state: %v", digests)
	}
}

// leaves calls visit for every number, string and flag in v.
func leaves(v reflect.Value, path string, visit func(path string, leaf reflect.Value)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			leaves(v.Elem(), path, visit)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			leaves(v.Field(i), path+"."+v.Type().Field(i).Name, visit)
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			leaves(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit)
		}
	default:
		visit(path, v)
	}
}

// changed sets a leaf to another value and returns what puts it back.
func changed(leaf reflect.Value) (undo func()) {
	old := reflect.New(leaf.Type()).Elem()
	old.Set(leaf)
	switch leaf.Kind() {
	case reflect.Bool:
		leaf.SetBool(!leaf.Bool())
	case reflect.String:
		leaf.SetString(leaf.String() + "x")
	case reflect.Int, reflect.Int64:
		leaf.SetInt(leaf.Int() + 1)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		leaf.SetUint(leaf.Uint() + 1)
	default:
		panic("leaf of kind " + leaf.Kind().String())
	}
	return func() { leaf.Set(old) }
}

// TestDigest_CoversEveryField changes each value of a State on its own: each must
// change the digest. What a load then makes of it is either a registry in which the
// value is as changed, or an error that says so: no field is lost, none is trusted.
func TestDigest_CoversEveryField(t *testing.T) {
	st, keys := contents(richRegistry(t))
	want := st.Digest()
	count := 0
	leaves(reflect.ValueOf(&st), "State", func(path string, leaf reflect.Value) {
		count++
		undo := changed(leaf)
		defer undo()
		digest := st.Digest()
		if digest == want {
			t.Errorf("%s does not change the digest", path)
		}
		reg, err := load(st, keys)
		switch {
		case err != nil && !errors.Is(err, ErrDamaged):
			t.Errorf("%s: %v, want %v", path, err, ErrDamaged)
		case err == nil && reg.Digest() != digest:
			t.Errorf("%s was lost in loading", path)
		}
	})
	if count < 150 {
		t.Errorf("visited %d values, want at least 150", count)
	}
	if st.Digest() != want {
		t.Fatal("the walk did not put everything back")
	}
}

// TestLoader_Damage lists what a snapshot may have wrong, and how it is named.
func TestLoader_Damage(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(*State, map[Key][]uint32)
		want   string
	}{
		{"none", func(*State, map[Key][]uint32) {}, ""},
		{"key lost", func(_ *State, k map[Key][]uint32) { delete(k, 5) }, `keys with sum`},
		{"key changed", func(_ *State, k map[Key][]uint32) { k[77] = k[5]; delete(k, 5) }, `keys with sum`},
		{"holder unknown", func(_ *State, k map[Key][]uint32) { k[5] = []uint32{99} }, "has holder 99 of"},
		{"holder twice", func(_ *State, k map[Key][]uint32) { k[5] = []uint32{0, 0} }, "holder 0 twice"},
		{"holder none", func(_ *State, k map[Key][]uint32) { k[5] = nil }, "has no holder"},
		{"worker twice", func(s *State, _ map[Key][]uint32) { s.Workers[1].WorkerRef = s.Workers[2].WorkerRef }, `worker "b"/1 appears twice`},
		{"worker without instance", func(s *State, _ map[Key][]uint32) { s.Workers[1].Instance = "z" }, `worker "z"/0 is of no instance`},
		{"workers swapped", func(s *State, _ map[Key][]uint32) { slices.Reverse(s.Workers) }, `out of order`},
		{"worker lost", func(s *State, _ map[Key][]uint32) { s.Workers = s.Workers[1:] }, `has no workers`},
		{"number beyond the last", func(s *State, _ map[Key][]uint32) { s.LastNumber = 3 }, "the last given is 3"},
		{"number twice", func(s *State, _ map[Key][]uint32) { s.Workers[0].Number = s.Instances[0].Number }, "another's"},
		{"instance twice", func(s *State, _ map[Key][]uint32) { s.Instances[1].ID = "a" }, `instance "a" appears twice`},
		{"stream twice", func(s *State, _ map[Key][]uint32) { s.Workers[0].Streams[1].Location = CPULocation }, `appears twice`},
		{"streams swapped", func(s *State, _ map[Key][]uint32) { slices.Reverse(s.Workers[0].Streams) }, `out of order`},
		{"holder of two streams", func(s *State, _ map[Key][]uint32) { s.Workers[0].Streams[1].Holder.Holder = 0 }, "another's"},
		{"too many holders", func(s *State, _ map[Key][]uint32) { s.Holders = 1 << 30 }, "holders for 3 workers"},
		{"holder of nobody", func(s *State, _ map[Key][]uint32) { s.Holders++ }, "belongs to no stream"},
		{"batch beyond the count", func(s *State, _ map[Key][]uint32) { s.Workers[0].Streams[0].Sync.Received[1] = 80 }, "batch 80 of 80"},
		{"batches beyond sense", func(s *State, _ map[Key][]uint32) { s.Workers[0].Streams[0].Sync.BatchCount = 1 << 40 }, "the most are"},
		{"evicted twice", func(s *State, _ map[Key][]uint32) {
			e := s.Workers[0].Streams[0].Sync.Evicted
			e[1] = e[0]
		}, "an evicted key twice"},
		{"hole of nothing", func(s *State, _ map[Key][]uint32) {
			h := s.Workers[1].Streams[0].Sequence.Holes
			h[0].To = h[0].From
		}, "hole in its numbers from 11 to 11"},
		{"holes swapped", func(s *State, _ map[Key][]uint32) { slices.Reverse(s.Workers[1].Streams[0].Sequence.Holes) }, "out of order"},
		{"too many holes", func(s *State, _ map[Key][]uint32) {
			q := &s.Workers[1].Streams[0].Sequence
			for i := range int64(maxHoles) {
				q.Holes = append(q.Holes, HoleState{From: 100 + 2*i, To: 101 + 2*i})
			}
		}, "holes in its numbers, the most are 8"},
		{"event twice", func(s *State, _ map[Key][]uint32) { s.Events[0].Event.ID = "e2" }, `event "e2" appears twice`},
		{"event state", func(s *State, _ map[Key][]uint32) { s.Events[0].Event.State = "odd" }, `in state "odd"`},
		{"awaited nothing", func(s *State, _ map[Key][]uint32) { s.Events[2].Event.Confirm = nil }, `event "e3" is done and to be confirmed as "awaited"`},
		{"confirmed oddly", func(s *State, _ map[Key][]uint32) { s.Events[2].Event.Confirmed = "odd" }, `confirmed as "odd"`},
		{"awaited before it is finished", func(s *State, _ map[Key][]uint32) {
			s.Events[0].Event.Confirmed, s.Events[0].Event.Confirm = MoveAwaited, s.Events[2].Event.Confirm
		}, `event "e1" is running and to be confirmed`},
		{"finished lost", func(s *State, _ map[Key][]uint32) { s.Finished = nil }, "is finished and not listed so"},
		{"finished twice", func(s *State, _ map[Key][]uint32) { s.Finished = append(s.Finished, s.Finished[0]) }, "or is listed twice"},
		{"finished and open", func(s *State, _ map[Key][]uint32) { s.Finished[0] = s.Events[0].Number }, "listed as finished and is not"},
		{"member twice", func(s *State, _ map[Key][]uint32) { s.Members = append(s.Members, s.Members[0]) }, `member "n1" appears twice`},
		{"session twice", func(s *State, _ map[Key][]uint32) { s.Sessions = append(s.Sessions, s.Sessions[0]) }, "appears twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, keys := contents(richRegistry(t))
			c.damage(&st, keys)
			reg, err := load(st, keys)
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want == "" && reg.Digest() != st.Digest():
				t.Fatal("digests differ")
			case c.want != "" && (!errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestLoader_KeyTwice cannot be said with a map.
func TestLoader_KeyTwice(t *testing.T) {
	st, _ := contents(richRegistry(t))
	l, err := NewLoader(st, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Add(5, []uint32{0}); err != nil {
		t.Fatal(err)
	}
	if err := l.Add(5, []uint32{0}); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "appears twice") {
		t.Fatalf("error %v, want damage", err)
	}
}
