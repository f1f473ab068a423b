package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
)

// PeerHandler answers, on the peer port, the mutations that other replicas of the
// cluster forward to this one, under /rest and the route's path. It never forwards
// itself: one that does not lead says so, and the one who asked looks again.
func (s *Server) PeerHandler() http.Handler {
	m := http.NewServeMux()
	for _, rt := range s.routes {
		if rt.mutate != nil {
			m.Handle(rt.method+" "+peerPrefix+rt.path, s.wrap(asked{rt.path, true}, s.metrics.peers.route(rt.path), s.forwarded(rt)))
		}
	}
	// What only a newer replica knows.
	m.Handle("/", s.wrap(asked{"other", true}, s.metrics.peers.route("other"), func(http.ResponseWriter, *http.Request) error {
		return &problem{code: codeNotFound, detail: "the leader does not know this request: it is of an older version"}
	}))
	return m
}

// forwarded answers a route's requests from other replicas.
func (s *Server) forwarded(rt route) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		// The peer port's own contexts outlive this server.
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(s.life, cancel)()
		return s.readMutation(w, r, rt, r.Header.Get(headerEventID), func(m *mutation, _ []byte) error {
			if !s.opts.Node.IsLeader() || !s.acts.enter() {
				return cluster.ErrNotLeader
			}
			defer s.acts.leave()
			answer, err := s.act(ctx, m, time.Now().Add(leftOf(r, m.longest)))
			s.setPlace(w.Header())
			if err != nil {
				return err
			}
			return answer(w)
		})
	}
}

// leftOf is how long the replica that asks will wait.
func leftOf(r *http.Request, def time.Duration) time.Duration {
	ms, err := strconv.ParseInt(r.Header.Get(headerLeft), 10, 64)
	if err != nil || ms <= 0 || ms > int64(def/time.Millisecond) {
		return def
	}
	return time.Duration(ms) * time.Millisecond
}
