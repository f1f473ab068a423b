package httpapi

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A replica that stops goes through three states: not ready, while all else goes on;
// carrying out nothing, so that leadership can be handed over; and closed (Close).

// StopReady makes /readyz say that this replica stops, so that load balancers take it
// out. All else goes on.
func (s *Server) StopReady() { s.stopping.Store(true) }

// errActing is returned by StopActing when not every mutation has ended.
var errActing = errors.New("commands are still under way")

// StopActing makes this replica carry out no further mutation, for leadership to be handed
// over: it holds them until another leads, and forwards them. Until patience ends it only
// waits for a moment when none is under way, and new ones go on, so that a command that
// hangs costs nobody else anything. Then none is begun, and the last have settle to end.
func (s *Server) StopActing(ctx context.Context, patience, settle time.Duration) error {
	s.idle(ctx, patience)
	s.acts.close()
	if n := s.idle(ctx, settle); n > 0 {
		return fmt.Errorf("%w: %d", errActing, n)
	}
	return nil
}

// idleLook is how often idle looks.
const idleLook = 2 * time.Millisecond

// idle waits until no mutation is under way, and returns how many are when the time is
// over. Commands that nobody waits for any more count too.
func (s *Server) idle(ctx context.Context, limit time.Duration) int {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(idleLook)
	defer tick.Stop()
	for {
		n := max(s.acts.waiting(), s.opts.Executor.Stats().Open)
		if n == 0 {
			return 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return n
		}
	}
}
