package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// PeerError is what another replica answered instead of doing what it was asked.
// errors.Is finds the sentinel that it answered with, except ErrStopped: that the
// other one stops says nothing of this one.
type PeerError struct {
	Status int    // of HTTP
	Code   string // for programs
	Detail string // in words

	cause error // the sentinel, or *NotLeaderError; nil when the code says nothing to us
}

func (e *PeerError) Error() string { return e.Detail }

func (e *PeerError) Unwrap() error { return e.cause }

// peerErrors are the sentinels that travel, the stronger one first where an error
// is two of them.
var peerErrors = []struct {
	err    error
	status int
	code   string
}{
	{ErrUnknownOutcome, http.StatusInternalServerError, "unknown_outcome"},
	{ErrNotLeader, http.StatusMisdirectedRequest, "not_leader"},
	{ErrNoLeader, http.StatusServiceUnavailable, "no_leader"},
	{ErrStopped, http.StatusServiceUnavailable, codeStopping},
	{ErrBusy, http.StatusServiceUnavailable, "busy"},
	{ErrForming, http.StatusServiceUnavailable, "forming"},
	{ErrTooLarge, http.StatusRequestEntityTooLarge, "too_large"},
	{ErrInvalid, http.StatusUnprocessableEntity, "invalid"},
	{ErrStale, http.StatusServiceUnavailable, "stale"},
	{ErrNotVoter, http.StatusConflict, "not_voter"},
	{ErrUnknownNode, http.StatusNotFound, "unknown_node"},
	{ErrQuorum, http.StatusConflict, "quorum"},
	{ErrConflict, http.StatusConflict, "conflict"},
	{ErrUnreachable, http.StatusConflict, "unreachable"},
	{ErrRemoved, http.StatusGone, "removed"},
}

// Codes without a sentinel.
const (
	codeStopping  = "stopping"
	codeDeadline  = "deadline"
	codeError     = "error"
	codeNoPath    = "no_such_path"
	codeMethod    = "method"
	codeCluster   = "other_cluster"
	codeBodyLimit = "body_too_large"
	codeBody      = "body_unreadable"
)

// peerErrorBody is an error on its way.
type peerErrorBody struct {
	Code   string  `json:"code"`
	Detail string  `json:"detail"`
	Leader *Leader `json:"leader,omitempty"` // with not_leader
}

// encodePeerError says how an error travels.
func encodePeerError(err error) (status int, b peerErrorBody) {
	var already *PeerError // of a third replica that was asked in turn
	if errors.As(err, &already) && already.cause == nil {
		return already.Status, peerErrorBody{Code: already.Code, Detail: err.Error()}
	}
	b.Detail = err.Error()
	for _, e := range peerErrors {
		if errors.Is(err, e.err) {
			var other *NotLeaderError
			if errors.As(err, &other) && e.err == ErrNotLeader {
				b.Leader = &other.Leader
			}
			b.Code = e.code
			return e.status, b
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		b.Code = codeDeadline
		return http.StatusGatewayTimeout, b
	}
	b.Code = codeError
	return http.StatusInternalServerError, b
}

// decodePeerError reads an answer that is not 200. What is no error of ours (a
// handler's own answer) keeps its status and text.
func decodePeerError(status int, body []byte) *PeerError {
	var b peerErrorBody
	if json.Unmarshal(body, &b) != nil || b.Detail == "" {
		const most = 512
		return &PeerError{Status: status, Code: codeError, Detail: fmt.Sprintf("answer %d: %.*q", status, most, body)}
	}
	e := &PeerError{Status: status, Code: b.Code, Detail: b.Detail}
	for _, known := range peerErrors {
		switch {
		case known.code != b.Code || b.Code == codeStopping:
		case known.err == ErrNotLeader && b.Leader != nil:
			e.cause = &NotLeaderError{*b.Leader}
		default:
			e.cause = known.err
		}
	}
	return e
}
