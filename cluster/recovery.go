package cluster

import (
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/raft"
)

// Recovery of a cluster that has lost its quorum for good: an operator writes the
// members that are left into peers.json, in the data directory of each of them, and
// starts them.

const (
	// peersFile is raft's own format: [{"id": "n1", "address": "host:9400", "non_voter": false}].
	peersFile = "peers.json"
	// usedPeersFile is what it is called when it has been followed.
	usedPeersFile = "peers.json.used"
)

// readPeers reads peers.json, nil when there is none.
func (d *dataDir) readPeers() (*raft.Configuration, error) {
	path := d.file(peersFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	conf, err := raft.ReadConfigJSON(path)
	if err != nil {
		return nil, dirError(d.path, `its %s cannot be followed: %w; it lists the members that are left: [{"id": "n1", "address": "host:9400"}]`, peersFile, err)
	}
	if _, ok := serverOf(conf, d.nodeID); !ok {
		return nil, dirError(d.path, "its %s does not name this node, %q: it lists all members that are left, the same file for each of them", peersFile, d.nodeID)
	}
	return &conf, nil
}

// usedPeers puts peers.json aside.
func (d *dataDir) usedPeers() error {
	err := os.Rename(d.file(peersFile), d.file(usedPeersFile))
	if err == nil {
		err = syncDir(d.path)
	}
	if err != nil {
		return dirError(d.path, "its %s was followed and cannot be put aside: %w", peersFile, err)
	}
	return nil
}

// recover makes the configuration of peers.json that of this node: everything in its
// log counts as committed, is put into a snapshot, and the log begins anew.
func (n *Node) recover(conf *raft.Config) error {
	p := n.parts
	if p.peers == nil {
		return nil
	}
	machine := &recoveryMachine{StateMachine: n.opts.FSM}
	if err := raft.RecoverCluster(conf, machine, n.store, n.store, p.snapshots, p.transport, *p.peers); err != nil {
		return fmt.Errorf("%s was not followed: %w", peersFile, err)
	}
	n.log.Warn("RECOVERED from peers.json: the members are now those that it names, entries that were not committed may have become so, and replicas that it does not name must never be started again with their data",
		"node", n.id, "members", memberIDs(*p.peers), "cluster", p.clusterID)
	return p.usedPeers()
}

// recoveryMachine is the state machine during recovery. raft does not look at what
// Apply answers: an entry that cannot be applied must not vanish in the snapshot.
//
// The same state machine goes on afterwards: raft restores the new snapshot into it,
// which replaces all it has.
type recoveryMachine struct {
	StateMachine
	refused error
}

func (m *recoveryMachine) Apply(log *raft.Log) any {
	result := m.StateMachine.ApplyBatch([]*raft.Log{log})[0]
	if err := refusal(result); err != nil && m.refused == nil {
		m.refused = fmt.Errorf("entry %d: %w", log.Index, err)
	}
	return result
}

func (m *recoveryMachine) Snapshot() (raft.FSMSnapshot, error) {
	if m.refused != nil {
		return nil, m.refused
	}
	return m.StateMachine.Snapshot()
}
