package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
)

// BenchmarkAutoMiss sets a miss under auto against one under a fixed profile, over HTTP, on
// 2 048 tokens: by turns in one run, so that what else the machine does weighs on both. The
// figures are medians, and auto/fixed is the promise: at most 2 in the first row.
func BenchmarkAutoMiss(b *testing.B) {
	const tokens = 2048
	inUse := []string{"builtin@0", "builtin@seed=0", "sha256_cbor@seed=0", "xxhash@seed=0"}
	for _, c := range []struct {
		name  string
		o     promptkeys.Options
		inUse []string
	}{
		{"default", promptkeys.Options{}, nil},
		{"1-in-use", promptkeys.Options{}, inUse[:1]},
		{"4-in-use", promptkeys.Options{}, inUse},
		{"1-seed", promptkeys.Options{Seeds: []string{"4711"}}, nil},
		{"2-seeds", promptkeys.Options{Seeds: []string{"4711", "4712"}}, nil},
		{"sizes-256,512", promptkeys.Options{ChunkSizes: []int{256, 512}}, nil},
		{"sizes-256,64", promptkeys.Options{ChunkSizes: []int{256, 64}}, nil},
		{"sizes-256,16", promptkeys.Options{ChunkSizes: []int{256, 16}}, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			auto, err := promptkeys.New(c.o)
			if err != nil {
				b.Fatal(err)
			}
			miss := func(r *rig) func() time.Duration {
				r.register("i", 0)
				for i, profile := range c.inUse {
					held := counting(10_000*i, 512)
					r.admit("i", 0, "LocalCPUBackend", chain(b, profile, held)...)
					r.post("/lookup", lookupBody(held, ""))
				}
				base, _ := r.serve()
				client := newClient(b)
				body := lookupBody(counting(100_000, tokens), "")
				if got := layout(b, r.post("/lookup", body)); got != "{}" {
					b.Fatalf("no miss: %s", got)
				}
				return func() time.Duration {
					began := time.Now()
					resp, err := client.Post(base+"/lookup", "application/json", strings.NewReader(body))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
						b.Fatal(resp.StatusCode, err)
					}
					resp.Body.Close()
					return time.Since(began)
				}
			}
			underFixed, underAuto := miss(newRig(b)), miss(newRig(b, func(o *Options) { o.Finder = auto }))
			var fixed, found []time.Duration
			for b.Loop() {
				fixed = append(fixed, underFixed())
				found = append(found, underAuto())
			}
			median := func(list []time.Duration) float64 {
				slices.Sort(list)
				return float64(list[len(list)/2].Nanoseconds())
			}
			f, a := median(fixed), median(found)
			b.ReportMetric(f, "fixed-ns")
			b.ReportMetric(a, "auto-ns")
			b.ReportMetric(a/f, "auto/fixed")
			b.ReportMetric(0, "ns/op") // of both together: says nothing
			if n := len(auto.Stats(newState().Registry()).Profiles); n != len(c.inUse) {
				b.Fatal(fmt.Sprint(n, " profiles have hit, want ", len(c.inUse)))
			}
		})
	}
}
