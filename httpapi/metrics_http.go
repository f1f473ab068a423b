package httpapi

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
)

// httpMetrics counts requests by route and status. A route is the pattern in our own
// table, "other" for a path that is not there; a method that HTTP does not know is
// "other" too.
type httpMetrics struct {
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	panics    prometheus.Counter
	underWay  prometheus.GaugeFunc
	bodies    prometheus.GaugeFunc
	maxBodies prometheus.GaugeFunc
	conns     prometheus.GaugeFunc
	maxConns  prometheus.GaugeFunc
	refused   prometheus.CounterFunc
}

func newHTTPMetrics(s *Server) *httpMetrics {
	return &httpMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kvctrl_http_requests_total", Help: "Requests by route, method and status; 499 is a client that went away."},
			[]string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kvctrl_http_request_seconds", Help: "Time from headers to answer, by route.",
			Buckets: []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}}, []string{"route"}),
		panics:    prometheus.NewCounter(prometheus.CounterOpts{Name: "kvctrl_http_panics_total", Help: "Requests that ended in a fault of ours."}),
		underWay:  prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kvctrl_http_requests_under_way", Help: "Requests being handled."}, func() float64 { return float64(s.requests.waiting()) }),
		bodies:    prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kvctrl_http_body_bytes", Help: "Bytes of the bodies of requests under way."}, func() float64 { return float64(s.bodies.Load()) }),
		maxBodies: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kvctrl_http_body_max_bytes", Help: "Bound of those bytes; beyond it requests are answered 503."}, func() float64 { return float64(s.opts.MaxBodies) }),
		conns:     prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kvctrl_http_connections", Help: "Connections of clients."}, func() float64 { return float64(s.conns.open.Load()) }),
		maxConns:  prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kvctrl_http_connections_max", Help: "Bound of those; one more is closed at once."}, func() float64 { return float64(s.conns.max) }),
		refused:   prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "kvctrl_http_connections_refused_total", Help: "Connections closed at that bound."}, func() float64 { return float64(s.conns.refused.Load()) }),
	}
}

func (m *httpMetrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.seconds, m.panics, m.underWay, m.bodies, m.maxBodies, m.conns, m.maxConns, m.refused}
}

func (m *httpMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

func (m *httpMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

// routeMetrics are one route's series.
type routeMetrics struct {
	requests *prometheus.CounterVec
	seconds  prometheus.Observer
}

func (m *httpMetrics) route(name string) routeMetrics {
	label := prometheus.Labels{"route": name}
	return routeMetrics{requests: m.requests.MustCurryWith(label), seconds: m.seconds.With(label)}
}

var methods = []string{
	http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete,
	http.MethodOptions, http.MethodConnect, http.MethodTrace,
}

func (m routeMetrics) done(method string, status int, took time.Duration) {
	if !slices.Contains(methods, method) {
		method = "other"
	}
	m.requests.WithLabelValues(method, strconv.Itoa(status)).Inc()
	m.seconds.Observe(took.Seconds())
}

// lookupMetrics are about what lookups find.
type lookupMetrics struct {
	seconds prometheus.Histogram
	chunks  prometheus.Histogram
}

func newLookupMetrics() *lookupMetrics {
	return &lookupMetrics{
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kvctrl_lookup_seconds", Help: "Time to hash a prompt and search for its chunks, without HTTP.",
			Buckets: []float64{.000005, .00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .1}}),
		chunks: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kvctrl_lookup_hit_chunks", Help: "Chunks of the prompt that the best instance holds; 0 is a miss.",
			Buckets: []float64{0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}}),
	}
}

func (m *lookupMetrics) Describe(ch chan<- *prometheus.Desc) {
	m.seconds.Describe(ch)
	m.chunks.Describe(ch)
}

func (m *lookupMetrics) Collect(ch chan<- prometheus.Metric) {
	m.seconds.Collect(ch)
	m.chunks.Collect(ch)
}

// lookup counts one lookup.
func (m *metrics) lookup(took time.Duration, hits []promptkeys.Hit) {
	best := 0
	for _, h := range hits {
		best = max(best, h.Chunks)
	}
	m.lookups.seconds.Observe(took.Seconds())
	m.lookups.chunks.Observe(float64(best))
}
