package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

// client asks a replica's REST in the few ways that the crash and bad-input tests need.
// Concurrency: any goroutine.
type client struct {
	r    *Replica
	http *http.Client
}

func newClient(t *testing.T, r *Replica) *client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{r: r, http: &http.Client{Timeout: 10 * time.Second, Transport: transport}}
}

// do is exchange without the header.
func (c *client) do(method, path string, body []byte) (status int, answer []byte, err error) {
	status, _, answer, err = c.exchange(method, path, body)
	return status, answer, err
}

// exchange sends a request and reads the whole answer.
func (c *client) exchange(method, path string, body []byte) (status int, header http.Header, answer []byte, err error) {
	req, err := http.NewRequest(method, c.r.URL(path), bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, answer, err
}

// post sends v as JSON.
func (c *client) post(path string, v any) (status int, answer []byte, err error) {
	body, err := json.Marshal(v)
	if err != nil {
		return 0, nil, err
	}
	return c.do(http.MethodPost, path, body)
}

// into asks for path and decodes a 200's answer into v.
func (c *client) into(path string, v any) error {
	status, answer, err := c.do(http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("GET %s answers %d: %s", path, status, answer)
	}
	return json.Unmarshal(answer, v)
}

// lookup returns how many tokens of a prompt each instance holds.
func (c *client) lookup(tokens []int64) (map[string]int, error) {
	status, answer, err := c.post("/lookup", map[string]any{"tokens": tokens})
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("POST /lookup answers %d: %s", status, answer)
	}
	return hitsOf(answer)
}

// hitsOf reads the answer to a lookup.
func hitsOf(answer []byte) (map[string]int, error) {
	var found struct {
		Layout map[string][2]any `json:"layout_info"`
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		return nil, err
	}
	hits := make(map[string]int, len(found.Layout))
	for instance, at := range found.Layout {
		n, ok := at[1].(float64)
		if !ok {
			return nil, fmt.Errorf("POST /lookup answers %s", answer)
		}
		hits[instance] = int(n)
	}
	return hits, nil
}

// stateDigest is the answer of /admin/digest.
type stateDigest struct {
	Index  uint64 `json:"index"`
	Digest string `json:"digest"`
}

func (c *client) digest() (d stateDigest, err error) {
	err = c.into("/admin/digest", &d)
	if err == nil && (d.Index == 0 || len(d.Digest) != 32) {
		err = fmt.Errorf("/admin/digest answers index %d and digest %q", d.Index, d.Digest)
	}
	return d, err
}

// mustDigest asks until no entry comes between the digest and its index.
func (c *client) mustDigest(t *testing.T) (d stateDigest) {
	t.Helper()
	Eventually(t, 20*time.Second, "a digest", func() (err error) { d, err = c.digest(); return err })
	return d
}

// workerView is a worker as /instances shows it.
type workerView struct {
	Worker    int64  `json:"worker_id"`
	IP        string `json:"ip"`
	Port      int    `json:"port"`
	SyncState string `json:"sync_state"`
	Failures  int    `json:"sync_failures"`
	Keys      int    `json:"key_count"`
	Locations []struct {
		Location string `json:"location"`
		Keys     int    `json:"key_count"`
		Gaps     int    `json:"gaps"`
		Lossy    bool   `json:"lossy"`
	} `json:"locations"`
}

// keys, gaps and lossy are of one location; all zero when it is not known.
func (w workerView) at(location string) (keys, gaps int, lossy bool) {
	for _, l := range w.Locations {
		if l.Location == location {
			return l.Keys, l.Gaps, l.Lossy
		}
	}
	return 0, 0, false
}

// workers returns all workers by "instance/rank".
func (c *client) workers() (map[string]workerView, error) {
	var view struct {
		Instances []struct {
			Instance string       `json:"instance_id"`
			Workers  []workerView `json:"workers"`
		} `json:"instances"`
	}
	if err := c.into("/instances", &view); err != nil {
		return nil, err
	}
	out := map[string]workerView{}
	for _, inst := range view.Instances {
		for _, w := range inst.Workers {
			out[inst.Instance+"/"+strconv.FormatInt(w.Worker, 10)] = w
		}
	}
	return out, nil
}

// eventView is a command as /events/{id} shows it.
type eventView struct {
	Status    string `json:"status"`
	NumTokens int64  `json:"num_tokens"`
}

// event asks for a command; known is false for 404.
func (c *client) event(id string) (e eventView, known bool, err error) {
	status, answer, err := c.do(http.MethodGet, "/events/"+url.PathEscape(id), nil)
	switch {
	case err != nil:
		return e, false, err
	case status == http.StatusNotFound:
		return e, false, nil
	case status != http.StatusOK:
		return e, false, fmt.Errorf("/events/%s answers %d: %s", id, status, answer)
	}
	return e, true, json.Unmarshal(answer, &e)
}

// metric returns one sample of /metrics by its name with labels as printed.
func (c *client) metric(name string) (float64, error) {
	all, err := c.samples()
	if err != nil {
		return 0, err
	}
	v, ok := all[name]
	if !ok {
		return 0, fmt.Errorf("/metrics has no %s", name)
	}
	return v, nil
}

// samples returns all of /metrics.
func (c *client) samples() (map[string]float64, error) {
	status, answer, err := c.do(http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("/metrics answers %d: %s", status, answer)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(answer)) {
		name, value, ok := cutLastSpace(strings.TrimSpace(line))
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("/metrics has the line %q", line)
		}
		out[name] = v
	}
	return out, nil
}

func cutLastSpace(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
