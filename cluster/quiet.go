package cluster

import (
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/internal/seldom"
)

// quietFor is for how long raft's errors about one peer that does not answer are left
// out after the first. How long that lasts is in the status and the metrics.
const quietFor = 30 * time.Second

// repetitive are the messages that raft logs again for every attempt.
var repetitive = map[string]bool{
	"failed to heartbeat to":     true,
	"failed to appendEntries to": true,
}

// quietLogger leaves out what raft repeats about a peer that is away.
//
// Concurrency: any goroutine.
type quietLogger struct {
	hclog.Logger
	limits seldom.Limiter // by message and peer
}

func newQuietLogger(l hclog.Logger) *quietLogger {
	return &quietLogger{Logger: l, limits: seldom.Limiter{Every: quietFor, Max: maxComplaints}}
}

// Error logs an error unless the same was said of the same peer a short while ago.
func (l *quietLogger) Error(msg string, args ...any) {
	if repetitive[msg] {
		if _, ok := l.limits.Due(msg+" "+peerIn(args), time.Now()); !ok {
			return
		}
	}
	l.Logger.Error(msg, args...)
}

// peerIn is the peer that raft's arguments name.
func peerIn(args []any) string {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] != "peer" {
			continue
		}
		if s, ok := args[i+1].(raft.Server); ok {
			return string(s.ID)
		}
		return fmt.Sprint(args[i+1])
	}
	return ""
}
