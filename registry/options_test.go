package registry

import (
	"strings"
	"testing"
)

func TestOptions_Validate(t *testing.T) {
	if err := (Options{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	if err := (Options{}).withDefaults().Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	err := Options{
		MaxEvents: -1, MaxOpenEvents: -2, EventMaxAge: -3, MaxSessions: -4, SessionMaxAge: -5,
		MaxWorkers: -6, MaxLocations: -7, MaxSyncEvicts: -8, MaxRanks: -9, SyncThreshold: 1.5, Shards: 3,
	}.Validate()
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{"MaxEvents is -1", "MaxOpenEvents is -2", "EventMaxAge is -3", "MaxSessions is -4",
		"SessionMaxAge is -5", "MaxWorkers is -6", "MaxLocations is -7", "MaxSyncEvicts is -8", "MaxRanks is -9", "SyncThreshold is 1.5", "shards 3"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not named in:\n%v", want, err)
		}
	}
}

func TestBatchSet(t *testing.T) {
	b := batchSet{count: MaxSyncBatches}
	for _, id := range []int64{-1, MaxSyncBatches, 1 << 62, -1 << 63} {
		b.add(id)
	}
	if b.received != 0 {
		t.Fatalf("%d received of none", b.received)
	}
	for _, id := range []int64{0, 63, 64, 64, MaxSyncBatches - 1} {
		b.add(id)
	}
	if b.missing() != MaxSyncBatches-4 || len(b.words) != 3 {
		t.Errorf("%d missing in %d words", b.missing(), len(b.words))
	}
	list := b.list(MaxMissingListed)
	if len(list) != MaxMissingListed || list[0] != 1 || list[61] != 62 || list[62] != 65 {
		t.Errorf("%d listed: %v", len(list), list[:64])
	}
	small := batchSet{count: 3}
	small.add(1)
	if got := small.list(10); len(got) != 2 || got[0] != 0 || got[1] != 2 {
		t.Errorf("missing %v, want [0 2]", got)
	}
	small.add(0)
	small.add(2)
	if got := small.list(10); len(got) != 0 {
		t.Errorf("missing %v, want none", got)
	}
}
