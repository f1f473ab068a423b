package fsm

import "github.com/kvctrl/kvctrl/registry"

// EncodeLease gives the entry of a lease. It takes up to 10 bytes a worker and each
// instance's name once, so 10 000 instances with names of 48 bytes are beyond
// MaxEntry: the caller cuts a lease well before that, by Heard and by Expired.
func EncodeLease(l registry.Lease) []byte {
	var dict dictionary
	var body []byte
	body = appendUint(body, uint64(len(l.Heard)))
	for _, h := range l.Heard {
		body = appendUint(body, dict.worker(h.WorkerRef))
		body = appendInt(body, int64(l.At-h.Any))
		body = appendBool(body, h.Heartbeat != 0)
		if h.Heartbeat != 0 {
			body = appendInt(body, int64(l.At-h.Heartbeat))
		}
	}
	body = appendUint(body, uint64(len(l.Expired)))
	for _, w := range l.Expired {
		body = appendUint(body, dict.worker(w))
	}
	b := appendHeader(make([]byte, 0, headerSize+3*maxUint+dict.len()+len(body)+trailerSize), TypeLease)
	b = appendInt(b, int64(l.At))
	b = appendInt(b, int64(l.SuspectAfter))
	b = appendInt(b, int64(l.SyncTimeout))
	b = dict.append(b, false)
	return seal(append(b, body...))
}

func (d *decoder) lease(c *cursor) registry.Lease {
	l := registry.Lease{
		At:           registry.Micros(c.int()),
		SuspectAfter: registry.Micros(c.int()),
		SyncTimeout:  registry.Micros(c.int()),
	}
	d.tables.read(c, false)
	for range c.count("heard workers", 3) {
		h := registry.Heard{WorkerRef: d.tables.worker(c)}
		h.Any = l.At - registry.Micros(c.int())
		if c.bool() {
			h.Heartbeat = l.At - registry.Micros(c.int())
		}
		if c.err != nil {
			break
		}
		l.Heard = append(l.Heard, h)
	}
	for range c.count("expired workers", 1) {
		w := d.tables.worker(c)
		if c.err != nil {
			break
		}
		l.Expired = append(l.Expired, w)
	}
	return l
}
