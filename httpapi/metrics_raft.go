package httpapi

import "github.com/kvctrl/kvctrl/internal/histogram"

// roles are what a replica can be: the closed set of the label.
var roles = []string{"leader", "follower", "candidate", "stopped"}

func raftMetrics() []metric {
	return []metric{
		{name: "kvctrl_raft_role", help: "1 for the role that this replica has.", kind: gauge, labels: []string{"role"},
			values: func(s *sample, emit func(float64, ...string)) {
				for _, r := range roles {
					emit(flag(s.node.Role == r), r)
				}
			}},
		one("kvctrl_raft_has_leader", "1 when this replica knows of a leader.", gauge, func(s *sample) float64 { return flag(s.node.Leader.NodeID != "") }),
		one("kvctrl_raft_leading", "1 when this replica leads and its term has begun.", gauge, func(s *sample) float64 { return flag(s.leading) }),
		one("kvctrl_raft_term", "Newest term known.", gauge, func(s *sample) float64 { return float64(s.node.Term) }),
		one("kvctrl_raft_commit_index", "Newest index known to be committed.", gauge, func(s *sample) float64 { return float64(s.node.CommitIndex) }),
		one("kvctrl_raft_applied_index", "Newest index applied to the state.", gauge, func(s *sample) float64 { return float64(s.node.AppliedIndex) }),
		one("kvctrl_raft_snapshot_index", "Index of the newest snapshot.", gauge, func(s *sample) float64 { return float64(s.node.LastSnapshotIndex) }),
		one("kvctrl_raft_log_bytes", "Size of the log on disk.", gauge, func(s *sample) float64 { return float64(s.node.LogBytes) }),
		one("kvctrl_raft_log_bytes_since_snapshot", "Bytes of log since the newest snapshot.", gauge, func(s *sample) float64 { return float64(s.counters.LogBytesSinceSnapshot) }),
		one("kvctrl_raft_replicas", "Replicas in the cluster's configuration.", gauge, func(s *sample) float64 { return float64(len(s.node.Nodes)) }),
		one("kvctrl_raft_replicas_unreachable", "Replicas that the leader has not heard of lately.", gauge, func(s *sample) float64 {
			n := 0
			for _, r := range s.node.Nodes {
				if r.Reachable != nil && !*r.Reachable {
					n++
				}
			}
			return float64(n)
		}),
		{name: "kvctrl_raft_replica_reachable", help: "1 for a replica that this one has heard of lately, 0 for one that it has not; a follower has the others from the leader.", kind: gauge, labels: []string{"node"},
			values: func(s *sample, emit func(float64, ...string)) {
				for _, r := range s.node.Nodes {
					if r.Reachable != nil {
						emit(flag(*r.Reachable), r.NodeID)
					}
				}
			}},
		{name: "kvctrl_raft_replica_lag_entries", help: "Entries that are committed and not applied by a replica yet; a follower has the others from the leader.", kind: gauge, labels: []string{"node"},
			values: func(s *sample, emit func(float64, ...string)) {
				for _, r := range s.node.Nodes {
					if r.AppliedIndex != nil {
						emit(float64(s.node.CommitIndex-min(*r.AppliedIndex, s.node.CommitIndex)), r.NodeID)
					}
				}
			}},
		{name: "kvctrl_raft_proposals_total", help: "Entries proposed here, by what became of them.", kind: counter, labels: []string{"outcome"},
			values: func(s *sample, emit func(float64, ...string)) {
				emit(float64(s.counters.Applied), "applied")
				emit(float64(s.counters.Refused), "refused")
				emit(float64(s.counters.Unknown), "unknown")
			}},
		spread("kvctrl_raft_commit_seconds", "Time from proposal to applied, of the entries proposed here that were applied.", func(s *sample) histogram.Snapshot { return s.counters.CommitSeconds }),
		one("kvctrl_raft_proposals_in_flight", "Proposals that wait for their answer.", gauge, func(s *sample) float64 { return float64(s.counters.InFlight) }),
		{name: "kvctrl_raft_forwarded_total", help: "Worker batches of this replica proposed at another one, by attempt and what became of it.", kind: counter, labels: []string{"outcome"},
			values: func(s *sample, emit func(float64, ...string)) {
				emit(float64(s.counters.Forwarded.Applied), "applied")
				emit(float64(s.counters.Forwarded.Refused), "refused")
				emit(float64(s.counters.Forwarded.Unknown), "unknown")
			}},
		one("kvctrl_peer_requests_total", "Requests of other replicas on the peer port.", counter, func(s *sample) float64 { return float64(s.counters.PeerRequests) }),
		one("kvctrl_peer_requests_busy_total", "Requests of other replicas refused because too many were under way.", counter, func(s *sample) float64 { return float64(s.counters.PeerBusy) }),
		one("kvctrl_peer_connections_refused_total", "Connections to the peer port that were not taken: another cluster, another node meant, no hello, too many.", counter, func(s *sample) float64 { return float64(s.counters.PeerConnectionsRefused) }),
		one("kvctrl_peer_dials_refused_total", "Connections of this replica that another one refused in its hello; the log has its words.", counter, func(s *sample) float64 { return float64(s.counters.PeerDialsRefused) }),
		one("kvctrl_raft_store_calls_total", "Calls to the log store.", counter, func(s *sample) float64 { return float64(s.counters.StoreCalls) }),
		one("kvctrl_raft_store_failures_total", "Calls to the log store that failed.", counter, func(s *sample) float64 { return float64(s.counters.StoreFailures) }),
		one("kvctrl_raft_store_append_seconds_total", "Time in appends to the log store.", counter, func(s *sample) float64 { return s.counters.StoreTime.Seconds() }),
		spread("kvctrl_raft_snapshot_seconds", "Time to take a snapshot of the state, of those that were taken.", func(s *sample) histogram.Snapshot { return s.counters.SnapshotSeconds }),
		one("kvctrl_raft_snapshot_failures_total", "Snapshots that were begun and could not be written; the log grows on.", counter, func(s *sample) float64 { return float64(s.counters.SnapshotFailures) }),
		one("kvctrl_fsm_entries_total", "Log entries applied by this process.", counter, func(s *sample) float64 { return float64(s.fsm.Entries) }),
		one("kvctrl_fsm_operations_total", "Admits, evicts and keys of full syncs applied by this process.", counter, func(s *sample) float64 { return float64(s.fsm.Operations) }),
		one("kvctrl_fsm_duplicate_batches_total", "Worker batches in the log that had been applied before.", counter, func(s *sample) float64 { return float64(s.fsm.Duplicates) }),
		one("kvctrl_fsm_restores_total", "Snapshots restored by this process.", counter, func(s *sample) float64 { return float64(s.fsm.Restores) }),
		one("kvctrl_fsm_stopped", "1 when the state machine met an entry that it cannot apply.", gauge, func(s *sample) float64 { return flag(s.fsm.Stopped) }),
	}
}
