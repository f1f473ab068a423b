package ingest

import (
	"sync"
	"time"
)

const (
	complaintPause = time.Minute
	// maxSenders bounds the memory for who has been complained about. Beyond it all
	// further senders share one place.
	maxSenders = 1024
)

// complaints limits what is logged about each sender to one line a minute.
// Concurrency: any goroutine.
type complaints struct {
	mu   sync.Mutex
	last map[string]*complaint
}

type complaint struct {
	at         time.Time
	suppressed int
}

// about reports whether to log a complaint about sender now, and how many were
// suppressed since the last one.
func (c *complaints) about(sender string, now time.Time) (suppressed int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		c.last = make(map[string]*complaint)
	}
	said := c.last[sender]
	if said == nil && len(c.last) >= maxSenders {
		for name, old := range c.last {
			if now.Sub(old.at) >= complaintPause {
				delete(c.last, name)
			}
		}
	}
	if said == nil && len(c.last) >= maxSenders {
		sender = "others"
		said = c.last[sender]
	}
	if said == nil {
		c.last[sender] = &complaint{at: now}
		return 0, true
	}
	if now.Sub(said.at) < complaintPause {
		said.suppressed++
		return 0, false
	}
	suppressed = said.suppressed
	said.at, said.suppressed = now, 0
	return suppressed, true
}
