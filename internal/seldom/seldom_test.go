package seldom

import (
	"fmt"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	l := Limiter{Every: time.Minute, Max: 100}
	t0 := time.Unix(1000, 0)
	say := func(subject string, after time.Duration, wantOK bool, wantSuppressed int) {
		t.Helper()
		if n, ok := l.Due(subject, t0.Add(after)); ok != wantOK || n != wantSuppressed {
			t.Errorf("%s after %v: %v with %d suppressed, want %v with %d", subject, after, ok, n, wantOK, wantSuppressed)
		}
	}
	say("a", 0, true, 0)
	say("a", time.Second, false, 0)
	say("a", 59*time.Second, false, 0)
	say("b", time.Second, true, 0)
	say("a", 60*time.Second, true, 2)
	say("a", 61*time.Second, false, 0)
	for i := range 2 * l.Max {
		l.Due(fmt.Sprint(i), t0)
	}
	if l.Len() > l.Max+1 {
		t.Errorf("%d subjects are remembered, want at most %d and the others' place", l.Len(), l.Max)
	}
	say("new", 0, false, 0) // shares a place with all others beyond the bound
	say("new", 2*time.Minute, true, 0)
}
