package e2e

import (
	"strings"
	"testing"

	zmq "github.com/pebbe/zmq4"
)

// TestVectors replays every recorded scenario of LMCache's controller against the real
// binary: requests, worker messages and workers' answers over real sockets.
func TestVectors(t *testing.T) {
	rows, scenarios := loadRows(t)
	rl := rules{newRuleBook(t, "better", better), newRuleBook(t, "exceptions", exceptions)}
	counts := &tally{}
	zctx, err := zmq.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	t.Cleanup(func() { // after all scenarios
		t.Log("\n" + counts.String())
		if err := zctx.Term(); err != nil {
			t.Error(err)
		}
		if ran < len(scenarios) {
			return // a part was asked for
		}
		for _, b := range []*ruleBook{rl.better, rl.exceptions} {
			for _, name := range b.unused() {
				t.Errorf("%s: no row has the name %q", b.title, name)
			}
		}
	})
	for _, scenario := range scenarios {
		t.Run(scenario, func(t *testing.T) {
			ran++
			t.Parallel()
			replayScenario(t, zctx, scenario, rows[scenario], rl, counts)
		})
	}
}

func replayScenario(t *testing.T, zctx *zmq.Context, scenario string, rows []*row, rl rules, counts *tally) {
	r := newReplay(t, zctx, scenario, rows, rl, counts)
	for _, row := range rows {
		faults := r.run(row)
		counts.count(row, len(faults) == 0)
		if len(faults) > 0 {
			t.Errorf("step %d, %s (%s; %s):\n    %s", row.Step, row.Name, row.Verdict, row.Note, strings.Join(faults, "\n    "))
		}
		if !r.replica.Running() {
			t.Fatalf("the replica has ended after step %d, %s", row.Step, row.Name)
		}
	}
	if code := r.replica.Terminate(); code != 0 {
		t.Errorf("SIGTERM ended the replica with exit code %d, want 0", code)
	}
	for _, sign := range []string{"DATA RACE", "panic:", "goroutine "} {
		if strings.Contains(r.replica.Log(), sign) {
			t.Errorf("the replica's log has %q", sign)
		}
	}
}
