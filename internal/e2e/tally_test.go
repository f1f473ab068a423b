package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// tally counts the rows of all scenarios for the table at the end.
type tally struct {
	mu         sync.Mutex
	rows       map[string]map[string][2]int // scenario, verdict: rows and passed
	exceptions []string
	notes      []string
}

var verdicts = []string{"contract", "shape", "superset", "defect", "optional"}

func (y *tally) count(row *row, passed bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.rows == nil {
		y.rows = map[string]map[string][2]int{}
	}
	if y.rows[row.Scenario] == nil {
		y.rows[row.Scenario] = map[string][2]int{}
	}
	n := y.rows[row.Scenario][row.Verdict]
	n[0]++
	if passed {
		n[1]++
	}
	y.rows[row.Scenario][row.Verdict] = n
}

// exception notes a row that is judged by its own expectation instead of the recording.
func (y *tally) exception(row *row, reason string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.exceptions = append(y.exceptions, fmt.Sprintf("%s (%s): %s", row.Name, row.Verdict, reason))
}

// note is a difference in an answer that nobody relies on.
func (y *tally) note(row *row, difference string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.notes = append(y.notes, fmt.Sprintf("%s: %s", row.Name, difference))
}

func (y *tally) String() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	var b strings.Builder
	line := func(name string, of map[string][2]int) {
		fmt.Fprintf(&b, "%-22s", name)
		for _, v := range verdicts {
			cell := "-"
			if n := of[v]; n[0] > 0 {
				cell = fmt.Sprintf("%d of %d", n[1], n[0])
			}
			fmt.Fprintf(&b, " %12s", cell)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "rows that passed, by verdict\n%-22s", "scenario")
	for _, v := range verdicts {
		fmt.Fprintf(&b, " %12s", v)
	}
	b.WriteByte('\n')
	total := map[string][2]int{}
	scenarios := make([]string, 0, len(y.rows))
	for s := range y.rows {
		scenarios = append(scenarios, s)
	}
	slices.Sort(scenarios)
	for _, s := range scenarios {
		line(s, y.rows[s])
		for v, n := range y.rows[s] {
			total[v] = [2]int{total[v][0] + n[0], total[v][1] + n[1]}
		}
	}
	line("all", total)
	section := func(title string, lines []string) {
		slices.Sort(lines)
		fmt.Fprintf(&b, "\n%s: %d\n", title, len(lines))
		for _, l := range lines {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	section("exceptions, judged by an expectation of their own", y.exceptions)
	section("optional answers that differ", slices.Compact(y.notes))
	return b.String()
}
