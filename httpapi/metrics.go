package httpapi

import (
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are the figures that this package counts itself. Those of the other rooms
// are asked for at each scrape (sampler).
type metrics struct {
	http    *httpMetrics
	lookups *lookupMetrics
	forward *forwardMetrics
	peers   *peerMetrics
	scrape  http.Handler
}

// newMetrics makes a registry of its own: nothing is registered globally.
func newMetrics(s *Server) (*metrics, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	m := &metrics{http: newHTTPMetrics(s), lookups: newLookupMetrics(), forward: newForwardMetrics(), peers: newPeerMetrics()}
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newSampler(s),
		m.http,
		m.lookups,
		m.forward,
		m.peers,
	)
	m.scrape = promhttp.HandlerFor(reg, promhttp.HandlerOpts{DisableCompression: true, MaxRequestsInFlight: 8})
	return m, reg
}

// serveMetrics answers Prometheus text under the content type that LMCache's
// controller gives it.
func (s *Server) serveMetrics(w http.ResponseWriter, r *http.Request) error {
	s.metrics.scrape.ServeHTTP(&plainText{ResponseWriter: w}, r)
	return nil
}

// plainText shortens a text's content type to what LMCache says.
type plainText struct {
	http.ResponseWriter
	begun bool
}

func (w *plainText) WriteHeader(status int) {
	if !w.begun && status == http.StatusOK && strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *plainText) Write(b []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}
