package registry

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the expected output of the scenario files")

const scenarioFiles = "../testdata/scenarios/*.txt"

// TestScenarios runs the stories in testdata/scenarios: commands, a line of four
// dashes, and what they print. Each runs three times, and must read the same: as it
// is, on an index of one shard that is swept after every command, and with a
// snapshot written and loaded after every command.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob(scenarioFiles)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios at %s: %v", scenarioFiles, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScenario(t, string(text), newPlayer(Options{}))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				text = []byte(got)
			}
			expect(t, file, string(text), got)

			swept := newPlayer(Options{Shards: 1})
			swept.after = func() { swept.reg.Sweep(1 << 20) }
			expect(t, file+", one shard, swept", string(text), runScenario(t, string(text), swept))

			reloaded := newPlayer(Options{})
			reloaded.after = func() { reloaded.reg = reload(t, reloaded.reg, reloaded.opts) }
			expect(t, file+", reloaded", string(text), runScenario(t, string(text), reloaded))
		})
	}
}

func expect(t *testing.T, what, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "(end)", "(end)"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			t.Fatalf("%s: line %d\nwant %s\ngot  %s", what, i+1, a, b)
		}
	}
}

// runScenario returns the file with the output that the player gives.
func runScenario(t *testing.T, text string, p *player) string {
	t.Helper()
	var out strings.Builder
	var commands []string
	skipping := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case skipping && line != "":
			continue // the old output
		case skipping:
			skipping = false
		case line == "----":
			out.WriteString("----\n")
			for _, c := range commands {
				out.WriteString(p.play(t, c))
			}
			commands, skipping = nil, true
			continue
		case line != "" && !strings.HasPrefix(line, "#"):
			commands = append(commands, line)
		}
		out.WriteString(line + "\n")
	}
	if len(commands) > 0 {
		t.Fatalf("commands without output at the end: %q", commands)
	}
	return out.String()
}

// player turns the words of a scenario into calls.
type player struct {
	reg    *Registry
	opts   Options
	now    Micros
	marked map[string]Digest
	after  func()
}

func newPlayer(opts Options) *player {
	return &player{reg: New(opts), opts: opts, marked: make(map[string]Digest), after: func() {}}
}

// words is a command line: plain words in order, and name=value pairs.
type words struct {
	t     *testing.T
	line  string
	plain []string
	named map[string]string
}

func (p *player) play(t *testing.T, line string) string {
	t.Helper()
	w := &words{t: t, line: line, named: make(map[string]string)}
	for _, f := range strings.Fields(line) {
		if name, value, ok := strings.Cut(f, "="); ok {
			w.named[name] = value
		} else {
			w.plain = append(w.plain, f)
		}
	}
	command, ok := commands[w.plain[0]]
	if !ok {
		t.Fatalf("unknown command in %q", line)
	}
	w.plain = w.plain[1:]
	out := command(p, w)
	p.after()
	if out != "" && !strings.HasSuffix(out, "\n") {
		out += "\n"
	}
	return out
}

func (w *words) next() string {
	w.t.Helper()
	if len(w.plain) == 0 {
		w.t.Fatalf("a word is missing in %q", w.line)
	}
	word := w.plain[0]
	w.plain = w.plain[1:]
	return word
}

func (w *words) has(word string) bool {
	for i, p := range w.plain {
		if p == word {
			w.plain = append(w.plain[:i], w.plain[i+1:]...)
			return true
		}
	}
	return false
}

func (w *words) int(s string) int64 {
	w.t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		w.t.Fatalf("%v in %q", err, w.line)
	}
	return n
}

func (w *words) number(name string, def int64) int64 {
	w.t.Helper()
	if s, ok := w.named[name]; ok {
		return w.int(s)
	}
	return def
}

// worker reads instance/rank.
func (w *words) worker(s string) WorkerRef {
	w.t.Helper()
	instance, rank, ok := strings.Cut(s, "/")
	if !ok {
		w.t.Fatalf("%q is no instance/rank in %q", s, w.line)
	}
	return WorkerRef{instance, w.int(rank)}
}

func (w *words) workers(name string) (out []WorkerRef) {
	w.t.Helper()
	if w.named[name] == "" {
		return nil
	}
	for _, s := range strings.Split(w.named[name], ",") {
		out = append(out, w.worker(s))
	}
	return out
}

var locationWords = map[string]string{"cpu": CPULocation, "disk": "LocalDiskBackend"}

// stream reads a worker and a location.
func (w *words) stream() StreamRef {
	w.t.Helper()
	ref := w.worker(w.next())
	location := w.next()
	if full, ok := locationWords[location]; ok {
		location = full
	}
	return StreamRef{ref, location}
}

// target reads instance/location.
func (w *words) target(name string) Target {
	w.t.Helper()
	instance, location, _ := strings.Cut(w.named[name], "/")
	if full, ok := locationWords[location]; ok {
		location = full
	}
	return Target{Instance: instance, Location: location}
}

func short(location string) string {
	for s, full := range locationWords {
		if full == location {
			return s
		}
	}
	return location
}

// keys reads the rest: 3, 1..5.
func (w *words) keys() (out []Key) {
	w.t.Helper()
	for len(w.plain) > 0 {
		out = append(out, w.keyRange(w.next())...)
	}
	return out
}

func (w *words) keyRange(s string) (out []Key) {
	w.t.Helper()
	from, to, isRange := strings.Cut(s, "..")
	if !isRange {
		to = from
	}
	for k := w.int(from); k <= w.int(to); k++ {
		out = append(out, Key(k))
	}
	return out
}

func str(ref WorkerRef) string { return fmt.Sprintf("%s/%d", ref.Instance, ref.Worker) }

// reload writes the registry to a snapshot and builds it anew from that.
func reload(t interface {
	Helper()
	Fatalf(string, ...any)
}, reg *Registry, opts Options) *Registry {
	t.Helper()
	s := reg.Snapshot()
	defer s.Release()
	l, err := NewLoader(s.State(), opts)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	for i := range s.Shards() {
		s.Shard(i, func(k Key, holders []uint32) {
			if err := l.Add(k, holders); err != nil {
				t.Fatalf("load: %v", err)
			}
		})
	}
	loaded, err := l.Finish()
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	if a, b := reg.Digest(), loaded.Digest(); a != b || s.Digest() != a {
		t.Fatalf("digest %v, after loading %v, of the snapshot %v", a, b, s.Digest())
	}
	return loaded
}
