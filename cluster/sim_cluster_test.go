package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

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
	t        testing.TB
	net      *memnet.Network
	rand     *rand.Rand // of the test's own goroutine: faults and their timing
	h        *history
	replicas []*simReplica
	load     simLoad
	opts     simOptions
	conf     raft.Configuration // that the cluster begins with
	closing  sync.WaitGroup     // of lives that have crashed
}

// simReplica is one replica and what survives its crashes.
type simReplica struct {
	c    *simCluster
	id   string
	host *memnet.Host
	disk *simDisk

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
}

// startSim starts the replicas, all of them members from the start.
func startSim(t testing.TB, o simOptions) *simCluster {
	t.Helper()
	if o.replicas == 0 {
		o.replicas = 3
	}
	c := &simCluster{t: t, net: memnet.New(o.seed), rand: rand.New(rand.NewPCG(o.seed, 1)), h: newHistory(t), opts: o}
	c.load.init(c, o.seed)
	for i := range o.replicas {
		r := c.add(fmt.Sprintf("n%d", i+1), o.seed+uint64(i)<<32)
		c.conf.Servers = append(c.conf.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(r.id), Address: raft.ServerAddress(r.addr())})
	}
	c.setDelay(o.delay)
	t.Cleanup(c.stop)
	for _, r := range c.replicas {
		r.start()
	}
	return c
}

// add makes a replica that has not been started.
func (c *simCluster) add(id string, seed uint64) *simReplica {
	r := &simReplica{c: c, id: id, host: c.net.Host(id), disk: newSimDisk(seed)}
	c.replicas = append(c.replicas, r)
	return r
}

// setDelay makes every link that slow.
func (c *simCluster) setDelay(d time.Duration) {
	for _, a := range c.replicas {
		for _, b := range c.replicas {
			if a != b {
				c.net.Delay(a.id, b.id, d, d/2)
			}
		}
	}
}

func (r *simReplica) addr() string { return r.id + ":9400" }

// start begins a life. An empty disk becomes that of a member of the cluster's first
// configuration.
func (r *simReplica) start() {
	r.c.t.Helper()
	r.host.Up()
	l := &simLife{replica: r, machine: newRecorder(r.id, r.c.h), begun: make(chan struct{}), dead: make(chan struct{})}
	opts := Options{
		NodeID: r.id, PeerAddr: r.addr(), URL: "http://" + r.id + ":9000", FSM: l.machine,
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
	store := r.disk.open()
	port, err := listenPeers(context.Background(), peerPortConfig{network: simNetwork{l}, listen: r.addr(), log: opts.Logger})
	if err != nil {
		r.c.t.Fatalf("start %s: %v", r.id, err)
	}
	clusterID, keep := r.disk.clusterID(store)
	n, err := start(opts.withDefaults(), parts{
		nodeID: r.id, port: port, transport: newRaftTransport(port, opts.Logger), store: store, storePath: "memory of " + r.id,
		snapshots: simSnapshots{r.disk, store}, bootstrap: r.c.conf, clusterID: clusterID, keepClusterID: keep, files: &memFiles{},
	})
	if err != nil {
		r.c.t.Fatalf("start %s: %v", r.id, err)
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
	for _, r := range c.replicas {
		if l := r.now(); l != nil {
			out = append(out, l)
		}
	}
	return out
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
	for _, r := range c.replicas {
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

// settle waits until every replica that is up has applied a mark made now, and with
// it had its digest compared.
func (c *simCluster) settle() uint64 {
	c.t.Helper()
	a := c.mark()
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	for _, l := range c.up() {
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
	for _, r := range c.replicas {
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
