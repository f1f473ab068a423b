package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	zmq "github.com/pebbe/zmq4"
	"golang.org/x/sync/errgroup"

	"github.com/kvctrl/kvctrl/internal/seldom"
	"github.com/kvctrl/kvctrl/internal/zmqwake"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

// Server is the worker-facing side of a replica.
// Life: New, Open, Serve, Close, each once and in this order; Close also after a
// failed Open, or without Serve. Stats, TakeHeard and PutBackHeard: at any time.
type Server struct {
	opts   Options
	logger hclog.Logger
	stats  *counters
	queue  *batcher

	complaints seldom.Limiter // about each sender
	notes      notes
	slots      syncSlots
	questions  chan slotAsked // to the leader, from command to askSlots
	flights    flights

	zctx    *zmq.Context
	pullers []*puller
	routers []*router
	ports   Ports // fixed after Open
	ownIP   string

	mu      sync.Mutex
	stop    context.CancelCauseFunc
	stopped chan struct{} // closed when Serve has returned
	closed  bool
}

// Ports are the ports a Server is bound to. 0: no such socket.
type Ports struct {
	Pull      []int
	Reply     int
	Heartbeat int
}

// New makes a Server. It does nothing yet; Open says what is wrong with o.
func New(o Options) *Server {
	o = o.withDefaults()
	s := &Server{opts: o, logger: o.Logger, stats: newCounters(),
		complaints: seldom.Limiter{Every: complaintPause, Max: maxSenders},
		questions:  make(chan slotAsked, maxSlotQuestions)}
	s.slots = syncSlots{max: o.MaxSyncs, stats: s.stats}
	s.queue = newBatcher(o, s.stats)
	return s
}

// Open binds the sockets. Errors name the address and the flag it comes from.
func (s *Server) Open() error {
	if err := s.opts.Validate(); err != nil {
		return err
	}
	zctx, err := zmq.NewContext()
	if err != nil {
		return fmt.Errorf("make zmq context: %w", err)
	}
	s.zctx = zctx
	s.ownIP = ownIP()
	for i, port := range s.opts.PullPorts {
		flag := `--monitor-ports "pull"`
		if i > 0 {
			flag = "--monitor-port"
		}
		if err := s.openPull(port, flag); err != nil {
			return err
		}
	}
	o := s.opts
	if s.ports.Reply, err = s.openRouter(o.ReplyPort, "reply", &s.stats.reply, s.reply); err != nil {
		return err
	}
	s.ports.Heartbeat, err = s.openRouter(o.HeartbeatPort, "heartbeat", &s.stats.heartbeat, s.heartbeatOnly)
	return err
}

func (s *Server) openPull(port int, flag string) error {
	sock, bound, err := listen(s.zctx, zmq.PULL, s.opts.Host, port, s.opts.MaxFrame, flag)
	if err != nil {
		return err
	}
	wake, err := zmqwake.New(s.zctx)
	if err != nil {
		sock.Close()
		return err
	}
	s.ports.Pull = append(s.ports.Pull, bound)
	s.pullers = append(s.pullers, &puller{s: s, sock: sock, wake: wake, name: fmt.Sprintf("pull port %d", bound)})
	return nil
}

func (s *Server) openRouter(port int, name string, counts *socketCounters, handle func(lmcache.Message, ask)) (int, error) {
	if port == 0 {
		return 0, nil
	}
	sock, bound, err := listen(s.zctx, zmq.ROUTER, s.opts.Host, port, maxQuestion, fmt.Sprintf("--monitor-ports %q", name))
	if err != nil {
		return 0, err
	}
	wake, err := zmqwake.New(s.zctx)
	if err != nil {
		sock.Close()
		return 0, err
	}
	s.routers = append(s.routers, &router{s: s, sock: sock, wake: wake, name: fmt.Sprintf("%s port %d", name, bound),
		counts: counts, handle: handle, pending: newPending(s.opts.MaxPending)})
	return bound, nil
}

// Ports returns what Open has bound.
func (s *Server) Ports() Ports { return s.ports }

// Serve answers workers until ctx ends, or Close is called; then it stops reading,
// proposes what was taken for up to DrainTimeout, lets the answers leave and returns
// nil. An error is a socket that no longer works.
func (s *Server) Serve(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s.mu.Lock()
	if s.closed || s.stopped != nil {
		s.mu.Unlock()
		return errors.New("ingest: Serve after Close, or twice")
	}
	s.stop, s.stopped = stop, make(chan struct{})
	s.mu.Unlock()
	defer close(s.stopped)

	s.logger.Info("listening for workers", "host", s.opts.Host, "pull", s.ports.Pull,
		"reply", s.ports.Reply, "heartbeat", s.ports.Heartbeat)
	if s.ports.Heartbeat == 0 {
		s.logger.Warn("no heartbeat port: workers will send no heartbeats, and cannot be asked for a full sync")
	}

	// The log is used past the end of ctx, to drain.
	logCtx, stopLog := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopLog(nil)
	loops, loopCtx := errgroup.WithContext(ctx)
	var pulling sync.WaitGroup
	for _, p := range s.pullers {
		pulling.Add(1)
		loops.Go(func() error {
			defer pulling.Done()
			// Closed as soon as it is not read any more: what a worker sends from then on
			// waits with the worker, and is not lost in a socket of ours.
			defer p.sock.Close()
			return p.run()
		})
	}
	for _, r := range s.routers {
		loops.Go(r.run)
	}
	drained := make(chan struct{})
	go func() { // owned here; ends when the queue is closed and empty, or with logCtx
		defer close(drained)
		s.queue.run(logCtx)
	}()

	// Owned here: the one ends after loopCtx, and a last request, the other when the
	// routers have ended, whose heartbeats it answers.
	var telling, asking sync.WaitGroup
	telling.Go(func() { s.everySecond(loopCtx) })
	askCtx, stopAsking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAsking()
	asking.Go(func() { s.askSlots(askCtx) })

	<-loopCtx.Done()
	giveUp := time.AfterFunc(s.opts.DrainTimeout, func() { stopLog(errClosed) })
	for _, p := range s.pullers {
		p.stop()
	}
	for _, r := range s.routers {
		r.stop(s.opts.DrainTimeout)
	}
	pulling.Wait() // a puller that waits for the queue goes on when that moves, or is given up
	s.queue.close()
	<-drained
	giveUp.Stop()
	err := loops.Wait()
	stopAsking()
	asking.Wait()
	telling.Wait()
	s.logger.Info("stopped listening for workers")
	return err
}

// Close ends Serve, waits for it and closes the sockets. A second call does nothing.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	stop, stopped := s.stop, s.stopped
	s.mu.Unlock()
	if stopped != nil {
		stop(errClosed)
		<-stopped
	}
	s.queue.close()
	var faults []error
	for _, p := range s.pullers {
		p.wake.Close()
		if stopped == nil { // else run's end has closed it
			faults = append(faults, p.sock.Close())
		}
	}
	for _, r := range s.routers {
		r.wake.Close()
		if stopped == nil {
			faults = append(faults, r.sock.Close())
		}
	}
	if s.zctx != nil {
		faults = append(faults, s.zctx.Term())
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("close worker sockets: %w", err)
	}
	return nil
}

// TakeHeard hands over who was heard of since the last call, here and by the replicas
// that have said so, for a lease.
func (s *Server) TakeHeard(context.Context) []registry.Heard { return s.notes.take() }

// PutBackHeard returns what TakeHeard gave and did not get into the log.
func (s *Server) PutBackHeard(heard []registry.Heard) { s.notes.put(heard) }
