package index

import "testing"

func TestIndex_AdmitEvictDrop(t *testing.T) {
	x := New[string](Options{Shards: 2})
	a, b := x.NewHolder("a"), x.NewHolder("b")
	if !x.Admit(b, 7) || !x.Admit(a, 7) || x.Admit(a, 7) {
		t.Fatal("admit: want true, true, false for b, a, a again")
	}
	got := x.Holders(7)
	if len(got) != 2 || got[0] != a || got[1] != b {
		t.Fatalf("holders of 7: got %d, want a and b in order of NewHolder", len(got))
	}
	if x.Holders(8) != nil {
		t.Fatal("holders of 8: want nil")
	}
	if a.Count() != 1 || a.Sum() != KeySum(7) || x.Len() != 1 {
		t.Fatalf("count %d, sum %x, len %d: want 1, %x, 1", a.Count(), a.Sum(), x.Len(), KeySum(7))
	}
	x.Hide(a)
	if a.Visible() || a.State() != Hidden {
		t.Fatal("hidden holder is visible")
	}
	x.Show(a)
	x.Drop(a)
	x.Drop(a)
	if a.Visible() || a.State() != Dead || a.Count() != 0 || a.Sum() != 0 || x.DeadEntries() != 1 {
		t.Fatalf("dropped holder: state %d, count %d, sum %x, dead entries %d", a.State(), a.Count(), a.Sum(), x.DeadEntries())
	}
	if x.Admit(a, 9) || x.Evict(a, 7) || x.Put(9, []*Holder[string]{a}) != 0 {
		t.Fatal("a dropped holder took part in a change")
	}
	x.Sweep(1 << 20)
	if got := x.Holders(7); x.DeadEntries() != 0 || len(got) != 1 || got[0] != b {
		t.Fatalf("after the sweep: %d dead entries, %d holders, want 0 and b", x.DeadEntries(), len(got))
	}
	if x.Evict(a, 7) || !x.Evict(b, 7) || x.Evict(b, 7) || x.Len() != 0 || x.Holders(7) != nil {
		t.Fatal("evict: want false, true, false, and the key gone")
	}
}

func TestOptions_Validate(t *testing.T) {
	for _, o := range []Options{{Shards: -1}, {Shards: 3}, {Shards: 1 << 17}, {Keys: -1}} {
		if o.Validate() == nil {
			t.Errorf("%+v: want an error", o)
		}
	}
	for _, o := range []Options{{}, {Shards: 1}, {Shards: 1 << 16, Keys: 5}} {
		if err := o.Validate(); err != nil {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
