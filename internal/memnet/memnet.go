package memnet

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Network is some hosts and the links between them. Every link is whole and without
// delay until it is told otherwise; hosts need not exist for their links to be set.
type Network struct {
	mu      sync.Mutex
	rand    *rand.Rand
	hosts   map[string]*Host
	links   map[[2]string]*link
	conns   map[*conn]struct{} // that are neither closed nor broken
	changed chan struct{}      // closed when something changes that a dial may wait for; nil while none does
}

// link is the way from one host to another.
type link struct {
	from, to      string
	cut           bool
	delay, jitter time.Duration
}

// New gives an empty network. The seed is that of the jitter.
func New(seed uint64) *Network {
	return &Network{
		rand:  rand.New(rand.NewPCG(seed, 0)),
		hosts: map[string]*Host{},
		links: map[[2]string]*link{},
		conns: map[*conn]struct{}{},
	}
}

// Host gives the host of that name, and makes it when it is not there yet.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil {
		h = &Host{net: n, name: name, ports: map[int]*listener{}, next: firstEphemeral}
		n.hosts[name] = h
	}
	return h
}

// Cut stops the way from one host to the other. Bytes under way are held, and so is
// what is written from now on; connections stay. Dials in either direction wait.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.link(from, to)
	if l.cut {
		return
	}
	l.cut = true
	now := time.Now()
	for c := range n.conns {
		if c.in.way == l {
			c.in.hold(now)
		}
	}
}

// Heal opens the way again: what was held arrives after the link's delay.
func (n *Network) Heal(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heal(n.link(from, to))
}

// Whole reports whether neither way between the two hosts is cut.
func (n *Network) Whole(a, b string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.link(a, b).cut && !n.link(b, a).cut
}

// Partition cuts both ways between every host of the one group and every host of
// the other.
func (n *Network) Partition(a, b []string) {
	for _, x := range a {
		for _, y := range b {
			n.Cut(x, y)
			n.Cut(y, x)
		}
	}
}

// HealAll opens every link. Delays stay.
func (n *Network) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		n.heal(l)
	}
}

// Delay sets how long bytes take from one host to the other: d and up to jitter
// more, drawn for each write. Order is kept. What is under way is not changed.
func (n *Network) Delay(from, to string, d, jitter time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.link(from, to)
	l.delay, l.jitter = d, jitter
}

// Reset breaks every connection between the two hosts, at both ends and at once,
// also over a link that is cut. It returns how many there were.
func (n *Network) Reset(a, b string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	var ends []*conn
	for c := range n.conns {
		if c.between(a, b) {
			ends = append(ends, c)
		}
	}
	broken := map[*conn]bool{}
	for _, c := range ends {
		if !broken[c.peer] {
			broken[c] = true
		}
		c.breakOff()
	}
	return len(broken)
}

// Conns counts the ends of connections that are open at the named host, for a test
// that wants to see them closed.
func (n *Network) Conns(host string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := 0
	for c := range n.conns {
		if c.local.host == host {
			k++
		}
	}
	return k
}

// link needs mu.
func (n *Network) link(from, to string) *link {
	key := [2]string{from, to}
	l := n.links[key]
	if l == nil {
		l = &link{from: from, to: to}
		n.links[key] = l
	}
	return l
}

// heal needs mu.
func (n *Network) heal(l *link) {
	if !l.cut {
		return
	}
	l.cut = false
	now := time.Now()
	for _, c := range n.ordered() {
		switch l {
		case c.in.way:
			c.in.release(now)
			if c.in.resetHeld {
				c.breakOff()
			}
		case c.in.back:
			c.in.acknowledge(0)
		}
		c.wake()
	}
	n.wakeDials()
}

// ordered gives the open ends in the order of their making, so that equal seeds give
// equal jitter. It needs mu.
func (n *Network) ordered() []*conn {
	all := make([]*conn, 0, len(n.conns))
	for c := range n.conns {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *conn) int {
		if a.local.host != b.local.host {
			if a.local.host < b.local.host {
				return -1
			}
			return 1
		}
		if a.local.port != b.local.port {
			return a.local.port - b.local.port
		}
		return a.remote.compare(b.remote)
	})
	return all
}

// transit draws how long a write takes. It needs mu.
func (n *Network) transit(l *link) time.Duration {
	d := l.delay
	if l.jitter > 0 {
		d += time.Duration(n.rand.Int64N(int64(l.jitter) + 1))
	}
	return d
}

// changes gives a channel that closes when a dial should look again. It needs mu.
func (n *Network) changes() <-chan struct{} {
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

// wakeDials needs mu.
func (n *Network) wakeDials() {
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

// address is a host's name and a port.
type address struct {
	host string
	port int
}

var _ net.Addr = address{}

func (address) Network() string  { return "memnet" }
func (a address) String() string { return net.JoinHostPort(a.host, strconv.Itoa(a.port)) }

func (a address) compare(b address) int {
	switch {
	case a.host < b.host:
		return -1
	case a.host > b.host:
		return 1
	}
	return a.port - b.port
}

// parse reads "host:port"; an empty host is self.
func parse(addr, self string) (address, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return address{}, err
	}
	number, err := strconv.Atoi(port)
	if err != nil || number < 0 || number > 65535 {
		return address{}, fmt.Errorf("address %q: want a port of 0 to 65535", addr)
	}
	if host == "" {
		host = self
	}
	return address{host, number}, nil
}
