package httpapi

func registryMetrics() []metric {
	return []metric{
		one("kvctrl_registry_instances", "Registered instances.", gauge, func(s *sample) float64 { return float64(s.totals.Instances) }),
		{name: "kvctrl_registry_workers", help: "Registered workers by liveness.", kind: gauge, labels: []string{"liveness"},
			values: func(s *sample, emit func(float64, ...string)) {
				emit(float64(s.totals.Workers-s.totals.SuspectWorkers), "alive")
				emit(float64(s.totals.SuspectWorkers), "suspect")
			}},
		one("kvctrl_registry_keys", "Pairs of chunk and holder, exact.", gauge, func(s *sample) float64 { return float64(s.totals.Keys) }),
		one("kvctrl_registry_chunks", "Distinct chunks, an estimate: dead entries that wait for the sweep count.", gauge, func(s *sample) float64 { return float64(s.totals.Chunks) }),
		one("kvctrl_registry_dead_entries", "Index entries that wait for the sweep.", gauge, func(s *sample) float64 { return float64(s.totals.DeadSlots) }),
		one("kvctrl_registry_index_bytes", "Memory of the chunk index.", gauge, func(s *sample) float64 { return float64(s.totals.IndexBytes) }),
		one("kvctrl_registry_sequence_gaps_total", "Messages whose numbers did not follow, over all streams there ever were.", counter, func(s *sample) float64 { return float64(s.totals.Gaps) }),
		one("kvctrl_registry_lossy_streams", "Streams whose losses have not been made good by a full sync.", gauge, func(s *sample) float64 { return float64(s.totals.LossyStreams) }),
		{name: "kvctrl_registry_sync_workers", help: "Workers by the state of their full sync; those that need none do not count. wanted: owed, and asked for with a heartbeat; unrepaired: owed, and nobody can ask, for lack of heartbeats.", kind: gauge, labels: []string{"state"},
			values: func(s *sample, emit func(float64, ...string)) {
				emit(float64(s.totals.WantedWorkers-s.totals.UnrepairedWorkers), "wanted")
				emit(float64(s.totals.UnrepairedWorkers), "unrepaired")
				emit(float64(s.totals.SyncingWorkers), "syncing")
				emit(float64(s.totals.SyncedWorkers), "completed")
			}},
		one("kvctrl_registry_syncs_started_total", "Full syncs that workers have started, as this process has applied them.", counter, func(s *sample) float64 { return float64(s.syncs.Started) }),
		{name: "kvctrl_registry_syncs_ended_total", help: "Full syncs that have ended. failed: given up, by time or for too many evicts meanwhile; replaced: by a new one of the same worker; dropped: their worker left or began anew.", kind: counter, labels: []string{"outcome"},
			values: func(s *sample, emit func(float64, ...string)) {
				emit(float64(s.syncs.Completed), "completed")
				emit(float64(s.syncs.Failed), "failed")
				emit(float64(s.syncs.Replaced), "replaced")
				emit(float64(s.syncs.Dropped), "dropped")
			}},
		one("kvctrl_registry_sync_missing_batches", "Batches that running full syncs still wait for.", gauge, func(s *sample) float64 { return float64(s.totals.MissingBatches) }),
		one("kvctrl_registry_events", "Commands that are remembered.", gauge, func(s *sample) float64 { return float64(s.totals.Events) }),
		one("kvctrl_registry_open_events", "Commands in the log without an end.", gauge, func(s *sample) float64 { return float64(s.totals.OpenEvents) }),
		one("kvctrl_registry_awaited_moves", "Finished moves whose destination has not reported the moved chunks yet.", gauge, func(s *sample) float64 { return float64(s.totals.AwaitedMoves) }),
		one("kvctrl_registry_sessions", "Batch sessions that are remembered.", gauge, func(s *sample) float64 { return float64(s.totals.Sessions) }),
	}
}
