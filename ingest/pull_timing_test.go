package ingest

import (
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/lmcache"
)

// BenchmarkPull_Operations sends messages of 50 operations, 20 to a ZeroMQ message,
// through one PULL socket into the state machine; the log is a mutex. One iteration is
// one operation.
func BenchmarkPull_Operations(b *testing.B) {
	log := newMemLog()
	s := New(Options{Log: log, State: log, Session: session(), Host: "127.0.0.1", PullPorts: []int{AnyPort}, ReplyPort: AnyPort})
	if err := s.Open(); err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(b.Context()) }()
	defer func() { // Close ends Serve
		if err := s.Close(); err != nil {
			b.Error(err)
		}
		<-served
	}()
	sock, err := zmq.NewSocket(zmq.PUSH)
	if err != nil {
		b.Fatal(err)
	}
	defer sock.Close()
	if err := sock.Connect(endpoint(s.Ports().Pull[0])); err != nil {
		b.Fatal(err)
	}
	send := func(parts [][]byte) {
		if _, err := sock.SendMessage(parts); err != nil {
			b.Fatal(err)
		}
	}
	send([][]byte{lmcache.Append(nil, registerMsg("i"))})

	const per, perMessage = 50, 20
	var messages [][][]byte
	for seq := int64(0); seq < int64(b.N); {
		var parts [][]byte
		for range perMessage {
			keys := make([]lmcache.Key, per)
			for k := range keys {
				keys[k] = lmcache.Key(uint64(seq+int64(k)) % (1 << 20) * 0x9e3779b97f4a7c15)
			}
			parts = append(parts, lmcache.Append(nil, opsMsg("i", "L", seq, keys...)))
			seq += per
		}
		messages = append(messages, parts)
	}
	want := int64(len(messages) * per * perMessage)
	applied := func() int64 {
		w, _ := log.Registry().Worker(ref("i"))
		if len(w.Locations) == 0 {
			return 0
		}
		return w.Locations[0].NextSeq
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	b.ResetTimer()
	for _, m := range messages {
		send(m)
	}
	for applied() < want {
		<-look.C
	}
	b.StopTimer()
	st := s.Stats()
	b.ReportMetric(float64(want)/b.Elapsed().Seconds()/1e6, "Mops/s")
	b.ReportMetric(st.BatchBytes.Sum/float64(want), "logB/op")
	b.ReportMetric(float64(want)/float64(st.BatchBytes.Count), "ops/entry")
}

// BenchmarkRouter_P2PLookup is a round trip of a peer lookup of 100 hashes over one
// connection, all of them held.
func BenchmarkRouter_P2PLookup(b *testing.B) {
	log := newMemLog()
	s := New(Options{Log: log, State: log, Session: session(), Host: "127.0.0.1", PullPorts: []int{AnyPort}, ReplyPort: AnyPort})
	if err := s.Open(); err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(b.Context()) }()
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
		<-served
	}()
	sock, err := zmq.NewSocket(zmq.DEALER)
	if err != nil {
		b.Fatal(err)
	}
	defer sock.Close()
	if err := sock.Connect(endpoint(s.Ports().Reply)); err != nil {
		b.Fatal(err)
	}
	ask := func(frame []byte) {
		if _, err := sock.SendMessage("", frame); err != nil {
			b.Fatal(err)
		}
		if _, err := sock.RecvMessageBytes(0); err != nil {
			b.Fatal(err)
		}
	}
	ask(lmcache.Append(nil, registerMsg("i")))
	keys := make([]lmcache.Key, 100)
	for i := range keys {
		keys[i] = lmcache.Key(uint64(i+1) * 0x9e3779b97f4a7c15)
	}
	p := &puller{s: s, name: "benchmark"}
	p.part(lmcache.Append(nil, opsMsg("i", "L", 0, keys...)), "")
	question := lmcache.Append(nil, &lmcache.BatchedP2PLookupMsg{Hashes: keys, InstanceID: "j"})
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for log.Registry().Totals().Keys < 100 {
		<-look.C
	}
	for b.Loop() {
		ask(question)
	}
}
