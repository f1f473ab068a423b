package httpapi

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kvctrl/kvctrl/ingest"
	"github.com/kvctrl/kvctrl/internal/histogram"
)

func ingestMetrics() []metric {
	sockets := func(name, help string, kind prometheus.ValueType, v func(ingest.SocketStats) float64) metric {
		return metric{name: name, help: help, kind: kind, labels: []string{"socket"},
			values: func(s *sample, emit func(float64, ...string)) {
				emit(v(s.ingest.Pull), "pull")
				emit(v(s.ingest.Reply), "reply")
				emit(v(s.ingest.Heartbeat), "heartbeat")
			}}
	}
	count := func(name, help string, v func(ingest.Stats) uint64) metric {
		return one(name, help, counter, func(s *sample) float64 { return float64(v(s.ingest)) })
	}
	return []metric{
		sockets("kvctrl_ingest_messages_total", "Messages received from workers.", counter, func(x ingest.SocketStats) float64 { return float64(x.Messages) }),
		sockets("kvctrl_ingest_active", "Messages being handled.", gauge, func(x ingest.SocketStats) float64 { return float64(x.Active) }),
		{name: "kvctrl_ingest_operations_total", help: "Operations received from workers.", kind: counter, labels: []string{"op"},
			values: func(s *sample, emit func(float64, ...string)) {
				emit(float64(s.ingest.Admits), "admit")
				emit(float64(s.ingest.Evicts), "evict")
			}},
		{name: "kvctrl_ingest_bad_frames_total", help: "Frames that could not be understood.", kind: counter, labels: []string{"reason"},
			values: func(s *sample, emit func(float64, ...string)) {
				for _, r := range ingest.BadReasons() {
					emit(float64(s.ingest.BadFrames[r]), string(r))
				}
			}},
		{name: "kvctrl_ingest_refused_total", help: "Messages that were understood and not taken.", kind: counter, labels: []string{"reason"},
			values: func(s *sample, emit func(float64, ...string)) {
				for _, r := range ingest.Refusals() {
					emit(float64(s.ingest.Refused[r]), string(r))
				}
			}},
		spread("kvctrl_ingest_batch_bytes", "Sizes of the batches acknowledged by the log.", func(s *sample) histogram.Snapshot { return s.ingest.BatchBytes }),
		spread("kvctrl_ingest_commit_seconds", "Time from first attempt to acknowledgement of a batch.", func(s *sample) histogram.Snapshot { return s.ingest.CommitSeconds }),
		spread("kvctrl_ingest_forward_seconds", "The same time of the batches that another replica put into the log.", func(s *sample) histogram.Snapshot { return s.ingest.ForwardSeconds }),
		{name: "kvctrl_ingest_retries_total", help: "Attempts to propose a batch that failed and were made again.", kind: counter, labels: []string{"cause"},
			values: func(s *sample, emit func(float64, ...string)) {
				for _, c := range ingest.RetryCauses() {
					emit(float64(s.ingest.Retries[c]), string(c))
				}
			}},
		count("kvctrl_ingest_leader_changes_survived_total", "Batches acknowledged in a later term than they were first tried in.", func(x ingest.Stats) uint64 { return x.LeaderChanges }),
		count("kvctrl_ingest_duplicate_batches_total", "Batches of which an earlier attempt had been applied.", func(x ingest.Stats) uint64 { return x.Duplicates }),
		count("kvctrl_ingest_lost_records_total", "Records taken from workers and given up.", func(x ingest.Stats) uint64 { return x.LostRecords }),
		count("kvctrl_ingest_lost_operations_total", "Operations taken from workers and given up.", func(x ingest.Stats) uint64 { return x.LostOperations }),
		count("kvctrl_ingest_sequence_gaps_total", "Messages whose numbers did not follow, heard by this replica.", func(x ingest.Stats) uint64 { return x.Gaps }),
		count("kvctrl_ingest_unknown_worker_operations_total", "Operations of workers that are not registered: dropped.", func(x ingest.Stats) uint64 { return x.UnknownOperations }),
		count("kvctrl_ingest_late_operations_total", "Operations heard by this replica that came too late to be applied: their worker had moved on.", func(x ingest.Stats) uint64 { return x.LateOperations }),
		count("kvctrl_ingest_refused_records_total", "Records of known workers beyond a limit of the registry.", func(x ingest.Stats) uint64 { return x.RefusedRecords }),
		one("kvctrl_ingest_queue_bytes", "Bytes taken from workers and not yet applied.", gauge, func(s *sample) float64 { return float64(s.ingest.QueueBytes) }),
		one("kvctrl_ingest_queue_max_bytes", "Bound of that queue; at it the PULL sockets are not read.", gauge, func(s *sample) float64 { return float64(s.ingest.QueueMaxBytes) }),
		count("kvctrl_ingest_queue_blocked_total", "How often a PULL socket waited for that queue.", func(x ingest.Stats) uint64 { return x.Blocked }),
		one("kvctrl_ingest_batches_outstanding", "Batches being proposed.", gauge, func(s *sample) float64 { return float64(s.ingest.Outstanding) }),
		one("kvctrl_ingest_waiting_seconds", "How long the batch that is being proposed has been so.", gauge, func(s *sample) float64 { return s.ingest.Waiting.Seconds() }),
		one("kvctrl_ingest_pending_max", "Bound of unanswered requests per ROUTER socket.", gauge, func(s *sample) float64 { return float64(s.ingest.PendingMax) }),
		count("kvctrl_ingest_late_answers_total", "Requests answered without the log, which took too long.", func(x ingest.Stats) uint64 { return x.LateAnswers }),
		count("kvctrl_ingest_undelivered_replies_total", "Answers whose asker was gone or did not read.", func(x ingest.Stats) uint64 { return x.UndeliveredReplies }),
		count("kvctrl_ingest_syncs_asked_total", "Full syncs asked of workers.", func(x ingest.Stats) uint64 { return x.SyncsAsked }),
		count("kvctrl_ingest_syncs_not_started_total", "Workers that were asked for a full sync and did not start one in time, as their leader counts.", func(x ingest.Stats) uint64 { return x.SyncsNotStarted }),
		count("kvctrl_ingest_sync_slots_unanswered_total", "Questions for a full sync that the leader did not answer.", func(x ingest.Stats) uint64 { return x.SlotsUnanswered }),
		count("kvctrl_ingest_heard_sent_total", "Workers' signs of life that the leader has acknowledged.", func(x ingest.Stats) uint64 { return x.HeardSent }),
		count("kvctrl_ingest_heard_taken_total", "Workers' signs of life taken from other replicas.", func(x ingest.Stats) uint64 { return x.HeardTaken }),
		count("kvctrl_ingest_heard_late_total", "Requests with signs of life that the leader did not acknowledge: kept for the next.", func(x ingest.Stats) uint64 { return x.HeardLate }),
	}
}
