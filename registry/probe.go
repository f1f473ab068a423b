package registry

import "github.com/kvctrl/kvctrl/registry/index"

// maxProbes bounds how often one chunk is looked up again. Each time takes a change
// of that chunk's holders by the writer, and a holder dropped, in the nanoseconds of
// a walk; a reader would have to be stopped in the midst of each.
const maxProbes = 8

// probe visits the streams that hold a key, some perhaps twice, and returns the
// holders that it went by.
//
// A set of holders may have gone out of date when it is walked: the reader was
// stopped in between, and two full syncs have replaced the holder meanwhile. All of a
// stream's holders in it are dead then, although the stream has held the key all the
// time. So a walk that met a dead holder is done again if the set has changed (I6).
func (r *Registry) probe(k Key, holders []*index.Holder[*stream], visit func(*stream)) []*index.Holder[*stream] {
	for range maxProbes {
		dead := false
		for _, h := range holders {
			switch h.State() {
			case index.Visible:
				visit(h.V)
			case index.Dead:
				dead = true
			}
		}
		if !dead {
			break
		}
		again := r.idx.Holders(index.Key(k))
		if same(again, holders) {
			break
		}
		holders = again
	}
	return holders
}

// same reports whether two sets of holders are one; sets are never written.
func same(a, b []*index.Holder[*stream]) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
