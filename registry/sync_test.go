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
	r.SyncStart(SyncStart{Stream: stream, SyncID: "s", BatchCount: 0, At: 4})
	awaited("with nothing announced", false)
}
