package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/kvctrl/kvctrl/cluster"
)

func (s *Server) healthz(w http.ResponseWriter, r *http.Request) error {
	return s.writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) error {
	if s.stopping.Load() {
		return &problem{code: codeStopping, detail: "this replica is stopping"}
	}
	if err := s.opts.Node.Ready(); err != nil {
		return &problem{code: codeNotReady, detail: err.Error()}
	}
	return s.writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	totals := s.opts.State.Registry().Totals()
	st := s.opts.Node.Status()
	if st.Nodes == nil {
		st.Nodes = []cluster.NodeStatus{}
	}
	me := s.opts.Node.Identity()
	return s.writeJSON(w, http.StatusOK, struct {
		cluster.Status
		Workers int   `json:"workers"`
		Keys    int64 `json:"keys"`
		// Who this replica is, for those that look for a cluster to form or to join.
		ClusterID string     `json:"cluster_id"`
		PeerAddr  string     `json:"peer_addr"`
		URL       string     `json:"url"`
		Hash      hashStatus `json:"hash"`
	}{st, totals.Workers, totals.Keys, me.ClusterID, me.PeerAddr, me.URL, s.hashStatus()})
}

// digest answers the state's digest with the index it stands for.
func (s *Server) digest(w http.ResponseWriter, r *http.Request) error {
	if err := s.fresh(w, r, queryOf(r)); err != nil {
		return err
	}
	index, d := s.opts.State.Digest()
	w.Header().Set(headerIndex, strconv.FormatUint(index, 10))
	return s.writeJSON(w, http.StatusOK, struct {
		Index  uint64 `json:"index"`
		Digest string `json:"digest"`
	}{index, d.String()})
}

// snapshot takes one of this replica's state, leader or not. A body is read and ignored.
func (s *Server) snapshot(w http.ResponseWriter, r *http.Request) error {
	return s.withBody(w, r, func([]byte) error { return s.takeSnapshot(w, r) })
}

func (s *Server) takeSnapshot(w http.ResponseWriter, r *http.Request) error {
	q := queryOf(r)
	wait, given := q.duration("timeout", maxTimeout)
	if !given {
		wait = maxTimeout
	}
	if err := q.err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	if err := s.opts.Node.Snapshot(ctx); err != nil {
		if ctx.Err() != nil && r.Context().Err() == nil {
			return &problem{code: codeBusy, detail: fmt.Sprintf("the snapshot was not done within %s; it goes on: /admin/status shows last_snapshot_index", wait)}
		}
		return err
	}
	return s.writeJSON(w, http.StatusOK, struct {
		Index uint64 `json:"last_snapshot_index"`
	}{s.opts.Node.Status().LastSnapshotIndex})
}
