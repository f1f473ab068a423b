package cluster

import (
	"context"
	"time"
)

// simFault is something that goes wrong in a simulated cluster. heal makes the
// network good again for all of them at once and starts who is down.
type simFault struct {
	name  string
	begin func(c *simCluster)
}

// pick chooses a replica.
func (c *simCluster) pick() *simReplica {
	all := c.all()
	return all[c.rand.IntN(len(all))]
}

// pickPair chooses two.
func (c *simCluster) pickPair() (a, b *simReplica) {
	all := c.all()
	i := c.rand.IntN(len(all))
	j := (i + 1 + c.rand.IntN(len(all)-1)) % len(all)
	return all[i], all[j]
}

// leaderOr chooses who leads, or anybody when nobody does.
func (c *simCluster) leaderOr() *simReplica {
	if l := c.leader(); l != nil {
		return l.replica
	}
	return c.pick()
}

// isolate cuts a replica off, both ways.
func (c *simCluster) isolate(id string) { c.net.Partition([]string{id}, c.others(id)) }

// deafen lets a replica be heard and not hear, or the other way round.
func (c *simCluster) deafen(id string, hears bool) {
	for _, other := range c.others(id) {
		if hears {
			c.net.Cut(id, other)
		} else {
			c.net.Cut(other, id)
		}
	}
}

var simFaults = []simFault{
	{"isolate anybody", func(c *simCluster) { c.isolate(c.pick().id) }},
	{"isolate the leader", func(c *simCluster) { c.isolate(c.leaderOr().id) }},
	{"everybody alone", func(c *simCluster) {
		for _, r := range c.all() {
			c.isolate(r.id)
		}
	}},
	{"the leader does not hear", func(c *simCluster) { c.deafen(c.leaderOr().id, false) }},
	{"the leader is not heard", func(c *simCluster) { c.deafen(c.leaderOr().id, true) }},
	{"somebody does not hear", func(c *simCluster) { c.deafen(c.pick().id, false) }},
	{"one link, one way", func(c *simCluster) { a, b := c.pickPair(); c.net.Cut(a.id, b.id) }},
	{"one link, both ways", func(c *simCluster) {
		a, b := c.pickPair()
		c.net.Partition([]string{a.id}, []string{b.id})
	}},
	{"slow links", func(c *simCluster) {
		for range 2 {
			a, b := c.pickPair()
			d := time.Duration(c.rand.IntN(200)) * time.Millisecond
			c.net.Delay(a.id, b.id, d, d)
		}
	}},
	{"connections break", func(c *simCluster) { a, b := c.pickPair(); c.net.Reset(a.id, b.id) }},
	{"the leader hands over", func(c *simCluster) {
		if l := c.leader(); l != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_ = l.Transfer(ctx, "") // may fail, as it pleases
		}
	}},
	{"anybody crashes", func(c *simCluster) { c.pick().crash() }},
	{"the leader crashes", func(c *simCluster) { c.leaderOr().crash() }},
	{"all crash", func(c *simCluster) {
		for _, r := range c.all() {
			r.crash()
		}
	}},
}

// wait lets virtual time pass.
func (c *simCluster) wait(d time.Duration) { <-time.After(d) }

// upTo draws a duration.
func (c *simCluster) upTo(d time.Duration) time.Duration {
	return time.Duration(c.rand.Int64N(int64(d)))
}

// heal ends every fault.
func (c *simCluster) heal() {
	c.net.HealAll()
	c.setDelay(c.opts.delay)
	for _, r := range c.all() {
		if r.now() == nil && !r.gone {
			r.start()
		}
	}
}
