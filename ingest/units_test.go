package ingest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

func TestHeartbeatURL(t *testing.T) {
	const own = "10.0.0.7"
	for _, tt := range []struct {
		name, advertise, bind, worker, want string
	}{
		{"all interfaces", "", "0.0.0.0", "10.0.0.9", "10.0.0.7:8082"},
		{"all interfaces, star", "", "*", "10.0.0.9", "10.0.0.7:8082"},
		{"all interfaces, empty", "", "", "10.0.0.9", "10.0.0.7:8082"},
		{"all interfaces, worker on this machine", "", "0.0.0.0", own, "127.0.0.1:8082"},
		{"bound to one address", "", "127.0.0.1", "10.0.0.9", "127.0.0.1:8082"},
		{"bound to one address, worker on this machine", "", "10.0.0.7", own, "10.0.0.7:8082"},
		{"bound to a name", "", "controller.local", "10.0.0.9", "controller.local:8082"},
		{"advertised", "kvctrl.svc", "0.0.0.0", own, "kvctrl.svc:8082"},
		{"advertised before a bind address", "kvctrl.svc", "10.0.0.7", own, "kvctrl.svc:8082"},
		{"IPv6", "", "fd00::1", "fd00::2", "[fd00::1]:8082"},
		{"IPv6 in brackets", "[fd00::1]", "*", "", "[fd00::1]:8082"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := heartbeatURL(tt.advertise, tt.bind, own, tt.worker, 8082); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestRuns_Cut(t *testing.T) {
	ops := func(seqs ...int64) (out []lmcache.KVOp) {
		for i, s := range seqs {
			out = append(out, lmcache.KVOp{Kind: lmcache.OpKind(i % 2), Key: lmcache.Key(100 + i), Seq: s})
		}
		return out
	}
	for _, tt := range []struct {
		name string
		ops  []lmcache.KVOp
		want []string // first+length, "c" when it continues
	}{
		{"none", nil, nil},
		{"one", ops(5), []string{"5+1"}},
		{"in order", ops(0, 1, 2), []string{"0+3"}},
		{"a gap", ops(0, 1, 5, 6), []string{"0+2", "5+2c"}},
		{"a step back", ops(7, 3, 4), []string{"7+1", "3+2c"}},
		{"unnumbered", ops(0, 0, 0), []string{"0+1", "0+1c", "0+1c"}},
		{"the last number has no follower", ops(math.MaxInt64, math.MinInt64), []string{"9223372036854775807+1", "-9223372036854775808+1c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			var c runs
			err := c.cut(registry.StreamRef{}, tt.ops, 1, func(o registry.Ops) error {
				s := fmt.Sprintf("%d+%d", o.First, len(o.Keys))
				if o.Continues {
					s += "c"
				}
				if !o.Numbered {
					s += "?"
				}
				got = append(got, s)
				return nil
			})
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("cut into %v (%v), want %v", got, err, tt.want)
			}
		})
	}
}

// TestRuns_LoseNothing puts the runs of any message together again.
func TestRuns_LoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]int{1, 7, 50, maxRun - 1, maxRun, 2*maxRun + 3}).Draw(t, "operations")
		breakAt := rapid.IntRange(1, n).Draw(t, "break every")
		var in, out []lmcache.KVOp
		seq := rapid.Int64Range(0, 1<<40).Draw(t, "first")
		for i := range n {
			if i%breakAt == breakAt-1 && breakAt > n/10 {
				seq += 2
			} else {
				seq++
			}
			in = append(in, lmcache.KVOp{Kind: lmcache.OpKind(i / 3 % 2), Key: lmcache.Key(i), Seq: seq})
		}
		var c runs
		err := c.cut(registry.StreamRef{}, in, 1, func(o registry.Ops) error {
			if len(o.Keys) > maxRun || len(o.Evict) != (len(o.Keys)+7)/8 || o.Continues != (len(out) > 0) {
				t.Fatalf("run of %d keys, %d bytes of bitmap, continues %v", len(o.Keys), len(o.Evict), o.Continues)
			}
			for i, k := range o.Keys {
				kind := lmcache.Admit
				if o.Evict.Has(i) {
					kind = lmcache.Evict
				}
				out = append(out, lmcache.KVOp{Kind: kind, Key: lmcache.Key(k), Seq: o.First + int64(i)})
			}
			return nil
		})
		if err != nil || !slices.Equal(in, out) {
			t.Fatalf("%d operations in, %d out, or others (%v)", len(in), len(out), err)
		}
	})
}

func TestOptions_Validate(t *testing.T) {
	log := newMemLog()
	good := Options{Log: log, State: log, Session: session(), PullPorts: []int{8300, 9001}, ReplyPort: 8400, HeartbeatPort: 8082}
	if err := good.Validate(); err != nil {
		t.Fatalf("the usual ports: %v", err)
	}
	bad := Options{PullPorts: []int{8300, 8300}, ReplyPort: 70000, MaxBatch: 1 << 20, MaxQueue: 1, MaxPending: -1, LogPatience: -1}
	err := bad.Validate()
	for _, want := range []string{"log is nil", "state is nil", "session is all zeros", "pull port 8300 is also the pull port",
		"reply port 70000", "max batch 1048576", "max queue 1 ", "max pending -1", "log patience -1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if err := (Options{Log: log, State: log, Session: session()}).Validate(); err == nil {
		t.Error("no pull port is fine")
	}
}
