package httpapi

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/ingest"
	"github.com/kvctrl/kvctrl/registry"
)

// sample is what all rooms say of themselves at one scrape.
type sample struct {
	totals   registry.Totals
	node     cluster.Status
	counters cluster.Counters
	leading  bool
	fsm      fsm.Stats
	ingest   ingest.Stats
	executor executor.Stats
}

// metric is one family whose values come from a sample. values calls emit once per
// series, with the values of labels.
type metric struct {
	name   string
	help   string
	kind   prometheus.ValueType
	labels []string
	values func(s *sample, emit func(v float64, labels ...string))
}

// one is a family of a single series.
func one(name, help string, kind prometheus.ValueType, v func(s *sample) float64) metric {
	return metric{name: name, help: help, kind: kind, values: func(s *sample, emit func(float64, ...string)) { emit(v(s)) }}
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
	answers *prometheus.Desc
}

func newSampler(s *Server) *sampler {
	c := &sampler{server: s}
	for _, list := range [][]metric{lmcacheMetrics(), raftMetrics(), ingestMetrics(), registryMetrics(), commandMetrics()} {
		c.metrics = append(c.metrics, list...)
	}
	for _, m := range c.metrics {
		c.descs = append(c.descs, prometheus.NewDesc(m.name, m.help, m.labels, nil))
	}
	c.answers = prometheus.NewDesc("kvctrl_worker_answer_seconds", "Time that workers took to answer commands.", nil, nil)
	return c
}

func (c *sampler) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
	ch <- c.answers
}

func (c *sampler) Collect(ch chan<- prometheus.Metric) {
	o := c.server.opts
	s := &sample{
		totals: o.State.Registry().Totals(), node: o.Node.Status(), counters: o.Node.Counters(), leading: o.Node.IsLeader(),
		fsm: o.State.Stats(), ingest: o.Ingest.Stats(), executor: o.Executor.Stats(),
	}
	for i, m := range c.metrics {
		m.values(s, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(c.descs[i], m.kind, v, labels...)
		})
	}
	ch <- answerHistogram(c.answers, s.executor)
}

// answerHistogram turns the executor's buckets into Prometheus' cumulative ones.
func answerHistogram(desc *prometheus.Desc, s executor.Stats) prometheus.Metric {
	buckets := make(map[float64]uint64, len(s.Buckets))
	var count uint64
	for i, n := range s.Answers {
		count += uint64(n)
		if i < len(s.Buckets) {
			buckets[s.Buckets[i]] = count
		}
	}
	return prometheus.MustNewConstHistogram(desc, count, s.Seconds, buckets)
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
