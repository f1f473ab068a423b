package main

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/httpapi"
)

// How long a leader that is told to stop takes before it hands leadership over. All the
// while it leads and answers, but for settle: then it holds new commands for the next
// leader.
const (
	// patience is for commands under way: handing over interrupts them. A worker that
	// hangs holds the stop up for that long and no longer.
	patience = 2 * time.Second
	settle   = 100 * time.Millisecond
	// transferWithin bounds the hand-over itself, which takes milliseconds.
	transferWithin = 3 * time.Second
)

// handOver gives leadership away while this replica still does all its work, so that the
// others miss a leader for a moment only.
func handOver(node *cluster.Node, rest *httpapi.Server, log hclog.Logger) {
	rest.StopReady()
	if !node.IsLeader() || voters(node.Status()) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience+settle+transferWithin)
	defer cancel()
	if err := rest.StopActing(ctx, patience, settle); err != nil {
		log.Warn("handing leadership over interrupts commands", "error", err)
	}
	began := time.Now()
	if err := node.Transfer(ctx, ""); err != nil {
		log.Warn("leadership was not handed over", "error", err)
		return
	}
	log.Info("leadership handed over", "took", time.Since(began).Round(time.Millisecond))
}

func voters(s cluster.Status) int {
	n := 0
	for _, node := range s.Nodes {
		if node.Voter {
			n++
		}
	}
	return n
}
