package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// The commands of LMCache's controller. Each becomes an event in the log; what the
// executor says of it is the answer.

func (s *Server) clear(w http.ResponseWriter, r *http.Request) error {
	return s.command(w, r, bodyClear, func(vs values) (executor.Command, error) {
		return executor.Command{Kind: registry.CommandClear, EventID: vs[clearEvent].str,
			Source: registry.Target{Instance: vs[clearInstance].str, Location: vs[clearLocation].str}}, nil
	})
}

func (s *Server) pin(w http.ResponseWriter, r *http.Request) error {
	return s.command(w, r, bodyPin, func(vs values) (executor.Command, error) {
		tokens, err := commandTokens(vs[pinTokens])
		return executor.Command{Kind: registry.CommandPin, EventID: vs[pinEvent].str, Tokens: tokens,
			Source: registry.Target{Instance: vs[pinInstance].str, Location: vs[pinLocation].str}}, err
	})
}

func (s *Server) compress(w http.ResponseWriter, r *http.Request) error {
	return s.compressing(w, r, registry.CommandCompress)
}

func (s *Server) decompress(w http.ResponseWriter, r *http.Request) error {
	return s.compressing(w, r, registry.CommandDecompress)
}

func (s *Server) compressing(w http.ResponseWriter, r *http.Request, kind registry.CommandKind) error {
	return s.command(w, r, bodyCompress, func(vs values) (executor.Command, error) {
		tokens, err := commandTokens(vs[compressTokens])
		return executor.Command{Kind: kind, EventID: vs[compressEvent].str, Method: vs[compressMethod].str, Tokens: tokens,
			Source: registry.Target{Instance: vs[compressInstance].str, Location: vs[compressLocation].str}}, err
	})
}

func (s *Server) move(w http.ResponseWriter, r *http.Request) error {
	return s.command(w, r, bodyMove, func(vs values) (executor.Command, error) {
		tokens, err := commandTokens(vs[moveTokens])
		keep := vs[moveShouldCopy]
		if old := vs[moveCopy]; !keep.present && old.present {
			keep = old
		}
		var copies *bool // null goes to the worker as null
		if !keep.null {
			copies = &keep.boolean
		}
		from, to := vs[moveOld].pair, vs[moveNew].pair
		return executor.Command{Kind: registry.CommandMove, EventID: vs[moveEvent].str, Tokens: tokens, Copy: copies,
			Source: registry.Target{Instance: from[0], Location: from[1]},
			Dest:   registry.Target{Instance: to[0], Location: to[1]}}, err
	})
}

// commandTokens gives the tokens as a worker gets them: left out they are an empty
// list, null is null.
func commandTokens(v value) (*[]lmcache.Token, error) {
	if v.null {
		return nil, nil
	}
	tokens := lmcache.TokensOf(v.ints...)
	for i, n := range v.large {
		if !n.IsUint64() {
			return nil, &senselessError{"a token beyond 64 bits: no worker could have stored it"}
		}
		tokens[i] = lmcache.LargeTokenOf(n.Uint64())
	}
	return &tokens, nil
}

// command reads a command, has it carried out and answers with its outcome.
func (s *Server) command(w http.ResponseWriter, r *http.Request, sc schema, build func(values) (executor.Command, error)) error {
	q := queryOf(r)
	wait := q.boolean("wait", true)
	deadline, given := q.duration("timeout", maxTimeout)
	if given && deadline == 0 {
		q.fault("timeout", "greater_than", "Input should be greater than 0", ctxOf("gt", 0))
	}
	if err := q.err(); err != nil {
		return err
	}
	return s.parsed(w, r, sc, func(vs values) error {
		c, err := build(vs)
		if err != nil {
			return err
		}
		c.Deadline, c.Detach = deadline, !wait
		return s.mutate(w, r, c)
	})
}

// mutate is where a command leaves for the leader. This replica is it, or there is
// nobody to send it to: a follower will forward from here.
func (s *Server) mutate(w http.ResponseWriter, r *http.Request, c executor.Command) error {
	if !s.opts.Node.IsLeader() {
		if l, known := s.opts.Node.Leader(); known && l.NodeID != s.opts.Node.NodeID() {
			return &problem{code: codeNotLeader, detail: fmt.Sprintf("replica %q leads, at %s", l.NodeID, l.URL)}
		}
		return &problem{code: codeNoLeader, detail: "the cluster has no leader at present"}
	}
	reg := s.opts.State.Registry()
	c.Source.Location = locationOf(reg, c.Source)
	c.Dest.Location = locationOf(reg, c.Dest)

	ctx, cancel := context.WithTimeout(r.Context(), s.commandWait(c))
	defer cancel()
	ev, err := s.opts.Executor.Do(ctx, c)
	switch {
	case c.Detach && accepted(err):
		return s.writeJSON(w, http.StatusAccepted, struct {
			EventID string `json:"event_id"`
		}{eventIDOf(ev, err)})
	case errors.Is(err, context.DeadlineExceeded) && ev.ID != "":
		return &problem{code: codeTimeout, event: &ev,
			detail: fmt.Sprintf("%s on instance %q is still under way after %s", c.Kind, c.Source.Instance, s.commandWait(c))}
	case s.life.Err() != nil && errors.Is(err, context.Canceled) && ev.ID != "":
		return &problem{code: codeUnknownOutcome, event: &ev,
			detail: fmt.Sprintf("%s on instance %q is still under way and this replica is stopping", c.Kind, c.Source.Instance)}
	case err != nil:
		return err
	}
	return s.writeJSON(w, http.StatusOK, outcome{EventID: ev.ID, NumTokens: ev.NumTokens})
}

// outcome is LMCache's answer to a command.
type outcome struct {
	EventID   string `json:"event_id"`
	NumTokens int64  `json:"num_tokens"`
}

// accepted reports whether a command that is not waited for is in the log: that it has
// failed already, as one sent again may have, is its event's to tell.
func accepted(err error) bool {
	var failed *executor.CommandError
	return err == nil || errors.As(err, &failed)
}

func eventIDOf(ev registry.Event, err error) string {
	var failed *executor.CommandError
	if errors.As(err, &failed) {
		return failed.Event.ID
	}
	return ev.ID
}

// commandWait is the longest wait for a command's outcome: its workers may be held by
// earlier commands for one deadline, and take another one to answer.
func (s *Server) commandWait(c executor.Command) time.Duration {
	deadline := c.Deadline
	if deadline <= 0 {
		deadline = s.opts.WorkerDeadline
	}
	return 2*deadline + logWait
}

// logWait is for the entries of a command, each of which may wait for an election.
const logWait = 20 * time.Second

// aliases are names of locations for people.
var aliases = map[string]string{
	"local_cpu":  "LocalCPUBackend",
	"local_disk": "LocalDiskBackend",
	"remote":     "RemoteBackend",
	"p2p":        "P2PBackend",
}

// locationOf resolves an alias, unless the instance has a location of that very name.
func locationOf(reg *registry.Registry, t registry.Target) string {
	backend, isAlias := aliases[t.Location]
	if !isAlias || t.Instance == "" {
		return t.Location
	}
	for _, w := range reg.Workers(t.Instance) {
		for _, l := range w.Locations {
			if l.Location == t.Location {
				return t.Location
			}
		}
	}
	return backend
}
