package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

const (
	pathHeard = "/ingest/heard"

	// maxHeardPart is at about how many bytes what was heard is cut into requests: names
	// are the workers' own, up to a kilobyte each.
	maxHeardPart = 32 << 10
)

// everySecond does, every HeardEvery, what is due: it tells the leader whom this replica
// has heard of (the leader's own notes wait for its LeaseTask), and as the leader looks who
// has started the sync that it was asked for. Owned by Serve; it ends with ctx, after a
// last attempt, and blocks in requests to the leader.
func (s *Server) everySecond(ctx context.Context) {
	tick := time.NewTicker(s.opts.HeardEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
			defer cancel()
			s.sendHeard(last)
			return
		case <-tick.C:
			s.noteTerm()
			s.lookAtSlots()
			s.sendHeard(ctx)
		}
	}
}

// sendHeard sends the notes to the leader and takes back what it did not acknowledge.
func (s *Server) sendHeard(ctx context.Context) {
	if s.leads() {
		return
	}
	heard := s.onlyRegistered(s.notes.take())
	if len(heard) == 0 {
		return
	}
	parts := leaseParts(registry.Lease{Heard: heard}, maxHeardPart)
	for i, part := range parts {
		part.At = micros(s.opts.Now())
		if _, err := s.askLeader(ctx, pathHeard, fsm.EncodeLease(part)); err != nil {
			for _, late := range parts[i:] {
				s.notes.put(late.Heard) // twice is harmless: a note says when, not how often
			}
			s.stats.heardLate.Add(1)
			// Without a leader this is every second's news.
			if !errors.Is(err, cluster.ErrNoLeader) && !errors.Is(err, cluster.ErrNotLeader) && ctx.Err() == nil {
				s.logger.Debug("the leader was not told who was heard", "parts", len(parts)-i, "error", err)
			}
			return
		}
		s.stats.heardSent.Add(uint64(len(part.Heard)))
	}
}

// takeHeardOf takes what another replica has heard into the notes, from where the next
// lease has it. The body is a lease entry that names nobody else.
//
// Times are the other replica's clock. What counts is how long ago they were when the
// request was made, so that a clock that is behind makes nobody silent.
func (s *Server) takeHeardOf(body []byte) ([]byte, error) {
	entry, err := fsm.Decode(body)
	if err != nil {
		return nil, err
	}
	lease, ok := entry.Value.(registry.Lease)
	if !ok || len(lease.Expired) > 0 {
		return nil, fmt.Errorf("%s of %d expired workers: want a lease that names who was heard and nobody else", entry.Type, len(lease.Expired))
	}
	now := micros(s.opts.Now())
	on := func(t registry.Micros) registry.Micros {
		if t == 0 {
			return 0
		}
		return now - max(lease.At-t, 0)
	}
	for _, h := range lease.Heard {
		s.noted(h.WorkerRef, times{on(h.Any), on(h.Heartbeat)})
	}
	s.stats.heardTaken.Add(uint64(len(lease.Heard)))
	return nil, nil
}
