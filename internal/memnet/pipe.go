package memnet

import (
	"io"
	"time"
)

// pipe is one direction of a connection: bytes under way and bytes that have
// arrived. All of it needs the network's mutex.
type pipe struct {
	net  *Network
	way  *link // of the bytes
	back *link // of their acknowledgements

	segments  []segment
	size      int  // bytes in the window: written and not yet acknowledged
	taken     int  // of these, read while back was cut
	ended     bool // the writer has closed
	dropped   bool // the reader is gone
	resetHeld bool // the reader is to learn of a reset once way is healed
}

// segment is what one write gave, or the end of the stream.
type segment struct {
	data    []byte
	end     bool
	arrives time.Time // zero while the way is cut
}

// coalesce is the size up to which writes of one instant make one segment, so that
// byte by byte does not cost a segment each.
const coalesce = 4096

// write takes what fits into the window.
func (p *pipe) write(b []byte, now time.Time) int {
	b = b[:min(len(b), Window-p.size)]
	p.size += len(b)
	if len(b) == 0 || p.dropped { // into the void, until the writer learns of it
		return len(b)
	}
	at := p.nextArrival(now)
	if k := len(p.segments); k > 0 {
		last := &p.segments[k-1]
		if last.arrives.Equal(at) && len(last.data)+len(b) <= coalesce {
			last.data = append(last.data, b...)
			return len(b)
		}
	}
	p.segments = append(p.segments, segment{data: append([]byte(nil), b...), arrives: at})
	return len(b)
}

// end puts the end of the stream behind what was written.
func (p *pipe) end(now time.Time) {
	if p.ended || p.dropped {
		return
	}
	p.ended = true
	p.segments = append(p.segments, segment{end: true, arrives: p.nextArrival(now)})
}

// nextArrival says when what is sent now arrives: not before what was sent earlier.
func (p *pipe) nextArrival(now time.Time) time.Time {
	if p.way.cut {
		return time.Time{}
	}
	at := now.Add(p.net.transit(p.way))
	if k := len(p.segments); k > 0 && at.Before(p.segments[k-1].arrives) {
		at = p.segments[k-1].arrives
	}
	return at
}

// read takes what has arrived.
func (p *pipe) read(b []byte, now time.Time) (k int, err error) {
	for k < len(b) && len(p.segments) > 0 {
		s := &p.segments[0]
		if s.arrives.IsZero() || now.Before(s.arrives) {
			break
		}
		if s.end {
			if k == 0 {
				return 0, io.EOF
			}
			break
		}
		m := copy(b[k:], s.data)
		k += m
		if s.data = s.data[m:]; len(s.data) > 0 {
			break
		}
		p.segments[0] = segment{}
		p.segments = p.segments[1:]
	}
	p.acknowledge(k)
	return k, nil
}

// acknowledge makes room for what was read, as soon as the writer can know.
func (p *pipe) acknowledge(k int) {
	p.taken += k
	if !p.back.cut {
		p.size -= p.taken
		p.taken = 0
	}
}

// arrival says when something can be read; zero when nothing is under way.
func (p *pipe) arrival() time.Time {
	if len(p.segments) == 0 {
		return time.Time{}
	}
	return p.segments[0].arrives
}

// hold keeps back what has not arrived yet.
func (p *pipe) hold(now time.Time) {
	for i := range p.segments {
		if s := &p.segments[i]; now.Before(s.arrives) {
			s.arrives = time.Time{}
		}
	}
}

// release lets go of what was held.
func (p *pipe) release(now time.Time) {
	at := now.Add(p.net.transit(p.way))
	for i := range p.segments {
		if s := &p.segments[i]; s.arrives.IsZero() {
			s.arrives = at
		}
	}
}

// drop forgets everything: the reader is gone.
func (p *pipe) drop() {
	p.dropped = true
	p.segments, p.size, p.taken = nil, 0, 0
}
