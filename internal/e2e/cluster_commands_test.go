package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// commandPatience is how long a client goes on asking for the outcome of a command.
const commandPatience = 20 * time.Second

// commandOn gives commands at the rate, each through a replica drawn at random. They do
// not wait for each other.
func (l *clusterLoad) commandOn(ctx context.Context) {
	rng := l.random(5)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for n := 0; tick(ctx, time.Duration(float64(time.Second)/l.want.commands)); n++ {
		s := l.newCommand(rng, n)
		seed := rng.Uint64()
		waiting.Go(func() { l.follow(ctx, s, rand.New(rand.NewPCG(seed, 0))) })
	}
}

// newCommand draws a command to one of the workers made for that, and notes it.
func (l *clusterLoad) newCommand(rng *rand.Rand, n int) *sentCommand {
	s := drawCommand(rng, l.cmd, fmt.Sprintf("%s-%d", l.name, n), n)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands = append(l.commands, s)
	return s
}

// commandAnswer is what is read of the answer to a command, good or bad.
type commandAnswer struct {
	EventID   string `json:"event_id"`
	NumTokens int64  `json:"num_tokens"`
	Status    string `json:"status"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
}

// follow sends a command, through one live replica after the other under the same event
// id, until one of them tells how it ended.
func (l *clusterLoad) follow(ctx context.Context, s *sentCommand, rng *rand.Rand) {
	s.call = l.commanded.now()
	l.mu.Lock()
	l.asked = append(l.asked, s.id)
	l.mu.Unlock()
	s.began = time.Now()
	end := int64(never)
	for deadline := s.began.Add(commandPatience); time.Now().Before(deadline); {
		i, life, ok := l.live(rng)
		if !ok {
			tick(context.Background(), 20*time.Millisecond)
			continue
		}
		sent := time.Now()
		status, header, answer, err := l.sendCommand(i, s)
		if err == nil && status != http.StatusServiceUnavailable && !l.excused(i, life) {
			l.mu.Lock()
			l.answers = append(l.answers, commandTook{s.id, i, sent, time.Since(sent)})
			l.mu.Unlock()
		}
		if err != nil {
			if !l.excused(i, life) {
				l.fault(fmt.Errorf("%s %s through live replica %d: %w", s.path, s.id, i, err))
			}
			tick(context.Background(), 20*time.Millisecond)
			continue
		}
		over := status == http.StatusOK || answer.EventID == s.id && commandOver(answer.Status)
		if !over {
			if status != http.StatusServiceUnavailable && status != http.StatusGatewayTimeout {
				l.fault(fmt.Errorf("%s %s through replica %d is answered %d %+v", s.path, s.id, i, status, answer))
				break
			}
			tick(context.Background(), 50*time.Millisecond)
			continue
		}
		end = l.commanded.now()
		l.mu.Lock()
		s.took = time.Since(s.began)
		s.status, s.state, s.tokens = status, answer.Status, answer.NumTokens
		if status == http.StatusOK {
			s.state = "done"
		}
		l.mu.Unlock()
		l.readYourWrite(rng, s, header.Get("X-Kvctrl-Index"))
		break
	}
	l.commanded.add(s.id, commandMade{}, nil, s.call, end)
	l.commanded.add(s.id, commandSent{}, nil, s.call, end)
	if s.status != 0 {
		l.commanded.add(s.id, commandEnded{}, s.state, s.call, end)
	}
}

// commandTook is what one command through a replica that was live took.
type commandTook struct {
	id      string
	replica int
	sent    time.Time
	took    time.Duration
}

// commandsFlow: commands through live replicas are answered since from. The long form,
// which has the machine for itself, also says how many and how soon.
func (l *clusterLoad) commandsFlow(from time.Time) {
	l.t.Helper()
	spell := time.Since(from).Seconds()
	if *long {
		answered, slowest := l.answeredSince(from)
		if float64(answered) < spell*l.want.commands/4 || slowest.took > 4*time.Second {
			l.t.Errorf("%d commands were answered in %.1f s, of %.0f a second that were sent; the slowest, %s through live replica %d, took %s",
				answered, spell, l.want.commands, slowest.id, slowest.replica, slowest.took)
		}
		return
	}
	err := Poll(readyLimit, func() error {
		if n, _ := l.answeredSince(from); n == 0 {
			return fmt.Errorf("no command has been answered since %s ago", time.Since(from))
		}
		return nil
	})
	if err != nil {
		l.t.Error(err)
	}
}

// answeredSince counts the answers to commands that were sent since then, and gives the
// one that took longest.
func (l *clusterLoad) answeredSince(from time.Time) (n int, slowest commandTook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.answers {
		if a.sent.Before(from) {
			continue
		}
		n++
		if a.took > slowest.took {
			slowest = a
		}
	}
	return n, slowest
}

// sendCommand makes one attempt.
func (l *clusterLoad) sendCommand(i int, s *sentCommand) (status int, header http.Header, answer commandAnswer, err error) {
	body, err := json.Marshal(s.body)
	if err != nil {
		return 0, nil, answer, err
	}
	status, header, raw, err := l.at[i].exchange(http.MethodPost, s.path, body)
	if err != nil {
		return 0, nil, answer, err
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return 0, nil, answer, fmt.Errorf("answered %d %q: %w", status, raw, err)
	}
	return status, header, answer, nil
}

// readYourWrite asks another replica, no fresher than the answer was, for the command.
func (l *clusterLoad) readYourWrite(rng *rand.Rand, s *sentCommand, index string) {
	i, life, ok := l.live(rng)
	if !ok || index == "" {
		return
	}
	req, err := http.NewRequest(http.MethodGet, l.at[i].r.URL("/events/"+url.PathEscape(s.id)+"?timeout=5s&min_index="+index), nil)
	if err != nil {
		l.fault(err)
		return
	}
	state, err := l.stateOf(l.at[i], req)
	if err == nil && state != s.state {
		l.fault(fmt.Errorf("%s %s was answered as %s at index %s, and replica %d, asked for no less than that, says %s", s.path, s.id, s.state, index, i, state))
	}
	if err != nil && l.c.net == nil && !l.excused(i, life) { // a cut-off replica may not get there
		l.fault(fmt.Errorf("replica %d, asked for %s at index %s: %w", i, s.id, index, err))
	}
}

// commandsKept: on every replica an answered command is as it was answered, one without an
// answer came to an end or never began, and none reached its worker twice.
func (l *clusterLoad) commandsKept() (states map[string]int) {
	t := l.t
	t.Helper()
	got := countDeliveries(l.cmd.Workers())
	states = map[string]int{}
	for _, s := range l.commands {
		n := s.delivered(got)
		if n > 1 {
			t.Errorf("%s %s reached worker %s %d times", s.path, s.id, s.worker, n)
		}
		if s.status == http.StatusOK && n != 1 {
			t.Errorf("%s %s was answered 200 and reached worker %s %d times", s.path, s.id, s.worker, n)
		}
		state, first := "", true
		for i, at := range l.at {
			if _, live := at.r.Life(); !live {
				continue
			}
			e, known, err := at.event(s.id)
			if err != nil {
				t.Fatal(err)
			}
			if !known {
				e.Status = commandAbsent
			}
			if !first && e.Status != state {
				t.Errorf("%s %s is %s on replica %d and %s on another", s.path, s.id, e.Status, i, state)
			}
			state, first = e.Status, false
			switch {
			case s.status != 0 && (e.Status != s.state || e.NumTokens != s.tokens):
				t.Errorf("%s %s was answered %d, %s with %d tokens; replica %d says %s with %d", s.path, s.id, s.status, s.state, s.tokens, i, e.Status, e.NumTokens)
			case s.status == 0 && !slices.Contains([]string{"done", "interrupted", "failed", commandAbsent}, e.Status):
				t.Errorf("%s %s had no answer and is %q on replica %d", s.path, s.id, e.Status, i)
			case e.Status == commandAbsent && n != 0:
				t.Errorf("%s %s reached worker %s and is not in the log", s.path, s.id, s.worker)
			}
		}
		if s.status == 0 {
			if commandOver(state) { // for the history: who asked may have been told
				l.commanded.add(s.id, commandEnded{}, state, s.call, never)
			}
			state += ", no answer"
		}
		states[state]++
	}
	return states
}
