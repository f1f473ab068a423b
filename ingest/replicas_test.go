package ingest

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// replicas are three replicas in memory: one log, a real state machine each, a leader
// that changes, and a way between follower and leader that loses and delays. Without a
// leader, and with the fates stuck and delayed, use it in a synctest bubble.
type replicas struct {
	t    *testing.T
	rng  *rand.Rand // guarded by mu
	odds func(roll int) fate
	// failure is what failed attempts are told.
	failure func() error

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of leader
	leader  int           // -1: nobody
	term    uint64
	log     [][]byte
	limbo   [][]byte // in the leader's log alone: the next term has them, or has not
	nodes   []*replica
	late    sync.WaitGroup // copies of requests that are still under way

	// cut, if set, says what becomes of a request to the leader's PeerHandler: whether it
	// arrives, and what the asker is told instead of the answer.
	cut func(path string, body []byte) (arrives bool, err error)
}

// replica is one of them, as its batcher sees it.
type replica struct {
	*fsm.FSM
	of     *replicas
	id     int
	server *Server       // whose PeerHandler is asked when it leads
	held   chan struct{} // not nil: its attempts wait until it is closed; guarded by of.mu
}

// hold keeps what this replica proposes from the log until the returned function is called.
func (n *replica) hold() (resume func()) {
	held := make(chan struct{})
	set := func(to chan struct{}) {
		n.of.mu.Lock()
		defer n.of.mu.Unlock()
		n.held = to
	}
	set(held)
	return func() {
		set(nil)
		close(held)
	}
}

// IsLeader, Term and AskLeader are those of cluster.Node.
func (n *replica) IsLeader() bool {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	return n.of.leader == n.id
}

func (n *replica) Term() uint64 {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	return n.of.term
}

func (n *replica) AskLeader(ctx context.Context, path string, body []byte) ([]byte, error) {
	n.of.mu.Lock()
	leader, cut := n.of.leader, n.of.cut
	n.of.mu.Unlock()
	if leader < 0 {
		return nil, cluster.ErrNoLeader
	}
	if cut != nil {
		if arrives, err := cut(path, body); err != nil {
			if arrives {
				n.of.nodes[leader].answer(path, body)
			}
			return nil, err
		}
	}
	status, answer := n.of.nodes[leader].answer(path, body)
	if status != http.StatusOK {
		return nil, fmt.Errorf("answer %d: %s", status, answer)
	}
	return answer, nil
}

// answer is what a replica's PeerHandler says.
func (n *replica) answer(path string, body []byte) (status int, answer []byte) {
	w := httptest.NewRecorder()
	n.server.PeerHandler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body)))
	return w.Code, w.Body.Bytes()
}

// serve gives every replica a Server without sockets.
func (c *replicas) serve(change func(id int, o *Options)) {
	for _, n := range c.nodes {
		o := Options{Log: n, State: n, Leader: n, Session: session()}
		if change != nil {
			change(n.id, &o)
		}
		n.server = New(o)
	}
}

// register makes the workers of these names known, as rank 1.
func (c *replicas) register(names ...string) {
	b := fsm.NewBatch(session())
	for _, name := range names {
		b.Register(registry.Registration{WorkerRef: ref(name), IP: "10.0.0.1", Port: 1, At: micros(time.Now())})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commit(b.Encode(1, micros(time.Now())))
}

// fate is what becomes of an attempt.
type fate int

const (
	fine       fate = iota
	unsent          // the request is lost, its sender does not know that
	answerLost      // committed, and the sender is not told
	stuck           // taken by a leader that cannot commit it: told with the next one
	delayed         // the sender is told nothing, and the request arrives much later
	notLeader
	busy
	leaderStops // the leader says that it is stopping
	failed      // as replicas.failure says
)

func newReplicas(t *testing.T, seed uint64, odds func(roll int) fate) *replicas {
	c := &replicas{t: t, rng: rand.New(rand.NewPCG(seed, 1)), odds: odds, changed: make(chan struct{}), leader: -1}
	for id := range 3 {
		c.nodes = append(c.nodes, &replica{FSM: fsm.New(fsm.Options{}), of: c, id: id})
	}
	return c
}

// elect makes id the leader of a new term, -1 nobody. What its predecessor could not
// commit is in the new log up to some place, or not at all.
func (c *replicas) elect(id int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = id
	if id >= 0 {
		c.term++
		for _, e := range c.limbo[:c.rng.IntN(len(c.limbo)+1)] {
			c.commit(e)
		}
		c.limbo = nil
		c.commit(fsm.EncodeTermBegin(registry.TermBegin{Term: c.term, Node: fmt.Sprint(id), At: 1}))
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// commit applies an entry on all replicas, and gives what the leader's said. Under mu.
func (c *replicas) commit(entry []byte) (index uint64, result any) {
	c.log = append(c.log, entry)
	index = uint64(len(c.log))
	for _, n := range c.nodes {
		r := n.Apply(&raft.Log{Index: index, Term: c.term, Type: raft.LogCommand, Data: entry})
		if n.id == c.leader || result == nil {
			result = r
		}
	}
	return index, result
}

// Propose is cluster.Node.Submit.
func (n *replica) Propose(ctx context.Context, entry []byte) (cluster.Applied, error) {
	c := n.of
	c.mu.Lock()
	held := n.held
	c.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return cluster.Applied{}, cluster.ErrUnknownOutcome
		}
	}
	hold := time.NewTimer(time.Second)
	defer hold.Stop()
	for {
		c.mu.Lock()
		changed := c.changed
		if c.leader >= 0 {
			break
		}
		c.mu.Unlock()
		select {
		case <-changed:
		case <-hold.C:
			return cluster.Applied{}, cluster.ErrNoLeader
		case <-ctx.Done():
			return cluster.Applied{}, ctx.Err()
		}
	}
	defer c.mu.Unlock()
	changed := c.changed
	switch c.odds(c.rng.IntN(100)) {
	case unsent:
		return cluster.Applied{}, cluster.ErrUnknownOutcome
	case answerLost:
		c.commit(entry)
		return cluster.Applied{}, cluster.ErrUnknownOutcome
	case stuck:
		c.limbo = append(c.limbo, entry)
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		c.mu.Lock()
		return cluster.Applied{}, cluster.ErrUnknownOutcome
	case delayed:
		c.arriveLater(entry)
		return cluster.Applied{}, fmt.Errorf("connection reset: %w", cluster.ErrUnknownOutcome)
	case notLeader:
		return cluster.Applied{}, &cluster.NotLeaderError{}
	case busy:
		return cluster.Applied{}, cluster.ErrBusy
	case leaderStops:
		return cluster.Applied{}, cluster.ErrStopped
	case failed:
		return cluster.Applied{}, c.failure()
	}
	index, result := c.commit(entry)
	return cluster.Applied{Index: index, Result: result}, nil
}

// arriveLater lets a request reach whoever leads after up to two seconds. Under mu.
func (c *replicas) arriveLater(entry []byte) {
	wait := time.Duration(c.rng.IntN(2000)) * time.Millisecond
	c.late.Go(func() {
		time.Sleep(wait)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.leader >= 0 {
			c.commit(entry)
		}
	})
}
