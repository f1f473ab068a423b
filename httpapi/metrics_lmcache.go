package httpapi

// lmcacheMetrics are the gauges of LMCache's controller under their own names, label
// and help texts, so that its dashboards and alerts go on working.
func lmcacheMetrics() []metric {
	g := func(name, help string, v func(s *sample) float64) metric {
		return metric{name: "lmcache:cache_controller_" + name, help: help, kind: gauge, labels: []string{"role"},
			values: func(s *sample, emit func(float64, ...string)) { emit(v(s), "controller") }}
	}
	return []metric{
		g("kv_pool_keys_count", "The number of keys in the KV pool", func(s *sample) float64 { return float64(s.totals.Keys) }),
		g("registered_workers_count", "The total number of registered workers", func(s *sample) float64 { return float64(s.totals.Workers) }),
		g("pull_socket_message_count", "The total number of messages received on PULL socket", func(s *sample) float64 { return float64(s.ingest.Pull.Messages) }),
		// LMCache counts both ROUTERs here, heartbeats included.
		g("reply_socket_message_count", "The total number of messages received on REPLY socket", func(s *sample) float64 {
			return float64(s.ingest.Reply.Messages + s.ingest.Heartbeat.Messages)
		}),
		g("pull_socket_has_pending", "Whether PULL socket has pending messages (1=yes, 0=no)", func(s *sample) float64 { return flag(s.ingest.Pull.Pending) }),
		g("reply_socket_has_pending", "Whether REPLY socket has pending messages (1=yes, 0=no)", func(s *sample) float64 {
			return flag(s.ingest.Reply.Pending || s.ingest.Heartbeat.Pending)
		}),
		g("pull_socket_active_requests", "Number of requests being processed from PULL socket", func(s *sample) float64 { return float64(s.ingest.Pull.Active) }),
		g("reply_socket_active_requests", "Number of requests being processed from REPLY socket", func(s *sample) float64 {
			return float64(s.ingest.Reply.Active + s.ingest.Heartbeat.Active)
		}),
		g("kv_op_seq_discontinuity_count", "Total count of KV operation sequence number discontinuities", func(s *sample) float64 { return float64(s.totals.Gaps) }),
		g("full_sync_workers_syncing", "Number of workers currently in full sync", func(s *sample) float64 { return float64(s.totals.SyncingWorkers) }),
		g("full_sync_workers_completed", "Number of workers that have completed full sync", func(s *sample) float64 { return float64(s.totals.SyncedWorkers) }),
		g("full_sync_global_progress", "Global full sync progress (0.0 to 1.0)", func(s *sample) float64 { return s.totals.SyncProgress }),
		g("full_sync_missing_batches_total", "Total count of missing batches across all syncing workers", func(s *sample) float64 { return float64(s.totals.MissingBatches) }),
	}
}
