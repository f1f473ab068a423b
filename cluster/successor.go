package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// handTo gives leadership to the voter that is furthest of those that answer.
//
// raft, left to choose, takes the one that was furthest when it last heard it, dead or
// alive, and refuses every entry until its request to that one has timed out.
func (n *Node) handTo(ctx context.Context) error {
	next, err := n.successor(ctx)
	if err != nil {
		return err
	}
	return n.await(ctx, func() error { return n.raft.LeadershipTransferToServer(next.ID, next.Address).Error() })
}

// successor asks all other voters side by side. It does not wait for one that is silent
// for long once another has answered.
func (n *Node) successor(ctx context.Context) (raft.Server, error) {
	var others []raft.Server
	for _, s := range n.configuration().Servers {
		if s.Suffrage == raft.Voter && string(s.ID) != n.id {
			others = append(others, s)
		}
	}
	type answer struct {
		from raft.Server
		err  error
	}
	asking, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	answers := make(chan answer, len(others))
	for _, s := range others {
		wg.Go(func() { // Owner: this call; ends with asking, or within lookTimeout.
			there, err := n.look(asking, peerTarget{string(s.ID), string(s.Address)})
			if err == nil && there.ClusterID != n.cluster.current() {
				err = fmt.Errorf("it is in cluster %q", there.ClusterID)
			}
			answers <- answer{s, err}
		})
	}
	var best raft.Server
	var silent []string
	var late <-chan time.Time
	for range others {
		select {
		case a := <-answers:
			switch {
			case a.err != nil:
				silent = append(silent, fmt.Sprintf("node %q at %s (%v)", a.from.ID, a.from.Address, a.err))
			case best.ID == "" || n.heardApplied(a.from.ID) > n.heardApplied(best.ID):
				best = a.from
			}
			if best.ID != "" && late == nil {
				late = time.After(n.times.election / 10)
			}
		case <-late:
			return best, nil
		case <-ctx.Done():
			return best, context.Cause(ctx)
		}
	}
	if best.ID == "" {
		slices.Sort(silent)
		return best, inWords(ErrUnreachable, "no other voter answers: %s", strings.Join(silent, ", "))
	}
	return best, nil
}

// heardApplied is how far a replica was when it was last heard.
func (n *Node) heardApplied(id raft.ServerID) uint64 {
	heard, _ := n.progress.of(string(id))
	return heard.applied
}
