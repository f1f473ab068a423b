package cluster

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// The connections to one other replica: for requests of our own, and for those
	// forwarded, which last as long as a worker takes. More wait for one, as long as
	// their ctx lasts.
	maxCallConns    = 8
	maxForwardConns = 32
	// callTimeout is for calls whose ctx has no deadline.
	callTimeout = 10 * time.Second
	// maxPeerAnswer bounds an answer to a call. The largest is a worker batch's result.
	maxPeerAnswer = 4 << 20
)

// peerTarget is a replica to ask: an address, and who is expected there.
type peerTarget struct{ ID, Addr string } // ID "" = whoever is there

func (t peerTarget) String() string {
	if t.ID == "" {
		return "replica at " + t.Addr
	}
	return fmt.Sprintf("node %q at %s", t.ID, t.Addr)
}

// peerClient asks other replicas. Any goroutine.
type peerClient struct {
	port  *peerPort
	calls *http.Transport // of our own
	rooms *http.Transport // forwarded to PeerHandlers there
}

func newPeerClient(port *peerPort) *peerClient {
	c := &peerClient{port: port}
	pool := func(conns int) *http.Transport {
		return &http.Transport{
			DialContext:            c.dial,
			MaxConnsPerHost:        conns,
			MaxIdleConnsPerHost:    conns,
			IdleConnTimeout:        peerIdle / 2,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
			WriteBufferSize:        64 << 10, // entries
		}
	}
	c.calls, c.rooms = pool(maxCallConns), pool(maxForwardConns)
	return c
}

// forget gives up idle connections: their hello is out of date, or nobody needs
// them any more.
func (c *peerClient) forget() {
	c.calls.CloseIdleConnections()
	c.rooms.CloseIdleConnections()
}

// host is a target as http.Transport knows it: it keeps connections apart by this
// name, and a connection is to one node at one address.
func (t peerTarget) host() string { return hex.EncodeToString([]byte(t.ID + "\x00" + t.Addr)) }

func targetOf(hostport string) (peerTarget, error) {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return peerTarget{}, err
	}
	b, err := hex.DecodeString(host)
	if err != nil {
		return peerTarget{}, err
	}
	id, addr, ok := strings.Cut(string(b), "\x00")
	if !ok {
		return peerTarget{}, fmt.Errorf("bug: %q is no target", hostport)
	}
	return peerTarget{id, addr}, nil
}

func (c *peerClient) dial(ctx context.Context, _, hostport string) (net.Conn, error) {
	to, err := targetOf(hostport)
	if err != nil {
		return nil, err
	}
	conn, err := c.port.dial(ctx, streamHTTP, to.Addr, to.ID)
	if err != nil {
		return nil, err
	}
	conn.writeLimit = peerWriteTimeout
	return conn, nil
}

// send sends a request to a replica. Its URL names only path and query; it is not
// changed. An error that is ErrUnreachable means that nothing was sent.
func (c *peerClient) send(pool *http.Transport, r *http.Request, to peerTarget) (*http.Response, error) {
	var sent atomic.Bool
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	r = r.Clone(ctx)
	r.URL.Scheme, r.URL.Host, r.Host = "http", to.host(), "kvctrl"
	response, err := pool.RoundTrip(r)
	switch {
	case err == nil:
		return response, nil
	case !sent.Load():
		return nil, fmt.Errorf("%w: %v: %w", ErrUnreachable, to, cause(ctx, err))
	}
	return nil, fmt.Errorf("no answer from %v: %w", to, cause(ctx, err))
}

// cause is why ctx ended, when that is why err is.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
		return context.Cause(ctx)
	}
	return err
}

// callPeer asks a replica and returns its answer. An answer that is not 200 is a
// *PeerError; without a connection the error is ErrUnreachable and nothing was sent.
// After any other error the replica may have done what it was asked.
func (n *Node) callPeer(ctx context.Context, to peerTarget, path string, body []byte) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("no answer within %v: %w", callTimeout, context.DeadlineExceeded))
		defer cancel()
	}
	r := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: path},
		Header: http.Header{
			"Content-Type": {"application/octet-stream"},
			// Not sent: lets net/http ask again by itself when an idle connection turns out
			// to be closed. Everything that is asked this way may be asked twice.
			"Idempotency-Key": nil,
		},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}
	response, err := n.client.send(n.client.calls, r.WithContext(ctx), to)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxPeerAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("answer of %v: %w", to, cause(ctx, err))
	case len(answer) > maxPeerAnswer:
		return nil, fmt.Errorf("answer of %v: more than %d bytes", to, maxPeerAnswer)
	case response.StatusCode != http.StatusOK:
		return nil, decodePeerError(response.StatusCode, answer)
	}
	return answer, nil
}
