package lmcache

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Tokens of the whole range of MessagePack's integers come back from a command as
// they went in.
func TestToken_WholeRange(t *testing.T) {
	in := append(TokensOf(0, -1, 151935, math.MaxInt64, math.MinInt64), LargeTokenOf(1<<63), LargeTokenOf(math.MaxUint64), LargeTokenOf(7))
	m, err := Decode(Append(nil, &PinWorkerMsg{WorkerEventID: "e", Location: "L", Tokens: in}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, m.(*PinWorkerMsg).Tokens); diff != "" {
		t.Errorf("tokens (-in +out):\n%s", diff)
	}
	for i, want := range []string{"0", "-1", "151935", "9223372036854775807", "-9223372036854775808", "9223372036854775808", "18446744073709551615", "7"} {
		if got := in[i].String(); got != want {
			t.Errorf("token %d is %s, want %s", i, got, want)
		}
	}
	if _, ok := LargeTokenOf(1 << 63).Int64(); ok {
		t.Error("2^63 fits into an int64")
	}
	if v, ok := LargeTokenOf(7).Int64(); v != 7 || !ok || LargeTokenOf(7) != TokenOf(7) {
		t.Errorf("7 became %d, %t", v, ok)
	}
}
