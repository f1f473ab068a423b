package registry

import (
	"cmp"
	"slices"
	"sync/atomic"
)

// memberSet is the replicas by node id. The writer replaces the list whole, and readers
// take it without a lock: every answer names the leader's URL, and must not wait for an
// entry that is being applied.
type memberSet struct{ list atomic.Pointer[[]Member] }

// all returns the replicas, ascending. Nobody changes what it returns.
func (s *memberSet) all() []Member {
	if list := s.list.Load(); list != nil {
		return *list
	}
	return nil
}

func (s *memberSet) find(nodeID string) (i int, known bool) {
	return slices.BinarySearchFunc(s.all(), nodeID, func(m Member, id string) int { return cmp.Compare(m.NodeID, id) })
}

// put adds a replica or replaces it. The writer's.
func (s *memberSet) put(m Member) {
	i, known := s.find(m.NodeID)
	list := slices.Clone(s.all())
	if known {
		list[i] = m
	} else {
		list = slices.Insert(list, i, m)
	}
	s.list.Store(&list)
}

// drop forgets a replica. The writer's.
func (s *memberSet) drop(nodeID string) {
	i, known := s.find(nodeID)
	if !known {
		return
	}
	list := slices.Delete(slices.Clone(s.all()), i, i+1)
	s.list.Store(&list)
}

// SetMember adds a replica, or brings its addresses up to date.
func (r *Registry) SetMember(m Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members.put(m)
}

// RemoveMember forgets a replica.
func (r *Registry) RemoveMember(nodeID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members.drop(nodeID)
}

// Members returns the replicas by node id. It takes no lock; the caller must not change
// what it returns.
func (r *Registry) Members() []Member { return r.members.all() }
