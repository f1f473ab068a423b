package registry

import "testing"

// TestSlots_AreUsedAgain: workers that come and go do not make searches' tables grow.
func TestSlots_AreUsedAgain(t *testing.T) {
	reg := New(Options{})
	ref := WorkerRef{"a", 0}
	for range 100 {
		reg.Register(Registration{WorkerRef: ref})
		admit(reg, ref, CPULocation, keyRange(1, 3))
		admit(reg, ref, "disk", keyRange(1, 3))
		reg.Register(Registration{WorkerRef: ref}) // its streams end
		admit(reg, ref, CPULocation, keyRange(1, 3))
		reg.Deregister(ref, 0)
	}
	if i, w, s := reg.instanceSlots.next, reg.workerSlots.next, reg.streamSlots.next; i != 1 || w != 1 || s != 2 {
		t.Errorf("%d instance, %d worker and %d stream slots for one worker with two streams", i, w, s)
	}
}
