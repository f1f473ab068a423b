package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
)

// TestProfiles_OneFleetOfMany: engines that hash differently are found side by side by one
// replica that is told nothing but a further chunk size, and has a seed in its environment.
func TestProfiles_OneFleetOfMany(t *testing.T) {
	r := Start(t, Options{Args: []string{"--chunk-sizes", "64"}, Env: []string{"PYTHONHASHSEED=4711"}})
	c := newClient(t, r)
	engines := []struct {
		profile string
		size    int
	}{
		{"builtin@0", 256}, {"builtin@seed=4711", 256}, {"sha256_cbor@seed=4711", 256}, {"xxhash@seed=0", 64}, {"builtin-pair@0", 64},
	}
	prompt := func(first int) []int64 {
		tokens := make([]int64, 512)
		for i := range tokens {
			tokens[i] = int64(1000*first + i)
		}
		return tokens
	}
	shared := prompt(99)
	var workers []*simworker.Worker
	for i, e := range engines {
		w, err := simworker.New(simworker.Options{Instance: fmt.Sprintf("e%d", i), Pull: r.PullAddr(), Reply: r.ReplyAddr(), Profile: e.profile, ChunkSize: e.size})
		if err == nil {
			err = w.Start(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.Stop(); err != nil {
				t.Error(err)
			}
		})
		workers = append(workers, w)
		w.Store(prompt(i))
	}
	keys := func(want int) {
		t.Helper()
		Eventually(t, 20*time.Second, "what the engines store", func() error {
			var s struct{ Keys int }
			status, answer, err := c.do(http.MethodGet, "/admin/status", nil)
			if err == nil && status == http.StatusOK {
				err = json.Unmarshal(answer, &s)
			}
			if err == nil && s.Keys != want {
				err = fmt.Errorf("%d keys, want %d", s.Keys, want)
			}
			return err
		})
	}
	each := 0 // chunks of a prompt at all engines
	for _, e := range engines {
		each += 512 / e.size
	}
	keys(each)
	for i := range engines {
		hits, err := c.lookup(prompt(i))
		if name := fmt.Sprintf("e%d", i); err != nil || len(hits) != 1 || hits[name] != 512 {
			t.Errorf("the first lookup of what %s holds: %v, %v", name, hits, err)
		}
	}
	for _, w := range workers {
		w.Store(shared)
	}
	keys(2 * each)
	hits, err := c.lookup(shared)
	if names := slices.Sorted(maps.Keys(hits)); err != nil || !slices.Equal(names, []string{"e0", "e1", "e2", "e3", "e4"}) {
		t.Errorf("what all hold: %v, %v", hits, err)
	}
	for name, tokens := range hits {
		if tokens != 512 {
			t.Errorf("%s holds %d tokens of it, want 512", name, tokens)
		}
	}
	var s struct {
		Hash struct {
			Mode     string
			Profiles []struct {
				Name      string
				ChunkSize int `json:"chunk_size"`
				Instances []string
			}
		}
	}
	status, answer, err := c.do(http.MethodGet, "/admin/status", nil)
	if err == nil {
		err = json.Unmarshal(answer, &s)
	}
	if err != nil || status != http.StatusOK || s.Hash.Mode != "auto" || len(s.Hash.Profiles) != len(engines) {
		t.Fatalf("status %d %s: %v", status, answer, err)
	}
	for i, e := range engines {
		found := false
		for _, p := range s.Hash.Profiles {
			found = found || p.Name == e.profile && p.ChunkSize == e.size && slices.Equal(p.Instances, []string{fmt.Sprintf("e%d", i)})
		}
		if !found {
			t.Errorf("e%d is not known by %s at %d: %+v", i, e.profile, e.size, s.Hash.Profiles)
		}
	}
}
