package executor

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// task is one worker's part of a command.
type task struct {
	worker registry.WorkerRef
	addr   string // host:port of the worker's command socket
	msg    lmcache.Message

	// Of a move: the rank of the destination that it goes to, and whether this one has
	// anything at the source's location.
	partner int64
	holds   bool
}

// ranks returns an instance's workers by ascending rank.
func ranks(r *registry.Registry, instance string) ([]registry.WorkerInfo, error) {
	if instance == "" {
		return nil, &UnknownInstanceError{Instance: instance} // "" means every instance to the registry
	}
	ws := r.Workers(instance)
	if len(ws) == 0 {
		return nil, &UnknownInstanceError{Instance: instance}
	}
	slices.SortFunc(ws, func(a, b registry.WorkerInfo) int { return cmp.Compare(a.Worker, b.Worker) })
	return ws, nil
}

// plan turns a command into one message per worker. The forms of the worker event
// ids are LMCache's: pin and move use them as keys of the engine's own ledger, so
// they are unique.
func plan(r *registry.Registry, c *Command, eventID string) ([]task, error) {
	source, err := ranks(r, c.Source.Instance)
	if err != nil {
		return nil, err
	}
	var dest []registry.WorkerInfo
	if c.Kind == registry.CommandMove {
		if dest, err = destinations(r, c, source); err != nil {
			return nil, err
		}
	}
	tasks := make([]task, len(source))
	for i, w := range source {
		tasks[i] = task{worker: w.WorkerRef, addr: address(w)}
		rank := strconv.FormatInt(w.Worker, 10)
		switch c.Kind {
		case registry.CommandClear:
			tasks[i].msg = &lmcache.ClearWorkerMsg{WorkerEventID: "Worker" + rank + eventID, Location: c.Source.Location}
		case registry.CommandPin:
			tasks[i].msg = &lmcache.PinWorkerMsg{WorkerEventID: "Worker" + rank + eventID, Location: c.Source.Location, Tokens: c.tokens()}
		case registry.CommandCompress:
			tasks[i].msg = &lmcache.CompressWorkerMsg{WorkerEventID: "CompressWorker" + rank + uuid.NewString(), Method: c.Method, Location: c.Source.Location, Tokens: c.Tokens}
		case registry.CommandDecompress:
			tasks[i].msg = &lmcache.DecompressWorkerMsg{WorkerEventID: "DecompressWorker" + rank + uuid.NewString(), Method: c.Method, Location: c.Source.Location, Tokens: c.Tokens}
		case registry.CommandMove:
			tasks[i].msg = &lmcache.MoveWorkerMsg{
				WorkerEventID: "MoveWorker" + rank + uuid.NewString(),
				OldPosition:   c.Source.Location,
				NewPosition:   [2]string{*dest[i].PeerInitURL, c.Dest.Location},
				Tokens:        c.Tokens,
				Copy:          c.Copy,
			}
			tasks[i].partner = dest[i].Worker
			tasks[i].holds = slices.ContainsFunc(w.Locations, func(l registry.LocationInfo) bool { return l.Location == c.Source.Location && l.Keys > 0 })
		default:
			panic(fmt.Sprintf("bug: no message for command %q", c.Kind))
		}
	}
	return tasks, nil
}

// destinations pairs the ranks of a move's two sides in ascending order. LMCache
// moves the ranks that have a partner and forgets the others; here unequal sides are
// refused before anything is sent.
func destinations(r *registry.Registry, c *Command, source []registry.WorkerInfo) ([]registry.WorkerInfo, error) {
	dest, err := ranks(r, c.Dest.Instance)
	if err != nil {
		return nil, err
	}
	if c.Source == c.Dest {
		return nil, &PlanError{Code: "same_place", Detail: fmt.Sprintf(
			"source and destination are both %q of instance %q: its workers would find every chunk there already and then delete it; name another destination", c.Source.Location, c.Source.Instance)}
	}
	if len(source) != len(dest) {
		return nil, &PlanError{Code: "ranks", Detail: fmt.Sprintf(
			"instance %q has %d workers and %q has %d: a move needs as many on both sides", c.Source.Instance, len(source), c.Dest.Instance, len(dest))}
	}
	for i, w := range dest {
		if w.PeerInitURL == nil {
			return nil, &PlanError{Code: "no_p2p", Detail: fmt.Sprintf(
				"worker %d of instance %q cannot be moved to: worker %d of instance %q gave no peer_init_url when it registered; enable P2P there",
				source[i].Worker, c.Source.Instance, w.Worker, c.Dest.Instance)}
		}
	}
	return dest, nil
}

// address is where a worker takes commands.
func address(w registry.WorkerInfo) string {
	return net.JoinHostPort(w.IP, strconv.FormatInt(w.Port, 10))
}
