package e2e

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/internal/simworker"
	"github.com/kvctrl/kvctrl/lmcache"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return ctx, cancel
}

// asker is a DEALER that sends any frames.
type asker struct {
	sock *zmq.Socket
	to   string
}

func (b *badBench) asker(t *testing.T, to string) *asker {
	t.Helper()
	a := &asker{b.socket(t, zmq.DEALER, to), to}
	if err := a.sock.SetRcvtimeo(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	return a
}

// socket connects; the test's cleanup closes it, when what was sent has left.
func (b *badBench) socket(t *testing.T, kind zmq.Type, to string) *zmq.Socket {
	t.Helper()
	sock, err := b.zctx.NewSocket(kind)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sock.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(sock.SetLinger(5*time.Second), sock.SetSndtimeo(10*time.Second), sock.Connect("tcp://"+to)); err != nil {
		t.Fatal(err)
	}
	return sock
}

func (a *asker) send(frames ...[]byte) error {
	_, err := a.sock.SendMessage(frames)
	return err
}

// ask sends frames and decodes the last frame of the answer.
func (a *asker) ask(frames ...[]byte) (lmcache.Message, error) {
	if err := a.send(frames...); err != nil {
		return nil, err
	}
	until := time.Now().Add(10 * time.Second)
	for {
		parts, err := a.sock.RecvMessageBytes(0)
		if err == nil {
			return lmcache.Decode(parts[len(parts)-1])
		}
		if !interruptedCall(err) || time.Now().After(until) {
			return nil, fmt.Errorf("answer on %s: %w", a.to, err)
		}
	}
}

// push sends one message of some parts on a connection of its own.
func (b *badBench) push(t *testing.T, parts ...[]byte) {
	t.Helper()
	if _, err := b.socket(t, zmq.PUSH, b.r.PullAddr()).SendMessage(parts); err != nil {
		t.Fatal(err)
	}
}

// badFrame is a frame that cannot be decoded, or holds a message that no worker sends.
type badFrame struct {
	name  string
	bytes []byte
	kind  lmcache.Message // what it decodes to, nil if it does not
	err   error
}

// badFrames are the odd frames that LMCache's controller was recorded with and that have
// no meaning, some more, and random bytes.
func badFrames(t *testing.T) []badFrame {
	t.Helper()
	var list []badFrame
	add := func(name string, frame []byte) {
		m, err := lmcache.Decode(frame)
		list = append(list, badFrame{name, frame, m, err})
	}
	f, err := os.Open(vector(t, "wire-odd.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var row struct {
			Name string
			Hex  *string `json:"frame_hex"`
		}
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		if row.Hex == nil {
			continue
		}
		frame, err := hex.DecodeString(*row.Hex)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lmcache.Decode(frame); err != nil {
			add(row.Name, frame)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(list) < 50 {
		t.Fatalf("%d recorded frames have no meaning, want more", len(list))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 3, 17, 64, 1000, 100_000, 1_000_000} {
		noise := make([]byte, n)
		for i := range noise {
			noise[i] = byte(rng.Uint32())
		}
		noise[0] = 0xc1 // the byte that MessagePack never uses
		add(fmt.Sprintf("%d random bytes", n), noise)
	}
	add("a megabyte of zeros", make([]byte, 1<<20))
	add("a megabyte of open lists", []byte(strings.Repeat("\x91", 1<<20)))
	add("a megabyte of open maps", []byte(strings.Repeat("\x81\xa1a", 1<<18)))
	add("a megabyte of open JSON lists", []byte(strings.Repeat("[", 1<<20)))
	add("HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	add("pickle", []byte("\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94"))
	for _, m := range []lmcache.Message{
		&lmcache.LookupMsg{Tokens: []int64{1}}, &lmcache.ClearMsg{InstanceID: "good", Location: simworker.LocalCPU},
		&lmcache.PinMsg{InstanceID: "good", Location: simworker.LocalCPU, Tokens: []int64{1}}, &lmcache.CompressMsg{InstanceID: "good"},
		&lmcache.DecompressMsg{InstanceID: "good"}, &lmcache.MoveMsg{}, &lmcache.HealthMsg{InstanceID: "good"}, &lmcache.CheckFinishMsg{},
		&lmcache.QueryInstMsg{IP: "127.0.0.1"},
		&lmcache.ClearWorkerMsg{Location: simworker.LocalCPU}, &lmcache.ClearWorkerRetMsg{NumTokens: 1}, &lmcache.RegisterRetMsg{},
		&lmcache.HeartbeatRetMsg{}, &lmcache.ErrorMsg{Error: "no"},
	} {
		add("a message of no worker: "+m.Type(), lmcache.Append(nil, m))
	}
	return list
}

// badPull sends them to PULL, which has no answers: they are counted by reason.
func badPull(t *testing.T, b *badBench) {
	sock := b.socket(t, zmq.PUSH, b.r.PullAddr())
	send := func(parts ...[]byte) func() error {
		return func() error {
			_, err := sock.SendMessage(parts)
			return err
		}
	}
	for _, f := range badFrames(t) {
		metric := refusedMetric("wrong_socket")
		switch {
		case f.err != nil:
			metric = badFrameMetric(lmcache.ReasonOf(f.err))
		case lmcache.IsOrchestrator(f.kind):
			metric = refusedMetric("orchestrator")
		}
		b.try(t, f.name, false, func(t *testing.T) { b.counted(t, metric, 1, send(f.bytes)) })
	}
	nobody := lmcache.Append(nil, &lmcache.BatchedKVOperationMsg{InstanceID: "nobody", Location: simworker.LocalCPU,
		Operations: []lmcache.KVOp{{Key: 1, Seq: 0}, {Key: 2, Seq: 1}}})
	long := strings.Repeat("x", 2000)
	const unknownOps = "kvctrl_ingest_unknown_worker_operations_total"
	for _, c := range []struct {
		name    string
		commits bool
		metric  string
		n       float64
		parts   [][]byte
	}{
		{"1000 empty parts", false, badFrameMetric(lmcache.ReasonEmpty), 1000, make([][]byte, 1000)},
		{"events of nobody", true, unknownOps, 2, [][]byte{nobody}},
		{"events of nobody between garbage", true, unknownOps, 4, [][]byte{[]byte("\xc1"), nobody, nil, nobody, []byte("{")}},
		{"an instance of 2000 bytes", false, badFrameMetric("too_long"), 1, [][]byte{lmcache.Append(nil, &lmcache.BatchedKVOperationMsg{InstanceID: long, Operations: []lmcache.KVOp{{Key: 1}}})}},
		{"a location of 2000 bytes", false, badFrameMetric("too_long"), 1, [][]byte{lmcache.Append(nil, &lmcache.BatchedKVOperationMsg{InstanceID: "good", Location: long, Operations: []lmcache.KVOp{{Key: 1}}})}},
		{"a leave of 2000 bytes", false, badFrameMetric("too_long"), 1, [][]byte{lmcache.Append(nil, &lmcache.DeRegisterMsg{InstanceID: long})}},
		{"a sync id of 2000 bytes", false, badFrameMetric("too_long"), 1, [][]byte{lmcache.Append(nil, &lmcache.FullSyncEndMsg{InstanceID: "good", Location: simworker.LocalCPU, SyncID: long})}},
		{"a question", false, refusedMetric("wrong_socket"), 1, [][]byte{lmcache.Append(nil, &lmcache.BatchedP2PLookupMsg{InstanceID: "good", Hashes: []lmcache.Key{1}})}},
	} {
		b.try(t, c.name, c.commits, func(t *testing.T) { b.counted(t, c.metric, c.n, send(c.parts...)) })
	}
	// What is in order and changes nothing, because nobody is meant. It has no counter:
	// the events behind it show that it is through.
	for _, m := range []lmcache.Message{
		&lmcache.DeRegisterMsg{InstanceID: "nobody"}, &lmcache.DeRegisterMsg{InstanceID: "good", WorkerID: 7},
		&lmcache.FullSyncBatchMsg{InstanceID: "good", Location: simworker.LocalCPU, SyncID: "none", Keys: []lmcache.Key{9}},
		&lmcache.FullSyncEndMsg{InstanceID: "good", Location: simworker.LocalCPU, SyncID: "none"},
		&lmcache.FullSyncBatchMsg{InstanceID: "nobody", SyncID: "none", BatchID: -1, Keys: []lmcache.Key{9}},
		&lmcache.KVEvictMsg{InstanceID: "nobody", Key: 1}, &lmcache.KVAdmitMsg{InstanceID: "nobody", Key: 1},
		&lmcache.BatchedKVOperationMsg{InstanceID: "nobody", WorkerID: -1 << 63, Location: "", Operations: []lmcache.KVOp{{Key: 1, Seq: -1 << 63}, {Key: 1, Seq: 1<<63 - 1}}},
		&lmcache.BatchedKVOperationMsg{InstanceID: "good", Location: simworker.LocalCPU},
	} {
		b.try(t, "nothing to do: "+m.Type(), true, func(t *testing.T) {
			before, err := b.c.metric(unknownOps)
			if err == nil {
				err = errors.Join(send(lmcache.Append(nil, m))(), send(nobody)())
			}
			if err != nil {
				t.Fatal(err)
			}
			Eventually(t, 20*time.Second, "the events behind it", func() error {
				now, err := b.c.metric(unknownOps)
				if err == nil && now < before+2 {
					err = fmt.Errorf("%v operations of nobody, were %v", now, before)
				}
				return err
			})
		})
	}
	if !strings.Contains(b.r.Log(), "bad frame") {
		t.Error("the log does not name a bad frame")
	}
}

// badRouter sends them to a socket that answers: with ErrorMsg, each in its turn.
func badRouter(t *testing.T, b *badBench, name, to string) {
	a := b.asker(t, to)
	delimiter := []byte{}
	refused := func(t *testing.T, m lmcache.Message, err error, words string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := m.(*lmcache.ErrorMsg); !ok || e.Error == "" || !strings.Contains(e.Error, words) || len(e.Error) > 1000 {
			t.Errorf("answered %s %+v, want an ErrorMsg with %q", m.Type(), m, words)
		}
	}
	for _, f := range badFrames(t) {
		words := ""
		if f.err == nil {
			words = f.kind.Type()
		}
		b.try(t, f.name, false, func(t *testing.T) {
			m, err := a.ask(delimiter, f.bytes)
			refused(t, m, err, words)
		})
	}
	b.try(t, "no delimiter", false, func(t *testing.T) {
		b.counted(t, badFrameMetric("layout"), 1, func() error { return a.send([]byte("\xc1")) })
	})
	b.try(t, "a delimiter only", false, func(t *testing.T) {
		b.counted(t, badFrameMetric("layout"), 1, func() error { return a.send(delimiter) })
	})
	b.try(t, "100 frames", false, func(t *testing.T) {
		m, err := a.ask(make([][]byte, 100)...)
		refused(t, m, err, "")
	})
	b.try(t, "frames behind the payload", false, func(t *testing.T) {
		m, err := a.ask(delimiter, []byte("{"), []byte("more"), []byte("and more"))
		refused(t, m, err, "")
	})
	b.try(t, "200 questions at once", false, func(t *testing.T) {
		for range 199 {
			if err := a.send(delimiter, []byte("\xc1")); err != nil {
				t.Fatal(err)
			}
		}
		m, err := a.ask(delimiter, []byte("\xc1"))
		refused(t, m, err, "")
		for range 199 {
			if _, err := a.sock.RecvMessageBytes(0); err != nil {
				t.Fatal(err)
			}
		}
	})
	b.try(t, "an asker that does not wait", false, func(t *testing.T) {
		b.counted(t, badFrameMetric(lmcache.ReasonSyntax), 50, func() error {
			var faults []error
			for range 50 {
				sock, err := b.zctx.NewSocket(zmq.DEALER)
				if err != nil {
					return err
				}
				faults = append(faults, sock.SetLinger(5*time.Second), sock.Connect("tcp://"+to))
				_, err = sock.SendMessage("", "\xc1")
				faults = append(faults, err, sock.Close())
			}
			return errors.Join(faults...)
		})
	})
	long := strings.Repeat("x", 2000)
	if name == "heartbeat" {
		for _, m := range []lmcache.Message{
			&lmcache.RegisterMsg{InstanceID: "bad", IP: "127.0.0.1", Port: 1}, &lmcache.BatchedP2PLookupMsg{InstanceID: "good"},
			&lmcache.FullSyncStartMsg{InstanceID: "good"}, &lmcache.FullSyncStatusMsg{InstanceID: "good"}, &lmcache.DeRegisterMsg{InstanceID: "good"},
		} {
			b.try(t, "another socket's message: "+m.Type(), false, func(t *testing.T) {
				got, err := a.ask(delimiter, lmcache.Append(nil, m))
				refused(t, got, err, "Expected HeartbeatMsg")
			})
		}
		b.try(t, "an instance of 2000 bytes", false, func(t *testing.T) {
			b.counted(t, badFrameMetric("too_long"), 1, func() error {
				m, err := a.ask(delimiter, lmcache.Append(nil, &lmcache.HeartbeatMsg{InstanceID: long, IP: "127.0.0.1", Port: 1}))
				if err == nil && m.Type() != "HeartbeatRetMsg" {
					err = fmt.Errorf("answered %s", m.Type())
				}
				return err
			})
		})
		return
	}
	for _, m := range []lmcache.Message{
		&lmcache.RegisterMsg{InstanceID: long, IP: "127.0.0.1", Port: 1}, &lmcache.RegisterMsg{InstanceID: "bad", IP: long, Port: 1},
		&lmcache.RegisterMsg{InstanceID: "bad", IP: "127.0.0.1", Port: 1, PeerInitURL: &long},
	} {
		b.try(t, "a registration with 2000 bytes", false, func(t *testing.T) {
			got, err := a.ask(delimiter, lmcache.Append(nil, m))
			refused(t, got, err, "too long")
		})
	}
	for _, c := range []struct {
		name  string
		start lmcache.FullSyncStartMsg
		words string
	}{
		{"a sync of nobody", lmcache.FullSyncStartMsg{InstanceID: "nobody", Location: simworker.LocalCPU, SyncID: "s"}, "not registered"},
		{"a sync of -1 batches", lmcache.FullSyncStartMsg{InstanceID: "good", Location: simworker.LocalCPU, SyncID: "s", BatchCount: -1}, "batch count"},
		{"a sync of 2^62 batches", lmcache.FullSyncStartMsg{InstanceID: "good", Location: simworker.LocalCPU, SyncID: "s", BatchCount: 1 << 62}, "batch count"},
		{"a sync id of 2000 bytes", lmcache.FullSyncStartMsg{InstanceID: "good", Location: simworker.LocalCPU, SyncID: long}, "does not fit"},
	} {
		b.try(t, c.name, true, func(t *testing.T) {
			got, err := a.ask(delimiter, lmcache.Append(nil, &c.start))
			if err != nil {
				t.Fatal(err)
			}
			ret, ok := got.(*lmcache.FullSyncStartRetMsg)
			if !ok || ret.Accepted || ret.ErrorMsg == nil || !strings.Contains(*ret.ErrorMsg, c.words) {
				t.Errorf("answered %s %+v, want a refusal with %q", got.Type(), got, c.words)
			}
		})
	}
	b.try(t, "the status of no sync", false, func(t *testing.T) {
		got, err := a.ask(delimiter, lmcache.Append(nil, &lmcache.FullSyncStatusMsg{InstanceID: "nobody", SyncID: "none"}))
		if err != nil {
			t.Fatal(err)
		}
		if ret, ok := got.(*lmcache.FullSyncStatusRetMsg); !ok || ret.IsComplete {
			t.Errorf("answered %s %+v, want that it is not complete", got.Type(), got)
		}
	})
}
