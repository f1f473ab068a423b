package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/internal/memnet"
	"github.com/kvctrl/kvctrl/registry"
)

// simCluster is a cluster of real nodes, each with the real state machine and raft's
// real network transport, on a network and disks in memory: for a synctest bubble.
// Its replicas can crash and start again, its links can fail, its clients write down
// what they were told. It stops when the test ends.
type simCluster struct {
	t       testing.TB
	net     *memnet.Network
	rand    *rand.Rand // of the test's own goroutine: faults and their timing
	h       *history
	load    simLoad
	opts    simOptions
	conf    raft.Configuration // that the cluster begins with
	closing sync.WaitGroup     // of lives that have crashed

	mu   sync.Mutex
	list []*simReplica
}

// simReplica is one replica and what survives its crashes.
type simReplica struct {
	c    *simCluster
	id   string
	host *memnet.Host
	disk *simDisk
	// founding: it is a member from the start. Else it joins or founds, by these.
	founding bool
	join     []string
	expect   int
	gone     bool // it has left for good

	mu    sync.Mutex
	life  *simLife    // nil while it is down
	fatal func(error) // told what OnFatal is; nil: that is a failure
}

// simLife is a replica from its start to its stop or crash.
type simLife struct {
	*Node
	replica *simReplica
	machine *recorder
	begun   chan struct{} // closed when Node is set
	dead    chan struct{} // closed when nothing that it says counts any more
}

// simOptions say what a simulated cluster is like.
type simOptions struct {
	seed     uint64
	replicas int           // default 3
	delay    time.Duration // of every link, as a base
	tune     func(*Options)
	events   bool // the leader opens and closes events
	wal      bool // the logs are monotonic
}

// startSim starts the replicas, all of them members from the start.
func startSim(t testing.TB, o simOptions) *simCluster {
	t.Helper()
	if o.replicas == 0 {
		o.replicas = 3
	}
	c := newSim(t, o)
	for i := range o.replicas {
		r := c.add(fmt.Sprintf("n%d", i+1))
		r.founding = true
		r.disk.belongsTo(simClusterID)
		c.conf.Servers = append(c.conf.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(r.id), Address: raft.ServerAddress(r.addr())})
	}
	c.setDelay(o.delay)
	for _, r := range c.all() {
		r.start()
	}
	return c
}

// newSim lays out a cluster without replicas.
func newSim(t testing.TB, o simOptions) *simCluster {
	c := &simCluster{t: t, net: memnet.New(o.seed), rand: rand.New(rand.NewPCG(o.seed, 1)), h: newHistory(t), opts: o}
	c.load.init(c, o.seed)
	t.Cleanup(c.stop)
	return c
}

// add lays out a replica that has not been started, with an empty disk.
func (c *simCluster) add(id string) *simReplica {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &simReplica{c: c, id: id, host: c.net.Host(id), disk: newSimDisk(c.opts.seed + uint64(len(c.list))<<32)}
	r.disk.monotonic = c.opts.wal
	c.list = append(c.list, r)
	return r
}

// all are the replicas there have been.
func (c *simCluster) all() []*simReplica {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.list)
}

// setDelay makes every link that slow.
func (c *simCluster) setDelay(d time.Duration) {
	for _, a := range c.all() {
		for _, b := range c.all() {
			if a != b {
				c.net.Delay(a.id, b.id, d, d/2)
			}
		}
	}
}

func (r *simReplica) addr() string { return r.id + ":9400" }
func (r *simReplica) url() string  { return urlOf(r.id) }

// start begins a life.
func (r *simReplica) start() {
	r.c.t.Helper()
	if err := r.tryStart(); err != nil {
		r.c.t.Fatalf("start %s: %v", r.id, err)
	}
}

func (r *simReplica) tryStart() error {
	r.host.Up()
	l := &simLife{replica: r, machine: newRecorder(r.id, r.c.h), begun: make(chan struct{}), dead: make(chan struct{})}
	opts := Options{
		NodeID: r.id, PeerAddr: r.addr(), URL: r.url(), FSM: l.machine,
		BootstrapExpect: r.expect, Discover: r.discover,
		Members:           func() []registry.Member { return l.machine.Registry().Members() },
		SnapshotThreshold: 64, TrailingLogs: 96, SnapshotInterval: 400 * time.Millisecond,
		MinFreeBytes: -1, Logger: testLogger(r.c.t),
		OnFatal: func(err error) {
			r.mu.Lock()
			fatal := r.fatal
			r.mu.Unlock()
			if fatal != nil {
				fatal(err)
			} else if !l.isDead() {
				r.c.h.failf("%s: OnFatal: %v", r.id, err)
			}
		},
	}
	for _, id := range r.join {
		opts.Join = append(opts.Join, urlOf(id))
	}
	if r.c.opts.events {
		opts.LeaderTasks = []LeaderTask{{Name: "events", Run: func(ctx context.Context, term uint64) error {
			select {
			case <-l.begun:
				return r.c.load.events(ctx, l, term)
			case <-ctx.Done():
				return nil
			}
		}}}
	}
	if r.c.opts.tune != nil {
		r.c.opts.tune(&opts)
	}
	p, err := r.parts(l, opts.Logger)
	if err != nil {
		return err
	}
	n, err := start(opts.withDefaults(), p)
	if err != nil {
		return errors.Join(err, p.transport.close())
	}
	n.raft.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if state, ok := o.Data.(raft.RaftState); ok && state == raft.Leader {
			r.c.h.leads(r.id, o.Raft.CurrentTerm())
		}
		return false
	}))
	l.Node = n
	close(l.begun)
	r.mu.Lock()
	r.life = l
	r.mu.Unlock()
	return nil
}

// parts are what a life of the replica stands on.
func (r *simReplica) parts(l *simLife, log hclog.Logger) (p parts, err error) {
	store := r.disk.open()
	files := simFiles{store}
	const hadLog = "had a log"
	read := func(name string) (text string) {
		if err == nil {
			text, err = files.read(name)
		}
		return text
	}
	p = parts{
		nodeID: r.id, store: store, storePath: "memory of " + r.id, snapshots: simSnapshots{r.disk, store},
		files: files, clusterID: read(clusterIDFile), wasMember: read(memberFile) != "", hadState: read(hadLog) != "",
		keepClusterID: func(id string) error { return files.write(clusterIDFile, id) },
		hasState:      func() error { return files.write(hadLog, "yes") },
	}
	if err == nil {
		err = notRemoved(files, p.storePath, r.id)
	}
	if err == nil {
		p.promise, err = loadPromise(files)
	}
	if err != nil {
		return parts{}, err
	}
	if r.founding {
		p.bootstrap = r.c.conf
	}
	if p.port, err = listenPeers(context.Background(), peerPortConfig{network: simNetwork{l}, listen: r.addr(), log: log}); err != nil {
		return parts{}, err
	}
	p.transport = newRaftTransport(p.port, log)
	return p, nil
}

// simClusterID is the cluster of the replicas that are members from the start.
const simClusterID = "simulated"

// discover asks for another replica's identity, as by REST.
func (r *simReplica) discover(_ context.Context, url string) (Identity, error) {
	for _, other := range r.c.all() {
		if l := other.now(); l != nil && other.url() == url && r.c.net.Whole(r.id, other.id) {
			return l.Identity(), nil
		}
	}
	return Identity{}, errors.New("connection refused")
}

// now gives the present life, nil while the replica is down.
func (r *simReplica) now() *simLife {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.life
}

// end takes the life that is over.
func (r *simReplica) end() *simLife {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.life
	r.life = nil
	return l
}

// crash is kill -9, or the loss of power: nothing that has not been synced is left,
// nothing that is said from now on counts.
func (r *simReplica) crash() {
	l := r.end()
	if l == nil {
		return
	}
	r.host.Down() // before the disk: what it acknowledges must be on it
	r.disk.crash()
	close(l.dead)
	r.c.closing.Go(func() { // nobody hears it
		if err := l.Close(context.Background()); err != nil {
			r.c.h.failf("close the crashed %s: %v", r.id, err)
		}
	})
}

// stop is SIGTERM.
func (r *simReplica) stop() {
	l := r.end()
	if l == nil {
		return
	}
	if err := l.Close(context.Background()); err != nil {
		r.c.h.failf("close %s: %v", r.id, err)
	}
	close(l.dead)
	if k := r.c.net.Conns(r.id); k != 0 {
		r.c.h.failf("%s has left %d connections open", r.id, k)
	}
}

func (l *simLife) isDead() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// up lists the lives of replicas that are not down.
func (c *simCluster) up() []*simLife {
	var out []*simLife
	for _, r := range c.all() {
		if l := r.now(); l != nil {
			out = append(out, l)
		}
	}
	return out
}

// members lists those who are up and, as the leader sees it, in the cluster.
func (c *simCluster) members() []*simLife {
	conf := c.mustLead().configuration()
	return slices.DeleteFunc(c.up(), func(l *simLife) bool {
		return !slices.ContainsFunc(conf.Servers, func(s raft.Server) bool { return string(s.ID) == l.NodeID() })
	})
}

// leader is who leads in the newest term, nil when nobody does.
func (c *simCluster) leader() *simLife {
	var leader *simLife
	for _, l := range c.up() {
		if l.IsLeader() && (leader == nil || l.Term() > leader.Term()) {
			leader = l
		}
	}
	return leader
}

func (c *simCluster) mustLead() *simLife {
	c.t.Helper()
	await(c.t, "leader", isTrue("nobody leads", func() bool { return c.leader() != nil }))
	return c.leader()
}

// followers are the replicas that are up and do not lead.
func (c *simCluster) followers() []*simLife {
	leader := c.mustLead()
	var out []*simLife
	for _, l := range c.up() {
		if l != leader {
			out = append(out, l)
		}
	}
	return out
}

// names of the replicas but those given.
func (c *simCluster) others(but ...string) []string {
	var out []string
next:
	for _, r := range c.all() {
		for _, b := range but {
			if r.id == b {
				continue next
			}
		}
		out = append(out, r.id)
	}
	return out
}

// mark puts an entry into the log that changes nothing and after which the digests
// of all replicas are compared.
func (c *simCluster) mark() Applied {
	c.t.Helper()
	deadline := time.Now().Add(settleLimit)
	for {
		l := c.mustLead()
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		a, err := l.Propose(ctx, fsm.EncodeLease(registry.Lease{At: now()}))
		cancel()
		if err == nil {
			return a
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("no entry was committed within %v: %v", settleLimit, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// settleLimit is how long a cluster whose faults are over may take until every
// replica has everything. A dial that met a cut link takes 3 s to be given up.
const settleLimit = 15 * time.Second

// settle waits until every member that is up has applied a mark made now, and with it
// had its digest compared.
func (c *simCluster) settle() uint64 {
	c.t.Helper()
	a := c.mark()
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	for _, l := range c.members() {
		if err := l.machine.WaitApplied(ctx, a.Index); err != nil {
			c.t.Fatalf("%s stands at index %d of %d after %v: %v\n%s", l.NodeID(), l.machine.Applied(), a.Index, settleLimit, err, c.state())
		}
	}
	return a.Index
}

// state describes the replicas, for a failure.
func (c *simCluster) state() string {
	var s string
	for _, l := range c.up() {
		s += fmt.Sprintf("%s: %v term %d, applied %d, last %d, leader %v\n", l.NodeID(), l.Role(), l.Term(), l.machine.Applied(), l.raft.LastIndex(), l.Status().Leader.NodeID)
	}
	return s
}

// stop ends everything, also what crashed.
func (c *simCluster) stop() {
	c.t.Helper()
	c.load.stop()
	c.net.HealAll()
	for _, r := range c.all() {
		r.stop()
	}
	c.closing.Wait()
	<-time.After(time.Minute) // raft's last timers fire while the bubble lives
}

// simNetwork is the simulated network as one life sees it: after a crash it reaches
// nobody, although its host may be up again by then.
type simNetwork struct{ life *simLife }

func (s simNetwork) Listen(ctx context.Context, addr string) (net.Listener, error) {
	return s.life.replica.host.Listen(ctx, addr)
}

func (s simNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	if s.life.isDead() {
		return nil, errors.New("dead")
	}
	return s.life.replica.host.Dial(ctx, addr)
}
