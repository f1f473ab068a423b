package ingest

import (
	"context"
	"time"
)

// localWait bounds how long an acknowledged batch waits for this replica to apply it
// too before its waiters are told: an answer may be followed at once by a question to
// this replica. A follower learns of a commit 5 to 10 ms after the leader's answer.
const localWait = 250 * time.Millisecond

// word is what became of a batch, for those who wait for it. Their weight stays in the
// queue until they are told.
type word struct {
	waiters []waiter
	verdict verdict
	index   uint64    // that this replica shall have applied first; 0: at once
	until   time.Time // or not wait for any longer
}

// say lets w be told. Under mu.
func (q *batcher) say(w word) {
	w.until = time.Now().Add(localWait)
	q.words = append(q.words, w)
	q.changed.Broadcast()
}

// endTelling makes tellAll return when all is told.
func (q *batcher) endTelling() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.silent = true
	q.changed.Broadcast()
}

// tellAll tells the waiters, in the order of the batches, beside the batcher, which
// goes on meanwhile. Owned by run; it waits for the state only.
func (q *batcher) tellAll(ctx context.Context) {
	for {
		q.mu.Lock()
		for len(q.words) == 0 && !q.silent {
			q.changed.Wait()
		}
		if len(q.words) == 0 {
			q.mu.Unlock()
			return
		}
		w := q.words[0]
		q.words[0] = word{}
		q.words = q.words[1:]
		q.mu.Unlock()

		if w.index > 0 {
			ctx, cancel := context.WithDeadline(ctx, w.until)
			_ = q.state.WaitApplied(ctx, w.index) // told in any case
			cancel()
		}
		for _, x := range w.waiters {
			o := outcome{Err: w.verdict.err, Duplicate: w.verdict.result.Duplicate}
			if x.record >= 0 && x.record < len(w.verdict.result.Records) {
				o.Result = w.verdict.result.Records[x.record]
			}
			x.tell(o)
		}
		q.mu.Lock()
		q.bytes -= waiterBytes * len(w.waiters)
		q.changed.Broadcast()
		q.mu.Unlock()
	}
}
