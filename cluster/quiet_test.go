package cluster

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// What raft says of a peer that is away is said once in a while, for each peer; all
// else every time.
func TestQuietLogger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newQuietLogger(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info}))
		for range 100 {
			l.Error("failed to heartbeat to", "peer", raft.ServerAddress("n2:9400"), "backoff time", "250ms", "error", "refused")
			l.Error("failed to appendEntries to", "peer", raft.Server{ID: "n2"}, "error", "refused")
			l.Error("failed to appendEntries to", "peer", raft.Server{ID: "n3"}, "error", "refused")
			l.Error("failed to take snapshot", "error", "no space")
			<-time.After(400 * time.Millisecond)
		}
		for part, want := range map[string]int{"failed to heartbeat": 2, "failed to appendEntries": 4, "{Voter n2 }": 2, "failed to take snapshot": 100} {
			if got := strings.Count(out.String(), part); got != want {
				t.Errorf("%q was logged %d times in 40 s, want %d", part, got, want)
			}
		}
	})
}
