package ingest

import (
	"context"
	"strings"
	"testing"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// TestNotes_NamesThatCannotBe: a name that is too long to be registered is not kept,
// whatever message it comes in. A frame may hold one of any length.
func TestNotes_NamesThatCannotBe(t *testing.T) {
	r := start(t, nil)
	long := strings.Repeat("x", fsm.MaxName+1)
	d := r.dealer()
	d.ask(&lmcache.BatchedP2PLookupMsg{InstanceID: long, WorkerID: 1})
	d.ask(&lmcache.FullSyncStatusMsg{InstanceID: long, WorkerID: 1})
	d.ask(heartbeatMsg(long))
	d.ask(registerMsg(long))
	r.push().parts(opsMsg(long, "L", 0, 1))
	eventually(t, "the events are refused", func() bool { return r.s.Stats().BadFrames[reasonTooLong] == 3 })
	if heard := r.s.TakeHeard(context.Background()); len(heard) != 0 {
		t.Errorf("%d of them are noted", len(heard))
	}
}

// TestNotes_StrangersMakeRoom: invented names cannot keep a worker from being heard.
func TestNotes_StrangersMakeRoom(t *testing.T) {
	r := start(t, nil)
	r.register("i")
	r.s.notes.take()
	for i := range int64(maxNotes) {
		r.s.note(registry.WorkerRef{Instance: "stranger", Worker: i}, 1, false)
	}
	r.s.note(ref("i"), 2, true)
	heard := r.s.TakeHeard(context.Background())
	if len(heard) != 1 || heard[0] != (registry.Heard{WorkerRef: ref("i"), Any: 2, Heartbeat: 2}) {
		t.Errorf("%d were heard, want the worker alone", len(heard))
	}
}
