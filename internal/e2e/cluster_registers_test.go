package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
)

// register is one that a worker writes at present.
type register struct {
	name     string
	instance string
	tokens   []int64
}

// freshRead is a read with a say in how fresh it must be.
type freshRead struct {
	consistency string
	query       string
	bound       time.Duration // largest staleness that the answer may admit to
}

var freshReads = []freshRead{
	{"linearizable", "consistency=linearizable&timeout=5s", 0},
	{"bounded", "consistency=bounded&max_staleness=200ms&timeout=5s", 200 * time.Millisecond},
	{"stale", "consistency=stale", never},
}

// startRegisters lets one worker at each replica write registers and readers at all
// replicas read them, paused and cut-off replicas too.
func (l *clusterLoad) startRegisters(storing, asking context.Context) {
	ws := l.regs.Workers()
	l.now = make([]register, len(ws))
	for i, w := range ws {
		l.now[i] = l.newRegister(i, 0, w)
		l.running.Go(func() { l.writeRegisters(storing, i, w) })
	}
	for i := range l.at {
		for k := range 2 {
			l.running.Go(func() { l.readRegisters(asking, i, k) })
		}
	}
}

func (l *clusterLoad) newRegister(i, n int, w *simworker.Worker) register {
	return register{fmt.Sprintf("register %d of worker %d", n, i), w.Instance(),
		randomTokens(l.random(uint64(10_000+1000*i+n)), registerChunks)}
}

// writeRegisters stores and evicts one chunk after the other.
func (l *clusterLoad) writeRegisters(ctx context.Context, i int, w *simworker.Worker) {
	for n := 1; ; n++ {
		l.mu.Lock()
		reg := l.now[i]
		l.mu.Unlock()
		keys := l.chunksOf(reg.tokens)
		for op := 1; op <= 2*registerChunks; op++ {
			if !tick(ctx, 20*time.Millisecond) {
				return
			}
			call := l.registers.now()
			if op <= registerChunks {
				// It waits out a full sync, which its replica's loss may have brought about.
				for w.StoreKeys(simworker.LocalCPU, keys[op-1:op]) == 0 {
					if !tick(ctx, 20*time.Millisecond) {
						return
					}
				}
			} else {
				last := 2*registerChunks - op
				w.Evict(simworker.LocalCPU, []lmcache.Key{keys[last]})
			}
			l.registers.add(reg.name, registerWrite(op), nil, call, never)
		}
		l.mu.Lock()
		l.now[i] = l.newRegister(i, n, w)
		l.mu.Unlock()
	}
}

// readRegisters asks one replica for the registers, whether it is live or not: a read
// that waits in a paused process is the one that tells old news.
func (l *clusterLoad) readRegisters(ctx context.Context, i, k int) {
	rng := l.random(uint64(20_000 + 10*i + k))
	for tick(ctx, time.Duration(rng.IntN(40))*time.Millisecond) {
		l.mu.Lock()
		reg := l.now[rng.IntN(len(l.now))]
		l.mu.Unlock()
		how := freshReads[max(0, rng.IntN(4)-1)] // linearizable is twice as likely
		if err := l.readRegister(ctx, i, reg, how); err != nil {
			l.fault(err)
		}
	}
}

// askPaused sends a paused replica many linearizable reads at once. They wait in its
// connections until it goes on, and then come before anything tells it what it has missed.
func (l *clusterLoad) askPaused(r *Replica) {
	l.t.Helper()
	i := slices.IndexFunc(l.at, func(at *client) bool { return at.r == r })
	l.mu.Lock()
	registers := slices.Clone(l.now)
	l.mu.Unlock()
	for range 16 {
		for _, reg := range registers {
			l.running.Go(func() { // ends with the answer or the client's patience
				if err := l.readRegister(context.Background(), i, reg, freshReads[0]); err != nil {
					l.fault(err)
				}
			})
		}
	}
	<-time.After(100 * time.Millisecond) // for the connections
}

// readRegister makes one read and notes it with the time that its staleness allows it to
// be from. An error is a fault; a read that fails tells nothing and is none.
func (l *clusterLoad) readRegister(ctx context.Context, i int, reg register, how freshRead) error {
	at := l.at[i]
	body, err := json.Marshal(map[string]any{"tokens": reg.tokens})
	if err != nil {
		return err
	}
	call := l.registers.now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.r.URL("/lookup?"+how.query), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := at.http.Do(req)
	if err != nil {
		l.readFailures.Add(1)
		return nil
	}
	answer, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	end := l.registers.now()
	if err != nil || resp.StatusCode != http.StatusOK {
		l.readFailures.Add(1)
		return nil
	}
	hits, err := hitsOf(answer)
	if err != nil {
		return err
	}
	told := resp.Header.Get("X-Kvctrl-Staleness-Ms")
	staleness := time.Duration(never)
	if told != "" {
		ms, err := strconv.ParseInt(told, 10, 64)
		if err != nil {
			return fmt.Errorf("%s read on replica %d: X-Kvctrl-Staleness-Ms is %q", how.consistency, i, told)
		}
		staleness = time.Duration(ms) * time.Millisecond
	}
	if staleness > how.bound {
		return fmt.Errorf("%s read on replica %d: X-Kvctrl-Staleness-Ms is %q, want at most %s", how.consistency, i, told, how.bound)
	}
	since := int64(0)
	if staleness < time.Duration(call) {
		since = call - int64(staleness)
	}
	by := fmt.Sprintf("%s read on replica %d asked at %.3fs, staleness %q", how.consistency, i, time.Duration(call).Seconds(), told)
	l.registers.add(reg.name, registerRead{by}, hits[reg.instance]/crashChunk, since, end)
	l.reads.Add(1)
	if hits[reg.instance] > 0 {
		l.hits.Add(1)
	}
	return nil
}

// askEvents asks any replica, linearizably, what has become of a recent command.
func (l *clusterLoad) askEvents(ctx context.Context, k int) {
	rng := l.random(uint64(30_000 + k))
	for tick(ctx, 40*time.Millisecond) {
		l.mu.Lock()
		recent := l.asked[max(0, len(l.asked)-10):]
		l.mu.Unlock()
		if len(recent) == 0 {
			continue
		}
		id, i := recent[rng.IntN(len(recent))], rng.IntN(len(l.at))
		call := l.commanded.now()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.at[i].r.URL("/events/"+url.PathEscape(id)+"?consistency=linearizable&timeout=5s"), nil)
		if err != nil {
			l.fault(err)
			return
		}
		state, err := l.stateOf(l.at[i], req)
		if err != nil {
			l.readFailures.Add(1)
			continue
		}
		l.commanded.add(id, commandAsked{fmt.Sprintf("asked on replica %d", i)}, state, call, l.commanded.now())
		l.reads.Add(1)
	}
}

// stateOf sends a question for an event and returns its state.
func (l *clusterLoad) stateOf(at *client, req *http.Request) (string, error) {
	resp, err := at.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return "", err
	case resp.StatusCode == http.StatusNotFound:
		return commandAbsent, nil
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("%s answers %d: %s", req.URL, resp.StatusCode, answer)
	}
	var e eventView
	err = json.Unmarshal(answer, &e)
	return e.Status, err
}
