package httpapi

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// memoryLog is a log of one replica without a disk: what is proposed is applied.
type memoryLog struct {
	mu    sync.Mutex
	fsm   *fsm.FSM
	index uint64
}

func (l *memoryLog) Propose(_ context.Context, entry []byte) (cluster.Applied, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index++
	return cluster.Applied{Index: l.index, Result: l.fsm.Apply(&raft.Log{Index: l.index, Term: 1, Type: raft.LogCommand, Data: entry})}, nil
}

// scripted answers for the fleet's workers as the recording's did.
type scripted struct {
	mu       sync.Mutex
	byPort   map[string]fleetWorker
	received map[string]any // "instance/rank" -> message
}

func newScripted(f fleetFile, name string) *scripted {
	s := &scripted{byPort: map[string]fleetWorker{}, received: map[string]any{}}
	for _, w := range f.Fleets[name].Workers {
		s.byPort[fmt.Sprint(f.WorkerPortBase+w.PortOffset)] = w
	}
	return s
}

func (s *scripted) Ask(ctx context.Context, addr string, request []byte) ([]byte, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	w, known := s.byPort[port]
	if !known {
		return nil, fmt.Errorf("nobody at %s", addr)
	}
	var msg map[string]any
	if err := msgpack.Unmarshal(request, &msg); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.received[fmt.Sprintf("%s/%d", w.Instance, w.Worker)] = msg
	s.mu.Unlock()
	reply, scripted := w.Replies[msg["type"].(string)]
	if !scripted {
		reply, scripted = w.Replies["*"]
	}
	switch {
	case !scripted || reply.Silent:
		<-ctx.Done()
		return nil, ctx.Err()
	case reply.Hex != "":
		return hex.DecodeString(reply.Hex)
	}
	return msgpack.Marshal(packable(reply.Msg))
}

func (s *scripted) take() map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.received
	s.received = map[string]any{}
	return got
}

// packable gives numbers the form that they have on the wire.
func packable(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, err := v.Float64()
		if err != nil {
			panic(err)
		}
		return f
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = packable(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = packable(x)
		}
		return out
	}
	return v
}

// newFleetRig is a server with a real registry, state machine and executor, whose
// workers are the recording's.
func newFleetRig(t *testing.T, name string) (*rig, *scripted) {
	t.Helper()
	machine := fsm.New(fsm.Options{})
	fleets := loadFleets(t)
	machine.Registry().BeginTerm(registry.TermBegin{Term: 1, Node: "n1"})
	fleets.load(t, machine.Registry(), name)
	workers := newScripted(fleets, name)
	exec, err := executor.New(executor.Options{Log: &memoryLog{fsm: machine}, Registry: machine.Registry, Dialer: workers, Deadline: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var leading sync.WaitGroup
	leading.Go(func() { _ = exec.Lead(ctx, 1) }) // always nil
	t.Cleanup(func() { cancel(); leading.Wait() })
	r := newRig(t, func(o *Options) { o.State, o.Executor = machine, exec })
	for start := time.Now(); ; { // until Lead has begun
		_, err := exec.Do(ctx, executor.Command{Kind: registry.CommandClear, Source: registry.Target{Instance: "nobody at all"}})
		if err != nil && !strings.Contains(err.Error(), executor.ErrNotLeading.Error()) {
			break
		}
		if time.Since(start) > 5*time.Second {
			t.Fatal("executor does not lead")
		}
	}
	return r, workers
}

// TestRecorded_Fleet replays the recording's main fleet: lookups, lists and every
// command against workers that answer well, badly and not at all.
func TestRecorded_Fleet(t *testing.T) {
	for _, scenario := range []string{"fleet", "order"} {
		t.Run(scenario, func(t *testing.T) {
			rig, workers := newFleetRig(t, scenario)
			for _, r := range recordedRows(t) {
				if r.Scenario != scenario {
					continue
				}
				t.Run(fmt.Sprintf("%03d %s", r.Step, r.Name), func(t *testing.T) {
					w := r.send(t, rig.s.Handler())
					got := workers.take()
					judge(t, &r, w)
					if _, other := betterFor(r.Name); !other && (r.Verdict == "contract" || r.Verdict == "shape") {
						judgeReceived(t, &r, got)
					}
				})
			}
		})
	}
}

// judgeReceived wants the workers to have been sent what LMCache's were.
func judgeReceived(t *testing.T, r *row, got map[string]any) {
	t.Helper()
	if len(got) != len(r.Received) {
		t.Errorf("%d workers were sent something, want %d", len(got), len(r.Received))
	}
	plain := func(v any) string {
		b, err := json.Marshal(v) // sorted by name
		if err != nil {
			t.Fatal(err)
		}
		return canonical(t, b)
	}
	for _, x := range r.Received {
		who := fmt.Sprintf("%s/%d", x.Instance, x.Worker)
		if have, want := plain(got[who]), plain(x.Message); have != want {
			t.Errorf("%s was sent %s\nwant %s", who, have, want)
		}
	}
}
