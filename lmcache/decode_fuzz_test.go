package lmcache

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzDecode: whatever the frame, Decode does not panic, allocates in proportion to
// the frame, refuses with a known reason, and what it takes is the same after being
// written and read again.
func FuzzDecode(f *testing.F) {
	for _, row := range wireRows(f) {
		f.Add(unhex(f, row.MsgpackHex))
		if row.JSONHex != "" {
			f.Add(unhex(f, row.JSONHex))
		}
	}
	for _, row := range oddRows(f) {
		f.Add(unhex(f, row.FrameHex))
		for _, frame := range row.FramesHex {
			f.Add(unhex(f, frame))
		}
	}
	reasons := Reasons()
	f.Fuzz(func(t *testing.T, frame []byte) {
		var m Message
		var err error
		if got := allocated(func() { m, err = Decode(frame) }); got > allocLimit(len(frame)) {
			t.Errorf("%d bytes allocated for a frame of %d", got, len(frame))
		}
		if err != nil {
			if m != nil {
				t.Errorf("message %+v with error %v", m, err)
			}
			if !slices.Contains(reasons, ReasonOf(err)) {
				t.Errorf("error %v without a known reason", err)
			}
			return
		}
		// Compared as bytes: NaN is a value of the float fields.
		first := Append(nil, m)
		again, err := Decode(first)
		if err != nil {
			t.Fatalf("encoded message is refused: %v", err)
		}
		if second := Append(nil, again); !bytes.Equal(first, second) {
			t.Errorf("decoded %+v, encoded and decoded again %+v", m, again)
		}
		for _, o := range []Options{{SignedKeys: true}, {Gen: Gen0309}, {Gen: Gen0303}} {
			if _, err := Decode(AppendWith(nil, m, o)); err != nil {
				t.Errorf("message encoded with %+v is refused: %v", o, err)
			}
		}
	})
}
