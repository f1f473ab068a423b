package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// StateMachine is the replicated state.
//
// Order: Applied is published after a batch is applied, so that whoever has seen
// an index there sees its effects. (raft's own AppliedIndex counts what was handed
// over, not what was applied.) Entries of raft's own (no-ops) never reach it, so
// it may stand a little below the commit index when nothing is missing.
type StateMachine interface {
	raft.BatchingFSM
	// Applied returns the index of the last entry applied. Any goroutine.
	Applied() uint64
	// WaitApplied returns when Applied is at least index, or ctx's error.
	WaitApplied(ctx context.Context, index uint64) error
	// Check says why an entry could not be applied, before it is proposed: one that is
	// refused after it is committed stops every replica for good. Any goroutine.
	Check(entry []byte) error
}

// LeaderTask is work that only the leader does.
//
// Run is called once per term, after the term's first entry is applied. Its ctx is
// cancelled when leadership is lost or the node closes; it must then return soon,
// because the next term waits for it. A nil return means that there is nothing
// more to do in this term; an error ends the term's work altogether, which is then
// handed over or tried again after a pause.
type LeaderTask struct {
	Name string
	Run  func(ctx context.Context, term uint64) error
}

// Hooks are told what happens, for metrics. A nil field is not called. They run on
// the goroutines of the hot path: they must not block.
type Hooks struct {
	// Proposed is called once per entry proposed here, with the time from the call
	// to the answer. Outcome is "applied", "refused" or "unknown".
	Proposed func(outcome string, took time.Duration)
	// StoreCall is called after each call to the log store.
	StoreCall func(call string, took time.Duration, err error)
}

// Options configure a Node. The zero value of each field is usable, except FSM.
type Options struct {
	// DataDir holds the log, snapshots and the node's identity. Default
	// "kvctrl-data". Made with mode 0700, locked while the node runs.
	DataDir string
	// NodeID names this replica for good. Default: what the data directory says,
	// or a new UUID that is kept there. Another one than it says is refused.
	NodeID string
	// PeerAddr is what the peer port listens on. Default "127.0.0.1:9400".
	PeerAddr string
	// PeerAdvertise is what other replicas dial. Default: what PeerAddr is bound
	// to, which must then be an address and not "all of them".
	PeerAdvertise string
	// URL is this replica's REST URL as others reach it.
	URL string
	// Network is how bytes travel between replicas. Default TCP.
	Network Network
	// PeerTLS makes the peer port mutual TLS. Without it the port trusts whoever
	// reaches it.
	PeerTLS PeerTLS
	// PeerHandlers answer what other replicas of this cluster ask over the peer port,
	// by path prefix ("/rest/"). The path arrives whole; PeerIdentity says who asks.
	// They bound their bodies themselves. "/cluster/" is the node's own.
	PeerHandlers map[string]http.Handler

	// Join names replicas by their REST URLs: the cluster to be in. The same list on
	// every node, itself included, is fine. Only for a node without data.
	Join []string
	// BootstrapExpect is how many of those must see each other, none of them in a
	// cluster, to form a new one: more than half of them. 1 forms a cluster of one when
	// Join names nobody or only URL, else it only joins: another name that leads to this
	// replica may be a front that leads others to themselves. 0 never forms. Only for a
	// node without data.
	BootstrapExpect int
	// Discover asks a REST URL who answers there. Needed with Join.
	Discover func(ctx context.Context, url string) (Identity, error)

	// FSM is the state that entries are applied to. Required.
	FSM StateMachine
	// Members lists the replicas as the state knows them. Without it URLs of other
	// replicas are unknown.
	Members func() []registry.Member

	// LogStore is "bolt" (default) or "wal". Fixed for a data directory.
	LogStore string
	// TimingFactor scales heartbeat and election timeout (500 ms), lease (400 ms)
	// and commit timeout (5 ms) together, 0.4 to 20. Default 1. They are one number
	// because their order is what raft's safety and liveness rest on.
	TimingFactor float64

	// A snapshot is taken when SnapshotThreshold entries (default 2048) or
	// SnapshotBytes bytes (default 256 MiB) of log have come since the last one.
	// The former is looked at every SnapshotInterval to twice that (default 15 s).
	SnapshotThreshold uint64
	SnapshotBytes     int64
	SnapshotInterval  time.Duration
	// TrailingLogs entries stay behind a snapshot (default 4096), for followers
	// that are a little late and for the older snapshot when the newest is damaged:
	// at least 1.5 times SnapshotThreshold.
	TrailingLogs uint64

	// MaxEntry is the size of the largest entry in bytes. Default 512 KiB.
	MaxEntry int
	// MaxInFlight is how many entries may wait for their answer. Default 256; the
	// next caller waits. Times MaxEntry it bounds the bytes.
	MaxInFlight int
	// MinFreeBytes of disk space must be left, else the node does not start, or
	// steps aside. Default 128 MiB, -1 for no floor.
	MinFreeBytes int64
	// StoreTimeout is how long a call to the log store may take before the disk
	// counts as dead. Default 10 s.
	StoreTimeout time.Duration

	LeaderTasks []LeaderTask
	Hooks       Hooks
	Logger      hclog.Logger
	// OnFatal is told, once, that this node cannot go on (the disk failed, hangs or
	// is full). It is called on a goroutine of its own and may call Close. The
	// process should end within a second: until then a dead leader leads. The error
	// is an ErrStore or ErrDiskSpace and says what to do.
	OnFatal func(error)
}

// Names of log stores.
const (
	LogStoreBolt = "bolt"
	LogStoreWAL  = "wal"
)

func (o Options) withDefaults() Options {
	setDefault(&o.DataDir, "kvctrl-data")
	setDefault(&o.PeerAddr, "127.0.0.1:9400")
	setDefault(&o.LogStore, LogStoreBolt)
	setDefault(&o.TimingFactor, 1)
	setDefault(&o.SnapshotThreshold, 2048)
	setDefault(&o.SnapshotBytes, 256<<20)
	setDefault(&o.SnapshotInterval, 15*time.Second)
	setDefault(&o.TrailingLogs, 4096)
	setDefault(&o.MaxEntry, raft.SuggestedMaxDataSize)
	setDefault(&o.MaxInFlight, 256)
	setDefault(&o.MinFreeBytes, 128<<20)
	setDefault(&o.StoreTimeout, 10*time.Second)
	o.Join = distinct(o.Join)
	if o.Network == nil {
		o.Network = tcpNetwork{}
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

// distinct drops the URLs that name the same replica as one before.
func distinct(urls []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, u := range urls {
		if !seen[plainURL(u)] {
			seen[plainURL(u)] = true
			out = append(out, u)
		}
	}
	return out
}

func setDefault[T comparable](field *T, def T) {
	var zero T
	if *field == zero {
		*field = def
	}
}

var nodeIDPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Validate reports every fault of the options at once. Open calls it after
// filling in the defaults.
func (o Options) Validate() error {
	var faults []error
	bad := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	bad(o.FSM != nil, "no state machine given")
	bad(o.NodeID == "" || nodeIDPattern.MatchString(o.NodeID),
		"node id %q: want 1 to 64 letters, digits, dots, dashes or underscores, the first a letter or digit", o.NodeID)
	bad(o.LogStore == LogStoreBolt || o.LogStore == LogStoreWAL, "log store %q: want %q or %q", o.LogStore, LogStoreBolt, LogStoreWAL)
	bad(len(o.URL) <= fsm.MaxName, "REST URL of %d bytes: want at most %d", len(o.URL), fsm.MaxName)
	bad(len(o.PeerAdvertise) <= maxPeerAddr && len(o.PeerAddr) <= maxPeerAddr, "peer address of %d bytes: want at most %d", max(len(o.PeerAdvertise), len(o.PeerAddr)), maxPeerAddr)
	bad(!o.PeerTLS.set() || o.PeerTLS.Cert != "" && o.PeerTLS.Key != "" && o.PeerTLS.CA != "",
		"peer TLS with certificate %q, key %q, CA %q: want all three or none", o.PeerTLS.Cert, o.PeerTLS.Key, o.PeerTLS.CA)
	for prefix, h := range o.PeerHandlers {
		bad(h != nil && strings.HasPrefix(prefix, "/") && strings.HasSuffix(prefix, "/") && len(prefix) > 1 && !strings.HasPrefix(prefix, "/cluster/"),
			"peer handler for %q: want a handler, and a path like \"/rest/\" that is not the node's own", prefix)
	}
	o.validateJoin(bad)
	bad(o.TimingFactor >= 0.4 && o.TimingFactor <= 20, "timing factor %v: want 0.4 to 20 (below, pauses of an ordinary host look like a dead leader)", o.TimingFactor)
	bad(o.SnapshotThreshold >= 16, "snapshot threshold %d: want at least 16 entries", o.SnapshotThreshold)
	bad(2*o.TrailingLogs >= 3*o.SnapshotThreshold, "trailing logs %d: want at least 1.5 times the snapshot threshold %d, or a damaged snapshot cannot be made good from the one before", o.TrailingLogs, o.SnapshotThreshold)
	bad(o.SnapshotBytes >= 1<<20, "snapshot bytes %d: want at least 1 MiB", o.SnapshotBytes)
	bad(o.SnapshotInterval >= 5*time.Millisecond, "snapshot interval %v: want at least 5ms", o.SnapshotInterval)
	bad(o.MaxEntry >= 1024 && o.MaxEntry <= 16<<20, "largest entry %d: want 1 KiB to 16 MiB", o.MaxEntry)
	bad(o.MaxInFlight >= 1, "entries in flight %d: want at least 1", o.MaxInFlight)
	bad(o.MinFreeBytes >= -1, "least free disk space %d: want bytes, or -1 for none", o.MinFreeBytes)
	bad(o.StoreTimeout > 0, "log store timeout %v: want a positive duration", o.StoreTimeout)
	host, _, err := net.SplitHostPort(o.PeerAddr)
	bad(err == nil, "peer address %q: want host:port", o.PeerAddr)
	if o.PeerAdvertise == "" {
		bad(err != nil || !unspecified(host), "peer address %q cannot be dialled by others: also give the address to advertise (--peer-advertise)", o.PeerAddr)
	} else {
		host, port, err := net.SplitHostPort(o.PeerAdvertise)
		bad(err == nil && !unspecified(host) && port != "0", "advertised peer address %q: want a host:port that other replicas can dial", o.PeerAdvertise)
	}
	for i, task := range o.LeaderTasks {
		bad(task.Name != "" && task.Run != nil, "leader task %d (%q): want a name and a function", i, task.Name)
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrOptions, errors.Join(faults...))
}

// validateJoin looks at what says which cluster to be in.
func (o Options) validateJoin(bad func(ok bool, format string, args ...any)) {
	for _, u := range o.Join {
		parsed, err := url.Parse(u)
		bad(err == nil && (parsed.Scheme == "http" || parsed.Scheme == "https") && parsed.Host != "",
			"replica %q to join: want a REST URL, like http://host:9000", u)
	}
	named := len(distinct(o.Join))
	bad(len(o.Join) == 0 || o.Discover != nil, "replicas to join are named, and nothing to ask them with")
	bad(named <= maxJoin, "%d replicas to join: want at most %d", named, maxJoin)
	bad(o.BootstrapExpect >= 0, "bootstrap expect %d: want how many replicas form a cluster, or 0 to form none", o.BootstrapExpect)
	if o.BootstrapExpect < 2 {
		return
	}
	bad(len(o.Join) > 0, "bootstrap expect %d without replicas to join: name them all with --join, the same list on each", o.BootstrapExpect)
	bad(len(o.Join) == 0 || o.BootstrapExpect <= named+1, "bootstrap expect %d, and only %d replicas are named with --join: name them all", o.BootstrapExpect, named)
	bad(2*o.BootstrapExpect > named, "bootstrap expect %d of %d replicas named with --join could form two clusters: want at least %d", o.BootstrapExpect, named, named/2+1)
}

// formsAlone reports whether an empty node becomes a cluster of one at once.
func (o Options) formsAlone() bool {
	return o.BootstrapExpect == 1 && !slices.ContainsFunc(o.Join, func(u string) bool { return plainURL(u) != plainURL(o.URL) })
}

// plainURL is a URL as far as it names a replica.
func plainURL(u string) string {
	p, err := url.Parse(u)
	if err != nil {
		return u
	}
	return strings.ToLower(p.Scheme + "://" + p.Host)
}

func unspecified(host string) bool {
	if host == "" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsUnspecified()
}

// timings are raft's four, from one factor.
type timings struct {
	heartbeat, election, lease, commit time.Duration
}

func (o Options) timings() timings {
	scale := func(d time.Duration) time.Duration { return time.Duration(float64(d) * o.TimingFactor) }
	return timings{
		heartbeat: scale(500 * time.Millisecond),
		election:  scale(500 * time.Millisecond),
		lease:     scale(400 * time.Millisecond), // near the heartbeat, because heartbeats share the main loop
		commit:    max(scale(5*time.Millisecond), time.Millisecond),
	}
}

// hold is how long a call waits for a leader before it says that there is none: a
// normal election fits into it.
func (t timings) hold() time.Duration { return 2 * t.election }

// raftConfig says what we ask of raft. reference numbers and reasons: DESIGN.md,
// "Settings".
func (o Options) raftConfig(nodeID string) *raft.Config {
	t := o.timings()
	c := raft.DefaultConfig()
	c.ProtocolVersion = raft.ProtocolVersionMax
	c.LocalID = raft.ServerID(nodeID)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout, c.CommitTimeout = t.heartbeat, t.election, t.lease, t.commit
	c.MaxAppendEntries = 64
	c.BatchApplyCh = false // true makes the enqueue timeout lie
	c.ShutdownOnRemove = false
	c.TrailingLogs = o.TrailingLogs
	c.SnapshotInterval = o.SnapshotInterval
	c.SnapshotThreshold = o.SnapshotThreshold
	c.NoLegacyTelemetry = true
	c.Logger = newQuietLogger(o.Logger.Named("raft"))
	return c
}
