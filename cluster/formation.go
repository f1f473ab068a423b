package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// formTick is how often a node looks after its place in a cluster, give or take a
	// third: nodes that were started together must not go on in step.
	formTick = time.Second
	// lookTimeout bounds one question to one replica.
	lookTimeout = 3 * time.Second
	// formLogEvery is how often the same words are logged again.
	formLogEvery = 30 * time.Second
	// maxJoin bounds the addresses to ask.
	maxJoin = 64
)

// formation is what a node knows of its own way into a cluster. Any goroutine.
type formation struct {
	mu      sync.Mutex
	promise *promise            // as it stands in the data directory
	asked   string              // the cluster that it has asked to take it in, "" = none
	seen    map[string]sighting // the empty replicas of the last look around, by node id
	cluster string              // a cluster seen in the last look around, "" = none
	founded time.Time           // when the cluster that it has promised to be in was first seen
	words   string              // what it waits for
	logged  time.Time
}

// membershipPaths says what this node answers about clusters and who is in them. Those
// below /cluster/found/ are for replicas in no cluster, too.
func (n *Node) membershipPaths() {
	n.handlePeer(lookPath, n.answerLook)
	n.handlePeer(agreePath, n.answerAgree)
	n.handlePeer(abortPath, n.answerAbort)
	n.handlePeer(attemptPath, n.answerAttempt)
	n.handlePeer(admitPath, n.answerAdmit)
	n.handlePeer(pathJoin, n.answerJoin)
	n.handlePeer(leavePath, n.answerLeave)
	n.handlePeer(removedPath, n.answerRemoved)
	n.handlePeer(memberPath, n.answerMember)
}

// hasLog reports whether this node has ever had a log, a vote or a term.
func (n *Node) hasLog() bool {
	return n.parts.hadState || n.raft.LastIndex() > 0 || n.raft.CurrentTerm() > 0
}

// form is the loop that gets this node into a cluster, makes the cluster know it by
// the addresses it has now, and finds out when the cluster has removed it. Owner:
// Node, until stopping or failed. It blocks for the answers of other replicas, each of
// which has a limit.
func (n *Node) form() {
	lonely := time.Now() // since when nobody leads
	for n.failure.Load() == nil {
		if _, ok := n.Leader(); ok {
			lonely = time.Now()
		}
		switch conf := n.configuration(); {
		case len(conf.Servers) == 0:
			if n.cluster.current() == "" || n.askWhereIStand(n.life) {
				n.findCluster(n.life)
			}
		case !n.inConfiguration():
			n.waitFor("the log of cluster %q, as far as this replica has it, does not name it as a member: it asks the others whether it is one", n.cluster.current())
			if n.askWhereIStand(n.life) {
				n.findCluster(n.life)
			}
		default:
			n.formed()
			n.announce(n.life)
			if time.Since(lonely) >= n.times.lonely() || !n.wasMember() {
				if n.askWhereIStand(n.life) {
					n.findCluster(n.life)
				}
			}
		}
		select {
		case <-n.stopping:
			return
		case <-time.After(formTick*2/3 + rand.N(formTick*2/3)):
		}
	}
}

// askWhereIStand asks the leader whether this node is a member. One that has been and
// is no more ends here. It returns true when this node has to ask to join (again).
func (n *Node) askWhereIStand(ctx context.Context) bool {
	s, by, ok := n.askIfMember(ctx)
	switch {
	case !ok:
		return len(n.configuration().Servers) == 0
	case s.Settled:
		n.markMember()
	case !s.Member && n.wasMember():
		n.wasRemoved(by, s.Term)
	case !s.Member:
		return true
	}
	return false
}

// lonely is how long a member is without a leader before it asks the others whether
// it still is one: several elections fit into it.
func (t timings) lonely() time.Duration { return 6 * t.election }

// inConfiguration reports whether the newest configuration names this node.
func (n *Node) inConfiguration() bool {
	_, ok := serverOf(n.configuration(), n.id)
	return ok
}

func serverOf(c raft.Configuration, id string) (raft.Server, bool) {
	for _, s := range c.Servers {
		if s.ID == raft.ServerID(id) {
			return s, true
		}
	}
	return raft.Server{}, false
}

// waitFor notes what this node waits for. It is logged when it changes, and again
// from time to time.
func (n *Node) waitFor(format string, args ...any) {
	f := &n.formation
	words := fmt.Sprintf(format, args...)
	f.mu.Lock()
	speak := words != f.words || time.Since(f.logged) >= formLogEvery
	f.words = words
	if speak {
		f.logged = time.Now()
	}
	f.mu.Unlock()
	if speak {
		n.log.Info("not in a cluster yet", "node", n.id, "waits", words)
	}
}

// formed notes that this node is a member.
func (n *Node) formed() {
	f := &n.formation
	f.mu.Lock()
	f.words, f.asked, f.seen, f.cluster = "", "", nil, ""
	leftover := f.promise
	f.mu.Unlock()
	if leftover != nil {
		if err := n.release(leftover); err != nil {
			n.log.Warn("the promise to found this cluster is fulfilled and cannot be removed", "error", err)
		}
	}
}

// notFormed says what a node without a cluster waits for, nil when it is in one.
func (n *Node) notFormed() error {
	if n.inConfiguration() {
		return nil
	}
	f := &n.formation
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.words == "" {
		return fmt.Errorf("%w: it has just been started", ErrForming)
	}
	return fmt.Errorf("%w: %s", ErrForming, f.words)
}

// findCluster takes one step of a node without a log: towards a cluster that there
// is, always preferred, or towards one with others that are as empty.
func (n *Node) findCluster(ctx context.Context) {
	kept, ok := n.keepPromise(ctx)
	if !ok {
		return
	}
	s := n.survey(ctx)
	n.noteSurvey(s)
	id := s.clusterID()
	switch own := n.cluster.current(); {
	case id == severalClusters:
		n.waitFor("the replicas in --join are of different clusters (%s): name those of one", s.clusters())
	case own != "" && id != "" && own != id:
		n.waitFor("it belongs to cluster %q, and the replicas in --join are of cluster %q: start it with an empty --data-dir, or with another --join", own, id)
	case kept != nil && id != "" && id != kept.Cluster:
		n.waitFor("it sees cluster %q, and has promised node %q to found another: %s", id, kept.founder().NodeID, kept.wayOut(n.opts.DataDir))
	case kept != nil && id != "" && n.patient():
		n.waitFor("cluster %q is founded, and it waits for the leader's first word", id)
	case id != "":
		n.askToJoin(ctx, id, s.members)
	case kept != nil:
		n.waitFor("it has promised node %q at %s to found cluster %q with it and waits for it: %s", kept.founder().NodeID, kept.founder().PeerAddr, kept.Cluster, kept.wayOut(n.opts.DataDir))
	case own != "":
		n.waitFor("it was taken into cluster %q and waits for its leader; %s", own, s.missingWords())
	case len(n.opts.Join) == 0:
		n.waitFor("it waits to be added: POST /admin/join with node_id %q and peer_addr %q to a replica of the cluster", n.id, n.PeerAddr())
	default:
		n.tryToFound(ctx, s)
	}
}

// foundedPatience is how long a founding member waits for the leader's first word. Then
// it asks to join, which as an empty voter it does at the price of its vote.
const foundedPatience = 15 * time.Second

func (n *Node) patient() bool {
	f := &n.formation
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.founded.IsZero() {
		f.founded = time.Now()
	}
	return time.Since(f.founded) < foundedPatience
}

// askToJoin asks members, one after the other, to take this node in.
func (n *Node) askToJoin(ctx context.Context, cluster string, members []Identity) {
	f := &n.formation
	f.mu.Lock()
	f.asked = cluster
	f.mu.Unlock()
	call := joinCall{JoinRequest: JoinRequest{NodeID: n.id, PeerAddr: n.PeerAddr(), URL: n.opts.URL, Voter: true}}
	rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	var errs []error
	for _, m := range members {
		if err := n.requestJoin(ctx, peerTarget{m.NodeID, m.PeerAddr}, call); err != nil {
			errs = append(errs, fmt.Errorf("node %q: %w", m.NodeID, err))
			continue
		}
		n.waitFor("cluster %q has taken it in, it waits for the leader's first word", cluster)
		return
	}
	n.waitFor("it asks to join cluster %q: %v", cluster, errors.Join(errs...))
}

// tryToFound founds a cluster when this node is the one to do it.
func (n *Node) tryToFound(ctx context.Context, s survey) {
	expect := n.opts.BootstrapExpect
	total := 1 + len(s.empty) + len(s.missing) // none is in a cluster
	candidates := []Identity{n.Identity()}
	for _, e := range s.empty {
		candidates = append(candidates, e.Identity)
	}
	slices.SortFunc(candidates, func(a, b Identity) int { return cmp.Compare(a.NodeID, b.NodeID) })
	switch {
	case expect <= 1 && !n.opts.formsAlone():
		n.waitFor("it only joins (--bootstrap-expect=%d) and none of the replicas in --join is in a cluster; %s; to form one with others give all of them --bootstrap-expect, to form one alone start it without --join", expect, s.words(candidates))
	case 2*expect <= total:
		n.waitFor("--bootstrap-expect=%d of %d replicas could form two clusters: want more than half", expect, total)
	case len(candidates) < expect:
		n.waitFor("it waits for %d replicas to form a cluster; %s", expect, s.words(candidates))
	case candidates[0].NodeID != n.id:
		n.waitFor("node %q is to form the cluster, having the smallest id; %s", candidates[0].NodeID, s.words(candidates))
	default:
		set := candidates[:expect]
		if err := s.ready(set, n.id, expect); err != nil {
			n.waitFor("it is about to form a cluster of %d: %v", expect, err)
			return
		}
		if err := n.found(ctx, set); err != nil {
			n.waitFor("it tried to form a cluster of %d and will again: %v", expect, err)
		}
	}
}
