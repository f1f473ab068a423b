package registry

import "testing"

// TestSyncAwaitsEnd: only when every announced batch is in, and the end is not.
func TestSyncAwaitsEnd(t *testing.T) {
	r := New(Options{})
	w := WorkerRef{"i", 1}
	stream := StreamRef{w, CPULocation}
	r.Register(Registration{WorkerRef: w, At: 1})
	awaited := func(when string, want bool) {
		t.Helper()
		end, got := r.SyncAwaitsEnd(w, "s")
		if got != want || got && (end.Stream != stream || end.SyncID != "s" || end.TotalKeys != 3) {
			t.Errorf("%s: %+v, %v, want %v", when, end, got, want)
		}
	}
	awaited("before the start", false)
	r.SyncStart(SyncStart{Stream: stream, SyncID: "s", TotalKeys: 3, BatchCount: 2, At: 2})
	awaited("after the start", false)
	r.SyncBatch(SyncBatch{Stream: stream, SyncID: "s", BatchID: 1, Keys: []Key{1}, At: 3})
	r.SyncBatch(SyncBatch{Stream: stream, SyncID: "s", BatchID: 7, Keys: []Key{2}, At: 3})
	awaited("with one of two batches", false)
	r.SyncBatch(SyncBatch{Stream: stream, SyncID: "s", BatchID: 0, Keys: []Key{3}, At: 3})
	awaited("with both", true)
	if _, got := r.SyncAwaitsEnd(w, "other"); got {
		t.Error("the end of another sync is awaited")
	}
	if _, got := r.SyncAwaitsEnd(WorkerRef{"j", 1}, "s"); got {
		t.Error("the end of a stranger's sync is awaited")
	}
	if end, _ := r.SyncAwaitsEnd(w, "s"); !r.SyncEnd(end).Complete {
		t.Error("with that end the sync is not complete")
	}
	awaited("after the end", false)
	r.SyncStart(SyncStart{Stream: stream, SyncID: "t", BatchCount: 0, At: 4})
	awaited("with nothing announced", false)
}

// TestSyncCounts: each sync is counted when it starts and once when it ends.
func TestSyncCounts(t *testing.T) {
	r := New(Options{MaxSyncEvicts: 1})
	w := WorkerRef{"i", 1}
	stream := StreamRef{w, CPULocation}
	register := func() { r.Register(Registration{WorkerRef: w, At: 1}) }
	at := Micros(2)
	start := func(id string) { r.SyncStart(SyncStart{Stream: stream, SyncID: id, At: at}) }
	end := func(id string) { r.SyncEnd(SyncEnd{Stream: stream, SyncID: id, At: 3}) }
	register()
	end("none")
	start("replaced")
	start("complete")
	end("complete")
	end("complete") // said again
	start("late")
	start("late") // said again
	at = 1000 * second
	r.Lease(Lease{At: at})
	start("clears")
	r.ApplyOps(Ops{Stream: stream, Keys: []Key{1, 2, 3}, Evict: Bitmap{7}, At: at})
	start("clears") // was given up
	start("dies")
	register()
	start("leaves")
	r.Deregister(w, at)
	want := SyncCounts{Started: 6, Completed: 1, Failed: 2, Replaced: 1, Dropped: 2}
	if got := r.SyncCounts(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
