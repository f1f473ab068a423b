package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime/metrics"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/registry"
)

// allocated is the number of bytes allocated so far by this process.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// FuzzDecodeEntry feeds an FSM that holds something with one entry: as it is, and
// with a checksum that fits, since no fuzzer finds one by itself.
func FuzzDecodeEntry(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.entry())
	}
	for _, log := range writeScript(1, 40) {
		f.Add(log.Data)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		applyAnything(t, entry)
		if len(entry) >= trailerSize {
			applyAnything(t, reseal(entry, func(b []byte) []byte { return b }))
		}
	})
}

func applyAnything(t *testing.T, entry []byte) {
	before := allocated()
	dec, err := Decode(entry)
	checked := Check(entry)
	// a dictionary's smallest entry is 2 bytes, a decoded stream 48; a growing
	// slice allocates twice as much again
	if got, bound := allocated()-before, uint64(2<<20+400*len(entry)); got > bound {
		t.Errorf("%d bytes allocated for an entry of %d, bound %d", got, len(entry), bound)
	}
	if (err == nil) != (checked == nil) {
		t.Fatalf("Decode says %v, Check says %v", err, checked)
	}
	fsm := New(Options{Registry: registry.Options{Shards: 1, MaxEvents: 4, MaxWorkers: 8}})
	fsm.ApplyBatch(fuzzBase)
	digest := fsm.Registry().Digest()
	result := fsm.Apply(&raft.Log{Index: 1000, Type: raft.LogCommand, Data: entry})
	if fsm.failure != nil && fsm.failure.Reason[:3] == "bug" {
		t.Fatal(fsm.failure)
	}
	if err == nil {
		if fsm.failure != nil || fsm.Applied() != 1000 {
			t.Fatalf("Check passed it, Apply says %v", fsm.failure)
		}
		if w, ok := dec.Value.(WorkerBatch); ok {
			again, err := Decode(encodeBatch(w))
			if err != nil || len(again.Value.(WorkerBatch).Records) != len(w.Records) {
				t.Fatalf("encoded again: %v", err)
			}
			for i, r := range again.Value.(WorkerBatch).Records {
				if !sameRecord(r, w.Records[i]) {
					t.Fatalf("record %d: %+v\nwas %+v", i, r, w.Records[i])
				}
			}
		}
		return
	}
	var refused *RefusedError
	if !errors.As(err, &refused) || fsm.failure == nil || result != any(fsm.failure) {
		t.Fatalf("Check refuses it with %v, Apply says %v", err, result)
	}
	if fsm.Registry().Digest() != digest || fsm.Applied() != fuzzBase[len(fuzzBase)-1].Index {
		t.Fatal("a refused entry changed the state")
	}
}

var fuzzBase = writeScript(9, 30)

// FuzzRestore restores anything over an FSM that holds something: as it is, and
// with all checksums made to fit.
func FuzzRestore(f *testing.F) {
	empty, _ := newFSM(f)
	f.Add(persist(f, empty))
	f.Add(smallSnapshot(f))
	f.Add(persist(f, applied(f, 10, 150)))
	f.Fuzz(func(t *testing.T, b []byte) {
		restoreAnything(t, b)
		restoreAnything(t, resealSnapshot(b))
	})
}

func restoreAnything(t *testing.T, b []byte) {
	fsm := New(Options{Registry: registry.Options{Shards: 1}})
	fsm.ApplyBatch(fuzzBase)
	reg, digest, index := fsm.Registry(), fsm.Registry().Digest(), fsm.Applied()
	before := allocated()
	err := restore(fsm, b)
	if err == nil && fsm.Registry() == reg { // whole, and older than the state: into one of no age, then
		fsm = New(Options{Registry: registry.Options{Shards: 1}})
		reg, digest, index = fsm.Registry(), fsm.Registry().Digest(), fsm.Applied()
		before = allocated()
		err = restore(fsm, b)
	}
	// a worker of 11 bytes becomes one of a kilobyte, and may claim 128 holders
	if got, bound := allocated()-before, uint64(8<<20+4000*len(b)); got > bound {
		t.Errorf("%d bytes allocated for a snapshot of %d, bound %d", got, len(b), bound)
	}
	if err == nil {
		for _, log := range fuzzBase { // what the loader let pass must not break later
			next := *log
			next.Index = fsm.index + 1
			fsm.Apply(&next)
		}
		if fsm.failure != nil {
			t.Fatal(fsm.failure)
		}
		persist(t, fsm)
		return
	}
	var se *SnapshotError
	if !errors.As(err, &se) {
		t.Fatalf("error of type %T: %v", err, err)
	}
	if bytes.Contains([]byte(err.Error()), []byte("bug:")) {
		t.Fatal(err)
	}
	if fsm.Registry() != reg || reg.Digest() != digest || fsm.Applied() != index {
		t.Fatal("a refused snapshot changed the state")
	}
}

// resealSnapshot puts fitting checksums, counts and, where the state can be read,
// the digest that the fuzzed state would have.
func resealSnapshot(b []byte) []byte {
	if len(b) < snapshotHeaderSize {
		return b
	}
	parts := sections(b)
	parts[0] = seal(bytes.Clone(parts[0][:snapshotHeaderSize-4]))
	for i, p := range parts[1:] {
		p = bytes.Clone(p)
		if sectionType(p[0]) == sectionEnd {
			c := cursor{data: p[sectionHeaderSize:]}
			if e := readEnd(&c); c.err == nil {
				e.sections = uint64(i)
				e.digest = digestOf(parts[1 : i+1])
				p = section(sectionEnd, appendEnd(nil, e))
			}
		}
		binary.LittleEndian.PutUint32(p[5:], sectionSum(p[:5], p[sectionHeaderSize:]))
		parts[i+1] = p
	}
	return bytes.Join(parts, nil)
}

func digestOf(parts [][]byte) registry.Digest {
	var b []byte
	for _, p := range parts {
		if sectionType(p[0]) == sectionState {
			b = append(b, p[sectionHeaderSize:]...)
		}
	}
	c := cursor{data: b}
	if st, _ := readState(&c); c.err == nil {
		return st.Digest()
	}
	return registry.Digest{}
}
