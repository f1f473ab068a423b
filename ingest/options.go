package ingest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/registry"
)

// Log takes entries into the replicated log, on any replica: cluster.Node.Submit.
//
// Errors: cluster.ErrNotLeader, ErrNoLeader and ErrUnknownOutcome, and those of ctx,
// are tried again with the same entry; after ErrTooLarge, ErrInvalid, and after
// ErrStopped when this replica stops, it is given up; any other is tried again too, since
// an entry that may have been taken must not be given up.
// Order: an attempt ends with ErrUnknownOutcome as soon as another leader is known than
// the one it was sent to; ProposeTimeout is for what nobody notices.
type Log interface {
	Propose(ctx context.Context, entry []byte) (cluster.Applied, error)
}

// State is the replicated state as this replica has it.
type State interface {
	// Registry may return another one after a restore: it is asked anew each time.
	Registry() *registry.Registry
	// WaitApplied returns when this replica has applied index.
	WaitApplied(ctx context.Context, index uint64) error
}

// AnyPort binds a free port; Ports tells which.
const AnyPort = -1

// Options configures a Server. Log, State and Session have no default, and Leader none
// for a replica that has others beside it.
type Options struct {
	Log   Log
	State State
	// Leader is how this replica reaches the one that leads. Default: it is alone.
	Leader Leader
	// Session names this run of this replica's batcher: random, never used before.
	Session registry.SessionID

	// Host is the address all sockets are bound to: an IP, "*" or "" for all, or a
	// host name that resolves to an own address. Default "0.0.0.0".
	Host string
	// PullPorts, ReplyPort and HeartbeatPort: AnyPort, or a port. A ReplyPort or
	// HeartbeatPort of 0 is none (LMCache runs without a heartbeat port by default, and
	// its workers then never send heartbeats).
	PullPorts     []int
	ReplyPort     int
	HeartbeatPort int
	// AdvertiseHost is the host in heartbeat_url. Default: by LMCache's rule, see
	// advertise.go.
	AdvertiseHost string

	// MaxSyncs is how many workers of the cluster sync at the same time: a syncing engine
	// stores nothing for five seconds or more. The leader's counts. They are asked one after
	// the other, 5s / MaxSyncs apart. Default 4.
	MaxSyncs int
	// LogPatience is how long a worker's request waits for the log before it is
	// answered without it. LMCache's workers give up after 30 s, and a worker whose
	// registration is not answered stays mute until its engine restarts. Default 20s.
	LogPatience time.Duration
	// DrainTimeout bounds how long Serve goes on proposing what was taken after its
	// context has ended. Default 2s.
	DrainTimeout time.Duration
	// ProposeTimeout bounds one attempt to propose a batch. Default 10s.
	ProposeTimeout time.Duration
	// HeardEvery is how often a replica that does not lead tells the leader whom it has
	// heard of, and the leader looks who has started a sync. Default 1s: a worker's silence
	// is known that well.
	HeardEvery time.Duration

	// MaxFrame is the size in bytes of the largest frame on PULL; libzmq drops the
	// connection of who sends a larger one. Default 64 MiB: 1.6 million operations, as
	// a worker sends when a large cache is cleared. See also maxQuestion.
	MaxFrame int64
	// MaxQueue is the size in bytes, as encoded for the log and with what is kept to
	// answer, of what was taken and is not applied yet. At the bound PULL sockets are
	// not read; requests have 1/16 of it on top, and registrations room for MaxPending
	// of them on top of that. Default 64 MiB: 7 million operations.
	MaxQueue int
	// MaxBatch is the size in bytes at which a batch is full. Default 256 KiB: above
	// it throughput no longer grows, the latency of everything behind it does.
	MaxBatch int
	// MaxPending is how many requests of one ROUTER socket may be unanswered; at the
	// bound the socket is not read, and who waits in it for longer than its own
	// patience stays mute. Default 65 536: all workers that can be registered.
	MaxPending int

	// Now is the clock. Default time.Now.
	Now    func() time.Time
	Logger hclog.Logger // default: none
}

func (o Options) withDefaults() Options {
	if o.Host == "" {
		o.Host = "0.0.0.0"
	}
	def(&o.MaxSyncs, 4)
	def(&o.LogPatience, 20*time.Second)
	def(&o.DrainTimeout, 2*time.Second)
	def(&o.ProposeTimeout, 10*time.Second)
	def(&o.HeardEvery, time.Second)
	def(&o.MaxFrame, 64<<20)
	def(&o.MaxQueue, 64<<20)
	def(&o.MaxBatch, 256<<10)
	def(&o.MaxPending, 1<<16)
	if o.Now == nil {
		o.Now = time.Now
	}
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

// Validate names everything that is wrong with the options, at once.
func (o Options) Validate() error {
	o = o.withDefaults()
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if o.Log == nil {
		fault("ingest: log is nil")
	}
	if o.State == nil {
		fault("ingest: state is nil")
	}
	if o.Session == (registry.SessionID{}) {
		fault("ingest: session is all zeros, want random bytes")
	}
	if len(o.PullPorts) == 0 {
		fault("ingest: no pull port, workers could not send anything")
	}
	used := make(map[int]string)
	port := func(name string, p int, noneAllowed bool) {
		switch {
		case p == AnyPort || p == 0 && noneAllowed:
			return
		case p < 1 || p > 65535:
			fault("ingest: %s port %d, want 1 to 65535", name, p)
			return
		}
		if other, taken := used[p]; taken {
			fault("ingest: %s port %d is also the %s port", name, p, other)
		}
		used[p] = name
	}
	for _, p := range o.PullPorts {
		port("pull", p, false)
	}
	port("reply", o.ReplyPort, true)
	port("heartbeat", o.HeartbeatPort, true)
	// The largest record (a sync batch) must fit into an entry of its own.
	if o.MaxBatch < 4<<10 || o.MaxBatch > maxMaxBatch {
		fault("ingest: max batch %d bytes, want %d to %d", o.MaxBatch, 4<<10, maxMaxBatch)
	}
	if o.MaxQueue < 4*o.MaxBatch {
		fault("ingest: max queue %d bytes, want at least four batches of %d", o.MaxQueue, o.MaxBatch)
	}
	if o.MaxFrame < 1<<20 {
		fault("ingest: max frame %d bytes, want at least %d", o.MaxFrame, 1<<20)
	}
	if o.MaxPending < 1 || o.MaxSyncs < 1 {
		fault("ingest: max pending %d and max syncs %d, want at least 1", o.MaxPending, o.MaxSyncs)
	}
	if o.LogPatience <= 0 || o.DrainTimeout <= 0 || o.ProposeTimeout <= 0 || o.HeardEvery <= 0 {
		fault("ingest: log patience %v, drain timeout %v, propose timeout %v, heard every %v, want more than 0",
			o.LogPatience, o.DrainTimeout, o.ProposeTimeout, o.HeardEvery)
	}
	return errors.Join(faults...)
}

// micros is the time as entries carry it.
func micros(t time.Time) registry.Micros { return registry.Micros(t.UnixMicro()) }
