package httpapi

import (
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/internal/histogram"
	"github.com/kvctrl/kvctrl/registry"
)

// The closed sets of the labels of commands.
var (
	commandKinds = []registry.CommandKind{registry.CommandClear, registry.CommandPin, registry.CommandCompress, registry.CommandDecompress, registry.CommandMove}
	commandEnds  = []string{"done", "partial", "failed", "timed_out", "interrupted", "refused", "unknown"}
)

func commandMetrics() []metric {
	return []metric{
		one("kvctrl_commands_open", "Commands under way on this replica.", gauge, func(s *sample) float64 { return float64(s.executor.Open) }),
		{name: "kvctrl_commands_total", help: "Commands carried out by this replica, by how they ended.", kind: counter, labels: []string{"command", "outcome"},
			values: func(s *sample, emit func(float64, ...string)) {
				for _, k := range commandKinds {
					for _, end := range commandEnds {
						emit(float64(s.executor.Finished[executor.Outcome{Kind: k, End: end}]), string(k), end)
					}
				}
			}},
		{name: "kvctrl_command_seconds", help: "Time from a command's creation to its end in the log, however it ended.", labels: []string{"command"},
			histograms: func(s *sample, emit func(histogram.Snapshot, ...string)) {
				for _, k := range commandKinds {
					emit(s.executor.Commands[k], string(k))
				}
			}},
		spread("kvctrl_worker_answer_seconds", "Time until a worker that was asked to carry out a command answered, or was given up.", func(s *sample) histogram.Snapshot { return s.executor.Answers }),
	}
}
