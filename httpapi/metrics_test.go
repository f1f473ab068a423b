package httpapi

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/ingest"
	"github.com/kvctrl/kvctrl/internal/histogram"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// TestMetrics_SayWhatTheRoomsSay: each figure of the other rooms arrives under its name.
func TestMetrics_SayWhatTheRoomsSay(t *testing.T) {
	r := newRig(t)
	no, applied := false, uint64(30)
	r.in.stats = ingest.Stats{
		Pull: ingest.SocketStats{Messages: 100, Active: 1, Pending: true}, Reply: ingest.SocketStats{Messages: 20, Active: 2}, Heartbeat: ingest.SocketStats{Messages: 3, Active: 4, Pending: true},
		Admits: 7, Evicts: 8, BadFrames: map[lmcache.Reason]uint64{lmcache.ReasonUTF8: 9}, Refused: map[ingest.Refusal]uint64{ingest.RefusedQueueFull: 10},
		BatchBytes: histogram.Snapshot{Buckets: map[float64]uint64{1024: 10}, Count: 11, Sum: 12}, CommitSeconds: histogram.Snapshot{Buckets: map[float64]uint64{1: 9}, Count: 11, Sum: 13},
		ForwardSeconds: histogram.Snapshot{Buckets: map[float64]uint64{1: 5}, Count: 6, Sum: 7}, Retries: map[ingest.RetryCause]uint64{ingest.RetryNoLeader: 14}, LeaderChanges: 28, LateOperations: 29,
		SlotsUnanswered: 30, HeardSent: 54, HeardTaken: 55, HeardLate: 56, Duplicates: 15, LostRecords: 16, LostOperations: 17, Gaps: 18, UnknownOperations: 19, RefusedRecords: 20,
		QueueBytes: 21, QueueMaxBytes: 22, Outstanding: 1, Waiting: 57 * time.Second, Blocked: 23, PendingMax: 24, LateAnswers: 25, UndeliveredReplies: 26, SyncsAsked: 27, SyncsNotStarted: 62,
	}
	r.node.status = cluster.Status{Role: "leader", Term: 31, Leader: cluster.Leader{NodeID: "n1"}, CommitIndex: 32, AppliedIndex: 33, LastSnapshotIndex: 34, LogBytes: 35, Nodes: []cluster.NodeStatus{{NodeID: "n1", AppliedIndex: &applied}, {NodeID: "n2", Reachable: &no}}}
	r.node.counters = cluster.Counters{Applied: 41, Refused: 42, Unknown: 43, CommitSeconds: histogram.Snapshot{Buckets: map[float64]uint64{.5: 40}, Count: 41, Sum: 44}, InFlight: 45, StoreCalls: 46, StoreFailures: 47, StoreTime: 48 * time.Second, LogBytesSinceSnapshot: 49,
		SnapshotSeconds: histogram.Snapshot{Buckets: map[float64]uint64{30: 50}, Count: 51, Sum: 52}, SnapshotFailures: 53,
		Forwarded:              cluster.Forwarded{Applied: 54, Refused: 55, Unknown: 56},
		PeerConnectionsRefused: 58, PeerDialsRefused: 59, PeerRequests: 60, PeerBusy: 61}
	r.exec.stats = executor.Stats{Open: 2, Finished: map[executor.Outcome]int64{{Kind: registry.CommandMove, End: "partial"}: 5},
		Commands: map[registry.CommandKind]histogram.Snapshot{registry.CommandPin: {Buckets: map[float64]uint64{2: 1, 4: 3}, Count: 4, Sum: 12.5}},
		Answers:  histogram.Snapshot{Buckets: map[float64]uint64{.1: 1, 1: 3}, Count: 6, Sum: 9.5}}
	r.register("a", 0)
	r.register("b", 0)
	r.admit("a", 0, "L", 1, 2, 3)
	const at = 1_700_000_001_000_000
	stream := registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: "b"}, Location: "L"}
	start := func(id string) {
		r.state.Registry().SyncStart(registry.SyncStart{Stream: stream, SyncID: id, At: at})
	}
	start("replaced")
	start("complete")
	r.state.Registry().SyncEnd(registry.SyncEnd{Stream: stream, SyncID: "complete", At: at})
	start("runs")
	body := r.get("/metrics").Body.String()
	for _, line := range []string{
		`lmcache:cache_controller_kv_pool_keys_count{role="controller"} 3`,
		`lmcache:cache_controller_registered_workers_count{role="controller"} 2`,
		`lmcache:cache_controller_pull_socket_message_count{role="controller"} 100`,
		`lmcache:cache_controller_reply_socket_message_count{role="controller"} 23`, // both ROUTERs
		`lmcache:cache_controller_pull_socket_has_pending{role="controller"} 1`,
		`lmcache:cache_controller_reply_socket_has_pending{role="controller"} 1`,
		`lmcache:cache_controller_pull_socket_active_requests{role="controller"} 1`,
		`lmcache:cache_controller_reply_socket_active_requests{role="controller"} 6`,
		`lmcache:cache_controller_kv_op_seq_discontinuity_count{role="controller"} 0`,
		`lmcache:cache_controller_full_sync_global_progress{role="controller"} 0`,
		`kvctrl_ingest_messages_total{socket="heartbeat"} 3`, `kvctrl_ingest_active{socket="reply"} 2`, `kvctrl_ingest_operations_total{op="admit"} 7`, `kvctrl_ingest_operations_total{op="evict"} 8`,
		`kvctrl_ingest_bad_frames_total{reason="utf8"} 9`, `kvctrl_ingest_bad_frames_total{reason="layout"} 0`, `kvctrl_ingest_refused_total{reason="queue_full"} 10`,
		`kvctrl_ingest_batch_bytes_bucket{le="1024"} 10`, `kvctrl_ingest_batch_bytes_sum 12`, `kvctrl_ingest_batch_bytes_count 11`,
		`kvctrl_ingest_commit_seconds_bucket{le="1"} 9`, `kvctrl_ingest_commit_seconds_sum 13`, `kvctrl_ingest_commit_seconds_count 11`, `kvctrl_ingest_retries_total{cause="no_leader"} 14`, `kvctrl_ingest_retries_total{cause="busy"} 0`,
		`kvctrl_ingest_forward_seconds_bucket{le="1"} 5`, `kvctrl_ingest_forward_seconds_sum 7`, `kvctrl_ingest_leader_changes_survived_total 28`, `kvctrl_ingest_late_operations_total 29`,
		`kvctrl_ingest_sync_slots_unanswered_total 30`, `kvctrl_ingest_heard_sent_total 54`, `kvctrl_ingest_heard_taken_total 55`, `kvctrl_ingest_heard_late_total 56`, `kvctrl_ingest_duplicate_batches_total 15`,
		`kvctrl_ingest_lost_records_total 16`, `kvctrl_ingest_lost_operations_total 17`, `kvctrl_ingest_sequence_gaps_total 18`, `kvctrl_ingest_unknown_worker_operations_total 19`, `kvctrl_ingest_refused_records_total 20`,
		`kvctrl_ingest_queue_bytes 21`, `kvctrl_ingest_queue_max_bytes 22`, `kvctrl_ingest_batches_outstanding 1`, `kvctrl_ingest_waiting_seconds 57`, `kvctrl_ingest_queue_blocked_total 23`, `kvctrl_ingest_pending_max 24`,
		`kvctrl_ingest_late_answers_total 25`, `kvctrl_ingest_undelivered_replies_total 26`, `kvctrl_ingest_syncs_asked_total 27`, `kvctrl_ingest_syncs_not_started_total 62`,
		`kvctrl_raft_role{role="leader"} 1`, `kvctrl_raft_role{role="follower"} 0`, `kvctrl_raft_has_leader 1`, `kvctrl_raft_leading 1`, `kvctrl_raft_term 31`, `kvctrl_raft_commit_index 32`, `kvctrl_raft_applied_index 33`,
		`kvctrl_raft_snapshot_index 34`, `kvctrl_raft_log_bytes 35`, `kvctrl_raft_replicas 2`, `kvctrl_raft_replicas_unreachable 1`, `kvctrl_raft_proposals_total{outcome="applied"} 41`,
		`kvctrl_raft_proposals_total{outcome="refused"} 42`, `kvctrl_raft_proposals_total{outcome="unknown"} 43`, `kvctrl_raft_commit_seconds_bucket{le="0.5"} 40`, `kvctrl_raft_commit_seconds_sum 44`, `kvctrl_raft_commit_seconds_count 41`, `kvctrl_raft_proposals_in_flight 45`, `kvctrl_raft_store_calls_total 46`,
		`kvctrl_raft_store_failures_total 47`, `kvctrl_raft_store_append_seconds_total 48`, `kvctrl_raft_log_bytes_since_snapshot 49`,
		`kvctrl_raft_snapshot_seconds_bucket{le="30"} 50`, `kvctrl_raft_snapshot_seconds_sum 52`, `kvctrl_raft_snapshot_seconds_count 51`, `kvctrl_raft_snapshot_failures_total 53`,
		`kvctrl_raft_replica_reachable{node="n2"} 0`, `kvctrl_raft_replica_lag_entries{node="n1"} 2`,
		`kvctrl_raft_forwarded_total{outcome="applied"} 54`, `kvctrl_raft_forwarded_total{outcome="refused"} 55`, `kvctrl_raft_forwarded_total{outcome="unknown"} 56`,
		`kvctrl_peer_connections_refused_total 58`, `kvctrl_peer_dials_refused_total 59`, `kvctrl_peer_requests_total 60`, `kvctrl_peer_requests_busy_total 61`,
		`kvctrl_fsm_entries_total 21`, `kvctrl_fsm_operations_total 22`, `kvctrl_fsm_duplicate_batches_total 23`, `kvctrl_fsm_restores_total 24`, `kvctrl_fsm_stopped 0`,
		`kvctrl_registry_keys 3`, `kvctrl_registry_instances 2`, `kvctrl_registry_workers{liveness="alive"} 2`, `kvctrl_registry_workers{liveness="suspect"} 0`, `kvctrl_registry_sync_workers{state="wanted"} 0`, `kvctrl_registry_sync_workers{state="unrepaired"} 0`, `kvctrl_registry_sync_workers{state="syncing"} 1`,
		`kvctrl_registry_syncs_started_total 3`, `kvctrl_registry_syncs_ended_total{outcome="completed"} 1`, `kvctrl_registry_syncs_ended_total{outcome="replaced"} 1`, `kvctrl_registry_syncs_ended_total{outcome="failed"} 0`,
		`kvctrl_commands_open 2`, `kvctrl_commands_total{command="move",outcome="partial"} 5`, `kvctrl_commands_total{command="pin",outcome="done"} 0`,
		`kvctrl_command_seconds_bucket{command="pin",le="2"} 1`, `kvctrl_command_seconds_bucket{command="pin",le="4"} 3`, `kvctrl_command_seconds_bucket{command="pin",le="+Inf"} 4`, `kvctrl_command_seconds_sum{command="pin"} 12.5`, `kvctrl_command_seconds_count{command="move"} 0`,
		`kvctrl_worker_answer_seconds_bucket{le="0.1"} 1`, `kvctrl_worker_answer_seconds_bucket{le="1"} 3`, `kvctrl_worker_answer_seconds_bucket{le="+Inf"} 6`, `kvctrl_worker_answer_seconds_sum 9.5`, `kvctrl_worker_answer_seconds_count 6`,
		`kvctrl_hash_profile_in_use{chunk_size="256",profile="builtin@0"} 1`, `kvctrl_hash_profile_hits_total{chunk_size="256",profile="builtin@0"} 0`,
		`kvctrl_hash_profile_last_hit_timestamp_seconds{chunk_size="256",profile="builtin@0"} 0`, `kvctrl_hash_candidates 1`, `kvctrl_hash_probes_total{outcome="miss"} 0`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
}

// TestMetrics_AreWellNamed holds the names to Prometheus' rules and each to a help.
func TestMetrics_AreWellNamed(t *testing.T) {
	r := newRig(t)
	faults, err := testutil.GatherAndLint(r.s.gather)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		if strings.HasPrefix(f.Metric, "kvctrl_") {
			t.Errorf("%s: %s", f.Metric, f.Text)
		}
	}
	families, err := r.s.gather.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ours, lmcaches := 0, 0
	for _, f := range families {
		switch {
		case strings.HasPrefix(f.GetName(), "kvctrl_"):
			ours++
		case strings.HasPrefix(f.GetName(), "lmcache:"):
			lmcaches++
		}
		if f.GetHelp() == "" {
			t.Errorf("%s has no help", f.GetName())
		}
	}
	if lmcaches != 13 || ours < 50 {
		t.Errorf("%d of LMCache's and %d of ours", lmcaches, ours)
	}
}

// TestMetrics_NoLabelIsInvented: paths, methods and ids of clients make no series.
func TestMetrics_NoLabelIsInvented(t *testing.T) {
	r := newRig(t)
	count := func() int { return strings.Count(r.get("/metrics").Body.String(), "\n") }
	r.send("BREW", "/nowhere", "")
	r.get("/nowhere")
	r.get("/events/x")
	r.get("/events/")
	r.get("/metrics")
	before := count()
	for i := range 50 {
		n := strconv.Itoa(i)
		r.send("BREW"+n, "/nowhere"+n, "")
		r.get("/nowhere" + n)
		r.get("/events/e" + n)
		r.post("/lookup/"+n, "")
		r.get("/events/" + n + "/")
	}
	if after := count(); after > before+40 { // a few series of statuses that were new
		t.Errorf("%d lines became %d", before, after)
	}
	body := r.get("/metrics").Body.String()
	for _, m := range regexp.MustCompile(`route="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		if strings.ContainsAny(m[1], "0123456789") {
			t.Errorf("route %q", m[1])
		}
	}
	if math.IsNaN(testutil.ToFloat64(r.s.metrics.http.panics)) {
		t.Error("NaN")
	}
}

// TestMetrics_DocsNameWhatThereIs: an alarm on a name that no replica has never rings.
func TestMetrics_DocsNameWhatThereIs(t *testing.T) {
	body := newRig(t).get("/metrics").Body.String()
	named := 0
	for _, file := range []string{"../README.md", "../docs/operating.md", "../docs/guarantees.md", "../docs/compatibility.md", "DESIGN.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range regexp.MustCompile(`\b(kvctrl|lmcache:cache)_[a-z0-9_]*[a-z0-9]`).FindAllString(string(text), -1) {
			if named++; !strings.Contains(body, "# TYPE "+name+" ") {
				t.Errorf("%s names %s, which is no metric", file, name)
			}
		}
	}
	if named < 8 {
		t.Errorf("%d names found", named)
	}
}

func TestMetrics_ContentType(t *testing.T) {
	r := newRig(t)
	// As LMCache's, whatever a newer scraper would take as well.
	w := r.send("GET", "/metrics", "", "Accept", "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
}
