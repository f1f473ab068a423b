package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/internal/diskspace"
	"github.com/kvctrl/kvctrl/registry"
)

// Node is a replica's Raft node.
type Node struct {
	opts  Options
	times timings
	id    string
	log   hclog.Logger
	parts parts

	raft    *raft.Raft
	store   *watchedStore
	machine *countedMachine
	entries entries

	view     view
	fresh    freshness
	vouched  vouchers
	noop     sharedRounds // no-ops that linearizable reads ride, while this node leads
	asks     sharedRounds // questions to the leader that they ride while it follows
	peers    peerHealth
	progress peerProgress

	cluster   clusterIdentity
	formation formation
	runID     string // names this run of the process
	changes   chan change
	pending   pendingChanges
	certain   atomic.Bool // this node has been a member, and the data directory says so
	complain  *complaints
	server    *peerServer
	client    *peerClient
	marks     byteMarks
	reloading sync.Mutex // around reload

	slots   chan struct{}  // one per outstanding proposal
	calls   intake         // calls of Propose, Read and the admin methods under way
	futures intake         // goroutines that wait for raft's answers
	loops   sync.WaitGroup // the node's own goroutines

	life     context.Context // ends when Close begins
	stop     context.CancelFunc
	stopping <-chan struct{}       // of life
	gone     chan struct{}         // closed when raft's answers are no longer waited for
	closing  atomic.Bool           // Close has been called
	failure  atomic.Pointer[error] // what OnFatal was told
	broken   chan struct{}         // closed when that was ErrStore: nothing will be written any more

	transferRefused transferWatch
	proposals       *counters
	forwards        *counters // attempts of Submit at another replica

	closed   chan struct{} // closed when Close has returned
	closeErr error         // set before
}

// parts are what a node stands on, from the disk and the network or, in tests,
// from memory. The node owns them and closes them.
type parts struct {
	nodeID    string
	port      *peerPort
	transport raftTransport
	store     logStore
	storePath string
	snapshots raft.SnapshotStore
	// bootstrap is the configuration of a cluster to form when there is no state
	// yet. Empty: wait to be told of one.
	bootstrap raft.Configuration
	// hasState is called once the node has a log or a snapshot; hadState says that
	// it had been, in an earlier run.
	hasState func() error
	hadState bool
	// freeBytes and logBytes look at the disk; nil where there is none.
	freeBytes func() (int64, error)
	logBytes  func() int64
	// clusterID is the cluster that the node is in, "" = none yet; keepClusterID notes
	// one. nil: there is no place to.
	clusterID     string
	keepClusterID func(id string) error
	// files are for what has to be written down besides; promise is what stood there.
	files     smallFiles
	promise   *promise
	wasMember bool
	// peers are the members that an operator says are left, nil when nobody does;
	// usedPeers notes that they are followed.
	peers     *raft.Configuration
	usedPeers func() error
	// release gives up what is held besides (the directory's lock).
	release func() error
}

// Open starts a replica: it locks the data directory, opens log and snapshots,
// listens on the peer port and starts raft. An empty directory becomes a cluster of
// one with BootstrapExpect 1 and nobody to join; else the node finds its cluster, or
// founds one with others, after Open has returned. ctx is for opening only.
//
// When it returns the state is that of the newest snapshot; the entries above it
// are applied once there is a leader (Ready).
func Open(ctx context.Context, o Options) (*Node, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	var undo undoList
	p, err := diskParts(ctx, o, &undo)
	if err != nil {
		return nil, errors.Join(err, undo.run())
	}
	n, err := start(o, p)
	if err != nil {
		return nil, errors.Join(err, undo.run())
	}
	return n, nil
}

// diskParts opens what a real node stands on. What it has opened is in undo.
func diskParts(ctx context.Context, o Options, undo *undoList) (parts, error) {
	log := o.Logger.Named("cluster")
	dir, err := openDataDir(o, log)
	if err != nil {
		return parts{}, err
	}
	undo.add(dir.lock.Release)
	p := parts{nodeID: dir.nodeID, freeBytes: func() (int64, error) { return diskspace.Free(dir.path) }, logBytes: dir.logBytes, release: dir.lock.Release}
	p.hasState, p.hadState = func() error { return dir.keepLogStore(o.LogStore) }, dir.logStore != ""
	if err := checkSpace(o.MinFreeBytes, dir.path, p.freeBytes); err != nil {
		return parts{}, err
	}
	if p.store, p.storePath, err = openLogStore(dir, o.LogStore, log); err != nil {
		return parts{}, err
	}
	undo.add(p.store.Close)
	if p.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir.path, 2, log.Named("snapshot")); err != nil {
		return parts{}, dirError(dir.path, "%w", err)
	}
	p.clusterID, p.keepClusterID = dir.clusterID, dir.keepClusterID
	secure, err := loadPeerTLS(o.PeerTLS)
	if err != nil {
		return parts{}, err
	}
	if p.port, err = listenPeers(ctx, peerPortConfig{network: o.Network, listen: o.PeerAddr, advertise: o.PeerAdvertise, tls: secure, log: log}); err != nil {
		return parts{}, err
	}
	p.transport = newRaftTransport(p.port, log)
	undo.add(p.transport.close)
	if p.promise, err = loadPromise(dir); err != nil {
		return parts{}, dirError(dir.path, "%w", err)
	}
	if p.peers, err = dir.readPeers(); err != nil {
		return parts{}, err
	}
	member, err := dir.read(memberFile)
	if err != nil {
		return parts{}, err
	}
	p.files, p.usedPeers, p.wasMember = dir, dir.usedPeers, member != ""
	// Who is in a cluster already waits for its entries, and who has promised to found
	// one for that.
	if dir.clusterID == "" && p.promise == nil && o.formsAlone() {
		p.bootstrap = raft.Configuration{Servers: []raft.Server{{
			Suffrage: raft.Voter, ID: raft.ServerID(dir.nodeID), Address: p.transport.LocalAddr(),
		}}}
	}
	return p, nil
}

// start runs a node on its parts. On an error the parts are still the caller's.
func start(o Options, p parts) (*Node, error) {
	life, stop := context.WithCancel(context.Background())
	n := &Node{
		opts: o, times: o.timings(), id: p.nodeID, log: o.Logger.Named("cluster"), parts: p,
		entries: entries{node: p.nodeID},
		machine: &countedMachine{StateMachine: o.FSM, snapshots: newSnapshotCounts()},
		slots:   make(chan struct{}, o.MaxInFlight),
		life:    life, stop: stop, stopping: life.Done(),
		gone: make(chan struct{}), closed: make(chan struct{}), broken: make(chan struct{}),
		proposals: newCounters(), forwards: newCounters(), runID: uuid.NewString(), changes: make(chan change),
		formation: formation{promise: p.promise}, complain: newComplaints(o.Logger.Named("cluster")),
	}
	n.client = newPeerClient(p.port)
	n.server = newPeerServer(p.port, n.log, o.PeerHandlers)
	n.server.own, n.server.enter, n.server.leave = n.cluster.current, n.enter, n.calls.leave
	n.cluster.node, n.cluster.id, n.cluster.keep = p.nodeID, p.clusterID, p.keepClusterID
	n.certain.Store(p.wasMember)
	if p.promise != nil {
		n.cluster.agree(p.promise.Cluster)
	}
	n.cluster.changed = n.client.forget
	n.peerPaths()
	n.store = &watchedStore{store: p.store, path: p.storePath, limit: o.StoreTimeout, hook: o.Hooks.StoreCall, fatal: n.fail, begin: p.hasState}
	cache, err := raft.NewLogCache(128, n.store) // 512 entries of 64 KB would pin 32 MB
	if err != nil {
		return nil, err
	}
	formed, err := n.startRaft(cache)
	if err != nil {
		return nil, err
	}
	if err := n.settleCluster(); err != nil {
		return nil, errors.Join(err, n.raft.Shutdown().Error())
	}
	n.store.armed.Store(true)
	n.server.start()
	p.port.start(peerHooks{self: n.Identity, admit: n.cluster.admit, wanted: n.nodeAt})
	n.run()
	n.log.Info("replica started", "node", n.id, "peer", string(p.transport.LocalAddr()), "cluster", n.cluster.current(), "formed", formed,
		"last_index", n.raft.LastIndex(), "applied", n.machine.Applied())
	return n, nil
}

// startRaft forms the cluster if there is none yet and starts raft. What raft
// panics for on bad files is an error here: nothing of raft runs yet when it does.
func (n *Node) startRaft(cache *raft.LogCache) (formed bool, err error) {
	p := n.parts
	conf := n.opts.raftConfig(n.id)
	err = guard(func() error {
		undone, err := n.undoBeginning()
		if err != nil {
			return err
		}
		if !undone {
			if err := n.lostState(); err != nil {
				return err
			}
		}
		have, err := raft.HasExistingState(cache, n.store, p.snapshots)
		if err != nil {
			return err
		}
		if err := n.recover(conf); err != nil {
			return err
		}
		if !have && len(p.bootstrap.Servers) > 0 {
			if err := raft.BootstrapCluster(conf, cache, n.store, p.snapshots, p.transport, p.bootstrap); err != nil {
				return err
			}
			formed = true
		}
		n.raft, err = raft.NewRaft(conf, n.machine, cache, n.store, &countedStore{p.snapshots, n.machine.snapshots}, p.transport)
		return err
	})
	if err != nil {
		return false, startError(n.opts.DataDir, p, err)
	}
	if members := len(n.configuration().Servers); members > 0 && !n.inConfiguration() {
		n.log.Warn("this node is not a member of the cluster that its log knows; it cannot vote or lead until it is added", "node", n.id, "members", members)
	}
	if only, ok := soleVoter(n.configuration()); ok && only.ID == raft.ServerID(n.id) {
		// A cluster of one need not wait for a leader that nobody else can be: 0.5 to 1 s
		// by the timings. At the start the timeout has passed.
		n.lookAtLeader()
	}
	return formed, nil
}

// lostState returns an error when there was a log and there is nothing now: a
// store that finds its files empty begins anew without a word. A log or snapshot that
// there is is noted for the next time; entries that come are noted by the store.
func (n *Node) lostState() error {
	last, err := n.store.LastIndex()
	if err != nil {
		return err
	}
	list, err := n.parts.snapshots.List()
	switch {
	case err != nil:
		return err
	case last == 0 && len(list) == 0 && n.parts.hadState:
		return errors.New("it is empty, there is no snapshot either, and there have been entries")
	case last > 0 || len(list) > 0:
		return n.store.noteEntries()
	}
	return nil
}

// startError names what raft could not read back: the log, a snapshot, or the way
// from the one to the other.
func startError(dir string, p parts, cause error) error {
	if errors.Is(cause, ErrDataDir) {
		return cause
	}
	const way = "if this replica is one of several, move the directory away and let it join again; if it is the only one, bring back a copy of the directory"
	switch list, err := p.snapshots.List(); {
	case errors.Is(cause, raft.ErrLogNotFound):
		first, _ := p.store.FirstIndex()
		last, _ := p.store.LastIndex()
		return dirError(dir, "%w: an entry is missing: the log %s has entries %d to %d and does not join up with a snapshot that can be read (%d found; if the newest is damaged, see above in this log); %s",
			ErrDamaged, p.storePath, first, last, len(list), way)
	case err == nil && len(list) > 0 && cause.Error() == "failed to load any existing snapshots":
		return dirError(dir, "%w: none of the %d snapshots in %s can be read, the newest is %s; %s", ErrDamaged, len(list), snapshotDir, list[0].ID, way)
	}
	return dirError(dir, "%w: the log %s cannot be read back: %w; %s", ErrDamaged, p.storePath, cause, way)
}

// run starts the node's goroutines; Close ends and awaits them.
func (n *Node) run() {
	for _, loop := range []func(){n.lead, n.observe, n.watch, n.keepFresh, n.form, n.succession} {
		n.loops.Add(1)
		go func() {
			defer n.loops.Done()
			loop()
		}()
	}
}

// fail is told that this node cannot go on. Any goroutine, also raft's own; it
// does not block. The first one counts.
func (n *Node) fail(err error) {
	if n.closing.Load() || !n.failure.CompareAndSwap(nil, &err) {
		return
	}
	if errors.Is(err, ErrStore) {
		close(n.broken)
	}
	n.log.Error("this replica cannot go on", "error", err)
	if n.opts.OnFatal != nil {
		// Not waited for: it may call Close, which would wait for itself.
		go n.opts.OnFatal(err)
	}
}

// failed returns ErrStopped with the reason when the node cannot go on.
func (n *Node) failed() error {
	if err := n.failure.Load(); err != nil {
		return fmt.Errorf("%w: %w", ErrStopped, *err)
	}
	return nil
}

// NodeID says who this replica is.
func (n *Node) NodeID() string { return n.id }

// Term returns the newest term that this replica knows of.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// IsLeader reports whether this replica leads and the term's first entry is
// applied. It may have lost leadership without knowing yet: only a proposal or a
// linearizable read proves it.
func (n *Node) IsLeader() bool {
	_, ok := n.leads()
	return ok
}

// leads returns the term that this replica leads now, as far as it knows: raft, which
// steps down some moments before the view says so, is asked, too.
func (n *Node) leads() (term uint64, ok bool) {
	s, _ := n.view.get()
	return s.term, s.leading && n.raft.State() == raft.Leader && n.raft.CurrentTerm() == s.term
}

// Leader returns the replica that leads, as far as this one knows.
func (n *Node) Leader() (Leader, bool) {
	_, id := n.raft.LeaderWithID()
	if id == "" {
		return Leader{}, false
	}
	return Leader{NodeID: string(id), URL: n.urlOf(string(id))}, true
}

func (n *Node) urlOf(id string) string {
	if id == n.id {
		return n.opts.URL
	}
	for _, m := range n.members() {
		if m.NodeID == id {
			return m.URL
		}
	}
	return ""
}

func (n *Node) members() []registry.Member {
	if n.opts.Members == nil {
		return nil
	}
	return n.opts.Members()
}

// configuration is the newest one in the log, committed or not.
func (n *Node) configuration() raft.Configuration {
	return n.raft.GetConfiguration().Configuration() // answered from a copy, no error, no wait
}

// nodeAt is the member at a peer address, "" when there is none.
func (n *Node) nodeAt(addr string) string {
	s, _ := serverAt(n.configuration(), addr)
	return string(s.ID)
}

func soleVoter(c raft.Configuration) (raft.Server, bool) {
	var only raft.Server
	voters := 0
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			only, voters = s, voters+1
		}
	}
	return only, voters == 1
}

// PeerAddr is the address that other replicas dial.
func (n *Node) PeerAddr() string { return string(n.parts.transport.LocalAddr()) }
