package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// Status is what GET /admin/status says.
type Status struct {
	NodeID            string         `json:"node_id"`
	Role              string         `json:"role"`
	Term              uint64         `json:"term"`
	Leader            StatusLeader   `json:"leader"`
	CommitIndex       uint64         `json:"commit_index"`
	AppliedIndex      uint64         `json:"applied_index"`
	LastSnapshotIndex uint64         `json:"last_snapshot_index"`
	LogBytes          int64          `json:"log_bytes"`
	Nodes             []StatusMember `json:"nodes"`
	Workers           int            `json:"workers"`
	Keys              int64          `json:"keys"`
}

// StatusLeader is who leads; empty when nobody is known to.
type StatusLeader struct {
	NodeID string `json:"node_id"`
	URL    string `json:"url"`
}

// StatusMember is one replica as the one that was asked sees it.
type StatusMember struct {
	NodeID       string  `json:"node_id"`
	PeerAddr     string  `json:"peer_addr"`
	URL          string  `json:"url"`
	Voter        bool    `json:"voter"`
	Reachable    *bool   `json:"reachable"`
	AppliedIndex *uint64 `json:"applied_index"`
}

// Status asks a replica.
func (c *Cluster) Status(r *Replica) (s Status, err error) {
	return s, c.get(r, "/admin/status", &s)
}

// term is the term that a replica is in, 0 when it does not answer.
func (c *Cluster) term(r *Replica) uint64 {
	s, err := c.Status(r)
	if err != nil {
		return 0
	}
	return s.Term
}

// AwaitMembers waits until the leader lists so many replicas, all of them voters that have
// said where their REST is.
func (c *Cluster) AwaitMembers(n int) {
	c.t.Helper()
	Eventually(c.t, formLimit, fmt.Sprintf("%d voters", n), func() error {
		s, err := c.Status(c.Leader())
		if err != nil {
			return err
		}
		voters := 0
		for _, m := range s.Nodes {
			if m.Voter && m.URL != "" {
				voters++
			}
		}
		if voters != n || len(s.Nodes) != n {
			return fmt.Errorf("%d members, %d voters: %+v", len(s.Nodes), voters, s.Nodes)
		}
		return nil
	})
}

// get decodes a 200's answer into v.
func (c *Cluster) get(r *Replica, path string, v any) error {
	resp, err := c.asks.Get(r.URL(path))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s answers %d: %s", r.URL(path), resp.StatusCode, answer)
	}
	return json.Unmarshal(answer, v)
}

// Post sends v as JSON to a replica and returns the answer.
func (c *Cluster) Post(r *Replica, path string, v any) (status int, answer []byte, err error) {
	body, err := json.Marshal(v)
	if err != nil {
		return 0, nil, err
	}
	resp, err := c.asks.Post(r.URL(path), "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// must posts what has to be answered with a status.
func (c *Cluster) must(r *Replica, want int, path string, v any) (answer []byte) {
	c.t.Helper()
	status, answer, err := c.Post(r, path, v)
	if err != nil || status != want {
		c.t.Fatalf("POST %s %v is answered %d %s (%v), want %d", r.URL(path), v, status, answer, err, want)
	}
	return answer
}

// Digest is the digest of a replica's state at an index.
type Digest struct {
	Index  uint64 `json:"index"`
	Digest string `json:"digest"`
}

// Digest asks a replica once it has applied minIndex. That two replicas, or the same one
// twice, ever tell different digests of one index fails the test.
//
// Concurrency: any goroutine.
func (c *Cluster) Digest(r *Replica, minIndex uint64) (d Digest, err error) {
	if err := c.get(r, fmt.Sprintf("/admin/digest?min_index=%d&timeout=5s", minIndex), &d); err != nil {
		return d, err
	}
	if d.Index < minIndex || d.Index == 0 || len(d.Digest) != 32 {
		return d, fmt.Errorf("GET /admin/digest?min_index=%d answers index %d and digest %q", minIndex, d.Index, d.Digest)
	}
	if err := c.digests.note(r.URL(""), d); err != nil {
		c.t.Error(err)
	}
	return d, nil
}

// Converge waits until all live replicas tell the digest of the same index, and returns
// it. Something that goes on changing the state must be stopped before.
func (c *Cluster) Converge() Digest {
	c.t.Helper()
	var last Digest
	Eventually(c.t, digestLimit, "the same digest on all replicas", func() error {
		live := c.Live()
		if len(live) == 0 {
			return errors.New("no replica is live")
		}
		for i, r := range live {
			d, err := c.Digest(r, last.Index)
			if err != nil {
				return err
			}
			before := last
			last = d
			if i > 0 && d.Index != before.Index {
				return fmt.Errorf("%s is at index %d, another at %d", r.URL(""), d.Index, before.Index)
			}
			if i > 0 && d.Digest != before.Digest {
				c.t.Fatalf("at index %d %s has digest %s, another %s", d.Index, r.URL(""), d.Digest, before.Digest)
			}
		}
		return nil
	})
	return last
}

// digestBook keeps every digest that was told. The zero value is empty.
type digestBook struct {
	mu       sync.Mutex
	byIndex  map[uint64]toldDigest
	compared int // answers whose index another replica had told of
}

type toldDigest struct{ digest, by string }

func (b *digestBook) note(by string, d Digest) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byIndex == nil {
		b.byIndex = map[uint64]toldDigest{}
	}
	told, known := b.byIndex[d.Index]
	if known && told.digest != d.Digest {
		return fmt.Errorf("at index %d %s has digest %s, %s had %s", d.Index, by, d.Digest, told.by, told.digest)
	}
	if known && told.by != by {
		b.compared++
	}
	b.byIndex[d.Index] = toldDigest{d.Digest, by}
	return nil
}

// Compared is how often a replica told the digest of an index that another had told.
func (c *Cluster) Compared() int {
	c.digests.mu.Lock()
	defer c.digests.mu.Unlock()
	return c.digests.compared
}
