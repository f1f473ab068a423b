package cluster

import (
	"fmt"
	"sync"

	"github.com/google/uuid"
	"github.com/hashicorp/raft"
)

// Identity is who a replica is.
type Identity struct {
	NodeID    string `json:"node_id"`
	PeerAddr  string `json:"peer_addr"`
	URL       string `json:"url"`
	ClusterID string `json:"cluster_id"` // "" = in no cluster yet
}

// Identity says who this replica is.
func (n *Node) Identity() Identity {
	return Identity{NodeID: n.id, PeerAddr: n.PeerAddr(), URL: n.opts.URL, ClusterID: n.cluster.current()}
}

// clusterIdentity is which cluster this node is in. Once it is in one it stays: the
// id is on disk before anybody is told. Any goroutine.
type clusterIdentity struct {
	node string
	// keep writes the id to the data directory.
	keep func(id string) error
	// changed is called, without the lock, when the node has come into a cluster.
	changed func()

	mu     sync.Mutex
	id     string // "" = in none yet
	agreed string // the cluster that it has agreed to found or join
}

func (c *clusterIdentity) current() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// agree lets raft traffic of that cluster in, from when it comes, and of no other; ""
// takes that back. Who is in a cluster agrees to no other: false.
func (c *clusterIdentity) agree(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.id != "" {
		return c.id == id
	}
	c.agreed = id
	return true
}

// adopt makes this node one of that cluster, for good.
func (c *clusterIdentity) adopt(id string) error {
	c.mu.Lock()
	err := c.adoptLocked(id)
	c.mu.Unlock()
	if err == nil && c.changed != nil {
		c.changed()
	}
	return err
}

func (c *clusterIdentity) adoptLocked(id string) error {
	switch {
	case c.id == id:
		return nil
	case c.id != "":
		return fmt.Errorf("this node is in cluster %q and cannot be in cluster %q", c.id, id)
	}
	if c.keep != nil {
		if err := c.keep(id); err != nil {
			return err
		}
	}
	c.id, c.agreed = id, ""
	return nil
}

// admit decides about a dialer (see DESIGN.md, "The peer port"). When it lets raft
// in and the node was in no cluster, it is in the dialer's afterwards.
func (c *clusterIdentity) admit(kind byte, h hello) *helloRefused {
	r, adopted := c.decide(kind, h)
	if adopted && c.changed != nil {
		c.changed()
	}
	return r
}

func (c *clusterIdentity) decide(kind byte, h hello) (_ *helloRefused, adopted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case h.Wanted != "" && h.Wanted != c.node:
		return refuse(helloWrongNode, "this is node %q, not %q: the address belongs to another node by now", c.node, h.Wanted), false
	case h.NodeID == c.node:
		return refuse(helloSameNode, "this is node %q as well: two replicas have one node id, or one dials itself", c.node), false
	case h.ClusterID != "" && c.id != "" && h.ClusterID != c.id:
		return refuse(helloWrongCluster, "this node is in cluster %q, not %q", c.id, h.ClusterID), false
	case kind != streamRaft:
		return nil, false // what may be asked is decided by request
	case h.ClusterID == "":
		return refuse(helloNoCluster, "node %q is in no cluster and cannot take part in one", h.NodeID), false
	case c.id == h.ClusterID:
		return nil, false
	case h.ClusterID != c.agreed:
		return refuse(helloNotExpected, "this node is in no cluster and has not agreed to be in cluster %q", h.ClusterID), false
	}
	if err := c.adoptLocked(h.ClusterID); err != nil {
		return refuse(helloNotExpected, "this node cannot note the cluster: %v", err), false
	}
	return nil, true
}

// settleCluster gives the cluster of a sole voter its id: one that was formed just
// now, or one from before there were such ids.
func (n *Node) settleCluster() error {
	if n.cluster.current() != "" {
		return nil
	}
	conf := n.configuration()
	if only, ok := soleVoter(conf); ok && only.ID == raft.ServerID(n.id) {
		return n.cluster.adopt(uuid.NewString())
	}
	if len(conf.Servers) > 0 {
		return dirError(n.opts.DataDir, "it is of a cluster of %d and its file %s is gone; copy that file from another replica of the cluster", len(conf.Servers), clusterIDFile)
	}
	return nil
}
