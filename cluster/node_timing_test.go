package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// BenchmarkPropose is the time from Propose to its answer on a cluster of one, one
// entry at a time: two fdatasyncs with bolt, one with wal.
func BenchmarkPropose(b *testing.B) {
	for _, store := range []string{LogStoreBolt, LogStoreWAL} {
		for _, kb := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/%dKB", store, kb), func(b *testing.B) {
				o := testOptions(b, b.TempDir())
				o.LogStore = store
				n := mustOpen(b, o)
				await(b, "ready", n.Ready)
				entry := make([]byte, kb<<10)
				b.SetBytes(int64(len(entry)))
				for b.Loop() {
					if _, err := n.Propose(context.Background(), entry); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkReadLinearizable has 64 readers at once; they share entries.
func BenchmarkReadLinearizable(b *testing.B) {
	n := mustOpen(b, testOptions(b, b.TempDir()))
	await(b, "ready", n.Ready)
	before := n.Counters().Applied
	start := time.Now()
	b.SetParallelism(32) // times GOMAXPROCS
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := n.Read(context.Background(), Read{Consistency: Linearizable}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(n.Counters().Applied-before)/time.Since(start).Seconds(), "entries/s")
}

// BenchmarkReadStale is what every lookup pays.
func BenchmarkReadStale(b *testing.B) {
	n := mustOpen(b, testOptions(b, b.TempDir()))
	await(b, "ready", n.Ready)
	for b.Loop() {
		if _, err := n.Read(context.Background(), Read{}); err != nil {
			b.Fatal(err)
		}
	}
}
