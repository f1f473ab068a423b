package simworker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	zmq "github.com/pebbe/zmq4"
	"golang.org/x/sync/errgroup"

	"github.com/kvctrl/kvctrl/internal/zmqwake"
	"github.com/kvctrl/kvctrl/lmcache"
)

// Worker is one simulated rank. Life: New, Start, then Stop or Kill; a restarted
// process is a new Worker with the same options.
//
// Concurrency: every method from any goroutine, after Start has returned.
type Worker struct {
	opts  Options
	store *store
	send  *sender

	ownContext bool
	zctx       *zmq.Context
	asks       *requester
	commands   *commandPort // nil when deaf
	port       int
	peerURL    *string
	pushSock   *zmq.Socket

	group  *errgroup.Group
	cancel context.CancelFunc
	ctx    context.Context // the Worker's life, made by Start
	ended  sync.Once
	linger atomic.Int64 // of the PUSH socket when it is closed, in nanoseconds

	mu           sync.Mutex
	scripts      map[string]Scripted
	hasher       *lmcache.Hasher
	rng          *rand.Rand
	frozen       bool
	syncing      bool
	heartbeatURL string
	stats        Stats
}

// Stats count what a Worker has done.
type Stats struct {
	Sent       SentStats
	Heartbeats uint64 // answered
	Syncs      uint64 // ended, with or without success
	SyncsGood  uint64 // ended by can_exit_freeze
}

// New makes a Worker. Errors name everything that is wrong with o.
func New(o Options) (*Worker, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	profile, err := lmcache.ParseProfile(o.Profile)
	if err != nil {
		return nil, err
	}
	hasher, err := profile.NewHasher(o.ChunkSize)
	if err != nil {
		return nil, err
	}
	w := &Worker{opts: o, hasher: hasher, rng: rand.New(rand.NewPCG(o.Seed, uint64(o.Rank))), scripts: maps.Clone(o.Script)}
	return w, nil
}

// Start opens the sockets and registers. It returns when the controller has answered,
// as LMCache's worker does nothing before that.
func (w *Worker) Start(ctx context.Context) error {
	if err := w.open(); err != nil {
		w.close()
		return fmt.Errorf("simulated worker %s: %w", w, err)
	}
	w.ctx, w.cancel = context.WithCancel(context.WithoutCancel(ctx))
	w.group = new(errgroup.Group)
	w.group.Go(func() error { return w.asks.run(w.ctx) })
	w.group.Go(func() error { return w.send.run(w.ctx) })
	if w.commands != nil {
		w.group.Go(func() error { return w.commands.run(w.ctx) })
	}
	if err := w.register(ctx); err != nil {
		return errors.Join(fmt.Errorf("simulated worker %s: register: %w", w, err), w.Kill())
	}
	if w.opts.Peers != nil && w.peerURL != nil {
		w.opts.Peers.join(*w.peerURL, w)
	}
	return nil
}

func (w *Worker) String() string { return w.opts.Instance + "/" + strconv.FormatInt(w.opts.Rank, 10) }

func (w *Worker) open() error {
	w.zctx, w.port = w.opts.Context, w.opts.Port
	if w.zctx == nil {
		zctx, err := zmq.NewContext()
		if err != nil {
			return err
		}
		w.zctx, w.ownContext = zctx, true
	}
	sock, err := dial(w.zctx, zmq.PUSH, w.opts.Pull)
	if err != nil {
		return err
	}
	w.pushSock = sock
	w.send = newSender(w.opts, sock)
	w.store = newStore(w.opts.Capacity, w.send.operation)
	if w.asks, err = newRequester(w.zctx, w.opts.Reply, w.opts.AnswerTimeout); err != nil {
		return err
	}
	if !w.opts.Deaf {
		if err := w.listen(); err != nil {
			return err
		}
	}
	w.peerURL = w.opts.PeerInitURL
	if w.peerURL == nil && w.opts.Peers != nil {
		url := net.JoinHostPort(w.opts.IP, strconv.Itoa(w.port+500))
		w.peerURL = &url
	}
	return nil
}

// listen opens the command port.
func (w *Worker) listen() error {
	port := "*"
	if w.port != 0 {
		port = strconv.Itoa(w.port)
	}
	sock, err := w.zctx.NewSocket(zmq.ROUTER)
	if err != nil {
		return err
	}
	wake, err := zmqwake.New(w.zctx)
	if err != nil {
		sock.Close()
		return err
	}
	w.commands = &commandPort{w: w, sock: sock, wake: wake}
	err = sock.SetLinger(0)
	if err == nil {
		err = sock.SetIpv6(strings.Contains(w.opts.IP, ":"))
	}
	if err == nil {
		err = sock.Bind("tcp://" + net.JoinHostPort(w.opts.IP, port))
	}
	if err != nil {
		return fmt.Errorf("bind command port %s:%s: %w", w.opts.IP, port, err)
	}
	endpoint, err := sock.GetLastEndpoint()
	if err != nil {
		return err
	}
	endpoint = strings.TrimRight(endpoint, "\x00")
	w.port, err = strconv.Atoi(endpoint[strings.LastIndex(endpoint, ":")+1:])
	return err
}

// register says who the worker is, and begins heartbeats if it is told where to.
func (w *Worker) register(ctx context.Context) error {
	m, err := w.asks.ask(ctx, &lmcache.RegisterMsg{InstanceID: w.opts.Instance, WorkerID: w.opts.Rank,
		IP: w.opts.IP, Port: int64(w.port), PeerInitURL: w.peerURL})
	if err != nil {
		return err
	}
	ret, ok := m.(*lmcache.RegisterRetMsg)
	if !ok { // LMCache warns and goes on without heartbeats
		w.opts.Logger.Warn("registration was not answered with RegisterRetMsg", "worker", w.String(), "answer", m.Type())
		return nil
	}
	for _, pair := range ret.ExtraConfig {
		if pair.Key == "heartbeat_url" {
			w.mu.Lock()
			w.heartbeatURL = pair.Value
			w.mu.Unlock()
		}
	}
	if w.HeartbeatURL() == "" || w.opts.HeartbeatEvery <= 0 {
		return nil
	}
	beats, err := newRequester(w.zctx, w.HeartbeatURL(), w.opts.AnswerTimeout)
	if err != nil {
		return err
	}
	w.group.Go(func() error { return beats.run(w.ctx) })
	w.group.Go(func() error { return w.beat(w.ctx, beats) })
	return nil
}

// beat is owned by the Worker and ends with ctx. It blocks in the wait between
// heartbeats and for their answers.
func (w *Worker) beat(ctx context.Context, asks *requester) error {
	for wait := w.opts.HeartbeatDelay; ; wait = w.opts.HeartbeatEvery {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		m, err := asks.ask(ctx, &lmcache.HeartbeatMsg{InstanceID: w.opts.Instance, WorkerID: w.opts.Rank,
			IP: w.opts.IP, Port: int64(w.port), PeerInitURL: w.peerURL})
		if err != nil {
			if ctx.Err() == nil {
				w.opts.Logger.Warn("heartbeat", "worker", w.String(), "error", err)
			}
			continue
		}
		w.mu.Lock()
		w.stats.Heartbeats++
		w.mu.Unlock()
		ret, ok := m.(*lmcache.HeartbeatRetMsg)
		if !ok {
			w.opts.Logger.Warn("heartbeat was not answered with HeartbeatRetMsg", "worker", w.String(), "answer", m.Type())
			continue
		}
		for _, c := range ret.Commands {
			if c.CommandType == "full_sync" {
				w.beginSync(ctx)
			}
		}
	}
}

// Stop ends the worker as a clean shutdown would if LMCache had one: what is queued is
// sent, then everything is closed. It does not deregister.
func (w *Worker) Stop() error {
	if w.group == nil {
		return nil // Start failed or was never called
	}
	w.send.flush(2 * time.Second)
	w.linger.Store(int64(time.Second))
	return w.Kill()
}

// Kill ends the worker at once; what is queued is lost.
func (w *Worker) Kill() error {
	if w.group == nil {
		return nil
	}
	var err error
	w.ended.Do(func() {
		if w.opts.Peers != nil && w.peerURL != nil {
			w.opts.Peers.leave(*w.peerURL, w)
		}
		w.cancel()
		err = errors.Join(w.group.Wait(), w.close())
	})
	return err
}

// close closes what no goroutine owns any more.
func (w *Worker) close() error {
	var faults []error
	if w.group == nil { // not started: the sockets are nobody's
		if w.commands != nil {
			w.commands.wake.Close()
			faults = append(faults, w.commands.sock.Close())
		}
		if w.asks != nil {
			w.asks.wake.Close()
		}
	}
	if w.pushSock != nil {
		faults = append(faults, w.pushSock.SetLinger(time.Duration(w.linger.Load())), w.pushSock.Close())
	}
	if w.ownContext {
		faults = append(faults, w.zctx.Term())
	}
	return errors.Join(faults...)
}

// Chunks returns the keys of a prompt's full chunks: LMCache's workers store no others.
func (w *Worker) Chunks(tokens []int64) []lmcache.Key {
	w.mu.Lock()
	defer w.mu.Unlock()
	var keys []lmcache.Key
	w.hasher.Start(tokens, false)
	for k, _, ok := w.hasher.Next(); ok; k, _, ok = w.hasher.Next() {
		keys = append(keys, k)
	}
	return keys
}

// Store stores a prompt's chunks in the CPU cache, as a request that was computed
// would. It returns how many tokens of it are there now; a frozen worker stores none.
func (w *Worker) Store(tokens []int64) int64 {
	return w.tokens(w.StoreKeys(LocalCPU, w.Chunks(tokens)))
}

// StoreKeys is Store with finished keys and any location. It returns how many of them
// are there now.
func (w *Worker) StoreKeys(location string, keys []lmcache.Key) int {
	if w.Frozen() {
		return 0
	}
	w.send.room()
	return w.store.put(location, keys)
}

// Evict drops chunks.
func (w *Worker) Evict(location string, keys []lmcache.Key) { w.store.remove(location, keys) }

// Holds returns the keys a location holds, ascending.
func (w *Worker) Holds(location string) []lmcache.Key { return w.store.keys(location) }

// Locations returns the locations that have been used.
func (w *Worker) Locations() []string { return w.store.names() }

// Lookup asks the controller for the peer that holds most of the keys.
func (w *Worker) Lookup(ctx context.Context, keys []lmcache.Key) (lmcache.P2PLayout, error) {
	m, err := w.asks.ask(ctx, &lmcache.BatchedP2PLookupMsg{Hashes: keys, InstanceID: w.opts.Instance, WorkerID: w.opts.Rank})
	if err != nil {
		return lmcache.P2PLayout{}, err
	}
	ret, ok := m.(*lmcache.BatchedP2PLookupRetMsg)
	if !ok || len(ret.LayoutInfo) == 0 {
		return lmcache.P2PLayout{}, fmt.Errorf("peer lookup was answered with %s", m.Type())
	}
	return ret.LayoutInfo[0], nil
}

// Deregister queues the message by which a worker leaves.
func (w *Worker) Deregister() {
	w.send.message(&lmcache.DeRegisterMsg{InstanceID: w.opts.Instance, WorkerID: w.opts.Rank, IP: w.opts.IP, Port: int64(w.port)})
}

// Flush waits until everything queued is handed to the socket, for at most limit, and
// reports whether it was.
func (w *Worker) Flush(limit time.Duration) bool { return w.send.flush(limit) }

// LoseNext lets the next n messages vanish, as a broken connection does.
func (w *Worker) LoseNext(n int) { w.send.loseNext(n) }

// Received returns the commands that have reached the worker.
func (w *Worker) Received() []Command {
	if w.commands == nil {
		return nil
	}
	return w.commands.log()
}

// Script replaces the answer to one type of command, "*" to any, from now on.
func (w *Worker) Script(messageType string, s Scripted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.scripts == nil {
		w.scripts = make(map[string]Scripted)
	}
	w.scripts[messageType] = s
}

func (w *Worker) script(messageType string) (Scripted, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, ok := w.scripts[messageType]; ok {
		return s, true
	}
	s, ok := w.scripts["*"]
	return s, ok
}

// Instance and Rank are the worker's name, Port its command port, PeerInitURL its
// address for peers.
func (w *Worker) Instance() string     { return w.opts.Instance }
func (w *Worker) Rank() int64          { return w.opts.Rank }
func (w *Worker) Port() int            { return w.port }
func (w *Worker) PeerInitURL() *string { return w.peerURL }

// HeartbeatURL is what the controller answered to the registration.
func (w *Worker) HeartbeatURL() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heartbeatURL
}

// Frozen reports whether a full sync keeps the worker from storing.
func (w *Worker) Frozen() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frozen
}

// Stats returns the figures.
func (w *Worker) Stats() Stats {
	sent := w.send.stats()
	w.mu.Lock()
	defer w.mu.Unlock()
	st := w.stats
	st.Sent = sent
	return st
}
