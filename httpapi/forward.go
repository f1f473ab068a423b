package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
)

// peerPrefix is where the mutations stand on the peer port.
const peerPrefix = "/rest"

// Headers between replicas.
const (
	// headerEventID names a command: every attempt at it has the same one.
	headerEventID = "Kvctrl-Event-Id"
	// headerLeft is how many milliseconds the one who asks will still wait.
	headerLeft = "Kvctrl-Left-Ms"
	// headerCode is the code of a refusal, so that nobody has to read its body.
	headerCode = "Kvctrl-Code"
)

const (
	// maxAnswer bounds what is read of a leader's answer: a command's outcome on
	// thousands of workers, in their own words, has room.
	maxAnswer = 16 << 20
	// answerSlack is how long after a mutation's time its answer may arrive: the leader
	// gives up first, and says what it knows.
	answerSlack = 2 * time.Second
)

// errLeaderless ends an attempt when its answer does not come and nobody leads any more.
// (That another replica leads ends it at the transport.)
var errLeaderless = errors.New("no replica leads since")

// forward sends a mutation to the leader. The answer is copied, but for the headers that
// say who was asked.
func (t *trial) forward(ctx context.Context) (reply, standing, error) {
	s := t.server
	leader, known := s.opts.Node.Leader()
	if !known || leader.NodeID == s.opts.Node.NodeID() {
		return nil, untouched, cluster.ErrNoLeader
	}
	count := t.route.forwards
	began := time.Now()
	left := time.Until(t.deadline)
	if left <= 0 {
		return nil, untouched, context.DeadlineExceeded
	}
	ctx, cancel := context.WithDeadline(ctx, t.deadline.Add(answerSlack))
	defer cancel()
	ctx, end := s.whileLed(ctx, t.mutation.hold)
	defer end()
	resp, answer, err := t.send(ctx, left)
	switch {
	case err == nil:
	case t.request.Context().Err() != nil:
		count.outcome("cancelled")
		return nil, open, context.Cause(ctx)
	case neverSent(err):
		count.outcome("unsent")
		return nil, untouched, err
	default:
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		count.outcome("lost")
		return nil, open, fmt.Errorf("replica %q: %w", leader.NodeID, err)
	}
	c := code(resp.Header.Get(headerCode))
	if resp.Header.Get(headerNode) == "" { // the peer port's own words: PeerHandler was not reached
		count.outcome("unsent")
		return t.turnedAway(resp.StatusCode, answer)
	}
	switch stands := t.standing(c); {
	case stands == untouched && c == codeBusy:
		count.outcome("unsent")
		return nil, untouched, fmt.Errorf("replica %q: %w", leader.NodeID, cluster.ErrBusy)
	case stands == untouched:
		count.outcome("not_leader")
		return nil, untouched, fmt.Errorf("replica %q: %w", leader.NodeID, cluster.ErrNotLeader)
	case stands == open:
		count.outcome("lost")
		return nil, open, fmt.Errorf("replica %q lost leadership meanwhile", leader.NodeID)
	}
	count.answered(time.Since(began))
	if done := t.doneAlready(c); done != nil {
		return done, settled, nil
	}
	return s.copied(resp, answer), settled, nil
}

// neverSent reports an error of the transport after which nobody has seen the request.
func neverSent(err error) bool {
	return slices.ContainsFunc([]error{cluster.ErrNoLeader, cluster.ErrIsLeader, cluster.ErrUnreachable, cluster.ErrStopped},
		func(e error) bool { return errors.Is(err, e) })
}

// turnedAway reads a refusal of the peer port, which nobody has seen beyond it. That it has
// too much to do is for the client to know, unless an earlier attempt may have done it.
func (t *trial) turnedAway(status int, answer []byte) (reply, standing, error) {
	var p struct {
		Code   code
		Detail string
	}
	if json.Unmarshal(answer, &p) != nil || p.Detail == "" {
		p.Detail = fmt.Sprintf("answer %d of the leader's peer port", status)
	}
	if p.Code == codeBusy {
		return nil, t.standing(codeBusy), &problem{code: codeBusy, detail: p.Detail}
	}
	return nil, untouched, errors.New(p.Detail)
}

// send makes one request of a mutation and reads the answer whole.
func (t *trial) send(ctx context.Context, left time.Duration) (*http.Response, []byte, error) {
	if !t.owned { // net/http may read it after it has returned; the buffer goes back to its pool
		t.body, t.owned = bytes.Clone(t.body), true
	}
	target := "http://leader" + peerPrefix + t.route.path
	if t.request.URL.RawQuery != "" {
		target += "?" + t.request.URL.RawQuery
	}
	req, err := http.NewRequestWithContext(ctx, t.route.method, target, bytes.NewReader(t.body))
	if err != nil {
		return nil, nil, err
	}
	if typ := t.request.Header.Get("Content-Type"); typ != "" {
		req.Header.Set("Content-Type", typ)
	}
	if t.mutation.named {
		req.Header.Set(headerEventID, t.mutation.eventID)
	}
	req.Header.Set(headerLeft, strconv.FormatInt(max(left.Milliseconds(), 1), 10))
	resp, err := t.server.opts.Node.LeaderTransport().RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	}
	return resp, answer, err
}

// copied answers as the leader did. The index is that of its answer.
func (s *Server) copied(resp *http.Response, body []byte) reply {
	return func(w http.ResponseWriter) error {
		h := w.Header()
		for _, name := range []string{"Retry-After", "Allow", headerIndex, headerStaleness} {
			if v := resp.Header.Values(name); len(v) > 0 {
				h[name] = v
			}
		}
		s.write(w, resp.StatusCode, resp.Header.Get("Content-Type"), body)
		return nil
	}
}

// whileLed is a context that ends when no replica has been known to lead for the hold:
// one that stands still says nothing, and its connections stay open. Call end when done
// with it.
func (s *Server) whileLed(ctx context.Context, hold time.Duration) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	// Owner: the caller, through end. It blocks on nothing but the clock.
	go func() {
		defer close(ended)
		tick := time.NewTicker(lookMost)
		defer tick.Stop()
		led := time.Now()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if _, known := s.opts.Node.Leader(); known {
				led = time.Now()
			} else if time.Since(led) > hold {
				cancel(errLeaderless)
			}
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}
