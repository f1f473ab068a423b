package executor

import (
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/kvctrl/kvctrl/internal/histogram"
	"github.com/kvctrl/kvctrl/registry"
)

// Stats is what there is to count, for the metrics.
type Stats struct {
	Open     int               // commands under way
	Finished map[Outcome]int64 // by kind and end
	// Commands are the seconds from a command's creation to its end in the log, of
	// those that both happened here.
	Commands map[registry.CommandKind]histogram.Snapshot
	Answers  histogram.Snapshot // seconds until a worker answered, or was given up
}

// Outcome is a kind of command and how it ended: an event state, or "refused" when
// nothing was sent, or "unknown".
type Outcome struct {
	Kind registry.CommandKind
	End  string
}

type counters struct {
	answers  *histogram.Histogram
	commands map[registry.CommandKind]*histogram.Histogram // of every kind; never written after newCounters

	mu       sync.Mutex
	finishes map[Outcome]int64
}

func newCounters() *counters {
	c := &counters{
		// From a worker's usual answer (2 to 10 ms) to the usual deadline.
		answers:  histogram.New(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30),
		commands: map[registry.CommandKind]*histogram.Histogram{},
		finishes: map[Outcome]int64{},
	}
	for kind := range prefixes {
		// A worker's answer and three commits, to waiting for the workers as long as for
		// their answers.
		c.commands[kind] = histogram.New(.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60)
	}
	return c
}

func (c *counters) finished(kind registry.CommandKind, ev registry.Event, err error) {
	end := string(ev.State)
	switch {
	case err == nil:
	case errors.Is(err, ErrOutcomeUnknown):
		end = "unknown"
	case !ev.State.Final() || ev.State == "":
		end = "refused"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.finishes[Outcome{kind, end}]++
}

func (c *counters) took(kind registry.CommandKind, d time.Duration) {
	c.commands[kind].Observe(d.Seconds())
}

func (c *counters) asked(took time.Duration) { c.answers.Observe(took.Seconds()) }

// Stats returns the counts so far.
func (e *Executor) Stats() Stats {
	e.mu.Lock()
	open := len(e.runs)
	e.mu.Unlock()
	c := e.stats
	s := Stats{Open: open, Commands: map[registry.CommandKind]histogram.Snapshot{}, Answers: c.answers.Snapshot()}
	for kind, h := range c.commands {
		s.Commands[kind] = h.Snapshot()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s.Finished = maps.Clone(c.finishes)
	return s
}
