package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Leader is the way to the replica that leads; *cluster.Node is one.
type Leader interface {
	// IsLeader reports whether this replica leads.
	IsLeader() bool
	// Term is the newest term that this replica knows of.
	Term() uint64
	// AskLeader posts a small request to the PeerHandler of the replica that leads and
	// returns its answer. After an error the request may have been heard all the same.
	AskLeader(ctx context.Context, path string, body []byte) ([]byte, error)
}

const (
	// maxPeerBody bounds a request; what is larger is sent in parts.
	maxPeerBody = 64 << 10
	// askTimeout bounds one request. The leader answers from memory.
	askTimeout = 2 * time.Second
)

// leads reports whether this replica decides for the cluster. One without others does.
func (s *Server) leads() bool { return s.opts.Leader == nil || s.opts.Leader.IsLeader() }

// askLeader posts one request.
func (s *Server) askLeader(ctx context.Context, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return s.opts.Leader.AskLeader(ctx, path, body)
}

// PeerHandler answers what other replicas ask of the leader, under "/ingest/". A replica
// that does not lead refuses: the asker keeps what it has to say, and says it to the one
// that does.
func (s *Server) PeerHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST "+pathHeard, s.peer(s.takeHeardOf))
	mux.Handle("POST "+pathSyncSlot, s.peer(s.answerSlot))
	return mux
}

// peerFault is an answer other than 200.
type peerFault struct {
	status int
	code   string
	detail string
}

func (f *peerFault) Error() string { return f.detail }

// peer makes a handler of f, which is called on the leader only. f may keep the body.
func (s *Server) peer(f func(body []byte) ([]byte, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, err := func() ([]byte, error) {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPeerBody))
			var tooLarge *http.MaxBytesError
			switch {
			case errors.As(err, &tooLarge):
				return nil, &peerFault{http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("the body of %s is larger than %d bytes", r.URL.Path, maxPeerBody)}
			case err != nil:
				return nil, &peerFault{http.StatusBadRequest, "body_unreadable", fmt.Sprintf("the body of %s: %v", r.URL.Path, err)}
			case !s.leads():
				return nil, &peerFault{http.StatusMisdirectedRequest, "not_leader", "this replica does not lead"}
			}
			return f(body)
		}()
		if err == nil {
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = w.Write(answer) // who does not hear it asks again
			return
		}
		var fault *peerFault
		if !errors.As(err, &fault) {
			fault = &peerFault{http.StatusBadRequest, "invalid", err.Error()}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(fault.status)
		_ = json.NewEncoder(w).Encode(map[string]string{"code": fault.code, "detail": fault.detail})
	})
}
