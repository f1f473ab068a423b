package e2e

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
)

const metricPrefix = "lmcache:cache_controller_"

// family is one of LMCache's gauges.
type family struct {
	help, kind, labels string
	value              float64
}

// isMetrics reports whether a recorded body is the lmcache: lines of /metrics.
func isMetrics(recorded any) bool {
	lines, ok := recorded.([]any)
	if !ok || len(lines) == 0 {
		return false
	}
	first, _ := lines[0].(string)
	return strings.HasPrefix(first, "# HELP "+metricPrefix)
}

// metrics reads LMCache's gauges from the text of /metrics, by name without prefix.
func metrics(text string) (map[string]family, error) {
	out := map[string]family{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		comment := strings.HasPrefix(line, "# ")
		words := strings.SplitN(strings.TrimPrefix(line, "# "), " ", 3)
		switch {
		case !strings.Contains(line, metricPrefix):
		case comment && len(words) == 3 && (words[0] == "HELP" || words[0] == "TYPE"):
			name := strings.TrimPrefix(words[1], metricPrefix)
			f := out[name]
			if words[0] == "HELP" {
				f.help = words[2]
			} else {
				f.kind = words[2]
			}
			out[name] = f
		case !comment:
			series, number, ok := strings.Cut(line, " ")
			name, labels, labelled := strings.Cut(strings.TrimPrefix(series, metricPrefix), "{")
			v, err := strconv.ParseFloat(number, 64)
			if !ok || !labelled || err != nil {
				return nil, fmt.Errorf("line %q of /metrics", line)
			}
			f := out[name]
			f.labels, f.value = labels, v
			out[name] = f
		}
	}
	return out, nil
}

func recordedMetrics(recorded any) (map[string]family, error) {
	var text strings.Builder
	for _, line := range recorded.([]any) {
		fmt.Fprintln(&text, line)
	}
	return metrics(text.String())
}

// sameMetrics compares the families. override are the values that differ from the
// recording; the order of families means nothing to a scraper.
func sameMetrics(recorded any, text string, override map[string]float64) []string {
	want, err := recordedMetrics(recorded)
	if err != nil {
		return []string{err.Error()}
	}
	got, err := metrics(text)
	if err != nil {
		return []string{err.Error()}
	}
	for name, v := range override {
		f, ok := want[name]
		if !ok {
			return []string{fmt.Sprintf("bug: no gauge %q is recorded", name)}
		}
		f.value = v
		want[name] = f
	}
	var faults []string
	for _, name := range sortedNames(want) {
		w := want[name]
		g, ok := got[name]
		switch {
		case !ok:
			faults = append(faults, fmt.Sprintf("no gauge %q", name))
		case w != g:
			faults = append(faults, fmt.Sprintf("gauge %s: want %+v, got %+v", name, w, g))
		}
	}
	return faults
}

func sortedNames(m map[string]family) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// familyNames is the recorded summary of /metrics: LMCache's families are wanted, those
// of the Python process are not.
func familyNames(recorded any, text string) []string {
	o, _ := recorded.(object)
	list, _ := o.get("families")
	names, _ := list.([]any)
	got, err := metrics(text)
	if err != nil {
		return []string{err.Error()}
	}
	var faults []string
	wanted := 0
	for _, n := range names {
		name, lmcache := strings.CutPrefix(fmt.Sprint(n), metricPrefix)
		if !lmcache {
			continue
		}
		wanted++
		if _, ok := got[name]; !ok {
			faults = append(faults, fmt.Sprintf("no family %q", n))
		}
	}
	if wanted != 13 {
		faults = append(faults, fmt.Sprintf("bug: %d families of LMCache in the recording, want 13", wanted))
	}
	return faults
}
