package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
)

const (
	crashChunk = 16 // tokens in a chunk: short prompts
	keptChunks = 3  // chunks of a prompt that is looked up
)

// prompt is one whose chunks every rank of an instance holds and never evicts.
type keptPrompt struct {
	instance string
	tokens   []int64
}

// sentCommand is a command and what was answered to it.
type sentCommand struct {
	id, path string
	body     map[string]any
	worker   string // the one worker that may get it

	status int    // 0: no answer came
	state  string // the event's, as the answer tells it
	tokens int64

	// Of a command to a cluster, which is asked about until it has an answer.
	began time.Time
	call  int64 // began, in the history
	took  time.Duration
}

// registered is a worker that got its RegisterRetMsg.
type registered struct {
	instance string
	port     int
}

// crashLoad is all that goes on at a replica while it is killed. Its fleets:
//
//	busy  stores and evicts without a pause, and stores prompts that are looked up
//	cmd   is commanded: clear, pin, move
//	idle  holds something and sends heartbeats only
//
// Chunks that are looked up lie in LocalDiskBackend, where nothing evicts them; the
// churn is in LocalCPUBackend.
type crashLoad struct {
	t      *testing.T
	c      *client
	name   string
	zctx   *zmq.Context // of workers that only register
	busy   *simworker.Fleet
	cmd    *simworker.Fleet
	idle   *simworker.Fleet
	hasher *lmcache.Hasher // guarded by mu

	churn, asking         sync.WaitGroup
	stopChurn, stopAsking context.CancelFunc

	mu         sync.Mutex
	seen       []keptPrompt
	commands   []*sentCommand
	registered []registered
	faults     []error // of goroutines, told at the end
}

// newCrashLoad starts the fleets and lets every stream begin: that the first events of
// a stream were lost cannot be told from its numbers.
func newCrashLoad(t *testing.T, r *Replica, c *client, name string, seed uint64) *crashLoad {
	t.Helper()
	l := &crashLoad{t: t, c: c, name: name}
	profile, err := lmcache.ParseProfile("builtin@0")
	if err == nil {
		l.hasher, err = profile.NewHasher(crashChunk)
	}
	if err == nil {
		l.zctx, err = zmq.NewContext()
	}
	if err != nil {
		t.Fatal(err)
	}
	l.busy = l.fleet(r, "busy", 2, 2, seed)
	l.cmd = l.fleet(r, "cmd", 3, 1, seed+100)
	l.idle = l.fleet(r, "idle", 1, 2, seed+200)
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, w := range l.workers() {
		w.StoreKeys(simworker.LocalCPU, randomKeys(rng, 200))
		w.StoreKeys(simworker.LocalDisk, randomKeys(rng, 5))
	}
	l.drained("the fleets' first events")
	return l
}

// fleet starts workers. They soon give up on an answer, so that a heartbeat lost by the
// kill does not hold a round up; a start on a busy machine may then take a second try.
func (l *crashLoad) fleet(r *Replica, kind string, instances, ranks int, seed uint64) *simworker.Fleet {
	l.t.Helper()
	for try := 0; ; try++ {
		f, err := simworker.NewFleet(simworker.FleetOptions{
			Instances: instances, Ranks: ranks, Seed: seed, Name: l.name + "-" + kind + "-",
			Endpoints: []simworker.Endpoint{{Pull: r.PullAddr(), Reply: r.ReplyAddr()}},
			Worker: simworker.Options{
				ChunkSize: crashChunk, HeartbeatEvery: 100 * time.Millisecond, HeartbeatDelay: 20 * time.Millisecond,
				AnswerTimeout: 700 * time.Millisecond, BatchDelay: 2 * time.Millisecond,
				Sync: simworker.SyncOptions{Delay: -1, Poll: 20 * time.Millisecond, Pause: -1, Retry: 50 * time.Millisecond},
			},
		})
		if err == nil {
			err = f.Start(l.t.Context())
		}
		switch {
		case err == nil:
			return f
		case try == 3:
			l.t.Fatalf("start fleet %s: %v", kind, err)
		}
	}
}

// stop ends everything that is left of the load.
func (l *crashLoad) stop() {
	l.t.Helper()
	if l.stopChurn != nil {
		l.stopChurn()
		l.stopAsking()
	}
	l.churn.Wait()
	l.asking.Wait()
	for _, f := range []*simworker.Fleet{l.busy, l.cmd, l.idle} {
		if err := f.Stop(); err != nil {
			l.t.Error(err)
		}
	}
	if err := l.zctx.Term(); err != nil {
		l.t.Error(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range l.faults {
		l.t.Error(err)
	}
}

func (l *crashLoad) workers() []*simworker.Worker {
	return append(append(l.busy.Workers(), l.cmd.Workers()...), l.idle.Workers()...)
}

// syncsOf is how many full syncs workers have done.
func syncsOf(workers []*simworker.Worker) (n uint64) {
	for _, w := range workers {
		n += w.Stats().Syncs
	}
	return n
}

func randomKeys(rng *rand.Rand, n int) []lmcache.Key {
	keys := make([]lmcache.Key, n)
	for i := range keys {
		keys[i] = lmcache.Key(rng.Uint64())
	}
	return keys
}

func randomTokens(rng *rand.Rand, chunks int) []int64 {
	tokens := make([]int64, chunks*crashChunk)
	for i := range tokens {
		tokens[i] = rng.Int64N(128_000)
	}
	return tokens
}

// start begins the load. It goes on until stopChurn and stopAsking.
func (l *crashLoad) start(seed uint64) {
	churning, stopChurn := context.WithCancel(context.Background())
	asking, stopAsking := context.WithCancel(context.Background())
	l.stopChurn, l.stopAsking = stopChurn, stopAsking
	for i, w := range l.busy.Workers() {
		l.churn.Go(func() { l.storeAndEvict(churning, w, seed+uint64(i)) })
	}
	for i := range 2 {
		l.asking.Go(func() { l.storeAndLook(asking, i, seed) })
	}
	for i := range 3 {
		l.asking.Go(func() { l.command(asking, i, seed) })
	}
	l.asking.Go(func() { l.register(asking) })
}

// storeAndEvict admits and evicts some 2 000 chunks a second on one worker.
func (l *crashLoad) storeAndEvict(ctx context.Context, w *simworker.Worker, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	var held []lmcache.Key
	for tick(ctx, 10*time.Millisecond) {
		fresh := randomKeys(rng, 20)
		if w.StoreKeys(simworker.LocalCPU, fresh) == len(fresh) { // not while it syncs
			held = append(held, fresh...)
		}
		if len(held) > 400 {
			w.Evict(simworker.LocalCPU, held[:20])
			held = held[20:]
		}
	}
}

// tick waits a little and reports whether ctx still lives.
func tick(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// storeAndLook stores one prompt after the other and looks each up until it is found.
func (l *crashLoad) storeAndLook(ctx context.Context, asker int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 10+uint64(asker)))
	for n := 0; ctx.Err() == nil; n++ {
		p := keptPrompt{tokens: randomTokens(rng, keptChunks)}
		instance := n % 2
		p.instance = l.busy.Worker(instance, 0).Instance()
		for rank := range 2 {
			w := l.busy.Worker(instance, rank)
			w.StoreKeys(simworker.LocalDisk, l.chunks(p.tokens))
		}
		for ctx.Err() == nil {
			hits, err := l.c.lookup(p.tokens)
			if err != nil {
				return // killed
			}
			if hits[p.instance] == len(p.tokens) {
				l.mu.Lock()
				l.seen = append(l.seen, p)
				l.mu.Unlock()
				break
			}
			tick(ctx, 2*time.Millisecond)
		}
	}
}

func (l *crashLoad) chunks(tokens []int64) (keys []lmcache.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hasher.Start(tokens, false)
	for k, _, ok := l.hasher.Next(); ok; k, _, ok = l.hasher.Next() {
		keys = append(keys, k)
	}
	return keys
}

// command gives one command after the other to the instances made for that.
func (l *crashLoad) command(ctx context.Context, asker int, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 20+uint64(asker)))
	for n := 0; ctx.Err() == nil; n++ {
		s := drawCommand(rng, l.cmd, fmt.Sprintf("%s-%d-%d", l.name, asker, n), n)
		if err := l.ask(s); err != nil {
			return // killed
		}
	}
}

// drawCommand draws a clear, pin or move, the n-th of somebody, to one of three workers.
func drawCommand(rng *rand.Rand, to *simworker.Fleet, id string, n int) *sentCommand {
	at := rng.IntN(3)
	from := to.Worker(at, 0)
	tokens := randomTokens(rng, 2)
	from.Store(tokens)
	s := &sentCommand{id: id, worker: from.String()}
	switch rng.IntN(3) {
	case 0:
		s.path, s.body = "/clear", map[string]any{"instance_id": from.Instance(), "location": simworker.LocalCPU}
	case 1:
		s.path, s.body = "/pin", map[string]any{"instance_id": from.Instance(), "location": simworker.LocalCPU, "tokens": tokens}
	default:
		s.path, s.body = "/move", map[string]any{"old_position": []string{from.Instance(), simworker.LocalCPU},
			"new_position": []string{to.Worker((at+1+rng.IntN(2))%3, 0).Instance(), simworker.LocalCPU}, "tokens": tokens, "copy": n%2 == 0}
	}
	s.body["event_id"] = id
	return s
}

// ask sends a command and notes it, with its answer if there is one.
func (l *crashLoad) ask(s *sentCommand) error {
	l.mu.Lock()
	l.commands = append(l.commands, s)
	l.mu.Unlock()
	status, answer, err := l.c.post(s.path, s.body)
	if err != nil {
		return err
	}
	var said struct {
		EventID   string `json:"event_id"`
		NumTokens int64  `json:"num_tokens"`
		Status    string `json:"status"`
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := json.Unmarshal(answer, &said); err != nil || said.EventID != s.id {
		l.faults = append(l.faults, fmt.Errorf("%s %s is answered %d %s: %w", s.path, s.id, status, answer, err))
		return errors.New("not a command's answer")
	}
	s.status, s.state, s.tokens = status, said.Status, said.NumTokens
	if status == 200 {
		s.state = "done"
	}
	return nil
}

// register lets new workers register, one after the other, and leave without a word.
// They send no heartbeats, which would register them anew.
func (l *crashLoad) register(ctx context.Context) {
	for n := 0; tick(ctx, 5*time.Millisecond); n++ {
		w, err := simworker.New(simworker.Options{
			Instance: fmt.Sprintf("%s-reg-%d", l.name, n), Pull: l.c.r.PullAddr(), Reply: l.c.r.ReplyAddr(),
			AnswerTimeout: 2 * time.Second, Context: l.zctx,
		})
		if err == nil {
			err = w.Start(ctx)
		}
		if err != nil {
			return // killed
		}
		l.mu.Lock()
		if w.HeartbeatURL() != "" {
			l.registered = append(l.registered, registered{w.Instance(), w.Port()})
		} else {
			l.faults = append(l.faults, fmt.Errorf("worker %s was not answered with a heartbeat address", w))
		}
		l.mu.Unlock()
		if err := w.Kill(); err != nil {
			l.mu.Lock()
			l.faults = append(l.faults, err)
			l.mu.Unlock()
			return
		}
	}
}

// runs waits until the load has had some success of each kind.
func (l *crashLoad) runs() {
	l.t.Helper()
	Eventually(l.t, 30*time.Second, "load", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		answered := 0
		for _, s := range l.commands {
			if s.status == 200 {
				answered++
			}
		}
		if len(l.seen) < 3 || answered < 3 || len(l.registered) < 3 {
			return fmt.Errorf("%d prompts found, %d commands answered, %d workers registered, want 3 of each", len(l.seen), answered, len(l.registered))
		}
		return nil
	})
}

// drained waits until all that the workers have said is visible.
func (l *crashLoad) drained(what string) {
	l.t.Helper()
	Eventually(l.t, 30*time.Second, what, func() error {
		views, err := l.c.workers()
		if err != nil {
			return err
		}
		for _, w := range l.workers() {
			if err := shown(w, views[w.String()]); err != nil {
				return err
			}
		}
		return nil
	})
}

// shown compares how much a worker holds with how much the replica says it does. Where
// events were lost a full sync makes that good, in the one location that has it.
func shown(w *simworker.Worker, view workerView) error {
	for _, location := range w.Locations() {
		keys, gaps, lossy := view.at(location)
		held := len(w.Holds(location))
		switch {
		case gaps == 0 && keys == held:
		case gaps > 0 && location != simworker.LocalCPU:
		case gaps > 0 && keys == held && !lossy && view.SyncState == "completed" && !w.Frozen():
		default:
			return fmt.Errorf("worker %s holds %d chunks in %s, the replica shows %d (gaps %d, lossy %v, sync %s)",
				w, held, location, keys, gaps, lossy, view.SyncState)
		}
	}
	return nil
}

// sayMore lets workers store one more chunk in each location, so that what was lost at the
// end of a stream shows as a gap.
func sayMore(t *testing.T, workers []*simworker.Worker, rng *rand.Rand) {
	t.Helper()
	for _, w := range workers {
		for _, location := range w.Locations() {
			Eventually(t, 60*time.Second, "one more chunk on "+w.String(), func() error {
				if w.StoreKeys(location, randomKeys(rng, 1)) == 0 {
					return errors.New("the worker is frozen by a full sync")
				}
				return nil
			})
		}
	}
}

// awaitHeartbeats waits until every worker has had two more heartbeats answered.
func awaitHeartbeats(t *testing.T, workers []*simworker.Worker) {
	t.Helper()
	before := map[string]uint64{}
	for _, w := range workers {
		before[w.String()] = w.Stats().Heartbeats
	}
	Eventually(t, 60*time.Second, "heartbeats", func() error {
		for _, w := range workers {
			if n := w.Stats().Heartbeats; n < before[w.String()]+2 {
				return fmt.Errorf("worker %s had %d answered, %d before", w, n, before[w.String()])
			}
		}
		return nil
	})
}

// deliveries counts how often each command reached a worker, by worker event id.
func (l *crashLoad) deliveries() map[string]int { return countDeliveries(l.cmd.Workers()) }

func countDeliveries(to []*simworker.Worker) map[string]int {
	got := map[string]int{}
	for _, w := range to {
		for _, c := range w.Received() {
			switch m := c.Message.(type) {
			case *lmcache.ClearWorkerMsg:
				got[m.WorkerEventID]++
			case *lmcache.PinWorkerMsg:
				got[m.WorkerEventID]++
			case *lmcache.MoveWorkerMsg:
				got[moveKey(m.Tokens)]++
			}
		}
	}
	return got
}

// moveKey names a move by its tokens, which are drawn anew for each: the worker event
// id of a move does not hold the event's id.
func moveKey(tokens *[]lmcache.Token) string {
	if tokens == nil {
		return "move of nothing"
	}
	return fmt.Sprint("move ", *tokens)
}

// delivered is how often a command reached its worker.
func (s *sentCommand) delivered(got map[string]int) int {
	if s.path == "/move" {
		tokens := lmcache.TokensOf(s.body["tokens"].([]int64)...)
		return got[moveKey(&tokens)]
	}
	return got["Worker"+s.worker[strings.LastIndexByte(s.worker, '/')+1:]+s.id]
}
