package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxAnswer bounds what the client reads of an answer.
const maxAnswer = 256 << 20

// errNoAnswer is returned when a replica may have taken a request and its answer did
// not come: what was asked for may happen.
var errNoAnswer = errors.New("no answer")

// client speaks REST to any of several replicas.
type client struct {
	addrs []string
	http  *http.Client
}

// answerError is an answer that is not a success.
type answerError struct {
	status int
	detail string
	code   string
}

func (e *answerError) Error() string {
	if e.code != "" {
		return fmt.Sprintf("%s (%d %s)", e.detail, e.status, e.code)
	}
	return fmt.Sprintf("%s (%d)", e.detail, e.status)
}

// newClient makes a client of the replicas at addrs, comma separated. security may be
// nil. Call close when done with it.
func newClient(addrs string, timeout time.Duration, security *tls.Config) (*client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = security
	c := &client{http: &http.Client{Timeout: timeout, Transport: transport}}
	for _, a := range strings.Split(addrs, ",") {
		if a = strings.TrimSpace(a); a == "" {
			continue
		}
		addr, err := restURL(a)
		if err != nil {
			return nil, fmt.Errorf("address: %w", err)
		}
		c.addrs = append(c.addrs, addr)
	}
	if len(c.addrs) == 0 {
		return nil, errors.New("no address: give --addr or KVCTRL_ADDR")
	}
	return c, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// call sends a request to the first replica that can be reached and returns the body
// of a success. The next one is asked although the one before may have taken the
// request: repeating it must be harmless.
func (c *client) call(ctx context.Context, method, path string, body any) ([]byte, error) {
	var payload []byte
	if body != nil {
		var err error
		if payload, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
	}
	var faults []error
	for _, addr := range c.addrs {
		answer, err := c.send(ctx, method, addr+path, payload)
		if err == nil {
			return answer, nil
		}
		var refused *answerError
		if errors.As(err, &refused) && refused.status != http.StatusServiceUnavailable {
			if before := errors.Join(faults...); errors.Is(before, errNoAnswer) { // that one may have done it
				return nil, errors.Join(before, err)
			}
			return nil, err
		}
		faults = append(faults, fmt.Errorf("%s: %w", addr, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(faults...)
}

func (c *client) send(ctx context.Context, method, target string, payload []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unanswered(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.unanswered(err)
	}
	if resp.StatusCode/100 == 2 {
		return body, nil
	}
	return nil, readAnswerError(resp.StatusCode, body)
}

// unanswered puts a failed exchange into words. The address is the caller's to say.
func (c *client) unanswered(err error) error {
	var where *url.Error
	var timeout net.Error
	if errors.As(err, &where) {
		err = where.Err
	}
	switch {
	case neverSent(err):
		return err
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w within %s", errNoAnswer, c.http.Timeout)
	}
	return fmt.Errorf("%w: %w", errNoAnswer, err)
}

// readAnswerError takes the words out of an error body: {"detail": text}, or of a 422
// {"detail": [{"loc": [...], "msg": text}, ...]}.
func readAnswerError(status int, body []byte) error {
	var e struct {
		Detail json.RawMessage `json:"detail"`
		Code   string          `json:"code"`
	}
	out := &answerError{status: status, detail: strings.TrimSpace(string(body))}
	if json.Unmarshal(body, &e) == nil && len(e.Detail) > 0 {
		out.code = e.Code
		out.detail = string(e.Detail)
		var words string
		var faults []struct {
			Loc []any  `json:"loc"`
			Msg string `json:"msg"`
		}
		switch {
		case json.Unmarshal(e.Detail, &words) == nil:
			out.detail = words
		case json.Unmarshal(e.Detail, &faults) == nil:
			var each []string
			for _, f := range faults {
				each = append(each, strings.TrimSpace(fmt.Sprintln(f.Loc...))+": "+f.Msg)
			}
			out.detail = strings.Join(each, "; ")
		}
	}
	if out.detail == "" {
		out.detail = http.StatusText(status)
	}
	out.detail = printable(out.detail)
	return out
}

// neverSent reports an error that proves that no replica saw the request.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
