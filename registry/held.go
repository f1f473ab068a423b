package registry

import "github.com/kvctrl/kvctrl/registry/index"

// Held reports whether anybody holds a chunk, which does not yet make it a hit: see
// Search.
//
// Cost: one probe, no lock, no allocation.
func (r *Registry) Held(k Key) bool {
	holders := r.idx.Holders(index.Key(k))
	if len(holders) == 0 {
		return false
	}
	held := false
	r.probe(k, holders, func(*stream) { held = true })
	return held
}

// HeldBy reports whether any worker of an instance holds a chunk.
func (r *Registry) HeldBy(k Key, instance string) bool {
	held := false
	r.probe(k, r.idx.Holders(index.Key(k)), func(st *stream) {
		held = held || st.worker.instance.id == instance
	})
	return held
}

// Registered reports whether an instance has a worker. It waits for the writer.
func (r *Registry) Registered(instance string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byID[instance] != nil
}
