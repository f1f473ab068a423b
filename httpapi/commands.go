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

func clearOf(vs values) (executor.Command, error) {
	return executor.Command{Kind: registry.CommandClear, EventID: vs[clearEvent].str,
		Source: registry.Target{Instance: vs[clearInstance].str, Location: vs[clearLocation].str}}, nil
}

func pinOf(vs values) (executor.Command, error) {
	tokens, err := commandTokens(vs[pinTokens])
	return executor.Command{Kind: registry.CommandPin, EventID: vs[pinEvent].str, Tokens: tokens,
		Source: registry.Target{Instance: vs[pinInstance].str, Location: vs[pinLocation].str}}, err
}

func compressOf(vs values) (executor.Command, error) {
	return compressing(vs, registry.CommandCompress)
}

func decompressOf(vs values) (executor.Command, error) {
	return compressing(vs, registry.CommandDecompress)
}

func compressing(vs values, kind registry.CommandKind) (executor.Command, error) {
	tokens, err := commandTokens(vs[compressTokens])
	return executor.Command{Kind: kind, EventID: vs[compressEvent].str, Method: vs[compressMethod].str, Tokens: tokens,
		Source: registry.Target{Instance: vs[compressInstance].str, Location: vs[compressLocation].str}}, err
}

func moveOf(vs values) (executor.Command, error) {
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

// command makes a mutation of a command. Its event id is fixed here, before the first
// attempt: the body's own, or the one that the replica first asked has made, or a new one.
// With it the command may be sent again at any time: the same id is never done twice.
func (s *Server) command(build func(values) (executor.Command, error)) mutator {
	return func(t terms, vs values) (*mutation, error) {
		c, err := build(vs)
		if err != nil {
			return nil, err
		}
		c.Deadline, c.Detach = t.timeout, !t.wait
		m := &mutation{what: fmt.Sprintf("%s on instance %q", c.Kind, c.Source.Instance), longest: s.commandWait(c), repeats: true}
		if m.named = c.EventID == ""; m.named {
			if c.EventID = t.eventID; c.EventID == "" {
				c.EventID = executor.NewEventID(c.Kind)
			}
		}
		m.eventID = c.EventID
		m.act = func(ctx context.Context) (int, any, error) { return s.execute(ctx, c) }
		m.recorded = func() (status int, body any, known bool, err error) {
			reg := s.opts.State.Registry()
			ev, known, err := executor.Recorded(reg, located(reg, c))
			if !known {
				return 0, nil, false, nil
			}
			status, body, err = answerOf(c, ev, err)
			return status, body, true, err
		}
		return m, nil
	}
}

// execute carries a command out. Its outcome is the answer, or with Detach the event's id.
func (s *Server) execute(ctx context.Context, c executor.Command) (status int, body any, err error) {
	ev, err := s.opts.Executor.Do(ctx, located(s.opts.State.Registry(), c))
	return answerOf(c, ev, err)
}

// answerOf is the answer to a command of which the executor says this.
func answerOf(c executor.Command, ev registry.Event, err error) (status int, body any, _ error) {
	switch {
	case c.Detach && accepted(err):
		return http.StatusAccepted, struct {
			EventID string `json:"event_id"`
		}{eventIDOf(ev, err)}, nil
	case err != nil:
		return 0, nil, err
	}
	return http.StatusOK, outcome{EventID: ev.ID, NumTokens: ev.NumTokens}, nil
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

// located is a command with its aliases resolved.
func located(reg *registry.Registry, c executor.Command) executor.Command {
	c.Source.Location = locationOf(reg, c.Source)
	c.Dest.Location = locationOf(reg, c.Dest)
	return c
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
