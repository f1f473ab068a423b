package executor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/registry"
)

// pair are two replicas in memory: one log, a real state machine and an executor each,
// and a leader that changes.
type pair struct {
	t     *testing.T
	nodes [2]*node

	mu     sync.Mutex
	leader int
	term   uint64
	index  uint64
}

// node is one of them, as its executor sees it.
type node struct {
	*fsm.FSM
	of   *pair
	id   int
	exec *Executor

	// fate, if set, is asked before each entry this node proposes while it leads.
	fate func(entry []byte) (applied bool, err error)
}

func newPair(t *testing.T, o Options) *pair {
	t.Helper()
	p := &pair{t: t, leader: -1}
	for id := range p.nodes {
		n := &node{of: p, id: id, FSM: fsm.New(fsm.Options{OnFatal: func(err error) { t.Errorf("state machine of node %d: %v", id, err) }})}
		o.Log, o.Registry = n, n.Registry
		var err error
		if n.exec, err = New(o); err != nil {
			t.Fatal(err)
		}
		p.nodes[id] = n
	}
	return p
}

// commit applies an entry on both. Under mu.
func (p *pair) commit(entry []byte) (results [2]any) {
	p.index++
	for i, n := range p.nodes {
		results[i] = n.Apply(&raft.Log{Index: p.index, Term: p.term, Type: raft.LogCommand, Data: entry})
	}
	return results
}

func (n *node) Propose(ctx context.Context, entry []byte) (cluster.Applied, error) {
	p := n.of
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return cluster.Applied{}, err
	}
	if p.leader != n.id {
		return cluster.Applied{}, &cluster.NotLeaderError{}
	}
	if n.fate != nil {
		if applied, err := n.fate(entry); err != nil {
			if applied {
				p.commit(entry)
			}
			return cluster.Applied{}, err
		}
	}
	result := p.commit(entry)[n.id]
	return cluster.Applied{Index: p.index, Result: result}, nil
}

// elect makes a node the leader in the log. The other one may not know it yet: who led
// is told by the function that lead returned for it.
func (p *pair) elect(id int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leader = id
	p.term++
	p.commit(fsm.EncodeTermBegin(registry.TermBegin{Term: p.term, Node: fmt.Sprint(id), At: 1}))
}

// lead lets a node's executor act for the term, until the function is called. That
// returns when all of its commands have ended, and says how long it took.
func (p *pair) lead(id int) (lose func() time.Duration) {
	p.t.Helper()
	e := p.nodes[id].exec
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	term := p.term
	go func() { ended <- e.Lead(ctx, term) }()
	eventually(p.t, "Lead acts for the term", func() bool { return e.leads(term) })
	var once sync.Once
	var took time.Duration
	lose = func() time.Duration {
		once.Do(func() {
			began := time.Now()
			cancel()
			if err := <-ended; err != nil {
				p.t.Errorf("Lead of node %d: %v", id, err)
			}
			took = time.Since(began)
		})
		return took
	}
	p.t.Cleanup(func() { lose() })
	return lose
}

// register makes known a worker of one rank.
func (p *pair) register(instance string, port int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := fsm.NewBatch(registry.SessionID{1})
	b.Register(registry.Registration{WorkerRef: registry.WorkerRef{Instance: instance}, IP: "127.0.0.1", Port: port, At: 1})
	p.commit(b.Encode(p.index+1, 1))
}

// do starts a command at a node and returns where its outcome will be.
func (p *pair) do(id int, c Command) chan outcomeOf {
	result := make(chan outcomeOf, 1)
	go func() {
		ev, err := p.nodes[id].exec.Do(within(p.t, wait), c)
		result <- outcomeOf{ev, err}
	}()
	return result
}

type outcomeOf struct {
	ev  registry.Event
	err error
}

// interrupted checks what the same command with the same id is answered at a node.
func (p *pair) interrupted(id int, c Command, words string) {
	p.t.Helper()
	began := time.Now()
	ev, err := p.nodes[id].exec.Do(within(p.t, wait), c)
	var ended *CommandError
	if !errors.As(err, &ended) || ended.Cause != CauseInterrupted || ended.Event.ID != c.EventID ||
		ev.State != registry.EventInterrupted || !strings.Contains(err.Error(), words) {
		p.t.Errorf("the same id at node %d: %+v, %v, want interrupted with %q", id, ev, err, words)
	}
	if took := time.Since(began); took > 5*time.Second {
		p.t.Errorf("that answer took %v", took)
	}
}

// open is how many events are open, as a node knows it.
func (p *pair) open(id int) int { return p.nodes[id].Registry().Totals().OpenEvents }

func named(id string) Command {
	c := clearOf("i")
	c.EventID = id
	return c
}

// What the lost leader had sent is interrupted at the new one, is not sent again, and
// who waits hears of it at once, whichever of the two learns first that the leader has
// changed. Commands have a deadline of an hour here: nothing waits for that.
func TestFence_RunningCommand(t *testing.T) {
	for _, tt := range []struct {
		name string
		lose func(p *pair, lose func() time.Duration) time.Duration
	}{
		{"the old leader is told first", func(p *pair, lose func() time.Duration) time.Duration {
			took := lose()
			p.elect(1)
			return took
		}},
		{"the new one leads already", func(p *pair, lose func() time.Duration) time.Duration {
			p.elect(1)
			return lose()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, Options{Deadline: time.Hour})
			p.elect(0)
			x := startWorker(t, 0, silence)
			p.register("i", x.port)
			lose := p.lead(0)
			first := p.do(0, named("e"))
			second := p.do(0, named("e")) // who asks twice waits for the same
			<-x.arrived
			if took := tt.lose(p, lose); took > 5*time.Second {
				t.Errorf("its commands ended %v after leadership was lost", took)
			}
			for _, waiter := range []chan outcomeOf{first, second} {
				if o := <-waiter; !errors.Is(o.err, ErrOutcomeUnknown) || o.ev.ID != "e" {
					t.Errorf("the waiter was told %+v, %v, want ErrOutcomeUnknown", o.ev, o.err)
				}
			}
			if _, err := p.nodes[0].exec.Do(within(t, wait), named("e")); !errors.Is(err, ErrNotLeading) {
				t.Errorf("asked again where nobody leads: %v, want ErrNotLeading", err)
			}
			p.lead(1)
			p.interrupted(1, named("e"), "look before you send it again")
			p.interrupted(1, named("e"), "look before you send it again")
			if n := len(x.got()); n != 1 {
				t.Errorf("the worker received the command %d times", n)
			}
			if p.open(0) != 0 || p.open(1) != 0 {
				t.Errorf("%d and %d events are open", p.open(0), p.open(1))
			}
			if p.nodes[0].Registry().Digest() != p.nodes[1].Registry().Digest() {
				t.Error("the replicas differ")
			}
		})
	}
}

// A command that waits for its worker when the leader is lost was not sent, and its
// event says so.
func TestFence_WaitingCommand(t *testing.T) {
	p := newPair(t, Options{Deadline: time.Hour})
	p.elect(0)
	x := startWorker(t, 0, silence)
	p.register("i", x.port)
	lose := p.lead(0)
	sent := p.do(0, named("sent"))
	<-x.arrived
	waits := p.do(0, named("waits"))
	eventually(t, "both events are open", func() bool { return p.open(1) == 2 })
	if took := lose(); took > 5*time.Second {
		t.Errorf("its commands ended %v after leadership was lost", took)
	}
	for name, waiter := range map[string]chan outcomeOf{"sent": sent, "waits": waits} {
		if o := <-waiter; !errors.Is(o.err, ErrOutcomeUnknown) || o.ev.ID != name {
			t.Errorf("%s: the waiter was told %+v, %v, want ErrOutcomeUnknown", name, o.ev, o.err)
		}
	}
	p.elect(1)
	p.lead(1)
	p.interrupted(1, named("sent"), "look before you send it again")
	p.interrupted(1, named("waits"), "before it sent anything")
	if n := len(x.got()); n != 1 {
		t.Errorf("the worker received %d commands, want the first alone", n)
	}
}

// The leader is lost with an entry of the command. What got into the log is interrupted
// at the next one, what did not is carried out there, once.
func TestFence_LostWithAnEntry(t *testing.T) {
	isType := func(entry []byte, want fsm.Type) bool { return fsm.Type(entry[0]) == want }
	for _, tt := range []struct {
		name        string
		entry       fsm.Type
		applied     bool
		err         error // what the lost leader is told
		want        error // what Do says there
		sentBefore  int
		interrupted string // what the next leader says; "" when it carries it out
	}{
		{"create refused", fsm.TypeCreateEvent, false, &cluster.NotLeaderError{}, ErrNotLeading, 0, ""},
		{"create lost", fsm.TypeCreateEvent, false, cluster.ErrUnknownOutcome, ErrOutcomeUnknown, 0, ""},
		{"create in the log", fsm.TypeCreateEvent, true, cluster.ErrUnknownOutcome, ErrOutcomeUnknown, 0, "before it sent anything"},
		{"run refused", fsm.TypeRunEvent, false, &cluster.NotLeaderError{}, ErrOutcomeUnknown, 0, "before it sent anything"},
		{"run lost", fsm.TypeRunEvent, false, cluster.ErrUnknownOutcome, ErrOutcomeUnknown, 0, "before it sent anything"},
		{"run in the log", fsm.TypeRunEvent, true, cluster.ErrUnknownOutcome, ErrOutcomeUnknown, 0, "look before you"},
		{"finish refused", fsm.TypeFinishEvent, false, &cluster.NotLeaderError{}, ErrOutcomeUnknown, 1, "look before you"},
		{"finish lost", fsm.TypeFinishEvent, false, cluster.ErrUnknownOutcome, ErrOutcomeUnknown, 1, "look before you"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, Options{Deadline: time.Hour})
			p.elect(0)
			x := startWorker(t, 0, say(7))
			p.register("i", x.port)
			lose := p.lead(0)
			hit := make(chan struct{})
			var once sync.Once
			gone := false
			p.nodes[0].fate = func(entry []byte) (bool, error) {
				if gone {
					return false, &cluster.NotLeaderError{}
				}
				if isType(entry, tt.entry) {
					gone = true
					once.Do(func() { close(hit) })
					return tt.applied, tt.err
				}
				return true, nil
			}
			waiter := p.do(0, named("e"))
			<-hit
			lose()
			if o := <-waiter; !errors.Is(o.err, tt.want) || errors.Is(o.err, ErrNotLeading) != (tt.want == ErrNotLeading) || o.ev.ID != "e" {
				t.Errorf("at the lost leader: %+v, %v, want %v", o.ev, o.err, tt.want)
			}
			if n := len(x.got()); n != tt.sentBefore {
				t.Errorf("sent %d times, want %d", n, tt.sentBefore)
			}
			p.elect(1)
			p.lead(1)
			if tt.interrupted != "" {
				p.interrupted(1, named("e"), tt.interrupted)
				if n := len(x.got()); n != tt.sentBefore {
					t.Errorf("sent %d times in all, want %d", n, tt.sentBefore)
				}
				return
			}
			if ev, err := p.nodes[1].exec.Do(within(t, wait), named("e")); err != nil || ev.NumTokens != 7 {
				t.Errorf("at the next leader: %+v, %v, want it carried out", ev, err)
			}
			if n := len(x.got()); n != 1 {
				t.Errorf("sent %d times in all, want once", n)
			}
		})
	}
}

// A leader that was deposed and leads again before it was told: what it had begun is
// interrupted by now, whatever its workers answered, and what it has not sent is not sent.
func TestFence_DeposedAndBackUnaware(t *testing.T) {
	for _, tt := range []struct {
		name  string
		entry fsm.Type // that it proposes when it is back
		sent  int
	}{
		{"before it sends", fsm.TypeRunEvent, 0},
		{"after its worker has answered", fsm.TypeFinishEvent, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, Options{})
			p.elect(0)
			x := startWorker(t, 0, say(7))
			p.register("i", x.port)
			p.lead(0)
			p.nodes[0].fate = func(entry []byte) (bool, error) {
				if fsm.Type(entry[0]) == tt.entry {
					for _, id := range []int{1, 0} {
						p.term++
						p.commit(fsm.EncodeTermBegin(registry.TermBegin{Term: p.term, Node: fmt.Sprint(id), At: 1}))
					}
					p.nodes[0].fate = nil
				}
				return true, nil
			}
			p.interrupted(0, named("e"), "the leader was lost")
			p.interrupted(0, named("e"), "the leader was lost")
			if n := len(x.got()); n != tt.sent {
				t.Errorf("sent %d times, want %d", n, tt.sent)
			}
		})
	}
}

// stubborn is a way to workers that takes its time to give up.
type stubborn struct {
	begun   chan struct{}
	release chan struct{}
}

func (d *stubborn) Ask(ctx context.Context, _ string, _ []byte) ([]byte, error) {
	d.begun <- struct{}{}
	<-d.release
	return nil, ctx.Err()
}

// The next term of a node begins after the last goroutine of its earlier one has ended.
func TestLead_WaitsForWhatIsBeingSent(t *testing.T) {
	way := &stubborn{begun: make(chan struct{}), release: make(chan struct{})}
	p := newPair(t, Options{Dialer: way})
	p.elect(0)
	p.register("i", 1)
	lose := p.lead(0)
	waiter := p.do(0, named("e"))
	<-way.begun
	ended := make(chan struct{})
	go func() { defer close(ended); lose() }()
	select {
	case <-ended:
		t.Fatal("Lead returned while a request was under way")
	case <-time.After(100 * time.Millisecond):
	}
	if _, err := p.nodes[0].exec.Do(within(t, wait), named("f")); !errors.Is(err, ErrNotLeading) {
		t.Errorf("a command meanwhile: %v, want ErrNotLeading", err)
	}
	close(way.release)
	<-ended
	if o := <-waiter; !errors.Is(o.err, ErrOutcomeUnknown) {
		t.Errorf("the waiter was told %v", o.err)
	}
}

// A leader whose process was stopped between "running" and the sending looks again
// whether it leads; when it does, the command goes on.
func TestFence_PausedBeforeItSends(t *testing.T) {
	for _, tt := range []struct {
		name    string
		deposed bool
		sent    int
	}{
		{"deposed meanwhile", true, 0},
		{"still leading", false, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var mu sync.Mutex
			var ahead time.Duration
			p := newPair(t, Options{Now: func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				return time.Now().Add(ahead)
			}})
			p.elect(0)
			x := startWorker(t, 0, say(7))
			p.register("i", x.port)
			lose := p.lead(0)
			woken := make(chan struct{})
			p.nodes[0].fate = func(entry []byte) (bool, error) {
				if fsm.Type(entry[0]) == fsm.TypeRunEvent {
					p.nodes[0].fate = nil
					mu.Lock()
					ahead = 30 * time.Second
					mu.Unlock()
					if tt.deposed { // once it has been told that the event is running
						p.nodes[0].fate = func([]byte) (bool, error) {
							close(woken)
							p.nodes[0].fate = func([]byte) (bool, error) { return false, &cluster.NotLeaderError{} }
							return false, &cluster.NotLeaderError{}
						}
					}
				}
				return true, nil
			}
			waiter := p.do(0, named("e"))
			if tt.deposed {
				<-woken
				lose()
			}
			o := <-waiter
			if tt.deposed && !errors.Is(o.err, ErrOutcomeUnknown) || !tt.deposed && (o.err != nil || o.ev.NumTokens != 7) {
				t.Errorf("%+v, %v", o.ev, o.err)
			}
			if n := len(x.got()); n != tt.sent {
				t.Errorf("sent %d times, want %d", n, tt.sent)
			}
		})
	}
}
