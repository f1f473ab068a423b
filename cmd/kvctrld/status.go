package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// status is what /admin/status says, as far as the table shows it.
type status struct {
	NodeID string `json:"node_id"`
	Term   uint64 `json:"term"`
	Leader struct {
		NodeID string `json:"node_id"`
		URL    string `json:"url"`
	} `json:"leader"`
	Commit   uint64 `json:"commit_index"`
	Applied  uint64 `json:"applied_index"`
	Snapshot uint64 `json:"last_snapshot_index"`
	LogBytes int64  `json:"log_bytes"`
	Nodes    []struct {
		NodeID      string  `json:"node_id"`
		PeerAddr    string  `json:"peer_addr"`
		URL         string  `json:"url"`
		Voter       bool    `json:"voter"`
		Role        string  `json:"role"`
		Reachable   *bool   `json:"reachable"` // null when this replica cannot know
		LastContact *int64  `json:"last_contact_ms"`
		Applied     *uint64 `json:"applied_index"`
	} `json:"nodes"`
	Workers int   `json:"workers"`
	Keys    int64 `json:"keys"`

	ClusterID string `json:"cluster_id"` // empty: in none yet
	PeerAddr  string `json:"peer_addr"`
	URL       string `json:"url"`

	Hash *struct { // nil: an older replica
		Mode      string `json:"mode"`
		ChunkSize int    `json:"chunk_size"`
		Profiles  []struct {
			Name      string   `json:"name"`
			ChunkSize int      `json:"chunk_size"`
			InUse     bool     `json:"in_use"`
			Hits      uint64   `json:"hits"`
			LastHit   int64    `json:"last_hit_us"`
			Instances []string `json:"instances"`
			Count     int      `json:"instance_count"`
		} `json:"profiles"`
	} `json:"hash"`
}

func newStatus() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "status",
		Short: "the cluster as a table; exit 1 when it has no leader",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := r.call(cmd, "GET", "/admin/status", nil)
			if err != nil {
				return err
			}
			if err := show(&r, cmd, answer, printStatus); err != nil {
				return err
			}
			var s status
			if err := json.Unmarshal(answer, &s); err != nil {
				return fmt.Errorf("answer is not what was expected: %w", err)
			}
			if s.Leader.NodeID == "" {
				return errors.New("the cluster has no leader")
			}
			return nil
		},
	}
	r.flags(cmd)
	return cmd
}

func printStatus(w io.Writer, s status) {
	row(w, "NODE", "ROLE", "ADDRESS", "REST", "TERM", "APPLIED", "LAG", "HEALTH")
	for _, n := range s.Nodes {
		role := n.Role
		if !n.Voter {
			role += " (no vote)"
		}
		health, applied, lag := "not known here", "-", "-"
		if n.Reachable != nil {
			health = "ok"
			if !*n.Reachable {
				health = "no contact"
				if n.LastContact != nil {
					health = fmt.Sprintf("no contact for %d ms", *n.LastContact)
				}
			}
		}
		if n.Applied != nil {
			applied = fmt.Sprint(*n.Applied)
			lag = fmt.Sprint(s.Commit - min(*n.Applied, s.Commit))
		}
		row(w, n.NodeID, role, n.PeerAddr, n.URL, s.Term, applied, lag, health)
	}
	row(w)
	if s.ClusterID == "" {
		row(w, fmt.Sprintf("replica %s is in no cluster yet", s.NodeID))
	} else {
		row(w, fmt.Sprintf("cluster %s, as replica %s sees it", s.ClusterID, s.NodeID))
	}
	row(w, fmt.Sprintf("%d workers, %d keys; log %d bytes, last snapshot at index %d", s.Workers, s.Keys, s.LogBytes, s.Snapshot))
	printHash(w, s)
}

// mostNamed bounds the instances that the table names for one profile.
const mostNamed = 8

// printHash says how the replica that was asked hashes prompts: each has found that out
// by its own lookups.
func printHash(w io.Writer, s status) {
	if s.Hash == nil {
		return
	}
	if len(s.Hash.Profiles) == 0 {
		row(w, fmt.Sprintf("hash %s, chunks of %d tokens: no lookup has hit at replica %s yet", s.Hash.Mode, s.Hash.ChunkSize, s.NodeID))
		return
	}
	row(w, fmt.Sprintf("hash %s; found by the lookups at replica %s:", s.Hash.Mode, s.NodeID))
	row(w)
	row(w, "PROFILE", "CHUNK", "LOOKUPS", "LAST", "INSTANCES")
	for _, p := range s.Hash.Profiles {
		name, last := p.Name, "never"
		if !p.InUse {
			name += " (not of late)"
		}
		if p.LastHit > 0 {
			last = time.UnixMicro(p.LastHit).Format("2006-01-02 15:04:05")
		}
		names := strings.Join(p.Instances[:min(len(p.Instances), mostNamed)], ", ")
		if more := p.Count - min(len(p.Instances), mostNamed); more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		row(w, name, p.ChunkSize, p.Hits, last, names)
	}
}
