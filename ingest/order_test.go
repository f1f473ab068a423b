package ingest

import (
	"fmt"
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/lmcache"
)

// TestRouter_AnswersInOrderPerIdentity: requests that wait for the log and requests
// that do not, mixed on one connection, are answered in their order; a second
// connection is not held up by the first.
func TestRouter_AnswersInOrderPerIdentity(t *testing.T) {
	r := start(t, nil)
	resume := r.log.pause()
	slow := r.dealer()
	for i := range 5 {
		slow.request(registerMsg(fmt.Sprint(i)))                             // waits
		slow.request(&lmcache.BatchedP2PLookupMsg{Hashes: []lmcache.Key{1}}) // does not
		slow.raw(nil, []byte{0xc1})                                          // nor this
		slow.request(&lmcache.FullSyncStartMsg{InstanceID: fmt.Sprint(i), WorkerID: 1, SyncID: fmt.Sprint("sync-", i), BatchCount: 1})
	}
	eventually(t, "all requests wait", func() bool { return r.s.Stats().Reply.Active == 20 })

	quick := r.dealer()
	for range 3 {
		if m := quick.ask(&lmcache.BatchedP2PLookupMsg{Hashes: []lmcache.Key{1}}); m.Type() != "BatchedP2PLookupRetMsg" {
			t.Fatalf("another connection was answered with %s", m.Type())
		}
	}
	must(t, slow.sock.SetRcvtimeo(20*time.Millisecond))
	if _, err := slow.sock.RecvMessageBytes(0); err == nil {
		t.Fatal("an answer came before its request's log entry")
	}
	must(t, slow.sock.SetRcvtimeo(patience))
	resume()
	for i := range 5 {
		for _, want := range []string{"RegisterRetMsg", "BatchedP2PLookupRetMsg", "ErrorMsg", "FullSyncStartRetMsg"} {
			m := slow.answer()
			if m.Type() != want {
				t.Fatalf("round %d: %s, want %s", i, m.Type(), want)
			}
			if ret, ok := m.(*lmcache.FullSyncStartRetMsg); ok && (ret.SyncID != fmt.Sprint("sync-", i) || !ret.Accepted) {
				t.Fatalf("round %d: %+v", i, ret)
			}
		}
	}
	if n := r.s.Stats().Reply.Active; n != 0 {
		t.Errorf("%d requests are unanswered", n)
	}
}

// TestRouter_REQ: the framing of LMCache 0.3.7 to 0.3.11.
func TestRouter_REQ(t *testing.T) {
	r := start(t, nil)
	c := r.dial(zmq.REQ, r.s.Ports().Reply)
	if m := c.ask(registerMsg("i")); m.Type() != "RegisterRetMsg" {
		t.Errorf("registration was answered with %s", m.Type())
	}
	for range 3 {
		if m := c.ask(&lmcache.BatchedP2PLookupMsg{Hashes: []lmcache.Key{1}}); m.Type() != "BatchedP2PLookupRetMsg" {
			t.Errorf("lookup was answered with %s", m.Type())
		}
	}
}

// TestRouter_AnswersWithoutTheLog: a worker that is not answered within 30 s stays
// mute for good, so it is answered before that; its record goes into the log later.
func TestRouter_AnswersWithoutTheLog(t *testing.T) {
	r := start(t, func(o *Options) { o.LogPatience = 100 * time.Millisecond })
	resume := r.log.pause()
	d := r.dealer()
	if ret, ok := d.ask(registerMsg("i")).(*lmcache.RegisterRetMsg); !ok || len(ret.ExtraConfig) != 1 {
		t.Fatalf("registration: %+v, want the usual answer", ret)
	}
	if ret, ok := d.ask(&lmcache.FullSyncStartMsg{InstanceID: "i", WorkerID: 1, SyncID: "s"}).(*lmcache.FullSyncStartRetMsg); !ok || ret.Accepted || ret.ErrorMsg == nil {
		t.Fatalf("sync start: %+v, want a refusal", ret)
	}
	if ret, ok := r.heartbeat().ask(heartbeatMsg("j")).(*lmcache.HeartbeatRetMsg); !ok || len(ret.Commands) != 0 {
		t.Fatalf("heartbeat: %+v, want no command", ret)
	}
	if n := r.s.Stats().LateAnswers; n != 3 {
		t.Errorf("%d late answers counted, want 3", n)
	}
	resume()
	eventually(t, "both are registered", func() bool { return r.log.Registry().Totals().Workers == 2 })
}

// TestRouter_StopsReadingAtTheBound: at the bound requests stay in the socket, and are
// answered when there is room again.
func TestRouter_StopsReadingAtTheBound(t *testing.T) {
	r := start(t, func(o *Options) { o.MaxPending = 3 })
	resume := r.log.pause()
	d := r.dealer()
	for i := range 10 {
		d.request(registerMsg(fmt.Sprint(i)))
	}
	eventually(t, "the bound is reached", func() bool { return r.s.Stats().Reply.Active == 3 })
	if n := r.s.Stats().Reply.Messages; n != 3 {
		t.Errorf("%d requests were taken, want 3", n)
	}
	resume()
	for i := range 10 {
		if m := d.answer(); m.Type() != "RegisterRetMsg" {
			t.Fatalf("request %d was answered with %s", i, m.Type())
		}
	}
}

// TestRouter_AWholeFleetRegistersWithoutTheLog: however many come while there is no
// log, none is left in the socket, where its patience would run out unseen.
func TestRouter_AWholeFleetRegistersWithoutTheLog(t *testing.T) {
	const workers = 5_000
	r := start(t, nil)
	resume := r.log.pause()
	d := r.dealer()
	for i := range workers {
		d.request(registerMsg(fmt.Sprint(i)))
	}
	eventually(t, "all are taken", func() bool { return r.s.Stats().Reply.Active == workers })
	resume()
	eventually(t, "all are registered", func() bool { return r.log.Registry().Totals().Workers == workers })
}

// TestRouter_AskerIsGone: answers to a closed connection are counted and hold up nobody.
func TestRouter_AskerIsGone(t *testing.T) {
	r := start(t, nil)
	resume := r.log.pause()
	gone := r.dealer()
	gone.request(registerMsg("i"))
	eventually(t, "the request waits", func() bool { return r.s.Stats().Reply.Active == 1 })
	must(t, gone.sock.Close())
	// The socket's end has reached the router when a later connection is answered.
	for range 3 {
		r.dealer().ask(&lmcache.BatchedP2PLookupMsg{})
	}
	resume()
	eventually(t, "the answer has left or is counted", func() bool { return r.s.Stats().Reply.Active == 0 })
	r.register("j")
}

// TestPull_BackPressure: with the log away the queue fills to its bound and no further;
// the rest waits in the sockets, and all of it arrives when the log is back.
func TestPull_BackPressure(t *testing.T) {
	r := start(t, func(o *Options) { o.MaxBatch, o.MaxQueue = 4<<10, 32<<10 })
	r.register("i")
	r.settled()
	resume := r.log.pause()
	p := r.push()
	const messages, per = 400, 50
	for i := range messages {
		keys := make([]lmcache.Key, per)
		for k := range keys {
			keys[k] = lmcache.Key(i*per + k + 1)
		}
		p.parts(opsMsg("i", "L", int64(i*per), keys...))
	}
	eventually(t, "PULL waits", func() bool { return r.s.Stats().Blocked > 0 })
	st := r.s.Stats()
	if st.QueueBytes < st.QueueMaxBytes || st.QueueBytes > st.QueueMaxBytes+(4<<10) || st.Pull.Messages == messages {
		t.Errorf("%d bytes queued of %d, %d messages taken of %d", st.QueueBytes, st.QueueMaxBytes, st.Pull.Messages, messages)
	}
	// The other sockets are not held up.
	if ret, ok := r.heartbeat().ask(heartbeatMsg("i")).(*lmcache.HeartbeatRetMsg); !ok || len(ret.Commands) != 0 {
		t.Errorf("heartbeat meanwhile: %+v", ret)
	}
	resume()
	eventually(t, "everything arrived", func() bool { return r.keys("i") == messages*per })
	w, _ := r.log.Registry().Worker(ref("i"))
	if w.Locations[0].Gaps != 0 {
		t.Errorf("%d gaps, want none", w.Locations[0].Gaps)
	}
}

// TestPull_TooLargeFrame: its sender loses the connection, nobody else anything.
func TestPull_TooLargeFrame(t *testing.T) {
	r := start(t, func(o *Options) { o.MaxFrame = 1 << 20 })
	r.register("i")
	p := r.push()
	p.raw(make([]byte, 2<<20))
	p.parts(opsMsg("i", "L", 0, 1)) // may be lost with the connection
	r.push().parts(opsMsg("i", "M", 0, 2))
	eventually(t, "another sender is heard", func() bool { return len(r.log.Registry().Holders(2)) == 1 })
	eventually(t, "so is the same one, after reconnecting", func() bool {
		p.parts(opsMsg("i", "L", 1, 3))
		return len(r.log.Registry().Holders(3)) == 1
	})
}

// TestRouter_TooLargeQuestion: a question is answered before the next one is read, so
// its size is bounded; the largest that a prompt can need passes.
func TestRouter_TooLargeQuestion(t *testing.T) {
	r := start(t, nil)
	lookup := func(hashes int) *lmcache.BatchedP2PLookupMsg {
		m := &lmcache.BatchedP2PLookupMsg{InstanceID: "i", WorkerID: 1, Hashes: make([]lmcache.Key, hashes)}
		for i := range m.Hashes {
			m.Hashes[i] = lmcache.Key(1<<63 + uint64(i)) // 9 bytes each
		}
		return m
	}
	for _, c := range []*client{r.dealer(), r.heartbeat()} {
		must(t, c.sock.SetRcvtimeo(50*time.Millisecond))
		c.request(lookup(200_000))
		if _, err := c.sock.RecvMessageBytes(0); err == nil {
			t.Error("a question of 1.8 MB was answered")
		}
	}
	if m := r.dealer().ask(lookup(100_000)); m.Type() != "BatchedP2PLookupRetMsg" {
		t.Errorf("100 000 hashes were answered with %s", m.Type())
	}
}

// TestComplaints_NameThePeer: the line about a bad frame says whose it is, on every
// socket, and there is one line a minute.
func TestComplaints_NameThePeer(t *testing.T) {
	r := start(t, nil)
	d := r.dealer()
	for range 3 {
		d.raw(nil, []byte{0xc1})
		d.answer()
	}
	r.push().raw([]byte{0xc1}, []byte{0xc1})
	eventually(t, "all are counted", func() bool { return r.badFrames() == 5 })
	suppressed, ok := r.s.complaints.Due("127.0.0.1", time.Now().Add(complaintPause))
	if !ok || suppressed != 4 || r.s.complaints.Len() != 1 {
		t.Errorf("%d complaints suppressed about 127.0.0.1 (%v), and %d senders; want 4, and nobody else", suppressed, ok, r.s.complaints.Len())
	}
}
