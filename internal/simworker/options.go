package simworker

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/lmcache"
)

// The locations that LMCache's backends report.
const (
	LocalCPU  = "LocalCPUBackend"
	LocalDisk = "LocalDiskBackend"
)

// Options configures a Worker. Instance, Pull and Reply have no default.
type Options struct {
	Instance string
	Rank     int64
	// Pull and Reply are the controller's sockets, host:port.
	Pull, Reply string

	// IP is what the worker registers and binds its command port to. Default 127.0.0.1.
	IP string
	// Port of the command port. 0: any free one.
	Port int
	// Deaf: nothing listens on the port that is registered, which must be given.
	Deaf bool
	// PeerInitURL is the address that peers know the worker by. Default with Peers:
	// IP and the command port + 500. Nil without: no P2P.
	PeerInitURL *string
	// Peers are the workers that chunks can be moved to.
	Peers *Peers

	// HeartbeatEvery: 0 is never, LMCache's default. HeartbeatDelay is the time to the
	// first one; default HeartbeatEvery.
	HeartbeatEvery, HeartbeatDelay time.Duration

	// Capacity is how many chunks each location holds. 0: any number.
	Capacity int
	// ChunkSize in tokens and Profile of the chunk hash. Default 256 and builtin@0.
	ChunkSize int
	Profile   string

	// BatchOps and BatchDelay: events leave when there are so many, or after so long.
	// Default 50 and 10ms, LMCache's.
	BatchOps   int
	BatchDelay time.Duration
	// MaxQueued is how many operations may wait to be sent before Store waits. LMCache
	// has no bound. Default 1 000 000.
	MaxQueued int
	// AnswerTimeout is how long to wait for the controller's answer. Default 30s.
	AnswerTimeout time.Duration

	Sync SyncOptions
	// Script replaces answers to commands, by message type; "*" is any.
	Script map[string]Scripted

	// Seed of what LMCache draws: sync ids and delays.
	Seed uint64
	// Context is the ZeroMQ context. Default: one of its own.
	Context *zmq.Context
	Logger  hclog.Logger // default: none
}

// SyncOptions are LMCache's full_sync_* settings; the defaults are its own. A negative
// duration is none.
type SyncOptions struct {
	Delay     time.Duration // up to so long before the start, at random. 5s
	Poll      time.Duration // between questions for the status. 5s
	Pause     time.Duration // between batches. 5ms
	Retry     time.Duration // between attempts to start. 1s
	BatchKeys int           // 2000
	Starts    int           // attempts to start. 3
	Polls     int           // questions. 60
	Resends   int           // rounds of sending missing batches again. 3
	// Lose says which batches of the first round do not reach the controller.
	Lose func(batch int) bool
	// LoseEnd: the first end does not reach the controller.
	LoseEnd bool
}

// Scripted is an answer that a command gets instead of the simulated one.
type Scripted struct {
	Delay   time.Duration
	Message lmcache.Message // nil: Raw
	Raw     []byte          // nil, with a nil Message: the simulated answer, after Delay
	Silent  bool            // no answer at all
}

func (o Options) withDefaults() Options {
	def(&o.IP, "127.0.0.1")
	def(&o.ChunkSize, lmcache.DefaultChunkSize)
	def(&o.Profile, "builtin@0")
	def(&o.BatchOps, 50)
	def(&o.BatchDelay, 10*time.Millisecond)
	def(&o.MaxQueued, 1_000_000)
	def(&o.AnswerTimeout, 30*time.Second)
	def(&o.HeartbeatDelay, o.HeartbeatEvery)
	def(&o.Sync.Delay, 5*time.Second)
	def(&o.Sync.Poll, 5*time.Second)
	def(&o.Sync.Pause, 5*time.Millisecond)
	def(&o.Sync.Retry, time.Second)
	def(&o.Sync.BatchKeys, 2000)
	def(&o.Sync.Starts, 3)
	def(&o.Sync.Polls, 60)
	def(&o.Sync.Resends, 3)
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func (o Options) validate() error {
	var faults []error
	if o.Instance == "" || o.Pull == "" || o.Reply == "" {
		faults = append(faults, fmt.Errorf("simulated worker: instance %q, pull %q, reply %q: all three are needed", o.Instance, o.Pull, o.Reply))
	}
	if o.Deaf && o.Port == 0 {
		faults = append(faults, errors.New("simulated worker: deaf, so the port to register must be given"))
	}
	if o.BatchOps < 1 || o.Sync.BatchKeys < 1 || o.MaxQueued < 1 || o.Capacity < 0 {
		faults = append(faults, fmt.Errorf("simulated worker: batch of %d operations, sync batch of %d keys, queue of %d, capacity %d: "+
			"want at least 1 (capacity: 0)", o.BatchOps, o.Sync.BatchKeys, o.MaxQueued, o.Capacity))
	}
	return errors.Join(faults...)
}
