package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// simLoad is what clients do to a simulated cluster: at every replica one writes
// batches and one reads, and the leader runs events. They remember what they were
// told, and check each answer by it.
type simLoad struct {
	c       *simCluster
	writers []*simWriter
	readers []*simReader

	mu   sync.Mutex
	runs map[string]registry.EventState // of events: what was acknowledged last

	pace     time.Duration // clients pause so many times longer; 1 if not set otherwise
	stopping chan struct{} // nil while nothing runs
	running  sync.WaitGroup
}

// Pace of the clients in virtual time.
const (
	writePause = 40 * time.Millisecond
	readPause  = 60 * time.Millisecond
	eventPause = 80 * time.Millisecond
)

func (s *simLoad) init(c *simCluster, seed uint64) {
	s.c, s.pace = c, 1
	s.runs = map[string]registry.EventState{}
	for i := range 3 {
		s.writers = append(s.writers, newSimWriter(c, i, seed))
		s.readers = append(s.readers, &simReader{c: c, home: i, rand: rand.New(rand.NewPCG(seed, 200+uint64(i)))})
	}
}

// start lets the clients run until stop.
func (s *simLoad) start() {
	stopping := make(chan struct{})
	s.stopping = stopping
	for _, w := range s.writers {
		s.running.Go(func() { w.run(stopping) })
	}
	for _, r := range s.readers {
		s.running.Go(func() { r.run(stopping) })
	}
}

// stop lets every client end what it has begun: a batch once sent is repeated until
// it is acknowledged.
func (s *simLoad) stop() {
	if s.stopping != nil {
		close(s.stopping)
		s.running.Wait()
		s.stopping = nil
	}
}

// simWriter is a worker behind a batcher: one session, one numbered stream, batches
// one after the other, each repeated with its number until it is acknowledged.
type simWriter struct {
	c       *simCluster
	home    int // the replica that it prefers
	rand    *rand.Rand
	session registry.SessionID
	stream  registry.StreamRef

	mu     sync.Mutex
	number uint64 // of the last acknowledged batch
	next   int64  // number of the next operation
	keys   map[registry.Key]bool
}

// simKeys is how many different keys a writer admits and evicts.
const simKeys = 48

func newSimWriter(c *simCluster, i int, seed uint64) *simWriter {
	w := &simWriter{
		c: c, home: i, rand: rand.New(rand.NewPCG(seed, 100+uint64(i))),
		stream: registry.StreamRef{WorkerRef: registry.WorkerRef{Instance: fmt.Sprintf("vllm-%d", i), Worker: 0}, Location: "LocalCPUBackend"},
		keys:   map[registry.Key]bool{},
	}
	w.session[0], w.session[15] = byte(i+1), 0xee
	return w
}

func (w *simWriter) run(stopping <-chan struct{}) {
	for {
		select {
		case <-stopping:
			return
		case <-time.After(time.Duration(w.rand.Int64N(int64(writePause * w.c.load.pace)))):
		}
		w.write()
	}
}

// write sends one batch and waits for its acknowledgement.
func (w *simWriter) write() {
	number, keys, evict := w.number+1, make([]registry.Key, 1+w.rand.IntN(12)), registry.Bitmap{0, 0}
	after := map[registry.Key]bool{}
	for k := range w.keys {
		after[k] = true
	}
	for i := range keys {
		keys[i] = registry.Key(w.home*1000 + w.rand.IntN(simKeys))
		if w.rand.IntN(3) == 0 {
			evict[i/8] |= 1 << (i % 8)
			delete(after, keys[i])
		} else {
			after[keys[i]] = true
		}
	}
	at := now()
	b := fsm.NewBatch(w.session)
	if number == 1 {
		b.Register(registry.Registration{WorkerRef: w.stream.WorkerRef, IP: "10.0.0.1", Port: 9000, At: at})
	}
	record := b.Ops(registry.Ops{Stream: w.stream, Keys: keys, Evict: evict, First: w.next, Numbered: true, At: at})
	a, node := w.repeat(func() []byte { return b.Encode(number, at) })
	if a.Index == 0 {
		return // given up, the test has failed
	}
	res, ok := a.Result.(fsm.BatchResult)
	if !ok {
		w.c.h.failf("%s answers batch %d of writer %d with %v", node, number, w.home, a.Result)
	} else if !res.Duplicate {
		if ops := res.Records[record].Ops; ops != (registry.OpsResult{}) {
			w.c.h.failf("%s answers batch %d of writer %d with %+v: batches before it are missing, or there twice", node, number, w.home, ops)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.number, w.next, w.keys = number, w.next+int64(len(keys)), after
}

// repeat submits the entry, at one replica after the other if need be, until it is
// acknowledged. The zero Applied means that it gave up.
func (w *simWriter) repeat(entry func() []byte) (a Applied, node string) {
	begin := time.Now()
	var err error
	for try := 0; time.Since(begin) < time.Minute; try++ {
		all := w.c.all()
		r := all[(w.home+try/3)%len(all)]
		if l := r.now(); l != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			a, err = l.Submit(ctx, entry())
			cancel()
			if err == nil && !l.isDead() {
				w.c.h.ack(r.id, entry(), a)
				return a, r.id
			}
			if err != nil && !retryable(err) {
				w.c.h.failf("%s: submit: %v", r.id, err)
			}
			w.c.h.count(func(c *historyCounts) { c.retried++ })
		}
		<-time.After(time.Duration(10+w.rand.IntN(50)) * time.Millisecond)
	}
	w.c.h.failf("batch of writer %d was not acknowledged for a minute, at last: %v\n%s", w.home, err, w.c.state())
	return Applied{}, ""
}

// retryable reports whether a submission may be made again, with the same session
// and number.
func retryable(err error) bool {
	for _, e := range []error{ErrNotLeader, ErrNoLeader, ErrUnknownOutcome, ErrStopped, ErrBusy, context.DeadlineExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// progress is how far a writer is known to have come.
type progress struct {
	stream registry.StreamRef
	next   int64
}

func (s *simLoad) progress() []progress {
	var out []progress
	for _, w := range s.writers {
		w.mu.Lock()
		if w.number > 0 {
			out = append(out, progress{w.stream, w.next})
		}
		w.mu.Unlock()
	}
	return out
}

// verify holds a replica's state against what was acknowledged. Nothing may be
// under way.
func (s *simLoad) verify(l *simLife) {
	reg := l.machine.Registry()
	for _, w := range s.writers {
		if w.number == 0 {
			continue
		}
		loc, ok := location(reg, w.stream)
		if !ok || loc.NextSeq != w.next || loc.Keys != int64(len(w.keys)) || loc.Gaps != 0 || loc.Lossy {
			s.c.h.failf("%s says of writer %d: %+v; acknowledged are %d keys and operations up to %d", l.NodeID(), w.home, loc, len(w.keys), w.next-1)
		}
		for k := range registry.Key(simKeys) {
			k += registry.Key(w.home * 1000)
			if held := slices.Contains(reg.Holders(k), w.stream); held != w.keys[k] {
				s.c.h.failf("%s: key %d of writer %d is held: %v, acknowledged: %v", l.NodeID(), k, w.home, held, w.keys[k])
			}
		}
	}
	s.verifyEvents(l)
}

func location(reg *registry.Registry, s registry.StreamRef) (registry.LocationInfo, bool) {
	info, _ := reg.Worker(s.WorkerRef)
	for _, loc := range info.Locations {
		if loc.Location == s.Location {
			return loc, true
		}
	}
	return registry.LocationInfo{}, false
}

// events is the leader's task: it opens, runs and closes events.
func (s *simLoad) events(ctx context.Context, l *simLife, term uint64) error {
	for i := 0; ; i++ {
		id := fmt.Sprintf("Clear-%d-%s-%d", term, l.replica.id, i)
		worker := s.writers[i%len(s.writers)].stream.WorkerRef
		steps := []struct {
			state registry.EventState
			entry []byte
		}{
			{registry.EventPending, fsm.EncodeCreateEvent(registry.EventCreate{ID: id, Kind: registry.CommandClear, Source: registry.Target{Instance: worker.Instance}, Term: term, At: now()})},
			{registry.EventRunning, fsm.EncodeRunEvent(registry.EventRun{ID: id, Term: term, Workers: []registry.WorkerRef{worker}, At: now()})},
			{registry.EventDone, fsm.EncodeFinishEvent(registry.EventFinish{ID: id, Term: term, State: registry.EventDone, At: now()})},
		}
		for _, step := range steps {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(eventPause * s.pace):
			}
			a, err := l.Propose(ctx, step.entry)
			if err != nil || l.isDead() {
				if ctx.Err() == nil && err != nil && !retryable(err) {
					s.c.h.failf("%s: event %s, %s: %v", l.replica.id, id, step.state, err)
				}
				<-ctx.Done() // what became of it, the next leader knows
				return nil
			}
			if verdict, refused := a.Result.(error); refused {
				s.c.h.failf("%s: event %s, %s: %v, in its own term", l.replica.id, id, step.state, verdict)
			}
			s.c.h.ack(l.replica.id, step.entry, a)
			s.mu.Lock()
			s.runs[id] = step.state
			s.mu.Unlock()
			s.c.h.count(func(c *historyCounts) { c.events++ })
		}
	}
}

// verifyEvents wants every acknowledged step of an event, and no event of an earlier
// term open. What is checked and final is not looked at again. Events go on meanwhile.
func (s *simLoad) verifyEvents(l *simLife) {
	s.mu.Lock()
	runs, acked := maps.Clone(s.runs), s.c.h.ackedIndex()
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	if err := l.machine.WaitApplied(ctx, acked); err != nil {
		s.c.h.failf("%s stands at index %d, acknowledged is %d: %v", l.NodeID(), l.machine.Applied(), acked, err)
		return
	}
	reg := l.machine.Registry()
	term, _ := reg.Term()
	for id, state := range runs {
		e, ok := reg.Event(id)
		switch {
		case !ok:
			s.c.h.failf("%s does not know event %s, acknowledged as %s", l.NodeID(), id, state)
		case state == registry.EventDone && e.State != registry.EventDone:
			s.c.h.failf("%s: event %s is %s, acknowledged as %s", l.NodeID(), id, e.State, state)
		case state == registry.EventRunning && e.State == registry.EventPending:
			s.c.h.failf("%s: event %s is %s, acknowledged as %s", l.NodeID(), id, e.State, state)
		case e.Term < term && !e.State.Final():
			s.c.h.failf("%s: event %s of term %d is %s in term %d", l.NodeID(), id, e.Term, e.State, term)
		}
		if e.State.Final() {
			s.mu.Lock()
			delete(s.runs, id)
			s.mu.Unlock()
			s.c.h.count(func(c *historyCounts) { c.finished++ })
		}
	}
}

// simReader reads at one replica and checks what the answers promise.
type simReader struct {
	c    *simCluster
	home int
	rand *rand.Rand
}

func (r *simReader) run(stopping <-chan struct{}) {
	for {
		select {
		case <-stopping:
			return
		case <-time.After(time.Duration(r.rand.Int64N(int64(readPause * r.c.load.pace)))):
		}
		all := r.c.all()
		l := all[r.home%len(all)].now()
		if l == nil {
			continue
		}
		r.read(l, Read{}, time.Second)
		if r.rand.IntN(3) == 0 {
			r.read(l, Read{Consistency: Bounded, MaxStaleness: time.Duration(1+r.rand.IntN(1000)) * time.Millisecond}, 500*time.Millisecond)
		}
		r.readLinearizable(l)
	}
}

// readLinearizable wants everything in the state that was acknowledged before.
func (r *simReader) readLinearizable(l *simLife) {
	acked, written := r.c.h.ackedIndex(), r.c.load.progress()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	f, err := l.Read(ctx, Read{Consistency: Linearizable})
	if l.isDead() {
		return
	}
	if err != nil {
		if !errors.Is(err, ErrStale) && !retryable(err) || errors.Is(err, ErrNotLeader) {
			r.c.h.failf("%s: linearizable read: %v", l.NodeID(), err)
		}
		r.c.h.count(func(c *historyCounts) { c.refusedReads++ })
		return
	}
	reg := l.machine.Registry()
	if f.Index < acked || l.machine.Applied() < f.Index {
		r.c.h.failf("%s: linearizable read at index %d (applied %d), acknowledged before it began: %d", l.NodeID(), f.Index, l.machine.Applied(), acked)
	}
	for _, p := range written {
		if loc, _ := location(reg, p.stream); loc.NextSeq < p.next {
			r.c.h.failf("%s: linearizable read sees %v at operation %d, acknowledged before it began: %d", l.NodeID(), p.stream, loc.NextSeq, p.next)
		}
	}
	r.c.h.count(func(c *historyCounts) { c.reads++ })
}

// read wants the staleness that is claimed to be true, whatever was committed longer
// ago is in the state, and within the bound if one was given.
func (r *simReader) read(l *simLife, want Read, limit time.Duration) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	f, err := l.Read(ctx, want)
	if l.isDead() {
		return
	}
	bounded := want.Consistency == Bounded
	if err != nil {
		if !errors.Is(err, ErrStopped) && !(bounded && (errors.Is(err, ErrStale) || retryable(err))) {
			r.c.h.failf("%s: read %+v: %v", l.NodeID(), want, err)
		}
		return
	}
	r.c.h.count(func(c *historyCounts) {
		switch {
		case bounded:
			c.bounded++
		case f.Staleness != StalenessUnknown:
			c.staleKnown++
			c.staleness = max(c.staleness, f.Staleness)
			fallthrough
		default:
			c.stale++
		}
	})
	if bounded && f.Staleness > want.MaxStaleness {
		r.c.h.failf("%s: read %+v gives a staleness of %v", l.NodeID(), want, f.Staleness)
	}
	if f.Staleness == StalenessUnknown {
		return
	}
	if must := r.c.h.appliedBefore(begin.Add(-f.Staleness)); f.Index < must {
		r.c.h.failf("%s: read %+v claims a staleness of %v at index %d, but index %d was applied elsewhere before that", l.NodeID(), want, f.Staleness, f.Index, must)
	}
	if f.Index > l.machine.Applied() {
		r.c.h.failf("%s: read %+v names index %d, applied is %d", l.NodeID(), want, f.Index, l.machine.Applied())
	}
}
