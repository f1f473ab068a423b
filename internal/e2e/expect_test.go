package e2e

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// expectation is what kvctrl answers where it does better than the recording, or
// otherwise. What is not set is not looked at, except received.
type expectation struct {
	status int    // of a REST answer
	body   string // its JSON, with placeholders and recorded ports
	list   bool   // its detail is a list of faults, as FastAPI's
	code   string
	detail []string // texts in detail
	// workers is how many workers' outcomes the answer lists.
	workers int
	// received are the commands at the workers, as "instance/rank Type"; nil: those of
	// the recording.
	received []string
	// like: as recorded, with metrics in place of the recorded values.
	like    bool
	metrics map[string]float64

	reply string // to a ZMQ request
	taken bool   // a message on PULL: read, and the socket goes on; later rows show the effect
	// do carries the row out in place of the normal way and says what is wrong.
	do func(r *replay, row *row) []string
}

// entry is a rule for one or more rows: names (of rows, or patterns where they begin
// with ^) and why.
type entry struct {
	names  []string
	reason string
	want   expectation
}

// ruleBook finds the entry of a row and knows which have been used.
type ruleBook struct {
	title string
	exact map[string]*entry
	re    map[*regexp.Regexp]*entry

	mu   sync.Mutex
	used map[string]bool // names and patterns
}

func newRuleBook(t *testing.T, title string, entries []entry) *ruleBook {
	t.Helper()
	b := &ruleBook{title: title, exact: map[string]*entry{}, re: map[*regexp.Regexp]*entry{}, used: map[string]bool{}}
	for i := range entries {
		e := &entries[i]
		if e.reason == "" {
			t.Fatalf("bug: %s: %q has no reason", title, e.names)
		}
		for _, n := range e.names {
			if strings.HasPrefix(n, "^") {
				b.re[regexp.MustCompile(n)] = e
				continue
			}
			if b.exact[n] != nil {
				t.Fatalf("bug: %s: %q stands there twice", title, n)
			}
			b.exact[n] = e
		}
	}
	return b
}

// find returns the entry of a row, nil for none; two are an error.
func (b *ruleBook) find(name string) (*entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found *entry
	var by []string
	if e := b.exact[name]; e != nil {
		found, by = e, append(by, name)
	}
	for re, e := range b.re {
		if re.MatchString(name) {
			found, by = e, append(by, re.String())
		}
	}
	if len(by) > 1 {
		return nil, fmt.Errorf("bug: %s: row %q has the entries %q", b.title, name, by)
	}
	for _, n := range by {
		b.used[n] = true
	}
	return found, nil
}

// unused are the names and patterns that no row had.
func (b *ruleBook) unused() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for n := range b.exact {
		if !b.used[n] {
			out = append(out, n)
		}
	}
	for re := range b.re {
		if !b.used[re.String()] {
			out = append(out, re.String())
		}
	}
	slices.Sort(out)
	return out
}

// meets holds a REST answer against an expectation.
func (r *replay) meets(w expectation, row *row, a answer, got []heard) []string {
	if w.like || w.metrics != nil {
		recorded := row.rest.recorded(r.t)
		faults := sameAnswer(row.rest, r.relocate(recorded), a, false)
		if isMetrics(recorded) {
			faults = append(faults, sameMetrics(recorded, string(a.raw), r.gauges(recorded, row.Verdict, w.metrics))...)
		}
		return faults
	}
	if a.status != w.status {
		return []string{fmt.Sprintf("want status %d, got %d: %s", w.status, a.status, shorten(string(a.raw), 400))}
	}
	var faults []string
	if w.body != "" {
		faults = append(faults, differences(r.relocate(mustJSON(w.body)), a.body, false)...)
	}
	if a.status >= http.StatusBadRequest {
		faults = append(faults, r.saysWhy(w, a)...)
	}
	if w.received == nil {
		faults = append(faults, sameReceived(row.rest.WorkersReceived, got)...)
	} else if b := brief(got); !slices.Equal(b, w.received) {
		faults = append(faults, fmt.Sprintf("want the commands %q at the workers, got %q", w.received, b))
	}
	return append(faults, sameEventID(a, got)...)
}

// saysWhy: an error is JSON that says what happened.
func (r *replay) saysWhy(w expectation, a answer) []string {
	body, ok := a.body.(object)
	if !ok || kindOf(a.header.Get("Content-Type")) != "application/json" {
		return []string{fmt.Sprintf("an error is to be JSON, got %q", shorten(string(a.raw), 400))}
	}
	if w.list {
		detail, _ := body.get("detail")
		if items, ok := detail.([]any); !ok || len(items) == 0 {
			return []string{"want a list of faults in detail, got " + show(detail)}
		}
		return nil
	}
	var faults []string
	detail := body.text("detail")
	if detail == "" || body.text("code") == "" {
		faults = append(faults, "want detail and code, got "+show(body))
	}
	if w.code != "" && body.text("code") != w.code {
		faults = append(faults, fmt.Sprintf("want code %q, got %q", w.code, body.text("code")))
	}
	for _, text := range w.detail {
		if !strings.Contains(detail, text) {
			faults = append(faults, fmt.Sprintf("want %q in detail, got %q", text, detail))
		}
	}
	if w.workers > 0 {
		v, _ := body.get("workers")
		list, _ := v.([]any)
		if len(list) != w.workers {
			faults = append(faults, fmt.Sprintf("want the outcomes of %d workers, got %s", w.workers, show(v)))
		}
		for _, item := range list {
			o, _ := item.(object)
			if len(differences(mustJSON(`{"instance_id":"<text>","worker_id":"<any>","status":"<text>"}`), o, true)) > 0 {
				faults = append(faults, "want instance_id, worker_id and status of every worker, got "+show(item))
			}
		}
	}
	return faults
}
