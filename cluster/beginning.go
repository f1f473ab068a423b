package cluster

// raft begins a log in two writes: term 1, then the first entry. A process that ends
// between them leaves a term and no log, and raft begins no log where there is a term.

// The keys under which raft keeps its term and its vote.
var (
	raftTermKey = []byte("CurrentTerm")
	raftVoteKey = []byte("LastVoteTerm")
)

// undoBeginning takes back what such a process has left, and reports whether there was
// any. Only where this node was to begin the log, and has not voted: nobody else knows
// of its cluster's log then, and the term stands for nothing.
func (n *Node) undoBeginning() (bool, error) {
	p := n.parts
	decided := p.promise != nil && p.promise.founder().NodeID == n.id && p.promise.Cluster == p.clusterID
	if len(p.bootstrap.Servers) == 0 && !decided {
		return false, nil
	}
	last, err := n.store.LastIndex()
	if err != nil || last > 0 {
		return false, err
	}
	if list, err := p.snapshots.List(); err != nil || len(list) > 0 {
		return false, err
	}
	term, err := n.store.GetUint64(raftTermKey)
	if err != nil && !notFound(err) {
		return false, err
	}
	vote, err := n.store.GetUint64(raftVoteKey)
	if err != nil && !notFound(err) {
		return false, err
	}
	if term != 1 || vote != 0 {
		return false, nil
	}
	n.log.Info("an earlier run was stopped while it began the log, it is begun again", "node", n.id)
	return true, n.store.SetUint64(raftTermKey, 0)
}
