package fsm

import "github.com/kvctrl/kvctrl/registry"

// dictionary numbers the names, workers and streams of one entry in the order in
// which they are first used.
type dictionary struct {
	names   table[string]
	workers table[registry.WorkerRef]
	streams table[registry.StreamRef]
}

// table is one part of a dictionary: what has a number, and the bytes of it.
type table[K comparable] struct {
	ids  map[K]uint64
	body []byte
}

// id gives k's number, and whether it is new.
func (t *table[K]) id(k K) (uint64, bool) {
	if id, ok := t.ids[k]; ok {
		return id, false
	}
	if t.ids == nil {
		t.ids = make(map[K]uint64)
	}
	id := uint64(len(t.ids))
	t.ids[k] = id
	return id, true
}

// maxKept is the size up to which a table keeps its map for the next entry: a map
// never shrinks, and clearing a huge one for every small batch is slow.
const maxKept = 1 << 12

func (t *table[K]) reset() {
	if len(t.ids) > maxKept {
		t.ids = nil
	}
	clear(t.ids)
	t.body = t.body[:0]
}

func (t *table[K]) append(dst []byte) []byte {
	return append(appendUint(dst, uint64(len(t.ids))), t.body...)
}

func (d *dictionary) name(s string) uint64 {
	id, fresh := d.names.id(s)
	if fresh {
		d.names.body = appendString(d.names.body, s)
	}
	return id
}

func (d *dictionary) worker(w registry.WorkerRef) uint64 {
	id, fresh := d.workers.id(w)
	if fresh {
		d.workers.body = appendUint(d.workers.body, d.name(w.Instance))
		d.workers.body = appendInt(d.workers.body, w.Worker)
	}
	return id
}

func (d *dictionary) stream(s registry.StreamRef) uint64 {
	id, fresh := d.streams.id(s)
	if fresh {
		d.streams.body = appendUint(d.streams.body, d.worker(s.WorkerRef))
		d.streams.body = appendUint(d.streams.body, d.name(s.Location))
	}
	return id
}

func (d *dictionary) reset() {
	d.names.reset()
	d.workers.reset()
	d.streams.reset()
}

// len bounds what append writes.
func (d *dictionary) len() int {
	return 3*maxUint + len(d.names.body) + len(d.workers.body) + len(d.streams.body)
}

// append writes names and workers, and the streams where the entry has any.
func (d *dictionary) append(dst []byte, streams bool) []byte {
	dst = d.names.append(dst)
	dst = d.workers.append(dst)
	if streams {
		dst = d.streams.append(dst)
	}
	return dst
}

// tables is a dictionary as a decoder sees it. Its memory is used again for the
// next entry.
type tables struct {
	names   []string
	workers []registry.WorkerRef
	streams []registry.StreamRef
	known   interner
}

// read is the reverse of dictionary.append.
func (t *tables) read(c *cursor, streams bool) {
	t.names, t.workers, t.streams = t.names[:0], t.workers[:0], t.streams[:0]
	for range c.count("names", 1) {
		name := c.rawString("name", MaxName)
		if c.err != nil {
			return
		}
		t.names = append(t.names, t.known.string(name))
	}
	for range c.count("workers", 2) {
		name := c.index("instance name", len(t.names))
		worker := c.int()
		if c.err != nil {
			return
		}
		t.workers = append(t.workers, registry.WorkerRef{Instance: t.names[name], Worker: worker})
	}
	if !streams {
		return
	}
	for range c.count("streams", 2) {
		worker := c.index("worker", len(t.workers))
		name := c.index("location name", len(t.names))
		if c.err != nil {
			return
		}
		t.streams = append(t.streams, registry.StreamRef{WorkerRef: t.workers[worker], Location: t.names[name]})
	}
}

func (t *tables) worker(c *cursor) registry.WorkerRef {
	if i := c.index("worker", len(t.workers)); c.err == nil {
		return t.workers[i]
	}
	return registry.WorkerRef{}
}

func (t *tables) stream(c *cursor) registry.StreamRef {
	if i := c.index("stream", len(t.streams)); c.err == nil {
		return t.streams[i]
	}
	return registry.StreamRef{}
}

// interner turns bytes into strings that are copies of their own. The same few
// names come with every entry, so it remembers them; it forgets all at once at
// its bound.
type interner struct {
	strings map[string]string
}

const maxInterned = 1 << 14

func (in *interner) string(b []byte) string {
	if s, ok := in.strings[string(b)]; ok {
		return s
	}
	if in.strings == nil || len(in.strings) >= maxInterned {
		in.strings = make(map[string]string)
	}
	s := string(b)
	in.strings[s] = s
	return s
}
