package ingest

import (
	"sync"
	"time"
)

// pending holds the requests of one ROUTER socket that are not answered yet.
//
// LMCache's workers match answers to requests by order alone, so the answers of one
// identity leave in the order of its requests, whatever order they became known in;
// different identities do not wait for each other (I3). Every request gets exactly
// one answer (I4).
//
// Concurrency: resolve from any goroutine; everything else from the socket's.
type pending struct {
	max int

	mu      sync.Mutex
	byID    map[string]*conversation // those with requests
	count   int
	ready   []*conversation // whose oldest request has its answer
	waiting []*request      // those with a deadline
}

// conversation is what one identity asked, oldest first.
type conversation struct {
	identity string
	requests []*request
	ready    bool // is in pending.ready
}

// request is one question and, in time, its answer.
type request struct {
	conv     *conversation
	answer   []byte
	answered bool
	deadline time.Time     // zero: none
	late     func() []byte // the answer when the deadline has passed
}

func newPending(max int) *pending {
	return &pending{max: max, byID: make(map[string]*conversation)}
}

// full reports whether the bound is reached: the socket must not be read then.
func (p *pending) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count >= p.max
}

func (p *pending) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// open notes a new request of identity.
func (p *pending) open(identity []byte) *request {
	p.mu.Lock()
	defer p.mu.Unlock()
	conv := p.byID[string(identity)]
	if conv == nil {
		conv = &conversation{identity: string(identity)}
		p.byID[conv.identity] = conv
	}
	r := &request{conv: conv}
	conv.requests = append(conv.requests, r)
	p.count++
	return r
}

// await gives an open request a deadline, after which late answers it.
func (p *pending) await(r *request, deadline time.Time, late func() []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.answered {
		return
	}
	r.deadline, r.late = deadline, late
	p.waiting = append(p.waiting, r)
}

// resolve gives a request its answer, and reports whether something can be sent now.
// Only the first answer of a request counts.
func (p *pending) resolve(r *request, answer []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.answered {
		return false
	}
	r.answer, r.answered, r.late = answer, true, nil
	if r.conv.requests[0] != r || r.conv.ready {
		return false
	}
	r.conv.ready = true
	p.ready = append(p.ready, r.conv)
	return true
}

// reply is an answer on its way out.
type reply struct {
	identity string
	answer   []byte
}

// take removes what can be sent now, in order per identity, and appends it to dst.
func (p *pending) take(dst []reply) []reply {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, conv := range p.ready {
		p.ready[i] = nil
		conv.ready = false
		n := 0
		for n < len(conv.requests) && conv.requests[n].answered {
			dst = append(dst, reply{conv.identity, conv.requests[n].answer})
			conv.requests[n] = nil
			n++
		}
		p.count -= n
		if conv.requests = conv.requests[n:]; len(conv.requests) == 0 {
			delete(p.byID, conv.identity)
		}
	}
	p.ready = p.ready[:0]
	return dst
}

// expire answers the requests whose deadline has passed, and returns how many.
func (p *pending) expire(now time.Time) int {
	p.mu.Lock()
	var due []func()
	kept := p.waiting[:0]
	for _, r := range p.waiting {
		switch late := r.late; {
		case r.answered:
		case r.deadline.After(now):
			kept = append(kept, r)
		default:
			due = append(due, func() { p.resolve(r, late()) })
		}
	}
	clear(p.waiting[len(kept):])
	p.waiting = kept
	p.mu.Unlock()
	for _, answer := range due { // not under mu: it may ask the registry
		answer()
	}
	return len(due)
}

// awaiting reports whether a request may have a deadline.
func (p *pending) awaiting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.waiting) > 0
}
