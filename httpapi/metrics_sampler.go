package httpapi

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/ingest"
	"github.com/kvctrl/kvctrl/internal/histogram"
	"github.com/kvctrl/kvctrl/internal/promptkeys"
	"github.com/kvctrl/kvctrl/registry"
)

// sample is what all rooms say of themselves at one scrape.
type sample struct {
	totals   registry.Totals
	syncs    registry.SyncCounts
	node     cluster.Status
	counters cluster.Counters
	leading  bool
	fsm      fsm.Stats
	ingest   ingest.Stats
	executor executor.Stats
	hash     promptkeys.Stats
}

// metric is one family whose values come from a sample. values, or histograms in a
// family of these, calls emit once per series, with the values of labels.
type metric struct {
	name       string
	help       string
	kind       prometheus.ValueType // of values
	labels     []string
	values     func(s *sample, emit func(v float64, labels ...string))
	histograms func(s *sample, emit func(h histogram.Snapshot, labels ...string))
}

// one is a family of a single series.
func one(name, help string, kind prometheus.ValueType, v func(s *sample) float64) metric {
	return metric{name: name, help: help, kind: kind, values: func(s *sample, emit func(float64, ...string)) { emit(v(s)) }}
}

// spread is a family of a single histogram.
func spread(name, help string, v func(s *sample) histogram.Snapshot) metric {
	return metric{name: name, help: help, histograms: func(s *sample, emit func(histogram.Snapshot, ...string)) { emit(v(s)) }}
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

// sampler asks the rooms at each scrape. Labels take values of closed sets only.
type sampler struct {
	server  *Server
	metrics []metric
	descs   []*prometheus.Desc
}

func newSampler(s *Server) *sampler {
	c := &sampler{server: s}
	for _, list := range [][]metric{lmcacheMetrics(), raftMetrics(), ingestMetrics(), registryMetrics(), commandMetrics(), hashMetrics()} {
		c.metrics = append(c.metrics, list...)
	}
	for _, m := range c.metrics {
		c.descs = append(c.descs, prometheus.NewDesc(m.name, m.help, m.labels, nil))
	}
	return c
}

func (c *sampler) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

func (c *sampler) Collect(ch chan<- prometheus.Metric) {
	o := c.server.opts
	reg := o.State.Registry()
	s := &sample{
		totals: reg.Totals(), syncs: reg.SyncCounts(), node: o.Node.Status(), counters: o.Node.Counters(), leading: o.Node.IsLeader(),
		fsm: o.State.Stats(), ingest: o.Ingest.Stats(), executor: o.Executor.Stats(),
		hash: o.Finder.Stats(reg),
	}
	for i, m := range c.metrics {
		if m.histograms != nil {
			m.histograms(s, func(h histogram.Snapshot, labels ...string) {
				ch <- prometheus.MustNewConstHistogram(c.descs[i], h.Count, h.Sum, h.Buckets, labels...)
			})
			continue
		}
		m.values(s, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(c.descs[i], m.kind, v, labels...)
		})
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
