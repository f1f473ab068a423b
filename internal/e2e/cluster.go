package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	formLimit   = 60 * time.Second // until a cluster has formed, or is whole again: the race detector on a busy machine
	digestLimit = 60 * time.Second // until all replicas have applied the same
)

// ClusterOptions say how a cluster differs from the plain one.
type ClusterOptions struct {
	Args []string // further flags of serve, for every replica
	// Namespaces gives each replica a network namespace and an address of its own, so
	// that Cut and Isolate work. A test that cannot have them is skipped, aloud.
	Namespaces bool
	// DataDir is where replica i keeps its data. Default: a new directory.
	DataDir func(i int) string

	// front gives the replicas the addresses and ports that a front looks for them at.
	front *FrontOptions
}

// Cluster is a number of replicas that are one controller.
//
// Concurrency: one goroutine, except what Replica says of itself.
type Cluster struct {
	t        testing.TB
	o        ClusterOptions
	net      *network // nil: all on loopback
	replicas []*Replica
	asks     *http.Client
	digests  digestBook
}

// StartCluster forms a cluster of n replicas and returns when all are ready and name the
// same leader.
func StartCluster(t testing.TB, n int, o ClusterOptions) *Cluster {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 4}
	c := &Cluster{t: t, o: o, asks: &http.Client{Timeout: 10 * time.Second, Transport: transport}}
	t.Cleanup(transport.CloseIdleConnections)
	if o.Namespaces {
		c.net = newNetwork(t)
	}
	for range n {
		c.newReplica()
	}
	for try := 0; ; try++ {
		c.form()
		_, err := c.await(formLimit)
		if err == nil {
			return c
		}
		// Another process may take a port between the look and the bind.
		if try == 3 || !slices.ContainsFunc(c.replicas, (*Replica).portTaken) {
			t.Fatal(err)
		}
		for _, r := range c.replicas {
			r.Kill()
			r.takePorts()
			if err := os.RemoveAll(r.DataDir); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// newReplica adds one that is not started.
func (c *Cluster) newReplica() *Replica {
	c.t.Helper()
	o := Options{}
	if c.o.DataDir != nil {
		o.DataDir = c.o.DataDir(len(c.replicas))
	}
	if c.net != nil {
		o.namespace, o.host = c.net.add()
		o.ports = Ports{REST: 9000, Pull: 8300, Reply: 8400, Heartbeat: 8082, Peer: 9400}
	}
	if c.o.front != nil {
		o.host, o.ports = c.o.front.replica(len(c.replicas))
	}
	r := newReplica(c.t, o)
	c.replicas = append(c.replicas, r)
	return r
}

// form starts all replicas, with the same flags on each.
func (c *Cluster) form() {
	c.t.Helper()
	flags := c.o.Args
	if len(c.replicas) > 1 {
		flags = append([]string{"--join", c.urls(), "--bootstrap-expect", strconv.Itoa(len(c.replicas))}, flags...)
	}
	for _, r := range c.replicas {
		r.opts.Args = flags
		r.launch()
	}
}

func (c *Cluster) urls() string {
	var urls []string
	for _, r := range c.replicas {
		urls = append(urls, r.URL(""))
	}
	return strings.Join(urls, ",")
}

// Replicas returns all replicas, whether they run or not, in the order of their start.
func (c *Cluster) Replicas() []*Replica { return slices.Clone(c.replicas) }

// Host is where replicas reach what the test listens with.
func (c *Cluster) Host() string {
	if c.net != nil {
		return c.net.host()
	}
	return loopback
}

// Await waits until every replica that runs is ready and all name the same leader, and
// returns that. From then on they are live.
func (c *Cluster) Await() *Replica {
	c.t.Helper()
	leader, err := c.await(formLimit)
	if err != nil {
		c.t.Fatal(err)
	}
	return leader
}

func (c *Cluster) await(limit time.Duration) (leader *Replica, err error) {
	deadline := time.Now().Add(limit)
	running := c.Running()
	for _, r := range running {
		if err := r.awaitReady(); err != nil {
			return nil, err
		}
	}
	err = Poll(time.Until(deadline), func() (err error) {
		leader, err = c.agree(running)
		return err
	})
	return leader, err
}

// agree asks replicas who leads.
func (c *Cluster) agree(of []*Replica) (leader *Replica, err error) {
	if len(of) == 0 {
		return nil, errors.New("no replica runs")
	}
	var name string
	for i, r := range of {
		s, err := c.Status(r)
		if err != nil {
			return nil, err
		}
		switch {
		case s.Leader.NodeID == "":
			return nil, fmt.Errorf("replica %s knows no leader", s.NodeID)
		case i > 0 && s.Leader.NodeID != name:
			return nil, fmt.Errorf("replica %s says that %s leads, others say %s", s.NodeID, s.Leader.NodeID, name)
		}
		name = s.Leader.NodeID
		if s.NodeID == name && s.Role == "leader" {
			leader = r
		}
	}
	if leader == nil {
		return nil, fmt.Errorf("%s leads, and is none of the %d replicas that were asked or does not know it", name, len(of))
	}
	return leader, nil
}

// Running returns the replicas whose processes run and are not paused.
func (c *Cluster) Running() []*Replica {
	return c.where(func(r *Replica) bool {
		if !r.Running() {
			return false
		}
		still, err := standsStill(r.Pid())
		return err == nil && !still
	})
}

// Live returns the replicas that are meant to answer.
func (c *Cluster) Live() []*Replica {
	return c.where(func(r *Replica) bool { _, live := r.Life(); return live })
}

// Followers returns the live replicas other than the leader.
func (c *Cluster) Followers() []*Replica {
	c.t.Helper()
	leader := c.Leader()
	return c.where(func(r *Replica) bool { _, live := r.Life(); return live && r != leader })
}

func (c *Cluster) where(is func(*Replica) bool) (out []*Replica) {
	for _, r := range c.replicas {
		if is(r) {
			out = append(out, r)
		}
	}
	return out
}

// Leader waits until the live replicas name the same leader and returns it.
func (c *Cluster) Leader() *Replica {
	c.t.Helper()
	var leader *Replica
	Eventually(c.t, formLimit, "a leader", func() (err error) {
		leader, err = c.agree(c.Live())
		return err
	})
	return leader
}

// Replace kills a replica, takes its data away and starts it again, empty, on the same
// addresses. It returns when the cluster has it.
func (c *Cluster) Replace(r *Replica) {
	c.t.Helper()
	r.Kill()
	if err := os.RemoveAll(r.DataDir); err != nil {
		c.t.Fatal(err)
	}
	r.Restart()
}

// Add starts one more replica, which joins, and returns when it is ready.
func (c *Cluster) Add() *Replica {
	c.t.Helper()
	join := c.urls()
	r := c.newReplica()
	r.opts.Args = append([]string{"--join", join}, c.o.Args...)
	r.launch()
	r.AwaitReady()
	return r
}

// Forget takes a replica that has left the cluster and ended off the list.
func (c *Cluster) Forget(r *Replica) {
	c.replicas = slices.DeleteFunc(c.replicas, func(other *Replica) bool { return other == r })
}

// Cut lets everything vanish that one replica sends to another, in that direction.
func (c *Cluster) Cut(from, to *Replica) {
	c.t.Helper()
	c.net.drop(c.number(from), c.number(to))
}

// Isolate cuts a replica off from all others, both ways. Clients and workers reach it.
func (c *Cluster) Isolate(r *Replica) {
	c.t.Helper()
	for _, other := range c.replicas {
		if other != r {
			c.Cut(r, other)
			c.Cut(other, r)
		}
	}
}

// Heal ends every Cut.
func (c *Cluster) Heal() {
	c.t.Helper()
	c.net.heal()
}

// number is a replica's place in the order of starts.
func (c *Cluster) number(r *Replica) int {
	i := slices.Index(c.replicas, r)
	if i < 0 {
		c.t.Fatalf("bug: the replica on %s is none of this cluster", r.PeerAddr())
	}
	return i
}
