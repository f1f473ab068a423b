//go:build !race

package registry

import "testing"

// TestLookup_AllocatesNothingPerKey counts for a whole lookup, pool and all: a pooled
// search that has grown to the fleet has room for every key. Not under the race
// detector, which empties pools at random.
func TestLookup_AllocatesNothingPerKey(t *testing.T) {
	reg := fleet(50, 2, 64)
	keys := keyRange(1, 65)
	search := func() {
		s := reg.NewSearch("")
		for _, k := range keys {
			if !s.Next(k) {
				break
			}
		}
		s.Close()
	}
	peer := func() { reg.P2PLookup(WorkerRef{"asker", 0}, keys) }
	search()
	peer()
	if n := testing.AllocsPerRun(100, search); n >= 1 {
		t.Errorf("a search of 65 keys allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, peer); n >= 1 {
		t.Errorf("a peer lookup of 65 keys allocates %v times", n)
	}
}
