// Package seldom keeps logs readable: what happens again and again, and is the same to
// who reads of it, is said once in a while.
//
// It does not log and reads no clock. Callers: cluster, ingest.
package seldom

import (
	"sync"
	"time"
)

// Limiter decides when to say something about a subject again.
//
// Concurrency: any goroutine. A Limiter must not be copied after its first use.
type Limiter struct {
	Every time.Duration // at most once in this time
	// Max bounds the subjects that are remembered, since strangers may choose their
	// names. Those beyond it share one place.
	Max int

	mu   sync.Mutex
	said map[string]*said
}

type said struct {
	at         time.Time
	suppressed int
}

// others is the subject of those beyond Max.
const others = "others"

// Due reports whether to say something about subject now, and how often it was not said
// since the last time.
func (l *Limiter) Due(subject string, now time.Time) (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.said[subject]
	if s == nil && len(l.said) >= l.Max {
		for name, old := range l.said {
			if now.Sub(old.at) >= l.Every {
				delete(l.said, name)
			}
		}
		if len(l.said) >= l.Max {
			subject = others
			s = l.said[subject]
		}
	}
	switch {
	case s == nil:
		if l.said == nil {
			l.said = map[string]*said{}
		}
		l.said[subject] = &said{at: now}
		return 0, true
	case now.Sub(s.at) < l.Every:
		s.suppressed++
		return 0, false
	}
	suppressed = s.suppressed
	s.at, s.suppressed = now, 0
	return suppressed, true
}

// Len is how many subjects are remembered, at most Max and the others' place.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.said)
}
