package e2e

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// history is what clients asked and were told, for the linearizability checker. It is cut
// into parts that do not depend on each other: a register or a command each.
//
// Concurrency: any goroutine.
type history struct {
	began time.Time

	mu    sync.Mutex
	parts map[string][]porcupine.Operation
}

func newHistory() *history {
	return &history{began: time.Now(), parts: map[string][]porcupine.Operation{}}
}

// now is the time in the history, by the monotonic clock.
func (h *history) now() int64 { return int64(time.Since(h.began)) }

// never is the end of what nobody knows the outcome of: it may take effect at any time.
const never = math.MaxInt64

// add notes an operation between two moments of now.
func (h *history) add(part string, input, output any, call, end int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parts[part] = append(h.parts[part], porcupine.Operation{Input: input, Output: output, Call: call, Return: end})
}

// names returns all parts.
func (h *history) names() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var names []string
	for name := range h.parts {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// check holds every part against the model, and returns how many operations that were.
func (h *history) check(t *testing.T, model porcupine.Model) (operations int) {
	t.Helper()
	for _, name := range h.names() {
		operations += len(h.parts[name])
		part := withoutRepeats(h.parts[name])
		switch porcupine.CheckOperationsTimeout(model, part, time.Minute) {
		case porcupine.Illegal:
			t.Errorf("%s is not linearizable:\n%s", name, tellHistory(part, model))
		case porcupine.Unknown:
			t.Errorf("%s: whether it is linearizable was not found out within a minute:\n%s", name, tellHistory(part, model))
		}
	}
	return operations
}

// withoutRepeats drops each read that says nothing new: one that was told the same within
// its time is right at that moment too. Many reads beside each other, as they wait in a
// paused process, are more than the checker can put in order.
func withoutRepeats(part []porcupine.Operation) (out []porcupine.Operation) {
	for i, op := range part {
		repeats := func(j int) bool {
			o := part[j]
			inside := op.Call <= o.Call && o.Return <= op.Return
			same := op.Call == o.Call && o.Return == op.Return
			return i != j && isRead(op) && isRead(o) && op.Output == o.Output && inside && (!same || j < i)
		}
		told := false
		for j := range part {
			told = told || repeats(j)
		}
		if !told {
			out = append(out, op)
		}
	}
	return out
}

func isRead(op porcupine.Operation) bool {
	switch op.Input.(type) {
	case registerRead, commandAsked:
		return true
	}
	return false
}

// tellHistory writes a part down by the time of the calls.
func tellHistory(part []porcupine.Operation, model porcupine.Model) (text string) {
	part = slices.Clone(part)
	slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	for _, op := range part {
		end := "never"
		if op.Return != never {
			end = fmt.Sprintf("%9.3fs", time.Duration(op.Return).Seconds())
		}
		text += fmt.Sprintf("  %9.3fs to %s  %s\n", time.Duration(op.Call).Seconds(), end, model.DescribeOperation(op.Input, op.Output))
	}
	return text
}

// A register is a prompt whose chunks one worker stores, first to last, and evicts, last
// to first. A lookup of the whole prompt tells how long the run is that is there.
// Operation n of the worker leaves a run of one length, so that the register's state is
// the number of operations that have taken effect.
const registerChunks = 24

// registerValue is the length of the run after n operations.
func registerValue(n int) int { return min(n, 2*registerChunks-n) }

// registerWrite is the n-th operation of the worker, from 1. Its outcome is never told.
type registerWrite int

// registerRead is a lookup; its output is the length of the run. by is for people.
type registerRead struct{ by string }

var registerModel = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		n := state.(int)
		switch in := input.(type) {
		case registerWrite:
			return int(in) == n+1, n + 1
		case registerRead:
			return output.(int) == registerValue(n), n
		}
		panic(fmt.Sprintf("bug: %T in a register's history", input))
	},
	DescribeOperation: func(input, output any) string {
		if w, ok := input.(registerWrite); ok {
			return fmt.Sprintf("worker's operation %d, leaves %d chunks", w, registerValue(int(w)))
		}
		return fmt.Sprintf("%s: %d chunks", input.(registerRead).by, output)
	},
}

// A command is an event of the log. While a client waits for it, it is made, sent and
// ended; whoever asks for it sees one of these steps, and never an earlier one later.
type (
	commandMade   struct{}
	commandSent   struct{}
	commandEnded  struct{} // output: the state it ended in
	commandAsked  struct{ by string }
	commandStates = string
)

// commandAbsent is what somebody is told who asks for an event that is not in the log.
const commandAbsent commandStates = "unknown"

func commandOver(state commandStates) bool {
	return slices.Contains([]commandStates{"done", "partial", "failed", "timed_out", "interrupted"}, state)
}

var commandModel = porcupine.Model{
	Init: func() any { return commandAbsent },
	Step: func(state, input, output any) (bool, any) {
		now := state.(commandStates)
		switch input.(type) {
		case commandMade:
			return now == commandAbsent, "pending"
		case commandSent:
			return now == "pending", "running"
		case commandEnded:
			return now == "pending" || now == "running", output
		case commandAsked:
			return output == now, now
		}
		panic(fmt.Sprintf("bug: %T in a command's history", input))
	},
	DescribeOperation: func(input, output any) string {
		switch in := input.(type) {
		case commandMade:
			return "event made"
		case commandSent:
			return "sent to the worker"
		case commandEnded:
			return fmt.Sprintf("ended as %v", output)
		case commandAsked:
			return fmt.Sprintf("%s: %v", in.by, output)
		}
		return fmt.Sprint(input, output)
	},
}

// TestHistory_Checker: the checker takes what is right and refuses what is wrong.
func TestHistory_Checker(t *testing.T) {
	type op = porcupine.Operation
	write := func(n int, call, end int64) op { return op{Input: registerWrite(n), Call: call, Return: end} }
	read := func(v int, call, end int64) op {
		return op{Input: registerRead{"somebody"}, Output: v, Call: call, Return: end}
	}
	full := func() (ops []op) {
		for n := 1; n <= 2*registerChunks; n++ {
			ops = append(ops, write(n, int64(n), never))
		}
		return ops
	}
	asked := func(state string, call, end int64) op {
		return op{Input: commandAsked{"somebody"}, Output: state, Call: call, Return: end}
	}
	command := func(end int64, more ...op) []op {
		return append([]op{{Input: commandMade{}, Call: 10, Return: end}, {Input: commandSent{}, Call: 10, Return: end},
			{Input: commandEnded{}, Output: "done", Call: 10, Return: end}}, more...)
	}
	for _, c := range []struct {
		name  string
		model porcupine.Model
		ops   []op
		want  bool
	}{
		{"nothing written is seen", registerModel, []op{write(1, 1, never), read(0, 5, 6)}, true},
		{"seen at once", registerModel, []op{write(1, 1, never), read(1, 1, 2)}, true},
		{"seen before it was written", registerModel, []op{write(1, 5, never), read(1, 1, 2)}, false},
		{"a later look sees less", registerModel, []op{write(1, 1, never), write(2, 2, never), read(2, 3, 4), read(1, 5, 6)}, false},
		{"looks beside each other", registerModel, []op{write(1, 1, never), write(2, 2, never), read(2, 3, 8), read(1, 5, 6)}, true},
		{"more than was written", registerModel, []op{write(1, 1, never), read(2, 3, 4)}, false},
		{"all stored, all evicted", registerModel, append(full(), read(registerChunks, 100, 101), read(3, 102, 103), read(0, 104, 105)), true},
		{"an evicted chunk is back", registerModel, append(full(), read(registerChunks, 100, 101), read(3, 102, 103), read(4, 104, 105)), false},
		{"told the same twice, rightly once", registerModel, []op{write(1, 1, never), write(2, 2, never), read(1, 1, 20), read(2, 3, 4), read(1, 5, 6)}, false},
		{"a command's life", commandModel, command(20, asked("unknown", 1, 2), asked("pending", 10, 12), asked("running", 13, 14), asked("done", 13, 15), asked("done", 25, 26)), true},
		{"answered, and still running", commandModel, command(20, asked("running", 21, 22)), false},
		{"answered, and not there", commandModel, command(20, asked("unknown", 21, 22)), false},
		{"known before it was sent", commandModel, command(20, asked("pending", 1, 2)), false},
		{"no answer, running for long", commandModel, command(never, asked("running", 100, 200), asked("done", 300, 400)), true},
		{"no answer, another end than was seen", commandModel, command(never, asked("interrupted", 100, 200), asked("done", 300, 400)), false},
		{"ended twice", commandModel, command(never, asked("done", 100, 200), asked("running", 300, 400)), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, ops := range [][]op{c.ops, withoutRepeats(c.ops)} {
				if got := porcupine.CheckOperations(c.model, ops); got != c.want {
					t.Errorf("linearizable: %v, want %v:\n%s", got, c.want, tellHistory(ops, c.model))
				}
			}
		})
	}
}
