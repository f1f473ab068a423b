package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// BenchmarkSubmit has one batch at a time of 64 KiB of operations, at the leader and at
// a follower, with three replicas on this machine and disk: the difference is the way
// over the peer port.
func BenchmarkSubmit(b *testing.B) {
	for _, store := range []string{LogStoreBolt, LogStoreWAL} {
		for _, where := range []string{"leader", "follower"} {
			b.Run(store+"/"+where, func(b *testing.B) {
				c := openCluster(b, 3, func(_ int, o *Options) { o.LogStore = store })
				n, others := c.leader()
				if where == "follower" {
					n = others[0]
				}
				keys := make([]registry.Key, 8000)
				for i := range keys {
					keys[i] = registry.Key(i)
				}
				stream := registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: "vllm-0"}, Location: "LocalCPUBackend"}
				number := uint64(0)
				for b.Loop() {
					number++
					batch := fsm.NewBatch(registry.SessionID{1})
					if number == 1 {
						batch.Register(registry.Registration{WorkerRef: stream.WorkerRef, IP: "10.0.0.1", Port: 9000, At: now()})
					}
					batch.Ops(registry.Ops{Stream: stream, Keys: keys, Evict: make(registry.Bitmap, len(keys)/8), First: int64(number-1) * int64(len(keys)), Numbered: true, At: now()})
					if _, err := n.Submit(context.Background(), batch.Encode(number, now())); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkReadLinearizable_Follower has readers at a follower; they share questions
// to the leader.
func BenchmarkReadLinearizable_Follower(b *testing.B) {
	for _, readers := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d readers", readers), func(b *testing.B) {
			c := openCluster(b, 3, nil)
			leader, others := c.leader()
			await(b, "ready", others[0].Ready)
			asked, start := leader.Counters().PeerRequests, time.Now()
			b.ResetTimer() // b.Loop would be in the way of several readers
			var left atomic.Int64
			left.Store(int64(b.N))
			done := make(chan error, readers)
			for range readers {
				go func() {
					for left.Add(-1) >= 0 {
						if _, err := others[0].Read(context.Background(), Read{Consistency: Linearizable}); err != nil {
							done <- err
							return
						}
					}
					done <- nil
				}()
			}
			for range readers {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(leader.Counters().PeerRequests-asked)/time.Since(start).Seconds(), "requests/s")
		})
	}
}
