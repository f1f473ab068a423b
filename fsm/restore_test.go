package fsm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/registry"
)

// A replica that has fallen behind installs snapshots and goes on answering meanwhile:
// every answer is wholly of the state before or of the one after, and the digest is the
// one of its index.
func TestRestore_BesideReaders(t *testing.T) {
	const generations, keys = 5, 2000
	f, _ := newFSM(t)
	leader, _ := newFSM(t)

	// In generation g the fleet's one worker holds the keys 1 to keys and the key
	// 1000000+g, and no other; entries of generation g end at index 3g.
	var saved [][]byte
	digests := map[uint64]registry.Digest{}
	all := make([]registry.Key, keys)
	for i := range all {
		all[i] = registry.Key(i + 1)
	}
	for g := uint64(1); g <= generations; g++ {
		marks := []registry.Key{registry.Key(1_000_000 + g), registry.Key(1_000_000 + g - 1)}
		for i, rec := range []any{
			registry.Registration{WorkerRef: workerA, IP: fmt.Sprintf("10.0.0.%d", g), At: sampleAt},
			registry.Ops{Stream: streamA, Keys: all, Numbered: true, At: sampleAt},
			registry.Ops{Stream: streamA, Keys: marks, Evict: registry.Bitmap{2}, First: keys, Numbered: true, At: sampleAt},
		} {
			at := 3*(g-1) + uint64(i) + 1
			leader.Apply(command(at, encodeBatch(WorkerBatch{Session: sampleSession, Number: at, At: sampleAt, Records: []any{rec}})))
		}
		saved = append(saved, persist(t, leader))
		index, digest := leader.Digest()
		digests[index] = digest
	}
	if err := restore(f, saved[0]); err != nil {
		t.Fatal(err)
	}

	done := make(chan struct{})
	var readers sync.WaitGroup
	defer readers.Wait()
	read := func(look func() error) {
		readers.Go(func() { // until done is closed
			for {
				if err := look(); err != nil {
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
	// generation is that of the present registry, by its key.
	generation := func(reg *registry.Registry) (at uint64) {
		for g := uint64(1); g <= generations; g++ {
			if len(reg.Holders(registry.Key(1_000_000+g))) > 0 {
				if at != 0 {
					return 0
				}
				at = g
			}
		}
		return at
	}
	read(func() error { // lookups, of one registry each
		applied := f.Applied()
		reg := f.Registry()
		g := generation(reg)
		if g == 0 || 3*g < applied {
			return fmt.Errorf("at index %d or later the registry is of generation %d", applied, g)
		}
		s := reg.NewSearch("")
		defer s.Close()
		n := 0
		for n < keys && s.Next(all[n]) {
			n++
		}
		s.Next(registry.Key(1_000_000 + g))
		if hits := s.Hits(); n != keys || len(hits) != 1 || hits[0].Chunks != keys+1 {
			return fmt.Errorf("generation %d: %d of %d keys, hits %v", g, n, keys, hits)
		}
		return nil
	})
	read(func() error { // lists
		reg := f.Registry()
		w, ok := reg.Worker(workerA)
		if g := generation(reg); !ok || w.IP != fmt.Sprintf("10.0.0.%d", g) || w.Keys != keys+1 {
			return fmt.Errorf("generation %d: %+v", g, w)
		}
		return nil
	})
	read(func() error { // digests
		if index, digest := f.Digest(); digests[index] != digest {
			return fmt.Errorf("digest %v at %d, want %v", digest, index, digests[index])
		}
		return nil
	})
	read(func() error { // who waits for an index that has been reached
		last := f.Applied()
		if err := f.WaitApplied(t.Context(), last); err != nil || f.Applied() < last {
			return fmt.Errorf("index %d after %d, %v", f.Applied(), last, err)
		}
		return nil
	})

	waiting := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { // ends with the last restore
		err := f.WaitApplied(ctx, 3*generations)
		if g := generation(f.Registry()); err == nil && g != generations {
			err = fmt.Errorf("woken up for the last generation, the registry is of generation %d", g)
		}
		waiting <- err
	}()
	for _, b := range saved[1:] {
		damaged := slices.Clone(b)
		damaged[len(damaged)-1] ^= 1
		if err := restore(f, damaged); err == nil {
			t.Error("a damaged snapshot was restored")
		}
		if err := restore(f, b); err != nil {
			t.Error(err)
		}
	}
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	close(done)
	readers.Wait()
	sameState(t, f, leader)
}
