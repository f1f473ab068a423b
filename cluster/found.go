package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
)

// Founding: empty replicas become one cluster, once.
//
// The one with the smallest id names the attempt by the id that the cluster will
// have, writes it down, and asks the others for their word. Who gives it writes it
// down first, refuses every other founder, and is bound until the founder itself says
// that it has given that attempt up. When all have agreed the founder writes the
// cluster id, which is the decision, and then the first entry of the log. A founder
// that finds its own promise at start and no decision gives up.
//
// So at any time each node is bound to at most one attempt, an attempt succeeds only
// with all its nodes, and it is either decided by one write on one disk, or never.

const (
	// promiseFile holds a promise while it binds.
	promiseFile = "founding"
	// agreeTimeout bounds the founder's question to one node.
	agreeTimeout = 5 * time.Second

	agreePath   = "/cluster/found/agree"
	abortPath   = "/cluster/found/abort"
	attemptPath = "/cluster/found/attempt"
)

// promise is a node's word to be in one cluster that is about to be founded.
type promise struct {
	// Cluster is the id that the cluster will have. It names the attempt.
	Cluster string `json:"cluster"`
	// Nodes are those that it is made of, by node id. The first founds it.
	Nodes []Identity `json:"nodes"`
}

func (p *promise) founder() Identity { return p.Nodes[0] }

// wayOut says what to do when the founder never comes back.
func (p *promise) wayOut(dir string) string {
	return fmt.Sprintf("bring node %q back, or, when it is gone for good, empty the data directory %q of this replica, which has no data yet, and start it again", p.founder().NodeID, dir)
}

// check returns an error unless the promise is one that can be kept.
func (p *promise) check() error {
	switch {
	case !nodeIDPattern.MatchString(p.Cluster):
		return fmt.Errorf("cluster id %.64q is none", p.Cluster)
	case len(p.Nodes) == 0 || len(p.Nodes) > maxJoin+1:
		return fmt.Errorf("%d nodes, want 1 to %d", len(p.Nodes), maxJoin+1)
	}
	for i, m := range p.Nodes {
		if !nodeIDPattern.MatchString(m.NodeID) || m.PeerAddr == "" {
			return fmt.Errorf("node %.64q at %.64q is none", m.NodeID, m.PeerAddr)
		}
		if i > 0 && p.Nodes[i-1].NodeID >= m.NodeID {
			return fmt.Errorf("node %q stands behind %q", m.NodeID, p.Nodes[i-1].NodeID)
		}
	}
	return nil
}

// loadPromise reads the promise that an earlier run has given.
func loadPromise(files smallFiles) (*promise, error) {
	text, err := files.read(promiseFile)
	if err != nil || text == "" {
		return nil, err
	}
	p := &promise{}
	if err := json.Unmarshal([]byte(text), p); err != nil {
		return nil, fmt.Errorf("its file %s cannot be read back: %w; this replica has no data yet: empty the directory and start it again", promiseFile, err)
	}
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("its file %s cannot be read back: %w; this replica has no data yet: empty the directory and start it again", promiseFile, err)
	}
	return p, nil
}

// give binds this node to the attempt p. Asked again for the same it says yes again.
func (n *Node) give(p *promise) error {
	if err := p.check(); err != nil {
		return inWords(ErrConflict, "no cluster can be founded so: %w", err)
	}
	f := &n.formation
	f.mu.Lock()
	defer f.mu.Unlock()
	self := n.Identity()
	switch i := slices.IndexFunc(p.Nodes, func(m Identity) bool { return m.NodeID == n.id }); {
	case self.ClusterID != "" || n.hasLog():
		return inWords(ErrConflict, "node %q is in cluster %q already: join that one", n.id, self.ClusterID)
	case f.promise != nil && f.promise.Cluster == p.Cluster:
		return nil
	case f.promise != nil:
		return inWords(ErrConflict, "node %q has promised node %q to found a cluster with it", n.id, f.promise.founder().NodeID)
	case f.cluster != "":
		return inWords(ErrConflict, "node %q sees cluster %q and joins that one", n.id, f.cluster)
	case len(n.opts.Join) == 0 || n.opts.BootstrapExpect != len(p.Nodes):
		return inWords(ErrConflict, "node %q was not started to form a cluster of %d (--bootstrap-expect)", n.id, len(p.Nodes))
	case i < 0 || p.Nodes[i].PeerAddr != self.PeerAddr:
		return inWords(ErrConflict, "node %q at %s is not among those that are to form the cluster", n.id, self.PeerAddr)
	}
	for _, m := range p.Nodes {
		if _, ok := f.seen[m.NodeID]; !ok && m.NodeID != n.id {
			return fmt.Errorf("%w: node %q does not see node %q yet", ErrForming, n.id, m.NodeID)
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	// First, so that no cluster that this node has asked to join takes it in meanwhile.
	if !n.cluster.agree(p.Cluster) {
		return inWords(ErrConflict, "node %q is in cluster %q by now: join that one", n.id, n.cluster.current())
	}
	if err := n.parts.files.write(promiseFile, string(b)); err != nil {
		n.cluster.agree("")
		return err
	}
	f.promise = p
	n.log.Info("promised to found a cluster", "node", n.id, "founder", p.founder().NodeID, "cluster", p.Cluster, "nodes", len(p.Nodes))
	return nil
}

// release ends what binds this node to the attempt p. By another one it stays bound: a
// word on p may have been long under way.
func (n *Node) release(p *promise) error {
	f := &n.formation
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.promise == nil || f.promise.Cluster != p.Cluster {
		return nil
	}
	if err := n.parts.files.remove(promiseFile); err != nil {
		return err
	}
	f.promise = nil
	n.cluster.agree("")
	return nil
}

func (n *Node) promised() *promise {
	f := &n.formation
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.promise
}

// keepPromise looks after the promise that this node has given. It returns the one
// that still binds, or nil, and false when there is nothing else to do in this step.
func (n *Node) keepPromise(ctx context.Context) (*promise, bool) {
	p := n.promised()
	switch {
	case p == nil:
		return nil, true
	case p.founder().NodeID != n.id:
		return n.askFounder(ctx, p), true
	case n.cluster.current() == p.Cluster: // decided, and stopped before the first entry
		if err := n.decide(p); err != nil {
			n.waitFor("it has the word of all and cannot begin the log: %v", err)
		}
		return nil, false
	}
	// An earlier run was stopped while it asked.
	if err := n.giveUp(ctx, p); err != nil {
		n.waitFor("it cannot give up its attempt to form a cluster: %v", err)
		return nil, false
	}
	return nil, true
}

// askFounder asks whether the attempt is still on, and returns the promise if it
// binds on.
func (n *Node) askFounder(ctx context.Context, p *promise) *promise {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	var a attemptAnswer
	err := n.ask(ctx, peerTarget{p.founder().NodeID, p.founder().PeerAddr}, attemptPath, attempt{p.Cluster}, &a)
	if err != nil || !a.GivenUp {
		return p
	}
	if err := n.release(p); err != nil {
		n.log.Warn("the founder has given up, and the promise to it cannot be removed", "error", err)
		return p
	}
	n.log.Info("released from a promise: the founder has given up", "founder", p.founder().NodeID, "cluster", p.Cluster)
	return n.promised() // the next attempt may have come meanwhile
}

// attempt names an attempt.
type attempt struct {
	Cluster string `json:"cluster"`
}

// attemptAnswer is its founder's word on it.
type attemptAnswer struct {
	GivenUp bool `json:"given_up"`
}

// answerAttempt says whether an attempt of this node is still on. One that it knows
// nothing of is not: its promise is on disk before it asks anybody.
func (n *Node) answerAttempt(_ context.Context, _ Identity, body []byte) ([]byte, error) {
	var a attempt
	if err := unmarshal(body, &a); err != nil {
		return nil, err
	}
	p := n.promised() // before the cluster id: deciding writes that first and removes the promise last
	on := p != nil && p.Cluster == a.Cluster || n.cluster.current() == a.Cluster
	return json.Marshal(attemptAnswer{GivenUp: !on})
}

// answerAgree gives or refuses this node's word.
func (n *Node) answerAgree(_ context.Context, from Identity, body []byte) ([]byte, error) {
	p := &promise{}
	if err := unmarshal(body, p); err != nil {
		return nil, err
	}
	if len(p.Nodes) > 0 && p.founder().NodeID != from.NodeID {
		return nil, inWords(ErrConflict, "node %q asks for the word to node %q", from.NodeID, p.founder().NodeID)
	}
	return nil, n.give(p)
}

// answerAbort releases this node when its founder says so.
func (n *Node) answerAbort(_ context.Context, from Identity, body []byte) ([]byte, error) {
	var a attempt
	if err := unmarshal(body, &a); err != nil {
		return nil, err
	}
	p := n.promised()
	if p == nil || p.Cluster != a.Cluster || p.founder().NodeID != from.NodeID || n.cluster.current() != "" {
		return nil, nil
	}
	return nil, n.release(p)
}

// found asks every node of set for its word and founds the cluster when all have
// given it. This node is the first of set.
func (n *Node) found(ctx context.Context, set []Identity) error {
	p := &promise{Cluster: uuid.NewString(), Nodes: set}
	if err := n.give(p); err != nil {
		return err
	}
	errs := n.tell(ctx, p, agreePath, p, agreeTimeout)
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, n.giveUp(ctx, p))
	}
	return n.decide(p)
}

// tell sends body to the other nodes of an attempt, all at once.
func (n *Node) tell(ctx context.Context, p *promise, path string, body any, limit time.Duration) []error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	errs := make([]error, len(p.Nodes))
	var wg sync.WaitGroup
	for i, m := range p.Nodes {
		if m.NodeID == n.id {
			continue
		}
		wg.Add(1)
		// Owner: this call; ends within limit.
		go func() {
			defer wg.Done()
			if err := n.ask(ctx, peerTarget{m.NodeID, m.PeerAddr}, path, body, nil); err != nil {
				errs[i] = fmt.Errorf("node %q at %s: %w", m.NodeID, m.PeerAddr, err)
			}
		}()
	}
	wg.Wait()
	return errs
}

// giveUp ends an attempt of this node that is not decided, and tells those that may
// have given their word. Who does not hear it asks.
func (n *Node) giveUp(ctx context.Context, p *promise) error {
	if err := n.release(p); err != nil {
		return err
	}
	n.log.Info("attempt to found a cluster given up", "cluster", p.Cluster)
	for _, err := range n.tell(ctx, p, abortPath, attempt{p.Cluster}, lookTimeout) {
		if err != nil {
			n.log.Debug("not told that the attempt is given up; it will ask", "error", err)
		}
	}
	return nil
}

// decide founds the cluster: all have given their word.
func (n *Node) decide(p *promise) error {
	if err := n.cluster.adopt(p.Cluster); err != nil {
		return err
	}
	var conf raft.Configuration
	for _, m := range p.Nodes {
		conf.Servers = append(conf.Servers, raft.Server{Suffrage: raft.Voter, ID: raft.ServerID(m.NodeID), Address: raft.ServerAddress(m.PeerAddr)})
	}
	if err := n.await(n.life, func() error { return n.raft.BootstrapCluster(conf).Error() }); err != nil {
		return fmt.Errorf("begin the log of cluster %q: %w", p.Cluster, err)
	}
	n.log.Info("cluster founded", "cluster", p.Cluster, "nodes", len(p.Nodes))
	return n.release(p)
}
