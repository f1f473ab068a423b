package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
)

// failovers is how often a benchmark takes the leader away.
const failovers = 20

// BenchmarkFailover_Kill measures how long nobody takes a mutation after kill -9 of the
// leader.
func BenchmarkFailover_Kill(b *testing.B) {
	failover(b, 1200*time.Millisecond, 2500*time.Millisecond, (*Replica).Kill)
}

// BenchmarkFailover_Terminate measures the same for SIGTERM.
func BenchmarkFailover_Terminate(b *testing.B) {
	failover(b, 200*time.Millisecond, 200*time.Millisecond, func(r *Replica) {
		if code := r.Terminate(); code != 0 {
			b.Errorf("SIGTERM ended the leader with exit code %d", code)
		}
	})
}

// failover takes the leader away again and again, while a client gives one command after
// the other through a survivor. It prints how long the client waited each time: the
// longest time between two answers, from the last answer before to the first after the
// other two have a leader. p50 and worst are the targets.
func failover(b *testing.B, p50, worst time.Duration, end func(*Replica)) {
	c := StartCluster(b, 3, ClusterOptions{Args: []string{"--chunk-size", "16", "--hash", "builtin@0"}})
	target := startWorker(b, c.replicas[0], simworker.Options{Instance: "target", HeartbeatEvery: 200 * time.Millisecond})
	var pauses []time.Duration
	for n := range failovers {
		leader := c.Await()
		survivor := c.Followers()[n%2]
		before := c.term(survivor)
		m := startMutations(c, survivor, fmt.Sprintf("%s-%d", b.Name(), n))
		m.awaitAnswers(b, 5)
		ended := time.Now()
		leader.ExpectDown()
		end(leader)
		Eventually(b, formLimit, "another leader", func() error {
			if t := c.term(survivor); t <= before {
				return fmt.Errorf("still in term %d", t)
			}
			return nil
		})
		m.awaitAnswers(b, 5)
		answers, faults := m.stop()
		for _, err := range faults {
			b.Error(err)
		}
		pause := longestPause(answers, ended)
		pauses = append(pauses, pause)
		fmt.Printf("%s %2d: leader %d of 3, mutations through %d: %s\n", b.Name(), n+1, c.number(leader)+1, c.number(survivor)+1, pause.Round(100*time.Microsecond))
		leader.Restart()
	}
	if st := target.Stats(); st.Syncs > 0 || st.Heartbeats == 0 {
		b.Errorf("the worker was asked for %d full syncs with %d heartbeats, want none: it lost nothing", st.Syncs, st.Heartbeats)
	}
	slices.Sort(pauses)
	got50, gotWorst := part(pauses, 0.5), part(pauses, 1)
	fmt.Printf("%s: %d times, p50 %s (want at most %s), worst %s (want at most %s)\n", b.Name(), len(pauses), got50, p50, gotWorst, worst)
	b.ReportMetric(float64(got50.Milliseconds()), "p50-ms")
	b.ReportMetric(float64(gotWorst.Milliseconds()), "worst-ms")
	b.ReportMetric(0, "ns/op")
	if got50 > p50 || gotWorst > worst {
		b.Error("too slow")
	}
}

// longestPause is the longest time between two answers that do not both lie before from.
func longestPause(answers []time.Time, from time.Time) (longest time.Duration) {
	for i := 1; i < len(answers); i++ {
		if answers[i].Before(from) {
			continue
		}
		// A kill in the middle of a wait counts from the kill.
		since := answers[i-1]
		if since.Before(from) {
			since = from
		}
		longest = max(longest, answers[i].Sub(since))
	}
	return longest
}

// mutations are commands that one client gives one after the other through one replica,
// each under its own event id until it is answered.
type mutations struct {
	c    *Cluster
	r    *Replica
	name string
	quit chan struct{}

	answered chan time.Time // closed by run
	answers  []time.Time
	faults   []error
}

func startMutations(c *Cluster, r *Replica, name string) *mutations {
	m := &mutations{c: c, r: r, name: name, quit: make(chan struct{}), answered: make(chan time.Time, 1<<16)}
	go m.run() // ends with stop
	return m
}

func (m *mutations) run() {
	defer close(m.answered)
	for n := 0; ; n++ {
		for {
			select {
			case <-m.quit:
				return
			default:
			}
			status, answer, err := m.c.Post(m.r, "/clear", map[string]any{"instance_id": "target", "location": simworker.LocalCPU, "event_id": fmt.Sprintf("%s-%d", m.name, n)})
			if err != nil {
				m.faults = append(m.faults, err)
				return
			}
			if status == http.StatusOK {
				m.answered <- time.Now()
				break
			}
			if status != http.StatusServiceUnavailable && status != http.StatusBadGateway {
				m.faults = append(m.faults, fmt.Errorf("mutation %d is answered %d %s", n, status, answer))
				return
			}
			if status == http.StatusBadGateway { // interrupted: the next one is another
				break
			}
		}
	}
}

// awaitAnswers waits for n more answers.
func (m *mutations) awaitAnswers(b *testing.B, n int) {
	b.Helper()
	limit := time.After(formLimit)
	for range n {
		select {
		case at, more := <-m.answered:
			if !more {
				b.Fatalf("mutations have ended: %v", m.faults)
			}
			m.answers = append(m.answers, at)
		case <-limit:
			b.Fatalf("no mutation is answered within %s", formLimit)
		}
	}
}

// stop returns the times of all answers.
func (m *mutations) stop() (answers []time.Time, faults []error) {
	close(m.quit)
	for at := range m.answered {
		m.answers = append(m.answers, at)
	}
	return m.answers, m.faults
}
