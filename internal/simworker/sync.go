package simworker

import (
	"context"
	"fmt"
	"time"

	"github.com/kvctrl/kvctrl/lmcache"
)

// beginSync starts a full sync, unless one runs.
func (w *Worker) beginSync(ctx context.Context) {
	w.mu.Lock()
	busy := w.syncing
	w.syncing = true
	w.mu.Unlock()
	if busy {
		return
	}
	w.group.Go(func() error {
		good := w.fullSync(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.syncing = false
		w.stats.Syncs++
		if good {
			w.stats.SyncsGood++
		}
		return nil
	})
}

// fullSync announces all that the CPU cache holds, as LMCache's full_sync_sender does,
// and reports whether the controller let the worker go. Owned by the Worker, ends with
// ctx at the latest.
func (w *Worker) fullSync(ctx context.Context) bool {
	o := w.opts.Sync
	if !pause(ctx, w.draw(o.Delay)) {
		return false
	}
	w.freeze(true)
	defer w.freeze(false)
	keys := w.store.keys(LocalCPU)
	batches := cut(keys, o.BatchKeys)
	id := w.syncID()
	if !w.startSync(ctx, id, len(keys), len(batches)) {
		return false
	}
	for i := range batches {
		if o.Lose == nil || !o.Lose(i) {
			w.sendBatch(id, int64(i), batches)
		}
		if !pause(ctx, o.Pause) {
			return false
		}
	}
	if !o.LoseEnd {
		w.sendEnd(id, len(keys))
	}
	return w.awaitThaw(ctx, id, batches, len(keys))
}

// startSync asks until the controller accepts.
func (w *Worker) startSync(ctx context.Context, id string, keys, batches int) bool {
	for attempt := range w.opts.Sync.Starts {
		if attempt > 0 && !pause(ctx, w.opts.Sync.Retry) {
			return false
		}
		m, err := w.asks.ask(ctx, &lmcache.FullSyncStartMsg{InstanceID: w.opts.Instance, WorkerID: w.opts.Rank,
			Location: LocalCPU, SyncID: id, TotalKeys: int64(keys), BatchCount: int64(batches)})
		if ret, ok := m.(*lmcache.FullSyncStartRetMsg); ok && err == nil && ret.Accepted {
			return true
		}
		w.opts.Logger.Warn("full sync was not accepted", "worker", w.String(), "attempt", attempt+1, "error", err)
	}
	return false
}

// awaitThaw asks for the status until the controller lets the worker go, and sends
// missing batches again.
func (w *Worker) awaitThaw(ctx context.Context, id string, batches [][]lmcache.Key, keys int) bool {
	resends := 0
	for range w.opts.Sync.Polls {
		if !pause(ctx, w.opts.Sync.Poll) {
			return false
		}
		m, err := w.asks.ask(ctx, &lmcache.FullSyncStatusMsg{InstanceID: w.opts.Instance, WorkerID: w.opts.Rank, SyncID: id})
		ret, ok := m.(*lmcache.FullSyncStatusRetMsg)
		switch {
		case err != nil || !ok:
			continue
		case ret.CanExitFreeze:
			return true
		case len(ret.MissingBatches) > 0 && resends < w.opts.Sync.Resends:
			resends++
			for _, i := range ret.MissingBatches {
				w.sendBatch(id, i, batches)
			}
			w.sendEnd(id, keys)
		}
	}
	return false
}

// sendBatch queues one batch; a number out of range gives an empty one.
func (w *Worker) sendBatch(id string, i int64, batches [][]lmcache.Key) {
	m := &lmcache.FullSyncBatchMsg{InstanceID: w.opts.Instance, WorkerID: w.opts.Rank, Location: LocalCPU, SyncID: id, BatchID: i}
	if i >= 0 && i < int64(len(batches)) {
		m.Keys = batches[i]
	}
	w.send.message(m)
}

func (w *Worker) sendEnd(id string, keys int) {
	w.send.message(&lmcache.FullSyncEndMsg{InstanceID: w.opts.Instance, WorkerID: w.opts.Rank, Location: LocalCPU,
		SyncID: id, ActualTotalKeys: int64(keys)})
}

func (w *Worker) freeze(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen = on
}

func (w *Worker) syncID() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%s_%d_%08x", w.opts.Instance, w.opts.Rank, w.rng.Uint32())
}

// draw returns a duration below limit.
func (w *Worker) draw(limit time.Duration) time.Duration {
	if limit <= 0 {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.rng.Int64N(int64(limit)))
}

// cut makes batches of up to size keys; without keys, one empty batch.
func cut(keys []lmcache.Key, size int) [][]lmcache.Key {
	var batches [][]lmcache.Key
	for len(keys) > size {
		batches = append(batches, keys[:size])
		keys = keys[size:]
	}
	return append(batches, keys)
}

// pause waits, and reports whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
