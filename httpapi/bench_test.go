package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
)

// BenchmarkLookup is a whole lookup over HTTP on loopback: one client, one connection,
// a body as curl would send it.
func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{2048, 32768} {
		prompt := counting(100_000, n)
		for _, c := range []struct{ name, profile, held string }{
			{"hit", "builtin@0", "builtin@0"}, {"miss", "builtin@0", ""}, {"auto-hit", promptkeys.Auto, "builtin@0"}, {"auto-miss", promptkeys.Auto, ""}, {"sha256_cbor-hit", "sha256_cbor@seed=0", "sha256_cbor@seed=0"},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				r := newRig(b, func(o *Options) { o.Finder = finder(b, c.profile) })
				r.register("i", 0)
				r.admit("i", 0, "LocalCPUBackend", chain(b, "builtin@0", counting(0, 512))...)
				if c.held != "" {
					r.admit("i", 0, "LocalCPUBackend", chain(b, c.held, prompt)...)
				}
				base, _ := r.serve()
				client := newClient(b)
				body := lookupBody(prompt, "")
				want := "{}"
				if c.held != "" {
					want = fmt.Sprintf(`{"i":["LocalCPUBackend",%d]}`, n)
				}
				if got := layout(b, r.post("/lookup", body)); got != want {
					b.Fatalf("%s, want %s", got, want)
				}
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					resp, err := client.Post(base+"/lookup", "application/json", strings.NewReader(body))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
						b.Fatal(resp.StatusCode, err)
					}
					resp.Body.Close()
				}
			})
		}
	}
}

// BenchmarkFind is the search alone.
func BenchmarkFind(b *testing.B) {
	for _, c := range []struct{ name, profile, held string }{{"hit", "builtin@0", "builtin@0"}, {"miss", "builtin@0", ""}, {"auto-miss", promptkeys.Auto, ""}} {
		for _, n := range []int{2048, 32768} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				r := newRig(b, func(o *Options) { o.Finder = finder(b, c.profile) })
				r.register("i", 0)
				tokens := counting(100_000, n)
				if c.held != "" {
					r.admit("i", 0, "LocalCPUBackend", chain(b, c.held, tokens)...)
				}
				find := func() []promptkeys.Hit {
					return r.s.opts.Finder.Find(r.state.Registry(), promptkeys.Prompt{Tokens: tokens}).Hits
				}
				if hits := find(); len(hits) > 0 != (c.held != "") || len(hits) > 0 && hits[0].Chunks != n/256 {
					b.Fatalf("found %+v", hits)
				}
				b.ReportAllocs()
				for b.Loop() {
					find()
				}
			})
		}
	}
}

// BenchmarkBody is reading a lookup's body alone: in one pass, and the general way.
func BenchmarkBody(b *testing.B) {
	for _, n := range []int{2048, 32768} {
		body := []byte(lookupBody(counting(100_000, n), ""))
		b.Run(fmt.Sprintf("one-pass/%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			var slice []int64
			for b.Loop() {
				var ok bool
				if slice, ok = scanTokens(body, slice); !ok {
					b.Fatal("refused")
				}
			}
		})
		b.Run(fmt.Sprintf("general/%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := bodyLookup.parse(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
