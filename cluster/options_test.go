package cluster

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestOptions_Defaults(t *testing.T) {
	o := Options{FSM: &ledger{}}.withDefaults()
	if err := o.Validate(); err != nil {
		t.Fatalf("the defaults are refused: %v", err)
	}
	if got := o.timings(); got != (timings{500 * time.Millisecond, 500 * time.Millisecond, 400 * time.Millisecond, 5 * time.Millisecond}) {
		t.Errorf("timings %+v", got)
	}
	for _, factor := range []float64{0.4, 1, 3, 20} {
		o.TimingFactor = factor
		if err := raft.ValidateConfig(o.raftConfig("n1")); err != nil {
			t.Errorf("factor %v: raft refuses: %v", factor, err)
		}
	}
}

// All faults come at once, each with its value.
func TestOptions_AllFaultsAtOnce(t *testing.T) {
	o := Options{
		NodeID: "not an id", LogStore: "paper", TimingFactor: 0.1, SnapshotThreshold: 2, TrailingLogs: 1, SnapshotBytes: 7,
		SnapshotInterval: time.Nanosecond, MaxEntry: 3, MaxInFlight: -1, MinFreeBytes: -5, StoreTimeout: -1,
		PeerAddr: "nowhere", PeerAdvertise: "0.0.0.0:0", LeaderTasks: []LeaderTask{{Name: "nothing"}},
	}
	_, err := Open(context.Background(), o)
	if err == nil {
		t.Fatal("opened")
	}
	for _, want := range []string{
		"no state machine", `"not an id"`, `"paper"`, "0.1", "threshold 2", "trailing logs 1", "bytes 7", "interval 1ns",
		"entry 3", "flight -1", "space -5", "timeout -1ns", `"nowhere"`, `"0.0.0.0:0"`, `"nothing"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in\n%v", want, err)
		}
	}
}

func TestOptions_AddressThatNobodyCanDial(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:9400", ":9400", "[::]:9400"} {
		o := Options{FSM: &ledger{}, PeerAddr: addr}.withDefaults()
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "--peer-advertise") {
			t.Errorf("%s: %v, want advice", addr, err)
		}
		o.PeerAdvertise = "replica-0:9400"
		if err := o.Validate(); err != nil {
			t.Errorf("%s with an address to advertise: %v", addr, err)
		}
	}
}
