package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/ingest"
	"github.com/kvctrl/kvctrl/internal/promptkeys"
	"github.com/kvctrl/kvctrl/registry"
)

// Node is the replica's place in the cluster; *cluster.Node is one.
type Node interface {
	NodeID() string
	// Identity is how others know it. Its fields are empty as long as they are not known.
	Identity() cluster.Identity
	// IsLeader, Leader and Status must answer at once, also without a quorum.
	IsLeader() bool
	Leader() (cluster.Leader, bool)
	Status() cluster.Status
	Counters() cluster.Counters
	// Ready returns nil when the replica has a leader and has caught up.
	Ready() error
	// Read waits for the freshness asked for. Without conditions it does not wait.
	Read(ctx context.Context, r cluster.Read) (cluster.Freshness, error)
	Snapshot(ctx context.Context) error

	// LeaderTransport sends a request to whoever leads, over the peer port, and gives up
	// when another replica leads before the answer has come. After its errors
	// cluster.ErrNoLeader, ErrIsLeader, ErrUnreachable and ErrStopped nothing was sent.
	LeaderTransport() http.RoundTripper
	// Only the leader does these; elsewhere they return cluster.ErrNotLeader.
	Join(ctx context.Context, r cluster.JoinRequest) (cluster.JoinResult, error)
	Leave(ctx context.Context, nodeID string, force bool) error
	Transfer(ctx context.Context, nodeID string) error
}

// State is the replicated state as this replica has it; *fsm.FSM is one.
type State interface {
	// Registry may return another one after a restore: it is asked anew each time.
	Registry() *registry.Registry
	// Applied is the index that the registry shows at least.
	Applied() uint64
	// Digest is the state's, and the index that it stands for.
	Digest() (index uint64, d registry.Digest)
	Stats() fsm.Stats
}

// Executor acts on workers; *executor.Executor is one.
type Executor interface {
	Do(ctx context.Context, c executor.Command) (registry.Event, error)
	Health(ctx context.Context, instance string, deadline time.Duration) ([]executor.WorkerHealth, error)
	Stats() executor.Stats
}

// Ingest hears the workers; *ingest.Server is one.
type Ingest interface {
	Stats() ingest.Stats
}

// Options are a server's parts and limits. Node, State, Executor, Ingest and Finder have
// no default.
type Options struct {
	Node     Node
	State    State
	Executor Executor
	Ingest   Ingest
	// Finder hashes the prompts of lookups.
	Finder *promptkeys.Finder

	// Addr is what to listen on ("0.0.0.0:9000"); port 0 takes a free one.
	Addr string
	// TLSCert and TLSKey are files; with them REST is TLS only. With TLSClientCA
	// clients must show a certificate of that authority.
	TLSCert, TLSKey, TLSClientCA string

	// MaxBody is the size in bytes of the largest body (32 MiB); beyond it 413.
	MaxBody int64
	// MaxBodies bounds the bytes of all bodies that are being handled (the larger of
	// 256 MiB and two of MaxBody); beyond it 503. Tokens take up to five times as much.
	MaxBodies int64

	// MaxConns bounds the connections of clients (8192; an idle one takes 23 KB and a
	// file descriptor); one more is closed at once. Keep it well below the process's
	// limit of open files.
	MaxConns int

	// WorkerDeadline is the executor's own deadline for a worker's answer (30 s), from
	// which the longest wait for a command's outcome follows.
	WorkerDeadline time.Duration
	// ReadWait is how long a read waits for the freshness it asks for when it names no
	// timeout (10 s).
	ReadWait time.Duration

	// HeaderTimeout and BodyTimeout bound the time a client takes to send headers
	// (10 s) and body (30 s), WriteTimeout to take the answer (30 s), IdleTimeout the
	// pause between two requests (120 s).
	HeaderTimeout, BodyTimeout, WriteTimeout, IdleTimeout time.Duration
	// MaxHeaderBytes bounds the headers (64 KiB).
	MaxHeaderBytes int
	// DrainTimeout bounds how long Serve lets requests finish once its context has
	// ended (5 s).
	DrainTimeout time.Duration

	// Environ is what GET /env shows, as os.Environ gives it: only here, because this
	// package does not read the environment. Values that are not known to be harmless
	// are masked.
	Environ []string
	// Version is shown by /openapi.json and the page.
	Version string
	Logger  hclog.Logger
	// Now is the clock (time.Now).
	Now func() time.Time
}

// DefaultDrainTimeout is how long requests may finish when the server stops.
const DefaultDrainTimeout = 5 * time.Second

// DefaultMaxConns is the bound of connections where files are not scarcer.
const DefaultMaxConns = 8192

func (o Options) withDefaults() Options {
	setDefault(&o.Addr, "0.0.0.0:9000")
	setDefault(&o.MaxBody, 32<<20)
	setDefault(&o.MaxBodies, max(256<<20, 2*o.MaxBody))
	setDefault(&o.MaxConns, DefaultMaxConns)
	setDefault(&o.WorkerDeadline, 30*time.Second)
	setDefault(&o.ReadWait, 10*time.Second)
	setDefault(&o.HeaderTimeout, 10*time.Second)
	setDefault(&o.BodyTimeout, 30*time.Second)
	setDefault(&o.WriteTimeout, 30*time.Second)
	setDefault(&o.IdleTimeout, 120*time.Second)
	setDefault(&o.MaxHeaderBytes, 64<<10)
	setDefault(&o.DrainTimeout, DefaultDrainTimeout)
	setDefault(&o.Version, "unknown")
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

func setDefault[T comparable](field *T, def T) {
	var zero T
	if *field == zero {
		*field = def
	}
}

// Validate names every fault at once. New calls it after filling in the defaults.
func (o Options) Validate() error {
	var faults []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	need(o.Node != nil, "no Node")
	need(o.State != nil, "no State")
	need(o.Executor != nil, "no Executor")
	need(o.Ingest != nil, "no Ingest")
	need(o.Finder != nil, "no Finder")
	_, _, err := net.SplitHostPort(o.Addr)
	need(err == nil, "address %q: want host:port", o.Addr)
	need((o.TLSCert == "") == (o.TLSKey == ""), "TLS certificate %q and key %q: want both or none", o.TLSCert, o.TLSKey)
	need(o.TLSClientCA == "" || o.TLSCert != "", "TLS client authority %q without a certificate of our own", o.TLSClientCA)
	need(o.MaxBody >= 1024, "largest body %d bytes: want at least 1024", o.MaxBody)
	need(o.MaxBodies >= o.MaxBody, "bytes of all bodies %d: want at least the largest body, %d", o.MaxBodies, o.MaxBody)
	need(o.MaxConns > 0, "largest number of connections %d: want at least 1", o.MaxConns)
	need(o.MaxHeaderBytes >= 4096, "largest headers %d bytes: want at least 4096", o.MaxHeaderBytes)
	for _, d := range []struct {
		name string
		v    time.Duration
	}{
		{"worker deadline", o.WorkerDeadline}, {"read wait", o.ReadWait}, {"header timeout", o.HeaderTimeout}, {"body timeout", o.BodyTimeout},
		{"write timeout", o.WriteTimeout}, {"idle timeout", o.IdleTimeout}, {"drain timeout", o.DrainTimeout},
	} {
		need(d.v > 0, "%s %v: want more than 0", d.name, d.v)
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("httpapi options: %w", errors.Join(faults...))
}
