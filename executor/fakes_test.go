package executor

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	zmq "github.com/pebbe/zmq4"
	"go.uber.org/goleak"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/lmcache"
	"github.com/kvctrl/kvctrl/registry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLog is a log of one replica in memory: the real FSM, no raft.
type fakeLog struct {
	fsm *fsm.FSM

	mu    sync.Mutex
	index uint64
	fail  func(entry []byte) error // asked before each entry; nil is never
	lose  bool                     // apply the entry and answer ErrUnknownOutcome
}

func newFakeLog(t *testing.T) *fakeLog {
	return &fakeLog{fsm: fsm.New(fsm.Options{OnFatal: func(err error) { t.Errorf("fsm stopped: %v", err) }})}
}

func (l *fakeLog) Propose(ctx context.Context, entry []byte) (cluster.Applied, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return cluster.Applied{}, err
	}
	if l.fail != nil {
		if err := l.fail(entry); err != nil {
			return cluster.Applied{}, err
		}
	}
	l.index++
	result := l.fsm.Apply(&raft.Log{Index: l.index, Term: 1, Type: raft.LogCommand, Data: entry})
	if l.lose {
		l.lose = false
		return cluster.Applied{}, cluster.ErrUnknownOutcome
	}
	return cluster.Applied{Index: l.index, Result: result}, nil
}

func (l *fakeLog) setFail(fail func([]byte) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = fail
}

// must commits an entry that the test needs in place.
func (l *fakeLog) must(t *testing.T, entry []byte) {
	t.Helper()
	a, err := l.Propose(context.Background(), entry)
	if err != nil {
		t.Fatal(err)
	}
	if err, bad := a.Result.(error); bad {
		t.Fatal(err)
	}
}

// worker is a REP socket that answers as a script says and keeps what it got.
type worker struct {
	port int64

	mu       sync.Mutex
	received []lmcache.Message
	arrived  chan lmcache.Message
}

// answerFunc makes a reply; nil is silence.
type answerFunc func(lmcache.Message) []byte

// startWorker binds a REP socket and serves it until the test ends.
func startWorker(t *testing.T, port int64, answer answerFunc) *worker {
	t.Helper()
	s, err := zmq.NewSocket(zmq.ROUTER) // a REP that stays silent could not take a second request
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetLinger(0); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRcvtimeo(20 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	where := "tcp://127.0.0.1:*"
	if port != 0 {
		where = fmt.Sprintf("tcp://127.0.0.1:%d", port)
	}
	if err := s.Bind(where); err != nil {
		t.Fatal(err)
	}
	endpoint, err := s.GetLastEndpoint()
	if err != nil {
		t.Fatal(err)
	}
	w := &worker{arrived: make(chan lmcache.Message, 64)}
	if _, err := fmt.Sscanf(endpoint, "tcp://127.0.0.1:%d", &w.port); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer s.Close()
		for {
			select {
			case <-stop:
				return
			default:
			}
			parts, err := s.RecvMessageBytes(0)
			if err != nil || len(parts) != 3 {
				continue
			}
			m, err := lmcache.Decode(parts[2])
			if err != nil {
				t.Errorf("worker got what it cannot decode: %v", err)
				continue
			}
			w.mu.Lock()
			w.received = append(w.received, m)
			w.mu.Unlock()
			w.arrived <- m
			if reply := answer(m); reply != nil {
				if _, err := s.SendMessage(parts[0], "", reply); err != nil {
					t.Errorf("worker's reply: %v", err)
				}
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped })
	return w
}

func (w *worker) got() []lmcache.Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]lmcache.Message(nil), w.received...)
}

// say answers every command with its own reply and this count.
func say(tokens int64) answerFunc {
	return func(m lmcache.Message) []byte {
		switch m.(type) {
		case *lmcache.ClearWorkerMsg:
			return lmcache.Append(nil, &lmcache.ClearWorkerRetMsg{NumTokens: tokens})
		case *lmcache.PinWorkerMsg:
			return lmcache.Append(nil, &lmcache.PinWorkerRetMsg{NumTokens: tokens})
		case *lmcache.CompressWorkerMsg:
			return lmcache.Append(nil, &lmcache.CompressWorkerRetMsg{NumTokens: tokens})
		case *lmcache.DecompressWorkerMsg:
			return lmcache.Append(nil, &lmcache.DecompressWorkerRetMsg{NumTokens: tokens})
		case *lmcache.MoveWorkerMsg:
			return lmcache.Append(nil, &lmcache.MoveWorkerRetMsg{NumTokens: tokens})
		case *lmcache.HealthWorkerMsg:
			return lmcache.Append(nil, &lmcache.HealthWorkerRetMsg{ErrorCode: 0})
		}
		return nil
	}
}

func sayMessage(m lmcache.Message) answerFunc {
	return func(lmcache.Message) []byte { return lmcache.Append(nil, m) }
}

func sayBytes(b ...byte) answerFunc { return func(lmcache.Message) []byte { return b } }

func silence(lmcache.Message) []byte { return nil }

// world is an executor that leads, over a fake log.
type world struct {
	t    *testing.T
	log  *fakeLog
	exec *Executor
	stop func() // ends the leadership and waits for it
}

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	log := newFakeLog(t)
	o.Log, o.Registry = log, log.fsm.Registry
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, log: log, exec: e}
	w.lead(1)
	return w
}

// lead begins a term and waits until the executor acts for it.
func (w *world) lead(term uint64) {
	w.t.Helper()
	w.log.must(w.t, fsm.EncodeTermBegin(registry.TermBegin{Term: term, Node: "n1", At: 1}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.exec.Lead(ctx, term) }()
	eventually(w.t, "Lead acts for the term", func() bool { return w.exec.leads(term) })
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				w.t.Errorf("Lead: %v", err)
			}
		})
	}
	w.t.Cleanup(w.stop)
}

func (e *Executor) leads(term uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lead != nil && e.lead.term == term
}

// register puts a worker into the registry.
func (w *world) register(instance string, rank, port int64, peer string) {
	w.t.Helper()
	b := fsm.NewBatch(registry.SessionID{1})
	r := registry.Registration{WorkerRef: registry.WorkerRef{Instance: instance, Worker: rank}, IP: "127.0.0.1", Port: port, At: 1}
	if peer != "" {
		r.PeerInitURL = &peer
	}
	b.Register(r)
	w.log.must(w.t, b.Encode(w.nextBatch(), 1))
}

// fleet starts one worker per answer and registers them as the ranks of an instance.
func (w *world) fleet(instance string, answers ...answerFunc) []*worker {
	w.t.Helper()
	var out []*worker
	for rank, a := range answers {
		x := startWorker(w.t, 0, a)
		w.register(instance, int64(rank), x.port, fmt.Sprintf("peer-%s-%d", instance, rank))
		out = append(out, x)
	}
	return out
}

// eventually waits until ok, for what gives no sign of its own.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.After(wait); !ok(); {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", wait, what)
		}
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// freePort returns a port that nothing listens on. (libzmq would close it later.)
func freePort(t *testing.T) int64 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return int64(l.Addr().(*net.TCPAddr).Port)
}
