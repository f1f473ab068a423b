package simworker

import (
	"context"
	"testing"
	"time"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/lmcache"
)

// TestSender_LosesAWholeSend: what is queued behind messages that vanish is sent.
func TestSender_LosesAWholeSend(t *testing.T) {
	zctx, err := zmq.NewContext()
	if err != nil {
		t.Fatal(err)
	}
	defer zctx.Term()
	pull, err := zctx.NewSocket(zmq.PULL)
	if err != nil {
		t.Fatal(err)
	}
	defer pull.Close()
	if err := pull.Bind("inproc://pull"); err != nil {
		t.Fatal(err)
	}
	push, err := zctx.NewSocket(zmq.PUSH)
	if err != nil {
		t.Fatal(err)
	}
	defer push.Close()
	if err := push.Connect("inproc://pull"); err != nil {
		t.Fatal(err)
	}
	s := newSender(Options{}.withDefaults(), push)
	s.loseNext(maxParts)
	for range maxParts + 7 {
		s.message(&lmcache.FullSyncEndMsg{SyncID: "s"})
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx) }()
	flushed := s.flush(10 * time.Second)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if st := s.stats(); !flushed || st.Lost != maxParts || st.Messages != 7 {
		t.Errorf("flushed %v, %+v, want %d lost and 7 sent", flushed, st, maxParts)
	}
}
