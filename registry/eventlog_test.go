package registry

import (
	"fmt"
	"strings"
	"testing"
)

// TestEvents_ManyComeAndGo drives the log far beyond its bounds: lists, counts and
// the interruption of open events in the midst of drops stay right.
func TestEvents_ManyComeAndGo(t *testing.T) {
	const kept, all = 100, 1000
	opts := Options{MaxEvents: kept}
	reg := New(opts)
	reg.BeginTerm(TermBegin{Term: 1})
	var open []string
	for i := range all {
		id := fmt.Sprint("e", i)
		if res := reg.CreateEvent(EventCreate{ID: id, Kind: CommandPin, Term: 1}); res.Refused != "" || res.Existing {
			t.Fatalf("%s: %+v", id, res)
		}
		if i%5 == 0 {
			open = append(open, id)
			continue
		}
		if err := reg.FinishEvent(EventFinish{ID: id, Term: 1, State: EventDone}); err != nil {
			t.Fatal(err)
		}
	}
	if totals := reg.Totals(); totals.OpenEvents != len(open) || totals.Events != len(open)+kept {
		t.Fatalf("%d open of %d, want %d of %d", totals.OpenEvents, totals.Events, len(open), len(open)+kept)
	}
	events := reg.Events(3)
	for i, want := range []string{"e999", "e998", "e997"} {
		if events[i].ID != want {
			t.Errorf("event %d is %s, want %s", i, events[i].ID, want)
		}
	}
	for _, c := range []struct {
		filter EventFilter
		limit  int
		want   string
	}{
		{EventFilter{State: EventPending}, 2, "e995 e990"},
		{EventFilter{State: EventDone, Kind: CommandPin}, 2, "e999 e998"},
		{EventFilter{Kind: CommandMove}, 0, ""},
	} {
		var ids []string
		for _, e := range reg.EventsOf(c.filter, c.limit) {
			ids = append(ids, e.ID)
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("%+v: %q, want %q", c.filter, got, c.want)
		}
	}
	if n := len(reg.EventsOf(EventFilter{State: EventPending}, 0)); n != len(open) {
		t.Errorf("%d pending events, want %d", n, len(open))
	}
	reg = reload(t, reg, opts)
	interrupted := reg.BeginTerm(TermBegin{Term: 2})
	if fmt.Sprint(interrupted) != fmt.Sprint(open) {
		t.Errorf("interrupted %v\nwant %v", interrupted, open)
	}
	if totals := reg.Totals(); totals.OpenEvents != 0 || totals.Events != kept {
		t.Fatalf("%d open of %d, want none of %d", totals.OpenEvents, totals.Events, kept)
	}
	if e, ok := reg.Event(open[len(open)-1]); !ok || e.State != EventInterrupted {
		t.Errorf("the last open one is %v %v", e, ok)
	}
	reload(t, reg, opts)
}

// A move that a clock ahead has stamped is brought down to the right one's time to be waited
// for, and did not end before it began.
func TestMove_StampedAhead(t *testing.T) {
	reg := New(Options{})
	const ahead = hour
	reg.CreateEvent(EventCreate{ID: "m", Kind: CommandMove, At: ahead})
	if err := reg.FinishEvent(EventFinish{ID: "m", State: EventDone, At: ahead + second, Confirm: &Confirmation{Ranks: []int64{0}}}); err != nil {
		t.Fatal(err)
	}
	reg.Lease(Lease{At: second})
	if e, _ := reg.Event("m"); e.Finished != second || e.Created > e.Finished {
		t.Errorf("created %d, finished %d", e.Created, e.Finished)
	}
}
