package ingest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPending_OrderPerIdentity(t *testing.T) {
	p := newPending(10)
	a1, a2 := p.open([]byte("a")), p.open([]byte("a"))
	b1 := p.open([]byte("b"))
	if p.resolve(a2, []byte("a2")) {
		t.Error("the second answer of a can be sent although the first is missing")
	}
	if !p.resolve(b1, []byte("b1")) {
		t.Error("b waits for a")
	}
	if got := sent(p); !slices.Equal(got, []string{"b:b1"}) {
		t.Errorf("sent %v, want b:b1", got)
	}
	if !p.resolve(a1, []byte("a1")) {
		t.Error("the first answer of a cannot be sent")
	}
	if p.resolve(a1, []byte("again")) {
		t.Error("a second answer to one request counts")
	}
	if got := sent(p); !slices.Equal(got, []string{"a:a1", "a:a2"}) {
		t.Errorf("sent %v, want a:a1 a:a2", got)
	}
	if p.len() != 0 || len(p.byID) != 0 {
		t.Errorf("%d requests and %d conversations are left", p.len(), len(p.byID))
	}
}

func TestPending_Deadline(t *testing.T) {
	p := newPending(10)
	t0 := time.Unix(1000, 0)
	early, late := p.open([]byte("a")), p.open([]byte("a"))
	p.await(late, t0.Add(2*time.Second), func() []byte { return []byte("late") })
	p.await(early, t0.Add(time.Second), func() []byte { return []byte("early") })
	if n := p.expire(t0); n != 0 || !p.awaiting() {
		t.Fatalf("%d requests expired before their deadline", n)
	}
	if n := p.expire(t0.Add(time.Second)); n != 1 {
		t.Fatalf("%d requests expired, want 1", n)
	}
	if p.resolve(early, []byte("real")); !slices.Equal(sent(p), []string{"a:early"}) {
		t.Error("the answer after the deadline was sent, or none")
	}
	p.resolve(late, []byte("real"))
	if n := p.expire(t0.Add(time.Hour)); n != 0 || p.awaiting() {
		t.Errorf("%d answered requests expired", n)
	}
	if got := sent(p); !slices.Equal(got, []string{"a:real"}) {
		t.Errorf("sent %v, want a:real", got)
	}
}

func TestPending_Full(t *testing.T) {
	p := newPending(2)
	first := p.open([]byte("a"))
	if p.open([]byte("b")); !p.full() {
		t.Fatal("not full at the bound")
	}
	p.resolve(first, nil)
	if sent(p); p.full() {
		t.Fatal("full below the bound")
	}
}

// TestPending_EveryAnswerOnceAndInOrder resolves requests of several identities in any
// order: each identity gets the answers to its requests in their order, each once.
func TestPending_EveryAnswerOnceAndInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPending(1 << 20)
		var open []*request
		asked, got := map[string][]string{}, map[string][]string{}
		names := map[*request]string{}
		collect := func() {
			for _, out := range p.take(nil) {
				got[out.identity] = append(got[out.identity], string(out.answer))
			}
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "identity")
				r := p.open([]byte(id))
				names[r] = fmt.Sprint(len(asked[id]))
				asked[id] = append(asked[id], names[r])
				open = append(open, r)
			case 2:
				if len(open) > 0 {
					i := rapid.IntRange(0, len(open)-1).Draw(t, "which")
					p.resolve(open[i], []byte(names[open[i]]))
					open = slices.Delete(open, i, i+1)
				}
			case 3:
				collect()
			}
		}
		for _, r := range open {
			p.resolve(r, []byte(names[r]))
		}
		collect()
		for id, want := range asked {
			if !slices.Equal(got[id], want) {
				t.Fatalf("identity %s got %v, want %v", id, got[id], want)
			}
		}
		if p.len() != 0 || len(p.byID) != 0 || len(p.ready) != 0 {
			t.Fatalf("left over: %d requests, %d conversations, %d ready", p.len(), len(p.byID), len(p.ready))
		}
	})
}

func sent(p *pending) []string {
	var out []string
	for _, r := range p.take(nil) {
		out = append(out, r.identity+":"+string(r.answer))
	}
	return out
}
