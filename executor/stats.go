package executor

import (
	"errors"
	"sync"
	"time"

	"github.com/kvctrl/kvctrl/registry"
)

// Stats is what there is to count, for the metrics.
type Stats struct {
	Open     int               // commands under way
	Finished map[Outcome]int64 // by kind and end
	Buckets  []float64         // upper bounds of Answers, in seconds
	Answers  []int64           // workers' answers by time taken; one more than Buckets
	Seconds  float64           // sum of the times
}

// Outcome is a kind of command and how it ended: an event state, or "refused" when
// nothing was sent, or "unknown".
type Outcome struct {
	Kind registry.CommandKind
	End  string
}

// answerBuckets spans a worker's usual answer (2 to 10 ms) to the longest deadline.
var answerBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

type counters struct {
	mu       sync.Mutex
	finishes map[Outcome]int64
	answers  []int64
	seconds  float64
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
	if c.finishes == nil {
		c.finishes = map[Outcome]int64{}
	}
	c.finishes[Outcome{kind, end}]++
}

func (c *counters) asked(took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answers == nil {
		c.answers = make([]int64, len(answerBuckets)+1)
	}
	i := 0
	for i < len(answerBuckets) && took.Seconds() > answerBuckets[i] {
		i++
	}
	c.answers[i]++
	c.seconds += took.Seconds()
}

// Stats returns the counts so far.
func (e *Executor) Stats() Stats {
	e.mu.Lock()
	open := len(e.runs)
	e.mu.Unlock()
	c := &e.stats
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{Open: open, Finished: map[Outcome]int64{}, Buckets: answerBuckets, Answers: make([]int64, len(answerBuckets)+1), Seconds: c.seconds}
	copy(s.Answers, c.answers)
	for k, v := range c.finishes {
		s.Finished[k] = v
	}
	return s
}
