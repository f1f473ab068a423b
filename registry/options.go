package registry

import (
	"errors"
	"fmt"

	"github.com/kvctrl/kvctrl/registry/index"
)

// Limits and periods that no option changes.
const (
	// DefaultSuspectAfter is three to six of the heartbeat periods people set.
	DefaultSuspectAfter Micros = 60 * second
	// DefaultSyncTimeout is LMCache's full_sync_timeout_s.
	DefaultSyncTimeout Micros = 300 * second

	// MaxSyncBatches is the largest batch count of a full sync: at LMCache's 2 000
	// keys a batch, two thousand million keys.
	MaxSyncBatches = 1 << 20
	// MaxMissingListed bounds the list in a SyncStatus. A worker sends the listed
	// batches again and asks again, so a longer list would save nothing.
	MaxMissingListed = 1024

	second Micros = 1_000_000
	hour   Micros = 3600 * second
)

// Options bound what a registry keeps. The zero value of each field means its
// default.
//
// Determinism: all but SyncThreshold and Shards decide what Apply does, so they must be equal
// on every replica. kvctrld leaves them at their defaults; tests set them small.
type Options struct {
	MaxEvents     int    // finished events kept (10 000)
	MaxOpenEvents int    // events open at a time (4 096); more are refused
	EventMaxAge   Micros // age at which a finished event is dropped (24 h)

	// ConfirmWithin is how long a finished move waits for its destination's events before
	// it is called unconfirmed (30 s).
	ConfirmWithin Micros

	MaxSessions   int    // batch sessions remembered (1 024); the longest silent goes first
	SessionMaxAge Micros // silence after which a session is forgotten (1 h)

	MaxWorkers   int // workers registered at a time (65 536)
	MaxRanks     int // of them of one instance (1 024)
	MaxLocations int // streams of one worker (64)

	// MaxSyncEvicts bounds the keys evicted during one full sync that are
	// remembered until it ends (262 144, about 10 MB). Beyond it the sync fails.
	MaxSyncEvicts int

	// SyncThreshold is LMCache's full_sync_completion_threshold (0.8): the share of a wave
	// of full syncs that lets the last ones out of their freeze. For queries only.
	SyncThreshold float64

	Shards int // of the chunk index: a power of two (256)
}

func (o Options) withDefaults() Options {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.MaxEvents, 10_000)
	def(&o.MaxOpenEvents, 4096)
	def(&o.MaxSessions, 1024)
	def(&o.MaxWorkers, 1<<16)
	def(&o.MaxRanks, 1024)
	def(&o.MaxLocations, 64)
	def(&o.MaxSyncEvicts, 1<<18)
	if o.EventMaxAge == 0 {
		o.EventMaxAge = 24 * hour
	}
	if o.SessionMaxAge == 0 {
		o.SessionMaxAge = hour
	}
	if o.ConfirmWithin == 0 {
		o.ConfirmWithin = 30 * second
	}
	if o.SyncThreshold == 0 {
		o.SyncThreshold = 0.8
	}
	return o
}

// Validate names every value out of bounds, all at once.
func (o Options) Validate() error {
	var faults []error
	positive := func(name string, v int64) {
		if v < 0 {
			faults = append(faults, fmt.Errorf("%s is %d: it must be at least 1, or 0 for the default", name, v))
		}
	}
	positive("MaxEvents", int64(o.MaxEvents))
	positive("MaxOpenEvents", int64(o.MaxOpenEvents))
	positive("EventMaxAge", int64(o.EventMaxAge))
	positive("ConfirmWithin", int64(o.ConfirmWithin))
	positive("MaxSessions", int64(o.MaxSessions))
	positive("SessionMaxAge", int64(o.SessionMaxAge))
	positive("MaxWorkers", int64(o.MaxWorkers))
	positive("MaxRanks", int64(o.MaxRanks))
	positive("MaxLocations", int64(o.MaxLocations))
	positive("MaxSyncEvicts", int64(o.MaxSyncEvicts))
	if o.SyncThreshold < 0 || o.SyncThreshold > 1 {
		faults = append(faults, fmt.Errorf("SyncThreshold is %g: it must be from 0 to 1", o.SyncThreshold))
	}
	if err := (index.Options{Shards: o.Shards}).Validate(); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}
