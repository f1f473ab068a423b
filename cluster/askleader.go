package cluster

import (
	"context"
	"io"
	"net/http"
	"sync"
)

// leaderTarget says whom to ask for what only the leader knows, or why nobody.
func (n *Node) leaderTarget() (peerTarget, error) {
	switch s, _ := n.view.get(); {
	case s.leader == n.id: // whether or not its term has begun
		return peerTarget{}, ErrIsLeader
	case s.leader == "":
		return peerTarget{}, ErrNoLeader
	default:
		return peerTarget{s.leader, s.addr}, nil
	}
}

// AskLeader sends a small request to whoever leads, to one of its PeerHandlers, and
// returns the answer. It does not wait for a leader.
//
// Errors: ErrIsLeader when this replica leads, ErrNoLeader, ErrUnreachable (nothing was
// sent), ErrStopped, a *PeerError for an answer that is not 200. After another error
// the leader may have done what it was asked; what is asked this way may be asked
// twice.
func (n *Node) AskLeader(ctx context.Context, path string, body []byte) ([]byte, error) {
	if err := n.enter(); err != nil {
		return nil, err
	}
	defer n.calls.leave()
	to, err := n.leaderTarget()
	if err != nil {
		return nil, err
	}
	ctx, release := n.whileLeading(ctx, to)
	defer release()
	return n.callPeer(ctx, to, path, body)
}

// LeaderTransport sends requests to whoever leads when they are sent, over the peer
// port, to its PeerHandlers. Of the URL only path and query count. It does not wait for
// a leader; it gives up, with an error, when another one leads before the answer has
// come.
//
// Errors: as AskLeader, except that every answer is an answer.
func (n *Node) LeaderTransport() http.RoundTripper { return leaderTransport{n} }

type leaderTransport struct{ n *Node }

func (t leaderTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.send(r)
	if err != nil && r.Body != nil {
		r.Body.Close() // a RoundTripper does, whatever happens; twice is fine
	}
	return response, err
}

func (t leaderTransport) send(r *http.Request) (*http.Response, error) {
	n := t.n
	if err := n.enter(); err != nil {
		return nil, err
	}
	defer n.calls.leave()
	to, err := n.leaderTarget()
	if err != nil {
		return nil, err
	}
	ctx, release := n.whileLeading(r.Context(), to)
	response, err := n.client.send(n.client.rooms, r.WithContext(ctx), to)
	if err != nil {
		release()
		return nil, err
	}
	response.Body = &heldBody{ReadCloser: response.Body, release: release}
	return response, nil
}

// heldBody ends a request's ctx when its answer is read.
type heldBody struct {
	io.ReadCloser
	once    sync.Once
	release func()
}

func (b *heldBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.release)
	return err
}
