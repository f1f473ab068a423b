package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// TestBatcher_ExactlyOnceInOrderOverLeaderChanges: three replicas' batchers on one log
// whose leader changes, with every way in which an attempt can fail, and with copies of
// attempts that arrive when their batch is long in the log. The registry is the judge: a
// repeat, a swap or a loss is a gap in its books.
func TestBatcher_ExactlyOnceInOrderOverLeaderChanges(t *testing.T) {
	const per = 300
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			bad := true
			c := newReplicas(t, seed, func(roll int) fate {
				if !bad || roll >= 60 {
					return fine
				}
				return []fate{unsent, answerLost, stuck, delayed, notLeader, busy, leaderStops, stuck, answerLost, delayed}[roll/6]
			})
			var told atomic.Int64
			var adding, running sync.WaitGroup
			var queues []*batcher
			for _, n := range c.nodes {
				o := Options{Log: n, State: n, Session: session(), MaxBatch: 4 << 10, MaxQueue: 16 << 10}.withDefaults()
				q := newBatcher(o, newCounters())
				queues = append(queues, q)
				running.Go(func() { q.run(context.Background()) })
				w := registry.WorkerRef{Instance: fmt.Sprint(n.id), Worker: 1}
				must(t, q.add(asRequest, 0, func(b *fsm.Batch) int {
					return b.Register(registry.Registration{WorkerRef: w, IP: "10.0.0.1", Port: 1, At: 1})
				}, nil))
				for _, location := range []string{"L", "M"} {
					adding.Go(func() {
						for seq := range int64(per) {
							if seq%50 == 49 {
								time.Sleep(200 * time.Millisecond)
							}
							err := q.add(asEvent, 1, func(b *fsm.Batch) int {
								return b.Ops(registry.Ops{Stream: registry.StreamRef{WorkerRef: w, Location: location},
									Keys: []registry.Key{registry.Key(seq + 1)}, First: seq, Numbered: true, At: 1})
							}, func(o outcome) {
								if o.Err == nil {
									told.Add(1)
								}
							})
							if err != nil {
								t.Error(err)
							}
						}
					})
				}
			}
			rng := rand.New(rand.NewPCG(seed, 2))
			for range 20 {
				c.elect(rng.IntN(4) - 1)
				time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
			}
			c.mu.Lock()
			bad = false
			c.mu.Unlock()
			c.elect(0)
			adding.Wait()
			for _, q := range queues {
				q.close()
			}
			running.Wait()
			c.late.Wait()

			if told.Load() != 6*per {
				t.Errorf("seed %d: %d operations were acknowledged, want %d", seed, told.Load(), 6*per)
			}
			for _, w := range c.nodes[1].Registry().Workers("") {
				for _, l := range w.Locations {
					if l.Gaps != 0 || l.NextSeq != per || l.Keys != per {
						t.Errorf("seed %d: worker %s: %+v, want %d operations without a gap", seed, w.Instance, l, per)
					}
				}
			}
			if totals := c.nodes[1].Registry().Totals(); totals.Keys != 6*per {
				t.Errorf("seed %d: %d keys, want %d", seed, totals.Keys, 6*per)
			}
			for _, n := range c.nodes[1:] {
				if n.Registry().Digest() != c.nodes[0].Registry().Digest() {
					t.Errorf("seed %d: replica %d differs", seed, n.id)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
}

// TestBatcher_PromptWithTheNextLeader: however long there was no leader, the batch that
// waits is in the log soon after there is one.
func TestBatcher_PromptWithTheNextLeader(t *testing.T) {
	for name, meanwhile := range map[string]error{
		"refused at once":          &cluster.NotLeaderError{},
		"no connection at once":    cluster.ErrUnknownOutcome,
		"the leader says it stops": cluster.ErrStopped,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newMemLog()
				began := time.Now()
				const away = 5 * time.Second
				log.fail(func([]byte) (bool, error) {
					if time.Since(began) < away {
						return false, meanwhile
					}
					return true, nil
				})
				if o := await(t, runBatcher(t, log, nil), register); o.Err != nil {
					t.Fatal(o.Err)
				}
				if took := time.Since(began); took > away+retryMax*3/2 {
					t.Errorf("in the log %v after there was a leader, want at most %v", took-away, retryMax*3/2)
				}
			})
		})
	}
	t.Run("held by the log", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := newReplicas(t, 1, func(int) fate { return fine })
			q := newBatcher(Options{Log: c.nodes[2], State: c.nodes[2], Session: session()}.withDefaults(), newCounters())
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { q.run(ctx) })
			told := make(chan time.Time, 1)
			must(t, q.add(asRequest, 0, register, func(outcome) { told <- time.Now() }))
			time.Sleep(3333 * time.Millisecond)
			since := time.Now()
			c.elect(0)
			if at := <-told; at.Sub(since) > retryMax*3/2 {
				t.Errorf("told %v after the election", at.Sub(since))
			}
			cancel()
			running.Wait()
		})
	})
}

// TestBatcher_StoppedLogIsFinalOnlyAtItsOwnStop: a leader that stops is no reason to give
// a batch up; this replica's own stop is.
func TestBatcher_StoppedLogIsFinalOnlyAtItsOwnStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog()
		log.fail(func([]byte) (bool, error) { return false, cluster.ErrStopped })
		q := runBatcher(t, log, nil)
		told := make(chan outcome, 1)
		must(t, q.add(asEvent, 1, register, func(o outcome) { told <- o }))
		time.Sleep(time.Minute)
		if at := q.waiting(); at != time.Minute {
			t.Errorf("it waits for %v, want a minute", at)
		}
		select {
		case o := <-told:
			t.Fatalf("given up: %+v", o)
		default:
		}
		stopped := time.Now()
		q.close()
		if o := <-told; !errors.Is(o.Err, cluster.ErrStopped) || time.Since(stopped) > time.Second {
			t.Errorf("%v after the stop: %+v, want given up", time.Since(stopped), o)
		}
	})
}

// lagging is a state that does not get on until it is told to.
type lagging struct {
	*memLog
	caughtUp chan struct{}
}

func (l *lagging) WaitApplied(ctx context.Context, index uint64) error {
	select {
	case <-l.caughtUp:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestBatcher_TellsAfterTheLocalApply: who waits for a batch may look into this replica's
// state at once, so it is told when that has the batch, or after a moment; the batches
// behind do not wait for that.
func TestBatcher_TellsAfterTheLocalApply(t *testing.T) {
	for name, tt := range map[string]struct {
		after, told time.Duration // the state catches up; the waiters are told
	}{
		"soon":          {20 * time.Millisecond, 20 * time.Millisecond},
		"not soon":      {time.Hour, localWait},
		"was there all": {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newMemLog()
				state := &lagging{log, make(chan struct{})}
				q := runBatcher(t, log, func(o *Options) { o.State = state })
				began := time.Now()
				told := make(chan time.Duration, 10)
				tell := func(o outcome) {
					if o.Err != nil {
						t.Error(o.Err)
					}
					told <- time.Since(began)
				}
				must(t, q.add(asRequest, 0, register, tell))
				synctest.Wait()
				must(t, q.add(asEvent, 1, op(0), nil))
				synctest.Wait()
				must(t, q.add(asEvent, 1, op(1), tell))
				synctest.Wait()
				if n := log.applied(); n != 3 {
					t.Errorf("%d batches are in the log, want all three at once", n)
				}
				q.barrier(tell) // nothing is under way: it waits for the state alone
				if tt.after > 0 {
					synctest.Wait()
					if len(told) > 0 {
						t.Error("somebody was told before the state had it")
					}
				}
				time.Sleep(tt.after)
				close(state.caughtUp)
				for range 3 {
					if at := <-told; at != tt.told {
						t.Errorf("told after %v, want %v", at, tt.told)
					}
				}
				synctest.Wait()
				if n, _ := q.figures(); n != 0 {
					t.Errorf("%d bytes are left in the queue", n)
				}
			})
		})
	}
}
