package ingest

import (
	"fmt"
	"sync/atomic"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/internal/zmqwake"
	"github.com/kvctrl/kvctrl/lmcache"
)

const (
	// deadlineTick is how exactly deadlines of waiting requests are kept.
	deadlineTick = 50 * time.Millisecond
	// readAtOnce is how many requests are taken before answers leave.
	readAtOnce = 64
	// maxQuestion is the size of the largest frame on a ROUTER. The largest question is
	// a peer lookup: 116 000 hashes, a prompt of 30 million tokens. It is answered
	// before the next one is read, whoever that is from.
	maxQuestion = 1 << 20
)

// router owns one ROUTER socket. A request is [identity][delimiter][payload]; what
// follows the payload is ignored, and so is what is in the delimiter. The answer is
// [identity][empty][payload], which serves a REQ and a DEALER.
type router struct {
	s       *Server
	sock    *zmq.Socket
	wake    *zmqwake.Waker
	name    string
	counts  *socketCounters
	handle  func(m lmcache.Message, a ask)
	pending *pending
	ended   atomic.Int64 // UnixNano until which to wait for answers; 0 before stop

	out []reply
}

// ask is a request on its way to its answer, which must come exactly once.
type ask struct {
	r       *router
	request *request
	from    string // for complaints
}

// now answers, from within the handler.
func (a ask) now(m lmcache.Message) { a.r.pending.resolve(a.request, lmcache.Append(nil, m)) }

// later answers, from any goroutine.
func (a ask) later(m lmcache.Message) {
	if a.r.pending.resolve(a.request, lmcache.Append(nil, m)) {
		a.r.wake.Wake()
	}
}

// await lets the request wait for later, and answers with late when that does not
// come within patience. From within the handler.
func (a ask) await(patience time.Duration, late func() lmcache.Message) {
	a.r.pending.await(a.request, a.r.s.opts.Now().Add(patience), func() []byte { return lmcache.Append(nil, late()) })
}

// run is owned by Server.Serve and ends after stop. It blocks in the poll only.
func (r *router) run() error {
	// Closed as soon as it is not read any more: a registration that nobody reads is a
	// worker that stays mute. What was answered still leaves (ZMQ_LINGER). To unbind first
	// would cut the connections of those who wait: libzmq ends them with their listener.
	defer r.sock.Close()
	poller := zmq.NewPoller()
	id := poller.Add(r.sock, zmq.POLLIN)
	poller.Add(r.wake.Socket(), zmq.POLLIN)
	for {
		ended := r.ended.Load()
		read := zmq.POLLIN
		if r.pending.full() {
			read = 0
		}
		if _, err := poller.Update(id, read); err != nil {
			return fmt.Errorf("poll %s: %w", r.name, err)
		}
		wait := time.Duration(-1)
		if r.pending.awaiting() || ended != 0 {
			wait = deadlineTick
		}
		if ended != 0 && r.pending.len() == 0 {
			wait = 0
		}
		if _, err := poller.Poll(wait); err != nil && !interrupted(err) {
			return fmt.Errorf("poll %s: %w", r.name, err)
		}
		r.wake.Drain()
		r.s.stats.late.Add(uint64(r.pending.expire(r.s.opts.Now())))
		if err := r.send(); err != nil {
			return err
		}
		taken, err := r.read()
		if err != nil {
			return err
		}
		if ended != 0 && (taken == 0 && r.pending.len() == 0 || time.Now().UnixNano() >= ended) {
			break
		}
	}
	return r.settle()
}

// settle answers, without the log, who still waits, and what has arrived since: a worker
// that hears nothing on its registration stays mute for good, and no later process has
// its request.
func (r *router) settle() error {
	patience := max(r.s.opts.LogPatience, statusPatience)
	for range maxRest / readAtOnce { // bounded, since askers go on
		r.s.stats.late.Add(uint64(r.pending.expire(r.s.opts.Now().Add(patience))))
		if err := r.send(); err != nil {
			return err
		}
		if taken, err := r.read(); err != nil || taken == 0 {
			return err
		}
	}
	return nil
}

// stop makes run return when all requests are answered, after grace without the log.
// Any goroutine.
func (r *router) stop(grace time.Duration) {
	r.ended.Store(time.Now().Add(grace).UnixNano())
	r.wake.Wake()
}

// read takes what is there, up to a few, and answers what can be answered at once.
func (r *router) read() (taken int, err error) {
	for ; taken < readAtOnce; taken++ {
		if r.pending.full() {
			return taken, r.send()
		}
		frames, from, err := receive(r.sock)
		if interrupted(err) {
			r.counts.more.Store(false)
			return taken, r.send()
		}
		if err != nil {
			return taken, fmt.Errorf("receive on %s: %w", r.name, err)
		}
		r.counts.more.Store(true)
		r.one(frames, from)
		if err := r.send(); err != nil {
			return taken, err
		}
	}
	return taken, nil
}

// one handles one request.
func (r *router) one(frames [][]byte, from string) {
	r.counts.messages.Add(1)
	if len(frames) < 3 {
		r.s.bad(reasonLayout, from, r.name,
			fmt.Errorf("%d frames, want identity, empty delimiter and payload: a DEALER must send the delimiter itself", len(frames)))
		return
	}
	a := ask{r: r, request: r.pending.open(frames[0]), from: from}
	r.counts.active.Store(int64(r.pending.len()))
	m, err := lmcache.Decode(frames[2])
	if err != nil {
		r.s.bad(lmcache.ReasonOf(err), from, r.name, err)
		a.now(&lmcache.ErrorMsg{Error: err.Error()})
		return
	}
	r.handle(m, a)
}

// send lets the answers go that are next in their conversations.
func (r *router) send() error {
	r.out = r.pending.take(r.out[:0])
	for _, out := range r.out {
		if err := r.deliver(out); err != nil {
			return err
		}
	}
	clear(r.out)
	if len(r.out) > 0 {
		r.counts.active.Store(int64(r.pending.len()))
	}
	return nil
}

// deliver hands an answer to libzmq. It does not wait: an asker that is gone, or that
// has a thousand answers it does not read, gets none.
func (r *router) deliver(out reply) error {
	if _, err := r.sock.Send(out.identity, zmq.SNDMORE|zmq.DONTWAIT); err != nil {
		if unreachable(err) {
			r.s.stats.undelivered.Add(1)
			return nil
		}
		return fmt.Errorf("answer on %s: %w", r.name, err)
	}
	if _, err := r.sock.Send("", zmq.SNDMORE|zmq.DONTWAIT); err != nil {
		return fmt.Errorf("answer on %s: %w", r.name, err)
	}
	if _, err := r.sock.SendBytes(out.answer, zmq.DONTWAIT); err != nil {
		return fmt.Errorf("answer on %s: %w", r.name, err)
	}
	return nil
}
