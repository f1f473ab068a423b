package registry

import "testing"

func TestHeld(t *testing.T) {
	r := New(Options{Shards: 4})
	a, b := WorkerRef{"a", 0}, WorkerRef{"b", 1}
	admit := func(w WorkerRef, evict bool, keys ...Key) {
		t.Helper()
		o := Ops{Stream: StreamRef{WorkerRef: w, Location: "L"}, Keys: keys, At: 2}
		if evict {
			o.Evict = []byte{0xff}
		}
		if res := r.ApplyOps(o); res.Unknown || res.Refused != "" {
			t.Fatalf("%+v", res)
		}
	}
	for _, w := range []WorkerRef{a, b} {
		if r.Registered(w.Instance) {
			t.Errorf("%s is registered from the beginning", w.Instance)
		}
		r.Register(Registration{WorkerRef: w, IP: "127.0.0.1", Port: 1, At: 1})
	}
	if !r.Registered("a") || !r.Registered("b") {
		t.Error("who has registered is not")
	}
	admit(a, false, 1, 2)
	admit(b, false, 2, 3)
	admit(b, true, 3)
	for _, c := range []struct {
		key            Key
		held, byA, byB bool
	}{{1, true, true, false}, {2, true, true, true}, {3, false, false, false}, {4, false, false, false}} {
		if held, byA, byB := r.Held(c.key), r.HeldBy(c.key, "a"), r.HeldBy(c.key, "b"); held != c.held || byA != c.byA || byB != c.byB {
			t.Errorf("key %d: held %t, by a %t, by b %t; want %t, %t, %t", c.key, held, byA, byB, c.held, c.byA, c.byB)
		}
	}
	r.Deregister(a, 3)
	if r.Held(1) || r.HeldBy(2, "a") || !r.HeldBy(2, "b") || r.Registered("a") {
		t.Error("a is gone and still held to hold")
	}
	if n := testing.AllocsPerRun(100, func() { r.Held(2); r.Held(9) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
