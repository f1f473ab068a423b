package registry

import (
	"fmt"
	"sync"
	"testing"
)

func keyRange(from, to int) []Key {
	var out []Key
	for k := from; k <= to; k++ {
		out = append(out, Key(k))
	}
	return out
}

func admit(reg *Registry, ref WorkerRef, location string, keys []Key) {
	reg.ApplyOps(Ops{Stream: StreamRef{ref, location}, Keys: keys})
}

// TestConcurrent_ReadersBesideTheWriter has readers ask while the writer changes
// everything. An instance that holds a prompt throughout, through full syncs that
// replace its holders, must be named with all of it in every answer.
func TestConcurrent_ReadersBesideTheWriter(t *testing.T) {
	reg := New(Options{Shards: 4})
	peer := "h:1"
	steady := WorkerRef{"steady", 0}
	prompt := keyRange(1, 64)
	reg.Register(Registration{WorkerRef: steady, PeerInitURL: &peer})
	admit(reg, steady, CPULocation, prompt)

	done := make(chan struct{})
	var readers sync.WaitGroup
	read := func(ask func() error) {
		readers.Go(func() { // ends when done is closed; blocks on nothing but the registry
			for {
				if err := ask(); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	defer readers.Wait()
	defer close(done)
	read(func() error {
		for _, h := range lookup(reg, "", prompt) {
			if h.Instance == steady.Instance {
				if h.Chunks != len(prompt) || h.Location != CPULocation {
					return fmt.Errorf("lookup: %+v, want all %d chunks", h, len(prompt))
				}
				return nil
			}
		}
		return fmt.Errorf("lookup does not name %v", steady)
	})
	read(func() error {
		hit, ok := reg.P2PLookup(WorkerRef{"asker", 0}, prompt)
		if want := (P2PHit{"steady", CPULocation, len(prompt), peer}); !ok || hit != want {
			return fmt.Errorf("p2p: %+v, want %+v", hit, want)
		}
		return nil
	})
	read(func() error {
		var keys int64
		for _, i := range reg.Instances() {
			keys += i.Keys
		}
		if keys < int64(len(prompt)) {
			return fmt.Errorf("instances hold %d keys in all, want at least %d", keys, len(prompt))
		}
		reg.Totals()
		reg.Digest()
		reg.Holders(1)
		reg.SyncStatus(steady, "s", 1)
		reg.Events(3)
		return nil
	})

	for round := range 60 {
		at := Micros(round)
		for i := range 6 { // others come and go, on the same slots
			ref := WorkerRef{fmt.Sprintf("other-%d", (round+i)%9), int64(i % 2)}
			reg.Register(Registration{WorkerRef: ref, At: at})
			admit(reg, ref, CPULocation, keyRange(1, 10*i))
			admit(reg, ref, "disk", keyRange(20, 30))
			if i%3 == 0 {
				reg.Deregister(ref, 0)
			}
		}
		stream, id := StreamRef{steady, CPULocation}, fmt.Sprint(round)
		reg.SyncStart(SyncStart{Stream: stream, SyncID: id, BatchCount: 2, TotalKeys: 64, At: at})
		reg.SyncBatch(SyncBatch{Stream: stream, SyncID: id, BatchID: 0, Keys: prompt[:32]})
		admit(reg, steady, CPULocation, keyRange(100+round, 110+round))
		reg.SyncBatch(SyncBatch{Stream: stream, SyncID: id, BatchID: 1, Keys: prompt[32:]})
		if res := reg.SyncEnd(SyncEnd{Stream: stream, SyncID: id, At: at}); !res.Complete {
			t.Fatalf("sync %d is not complete", round)
		}
		event := fmt.Sprint("e", round)
		reg.CreateEvent(EventCreate{ID: event, Kind: CommandClear, At: at})
		if err := reg.FinishEvent(EventFinish{ID: event, State: EventDone, At: at}); err != nil {
			t.Fatal(err)
		}
		s := reg.Snapshot()
		reg.Lease(Lease{At: at, Heard: []Heard{{WorkerRef: steady, Any: at, Heartbeat: at}}})
		reg.Sweep(64)
		s.Release()
	}
}

// TestSnapshot_BesideTheWriter changes everything while a snapshot is read; the
// snapshot must be of the moment it was taken.
func TestSnapshot_BesideTheWriter(t *testing.T) {
	reg := New(Options{Shards: 4})
	for i := range 8 {
		ref := WorkerRef{fmt.Sprint(i), 0}
		reg.Register(Registration{WorkerRef: ref, At: 1})
		admit(reg, ref, CPULocation, keyRange(i, i+200))
	}
	stream := StreamRef{WorkerRef{"3", 0}, CPULocation}
	reg.SyncStart(SyncStart{Stream: stream, SyncID: "s", BatchCount: 2})
	reg.SyncBatch(SyncBatch{Stream: stream, SyncID: "s", Keys: keyRange(500, 600)})
	want := reg.Digest()
	s := reg.Snapshot()
	defer s.Release()

	loaded := make(chan *Registry, 1)
	failed := make(chan error, 1)
	go func() { // reads the snapshot beside the writer, and ends
		l, err := NewLoader(s.State(), Options{})
		for i := 0; err == nil && i < s.Shards(); i++ {
			s.Shard(i, func(k Key, holders []uint32) {
				if err == nil {
					err = l.Add(k, holders)
				}
			})
		}
		if err != nil {
			failed <- err
			return
		}
		r, err := l.Finish()
		if err != nil {
			failed <- err
			return
		}
		loaded <- r
	}()
	for round := range 50 {
		for i := range 8 {
			ref := WorkerRef{fmt.Sprint(i), 0}
			if (round+i)%5 == 0 {
				reg.Register(Registration{WorkerRef: ref, At: 2})
			}
			admit(reg, ref, CPULocation, keyRange(round*10, round*10+50))
		}
		reg.SyncBatch(SyncBatch{Stream: stream, SyncID: "s", BatchID: 1})
		reg.SyncEnd(SyncEnd{Stream: stream, SyncID: "s"})
		reg.Sweep(1000)
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	case r := <-loaded:
		if got := r.Digest(); got != want || s.Digest() != want {
			t.Errorf("loaded %v, snapshot %v, want %v", got, s.Digest(), want)
		}
	}
	if reg.Digest() == want {
		t.Error("the writer changed nothing")
	}
}

// TestSearch_SlotChangesHands stops a reader within the walk of the first chunk: the
// stream that it has just met ends, another one takes its slot and the key, and a
// holder that died makes the walk begin again. The new one must be named.
func TestSearch_SlotChangesHands(t *testing.T) {
	reg := New(Options{})
	peer := "h:1"
	a, b, c := WorkerRef{"a", 0}, WorkerRef{"b", 0}, WorkerRef{"c", 0}
	for _, ref := range []WorkerRef{a, b, c} {
		reg.Register(Registration{WorkerRef: ref, PeerInitURL: &peer})
		admit(reg, ref, "disk", keyRange(100, 100))
	}
	admit(reg, a, CPULocation, keyRange(1, 1))
	admit(reg, c, CPULocation, keyRange(1, 1))

	s := reg.NewSearch("")
	defer s.Close()
	p := new(peerSearch)
	first := reg.workers[a].stream(CPULocation)
	moved := false
	reg.probe(1, reg.idx.Holders(1), func(st *stream) {
		s.open(st)
		p.open(st, "asker")
		if !moved {
			moved = true
			reg.Deregister(a, 0)
			admit(reg, b, CPULocation, keyRange(1, 1))
			reg.Deregister(c, 0)
		}
	})
	if next := reg.workers[b].stream(CPULocation); next.slot != first.slot {
		t.Fatalf("stream slots %d and %d: the test wants one slot for both", first.slot, next.slot)
	}
	s.ends = append(s.ends, 1) // the rest of Next
	for i := range s.candidates {
		s.candidates[i].steps = 1
	}
	found := false
	for _, h := range s.Hits() {
		found = found || h.Instance == b.Instance && h.Location == CPULocation
	}
	if !found {
		t.Errorf("hits %+v, want %q among them", s.Hits(), b.Instance)
	}
	if n := len(p.runs); n != 2 || p.runs[1].stream.worker.ref != b {
		t.Errorf("%d peers met, want a's and then b's", n)
	}
}
