package simworker

import (
	"context"
	"fmt"
	"sync"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/internal/zmqwake"
	"github.com/kvctrl/kvctrl/lmcache"
)

// Command is a command that reached a worker.
type Command struct {
	At      time.Time
	Message lmcache.Message // nil: not decodable
	Raw     []byte
}

// commandPort owns the socket that commands come in on. It is a ROUTER, which a REQ
// and a DEALER on the other side cannot tell from LMCache's REP, except that it can
// stay silent and still take the next command.
//
// Commands are carried out one after the other, as LMCache's worker does.
type commandPort struct {
	w    *Worker
	sock *zmq.Socket
	wake *zmqwake.Waker

	mu       sync.Mutex
	received []Command
}

// run is owned by the Worker and ends with ctx. It blocks in the poll, and for a
// script's delay.
func (p *commandPort) run(ctx context.Context) error {
	defer p.sock.Close()
	defer p.wake.Close()
	stop := context.AfterFunc(ctx, p.wake.Wake)
	defer stop()
	poller := zmq.NewPoller()
	poller.Add(p.sock, zmq.POLLIN)
	poller.Add(p.wake.Socket(), zmq.POLLIN)
	for ctx.Err() == nil {
		if _, err := poller.Poll(-1); err != nil && !again(err) {
			return fmt.Errorf("poll command port: %w", err)
		}
		p.wake.Drain()
		for ctx.Err() == nil {
			frames, err := p.sock.RecvMessageBytes(zmq.DONTWAIT)
			if again(err) {
				break
			}
			if err != nil {
				return fmt.Errorf("receive command: %w", err)
			}
			if len(frames) < 3 {
				continue // a REP drops what has no delimiter
			}
			answer, ok := p.answer(ctx, frames[2])
			if !ok {
				continue
			}
			if _, err := p.sock.SendMessage(frames[0], "", answer); err != nil {
				return fmt.Errorf("answer command: %w", err)
			}
		}
	}
	return nil
}

// answer carries out a command; false means silence.
func (p *commandPort) answer(ctx context.Context, frame []byte) ([]byte, bool) {
	m, err := lmcache.Decode(frame)
	p.mu.Lock()
	p.received = append(p.received, Command{time.Now(), m, frame})
	p.mu.Unlock()
	if err != nil {
		return lmcache.Append(nil, &lmcache.ErrorMsg{Error: "Worker error: " + err.Error()}), true
	}
	script, scripted := p.w.script(m.Type())
	if scripted && script.Delay > 0 {
		select {
		case <-ctx.Done():
			return nil, false
		case <-time.After(script.Delay):
		}
	}
	switch {
	case script.Silent:
		return nil, false
	case script.Message != nil:
		return lmcache.Append(nil, script.Message), true
	case script.Raw != nil:
		return script.Raw, true
	}
	return lmcache.Append(nil, p.w.execute(m)), true
}

func (p *commandPort) log() []Command {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Command(nil), p.received...)
}

// execute does what LMCache's engine does on a command.
func (w *Worker) execute(m lmcache.Message) lmcache.Message {
	switch m := m.(type) {
	case *lmcache.HealthWorkerMsg:
		return &lmcache.HealthWorkerRetMsg{}
	case *lmcache.ClearWorkerMsg:
		n := 0
		if m.Location == LocalCPU { // no other backend can be cleared
			n = w.store.clear(LocalCPU)
		}
		return &lmcache.ClearWorkerRetMsg{NumTokens: w.tokens(n)}
	case *lmcache.PinWorkerMsg:
		return &lmcache.PinWorkerRetMsg{NumTokens: w.tokens(w.store.prefix(m.Location, w.Chunks(ids(m.Tokens)), true))}
	case *lmcache.CompressWorkerMsg:
		n, bad := w.compress(m.Method, m.Location, m.Tokens)
		if bad != nil {
			return bad
		}
		return &lmcache.CompressWorkerRetMsg{NumTokens: w.tokens(n)}
	case *lmcache.DecompressWorkerMsg:
		n, bad := w.compress(m.Method, m.Location, m.Tokens)
		if bad != nil {
			return bad
		}
		return &lmcache.DecompressWorkerRetMsg{NumTokens: w.tokens(n)}
	case *lmcache.MoveWorkerMsg:
		return w.move(m)
	default:
		return &lmcache.ErrorMsg{Error: "Unknown message: " + m.Type()}
	}
}

// ids gives tokens the form that the hash takes. No workload has ids above 2^63-1.
func ids(tokens []lmcache.Token) []int64 {
	out := make([]int64, len(tokens))
	for i, t := range tokens {
		out[i], _ = t.Int64()
	}
	return out
}

func (w *Worker) tokens(chunks int) int64 { return int64(chunks) * int64(w.opts.ChunkSize) }

// compress takes the leading run out and puts it back in another form.
func (w *Worker) compress(method, location string, tokens *[]lmcache.Token) (int, lmcache.Message) {
	if tokens == nil {
		return 0, &lmcache.ErrorMsg{Error: "Worker error: "} // a failed assertion
	}
	if method != "cachegen" {
		return 0, nil
	}
	keys := w.Chunks(ids(*tokens))
	n := w.store.prefix(location, keys, false)
	w.store.replace(location, keys[:n])
	return n, nil
}

// move copies the leading run to another worker, which admits it, and removes it here
// unless it is a copy.
func (w *Worker) move(m *lmcache.MoveWorkerMsg) lmcache.Message {
	switch {
	case m.NewPosition[1] != LocalCPU:
		return &lmcache.ErrorMsg{Error: "Worker error: Only support moving to cpu for now."}
	case m.Tokens == nil:
		return &lmcache.ErrorMsg{Error: "Worker error: "}
	case w.opts.Peers == nil:
		return &lmcache.ErrorMsg{Error: "Worker error: 'P2PBackend'"}
	}
	keys := w.Chunks(ids(*m.Tokens))
	keys = keys[:w.store.prefix(m.OldPosition, keys, false)]
	if len(keys) == 0 {
		return &lmcache.MoveWorkerRetMsg{}
	}
	target := w.opts.Peers.find(m.NewPosition[0])
	if target == nil {
		return &lmcache.ErrorMsg{Error: fmt.Sprintf("Worker error: no peer at %s", m.NewPosition[0])}
	}
	n := target.store.put(LocalCPU, keys)
	if m.Copy == nil || !*m.Copy {
		w.store.remove(m.OldPosition, keys[:n])
	}
	return &lmcache.MoveWorkerRetMsg{NumTokens: w.tokens(n)}
}

// Peers are workers that can reach each other. The zero value has none.
// Concurrency: any goroutine.
type Peers struct {
	mu    sync.Mutex
	byURL map[string]*Worker
}

func (p *Peers) join(url string, w *Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byURL == nil {
		p.byURL = make(map[string]*Worker)
	}
	p.byURL[url] = w
}

func (p *Peers) leave(url string, w *Worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byURL[url] == w {
		delete(p.byURL, url)
	}
}

func (p *Peers) find(url string) *Worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byURL[url]
}
