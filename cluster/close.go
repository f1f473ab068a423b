package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How long each step of Close may take. With a working disk they take
// milliseconds.
//
// A store that hangs holds raft's goroutines for ever: then brokenLimit is all that
// each step gets, so that the process ends within a second or so of OnFatal.
const (
	brokenLimit   = 200 * time.Millisecond
	tasksLimit    = 10 * time.Second // for leader tasks, which have been told to end
	drainLimit    = time.Second      // for proposals under way; without a quorum they have no answer
	shutdownLimit = 5 * time.Second  // for raft's goroutines
	storeLimit    = 3 * time.Second  // for the store
)

// Close stops the replica: it is not ready any more, the leader's work ends,
// proposals under way get their answer, leadership is handed over, raft stops,
// connections and the log are closed, the directory is given up. It does not leave
// the cluster.
//
// It returns within its own limits or when ctx ends, and says what would not stop.
// Calls after the first wait for it, until their own ctx ends, and return the same.
func (n *Node) Close(ctx context.Context) error {
	if !n.closing.Swap(true) {
		n.closeErr = n.close(ctx)
		close(n.closed)
		return n.closeErr
	}
	select {
	case <-n.closed: // also when ctx has ended since
		return n.closeErr
	default:
	}
	select {
	case <-n.closed:
		return n.closeErr
	case <-ctx.Done():
		return fmt.Errorf("close: %w", context.Cause(ctx))
	}
}

func (n *Node) close(ctx context.Context) error {
	start := time.Now()
	var errs []error
	// With a dead disk nothing is worth waiting for; with a full one everything still
	// can be done in order.
	broken := errors.Is(n.failed(), ErrStore)
	step := func(what string, limit time.Duration, f func(context.Context) error) {
		if broken {
			limit = min(limit, brokenLimit)
		}
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		if err := f(ctx); err != nil {
			errs = append(errs, fmt.Errorf("close: %s: %w", what, err))
		}
	}
	n.calls.close()
	n.stop()
	step("leader tasks", tasksLimit, func(ctx context.Context) error { return within(ctx, func() error { n.loops.Wait(); return nil }) })
	if !broken {
		step("proposals", drainLimit, func(ctx context.Context) error { n.calls.wait(ctx); return nil })
		n.handOver(ctx)
		// What is committed and not yet applied when raft stops, raft never answers.
		step("proposals", drainLimit, func(ctx context.Context) error { n.futures.wait(ctx); return nil })
	}
	shutdown := n.raft.Shutdown()
	close(n.gone)
	// Before waiting for raft: a stalled peer would hold its goroutines.
	step("peer port", shutdownLimit, func(ctx context.Context) error {
		err := within(ctx, n.parts.transport.close)
		n.client.forget()
		return errors.Join(err, n.server.close(ctx))
	})
	stopped := false
	step("raft", shutdownLimit, func(ctx context.Context) error {
		err := within(ctx, shutdown.Error)
		stopped = err == nil
		return err
	})
	n.futures.close()
	step("proposals without an answer", drainLimit, func(ctx context.Context) error {
		if left := n.futures.wait(ctx); left > 0 {
			return fmt.Errorf("%d", left)
		}
		return nil
	})
	if stopped || !broken {
		step("log", storeLimit, func(ctx context.Context) error { return within(ctx, n.store.Close) })
	}
	if n.parts.release != nil {
		step("data directory", storeLimit, func(ctx context.Context) error { return within(ctx, n.parts.release) })
	}
	err := errors.Join(errs...)
	n.log.Info("replica stopped", "node", n.id, "took", time.Since(start).Round(time.Millisecond))
	return err
}

// within runs f and waits for it until ctx ends. A call that does not come back by
// then is left behind; the process is about to end.
func within(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
