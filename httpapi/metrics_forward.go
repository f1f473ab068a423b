package httpapi

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// forwardMetrics count the mutations that go to the leader by way of another replica.
type forwardMetrics struct {
	sent    *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// forwardOutcomes are what becomes of one attempt: the leader answered; the replica asked
// does not lead; there was nobody to send it to; the answer was lost, or the leader lost
// leadership meanwhile; the client went away.
var forwardOutcomes = []string{"answered", "not_leader", "unsent", "lost", "cancelled"}

func newForwardMetrics() *forwardMetrics {
	return &forwardMetrics{
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kvctrl_forward_requests_total", Help: "Attempts to forward a request to the leader, by route and what became of it; all but answered and cancelled are tried again, as far as that is safe."},
			[]string{"route", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kvctrl_forward_seconds", Help: "Time from forwarding a request to the leader's answer, of those answered, by route.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}}, []string{"route"}),
	}
}

func (m *forwardMetrics) Describe(ch chan<- *prometheus.Desc) {
	m.sent.Describe(ch)
	m.seconds.Describe(ch)
}
func (m *forwardMetrics) Collect(ch chan<- prometheus.Metric) {
	m.sent.Collect(ch)
	m.seconds.Collect(ch)
}

// forwardSeries are one route's.
type forwardSeries struct {
	sent    *prometheus.CounterVec
	seconds prometheus.Observer
}

func (m *forwardMetrics) route(path string) forwardSeries {
	label := prometheus.Labels{"route": path}
	s := forwardSeries{sent: m.sent.MustCurryWith(label), seconds: m.seconds.With(label)}
	for _, o := range forwardOutcomes { // shown from the start
		s.sent.WithLabelValues(o)
	}
	return s
}

func (s forwardSeries) outcome(o string) { s.sent.WithLabelValues(o).Inc() }

func (s forwardSeries) answered(took time.Duration) {
	s.outcome("answered")
	s.seconds.Observe(took.Seconds())
}

// peerMetrics count the requests that other replicas forward to this one. Clients' own are
// kvctrl_http_requests_total of the replica that they asked.
type peerMetrics struct{ *prometheus.CounterVec }

func newPeerMetrics() *peerMetrics {
	return &peerMetrics{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kvctrl_forwarded_requests_total", Help: "Requests that other replicas forwarded to this one, by route and status."},
		[]string{"route", "status"})}
}

func (m *peerMetrics) route(path string) series {
	return peerSeries{m.MustCurryWith(prometheus.Labels{"route": path})}
}

type peerSeries struct{ requests *prometheus.CounterVec }

func (s peerSeries) done(_ string, status int, _ time.Duration) {
	s.requests.WithLabelValues(strconv.Itoa(status)).Inc()
}
