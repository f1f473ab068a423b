package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	zmq "github.com/pebbe/zmq4"
)

// before are what the recording's surroundings did ahead of a row: workers that come
// back, requests that wait.
var before = map[string]func(*replay){
	// The worker comes back at the same address and answers 9 from now on.
	"stuck: silent: worker restarted at the same address": func(r *replay) {
		r.ranks[0].answer(scripted{frame: mustPack(`{"type":"ClearWorkerRetMsg","num_tokens":9}`)})
	},
	// A request is waiting for silent-h when it deregisters.
	"stuck: silent: deregisters while a request waits for it": func(r *replay) {
		r.inBackground("silent-h", r.ranks[9])
	},
	// The heartbeats before it have brought the old address back.
	"registry: heartbeat with another address": func(r *replay) {
		Eventually(r.t, settleLimit, "the address of the last heartbeat", func() error {
			a, err := r.get("/controller/workers?instance_id=inst-a")
			if err == nil && !strings.Contains(string(a.raw), `"ip":"127.0.0.1"`) {
				err = fmt.Errorf("workers are %s", a.raw)
			}
			return err
		})
	},
	// A third worker says nothing after its registration. When it has been given up, the
	// time is over in which LMCache gives up one that sends events and no heartbeats.
	"reaping: key stats after 6 s": func(r *replay) { r.outlive() },
}

func mustPack(message string) []byte {
	frame, err := pack(mustJSON(message))
	if err != nil {
		panic(fmt.Sprintf("bug: message %q: %v", message, err))
	}
	return frame
}

// inBackground starts a /clear and returns when the worker has it.
func (r *replay) inBackground(instance string, k *rank) context.CancelFunc {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r.t.Cleanup(cancel)
	answers := make(chan backgroundAnswer, 1)
	r.background[instance] = answers
	n := k.count()
	go func() { // ends with the answer, answerLimit or cancel; its channel has room
		a, err := r.send(ctx, http.MethodPost, "/clear", map[string]string{"Content-Type": "application/json"},
			strings.NewReader(`{"instance_id":"`+instance+`","location":"LocalCPUBackend"}`))
		answers <- backgroundAnswer{a, err}
	}()
	Eventually(r.t, settleLimit, "a command reaches "+k.String(), func() error {
		if k.count() == n {
			return fmt.Errorf("nothing has reached it")
		}
		return nil
	})
	return cancel
}

// observe handles the rows that are no single exchange.
func (r *replay) observe(row *row) []string {
	_, what, _ := strings.Cut(row.Name, ": ")
	switch {
	case strings.HasPrefix(what, "PULL"):
		// The recording has the event of a socket that was read, and none of one that was
		// not: later rows count the keys.
		keep := strings.Contains(string(row.zmq.Observed), "true") || row.Scenario == "stuck"
		return r.probe(row, keep)
	case row.Name == "stuck: slow rank 0: rank 1 was reached":
		return r.sideBySide()
	case row.Scenario == "order":
		marks := r.marks()
		a, err := r.post("/clear", `{"instance_id":"tp4","location":"LocalCPUBackend"}`)
		if err != nil || a.status != http.StatusOK {
			return []string{fmt.Sprintf("/clear of four ranks: %v, %d %s", err, a.status, a.raw)}
		}
		want := []string{"tp4/0 ClearWorkerMsg", "tp4/1 ClearWorkerMsg", "tp4/2 ClearWorkerMsg", "tp4/3 ClearWorkerMsg"}
		if got := brief(r.received(marks)); !slices.Equal(got, want) {
			return []string{fmt.Sprintf("want the commands %q, got %q", want, got)}
		}
		return nil
	}
	return []string{"bug: nobody observes this"}
}

// probe sends an event and waits until its key counts. A key that is not to be kept is
// evicted again.
func (r *replay) probe(row *row, keep bool) []string {
	instance := "inst-a"
	if row.Scenario == "stuck" {
		instance = "fine-e"
	}
	if strings.HasSuffix(row.Name, "from a new connection") {
		sock, err := connect(r.zctx, zmq.PUSH, r.replica.PullAddr())
		if err != nil {
			return []string{err.Error()}
		}
		old := r.push
		r.push = sock
		defer func() { r.push = old; _ = sock.Close() }() // nothing of it is waited for any more
	}
	had, err := r.totalKeys(instance)
	if err != nil {
		return []string{err.Error()}
	}
	const key = 424242
	steps := []struct {
		op   string
		want int64
	}{{"admit", had + 1}, {"evict", had}}
	if keep {
		steps = steps[:1]
		r.extraPushed-- // the recording has this one
	}
	for _, s := range steps {
		if faults := r.event(instance, s.op, key+int64(row.Step)); faults != nil {
			return faults
		}
		err := Poll(settleLimit, func() error {
			n, err := r.totalKeys(instance)
			if err == nil && n != s.want {
				err = fmt.Errorf("%s has %d keys after an %s, want %d", instance, n, s.op, s.want)
			}
			return err
		})
		if err != nil {
			return []string{err.Error()}
		}
	}
	return nil
}

// sideBySide: rank 1 of slow0-f had its command before rank 0, which is slow, answered.
func (r *replay) sideBySide() []string {
	slow, other := r.ranks[6].since(0), r.ranks[7].since(0)
	if len(slow) != 1 || len(other) != 1 {
		return []string{fmt.Sprintf("want one command at each rank, got %q and %q", brief(slow), brief(other))}
	}
	if !other[0].at.Before(slow[0].answered) {
		return []string{fmt.Sprintf("rank 1 was reached %s after rank 0 had answered", other[0].at.Sub(slow[0].answered))}
	}
	return nil
}

// outlive sends what the recording's workers sent for six seconds, until a worker that
// sends nothing has been given up.
func (r *replay) outlive() {
	r.t.Helper()
	const mute = `{"type":"RegisterMsg","instance_id":"mute","worker_id":0,"ip":"127.0.0.1","port":21409,"peer_init_url":null}`
	const beat = `{"type":"HeartbeatMsg","instance_id":"beating","worker_id":0,"ip":"127.0.0.1","port":21401,"peer_init_url":null}`
	if _, err := r.askExtra("DEALER/ROUTER", mute); err != nil {
		r.t.Fatal(err)
	}
	every := time.NewTicker(200 * time.Millisecond)
	defer every.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-every.C {
		if faults := r.event("quiet", "admit", 1); faults != nil {
			r.t.Fatal(faults)
		}
		if _, err := r.askExtra("heartbeat DEALER/ROUTER", beat); err != nil {
			r.t.Fatal(err)
		}
		a, err := r.get("/controller/workers?instance_id=mute")
		if err != nil {
			r.t.Fatal(err)
		}
		if a.status == http.StatusNotFound {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("a worker that says nothing is still there after 20 s, with a timeout of 3 s: %s", a.raw)
		}
	}
}
