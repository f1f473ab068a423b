package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/kvctrl/kvctrl/internal/memnet"
)

// town is replicas that find each other, in a synctest bubble: each has a disk that
// outlives it and a host on a network in memory. Their REST is a call.
type town struct {
	t    *testing.T
	net  *memnet.Network
	mu   sync.Mutex
	open map[string]*house // by URL: whose REST answers
	all  []*house
	ends []func() // of what runs besides
}

// house is where one replica lives.
type house struct {
	town   *town
	id     string
	host   string
	url    string
	join   []string
	expect int
	disk   *disk
	node   *Node // nil while it does not run
	state  *ledger
	fatal  fatals
	tweak  func(*Options)
}

// disk is what outlives a replica.
type disk struct {
	files     memFiles
	store     *memStore
	snapshots *raft.InmemSnapshotStore
	had       bool
}

func newDisk() *disk {
	return &disk{store: &memStore{InmemStore: raft.NewInmemStore()}, snapshots: raft.NewInmemSnapshotStore()}
}

func inTown(t *testing.T, f func(t *testing.T, w *town)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &town{t: t, net: memnet.New(1), open: map[string]*house{}}
		defer func() { // also after Fatal
			for _, end := range w.ends {
				end()
			}
			for _, h := range w.all {
				h.stop()
			}
			<-time.After(time.Minute) // raft's last timers fire while the bubble lives
		}()
		f(t, w)
	})
}

func urlOf(id string) string { return "http://" + id + ":9000" }

// house lays out a replica that is told of the others.
func (w *town) house(id string, expect int, join ...string) *house {
	h := &house{town: w, id: id, host: id, url: urlOf(id), expect: expect, disk: newDisk(), fatal: make(fatals, 10)}
	for _, j := range join {
		h.join = append(h.join, urlOf(j))
	}
	w.mu.Lock()
	w.all = append(w.all, h)
	w.mu.Unlock()
	return h
}

// three lays out n1, n2 and n3 that know of each other.
func (w *town) three() (n1, n2, n3 *house) {
	names := []string{"n1", "n2", "n3"}
	return w.house("n1", 3, names...), w.house("n2", 3, names...), w.house("n3", 3, names...)
}

func (h *house) addr() string { return h.host + ":9400" }

// discover is GET /admin/status of another replica.
func (h *house) discover(_ context.Context, url string) (Identity, error) {
	h.town.mu.Lock()
	defer h.town.mu.Unlock()
	there := h.town.open[url]
	if there == nil || there.node == nil {
		return Identity{}, errors.New("connection refused")
	}
	return there.node.Identity(), nil
}

// parts are the node's, on its disk.
func (h *house) parts() (p parts, err error) {
	log := testLogger(h.town.t).With("at", h.id)
	d := h.disk
	p = parts{
		nodeID: h.id, store: d.store, storePath: "memory", snapshots: d.snapshots,
		hadState: d.had, hasState: func() error { d.had = true; return nil },
		files: &d.files, keepClusterID: func(id string) error { return d.files.write(clusterIDFile, id) },
	}
	if err := notRemoved(p.files, "memory", h.id); err != nil {
		return parts{}, err
	}
	if p.clusterID, err = d.files.read(clusterIDFile); err != nil {
		return parts{}, err
	}
	if p.promise, err = loadPromise(p.files); err != nil {
		return parts{}, err
	}
	member, _ := d.files.read(memberFile)
	p.wasMember = member != ""
	if p.port, err = listenPeers(context.Background(), peerPortConfig{network: h.town.net.Host(h.host), listen: h.addr(), log: log}); err != nil {
		return parts{}, err
	}
	p.transport = newRaftTransport(p.port, log)
	if h.expect == 1 && len(h.join) == 0 && p.clusterID == "" && p.promise == nil {
		p.bootstrap = raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(h.id), Address: raft.ServerAddress(h.addr())}}}
	}
	return p, nil
}

// open starts the replica, and returns what Open would.
func (h *house) open() error {
	h.town.t.Helper()
	p, err := h.parts()
	if err != nil {
		return err
	}
	o := testOptions(h.town.t, "")
	h.state = &ledger{}
	o.FSM, o.Members = h.state, h.state.members
	o.URL, o.Join, o.BootstrapExpect, o.Discover = h.url, h.join, h.expect, h.discover
	o.Logger = testLogger(h.town.t).With("at", h.id)
	o.OnFatal = h.fatal.tell
	if h.tweak != nil {
		h.tweak(&o)
	}
	n, err := start(o.withDefaults(), p)
	if err != nil {
		return errors.Join(err, p.transport.close())
	}
	h.town.mu.Lock()
	h.node = n
	h.town.open[h.url] = h
	h.town.mu.Unlock()
	return nil
}

func (h *house) start() *house {
	h.town.t.Helper()
	if err := h.open(); err != nil {
		h.town.t.Fatalf("start of %s: %v", h.id, err)
	}
	return h
}

// stop closes the replica; its disk stays.
func (h *house) stop() {
	h.town.t.Helper()
	h.town.mu.Lock()
	n := h.node
	if h.node != nil {
		delete(h.town.open, h.url)
	}
	h.node = nil
	h.town.mu.Unlock()
	if n == nil {
		return
	}
	if err := n.Close(context.Background()); err != nil {
		h.town.t.Errorf("close %s: %v", h.id, err)
	}
}

// kill ends the replica without a word to the others: they see its host go.
func (h *house) kill() {
	h.town.net.Host(h.host).Down()
	h.stop()
	h.town.net.Host(h.host).Up()
}

// crashWhen takes the victim's host away in the moment in which at writes a file. What
// the victim's files were then comes on the channel.
func (w *town) crashWhen(at *house, file string, victim *house) <-chan map[string]string {
	files := make(chan map[string]string, 1)
	var once sync.Once
	at.disk.files.written = func(name string) {
		if name == file {
			once.Do(func() {
				victim.disk.files.mu.Lock()
				defer victim.disk.files.mu.Unlock()
				files <- maps.Clone(victim.disk.files.texts)
				w.net.Host(victim.host).Down()
			})
		}
	}
	return files
}

// wipe gives the replica an empty disk.
func (h *house) wipe() { h.disk = newDisk() }

// leader waits for one, and returns its house.
func (w *town) leader(of ...*house) *house {
	w.t.Helper()
	if len(of) == 0 {
		of = w.all
	}
	var leader *house
	await(w.t, "leader", func() error {
		leader = nil
		for _, h := range of {
			if h.node != nil && h.node.IsLeader() {
				if leader != nil {
					return fmt.Errorf("%s and %s lead", leader.id, h.id)
				}
				leader = h
			}
		}
		if leader == nil {
			return errors.New("nobody leads")
		}
		return nil
	})
	return leader
}

// together waits until the houses are one cluster of that many voters, all ready, each
// known by its addresses.
func (w *town) together(houses ...*house) {
	w.t.Helper()
	await(w.t, "together", func() error {
		clusters := map[string]bool{}
		for _, h := range houses {
			if h.node == nil {
				return fmt.Errorf("%s does not run", h.id)
			}
			if err := h.node.Ready(); err != nil {
				return fmt.Errorf("%s: %w", h.id, err)
			}
			clusters[h.node.Identity().ClusterID] = true
			conf := h.node.configuration()
			if len(conf.Servers) != len(houses) {
				return fmt.Errorf("%s knows of %d members, want %d", h.id, len(conf.Servers), len(houses))
			}
			known := map[string]string{}
			for _, m := range h.state.members() {
				if !m.Voter {
					return fmt.Errorf("%s knows of %s as one that is not to vote", h.id, m.NodeID)
				}
				known[m.NodeID] = m.PeerAddr + " " + m.URL
			}
			for _, o := range houses {
				s, ok := serverOf(conf, o.id)
				if !ok || s.Suffrage != raft.Voter || string(s.Address) != o.addr() {
					return fmt.Errorf("%s has %s as %+v, want a voter at %s", h.id, o.id, s, o.addr())
				}
				if want := o.addr() + " " + o.url; known[o.id] != want {
					return fmt.Errorf("%s knows of %s as %q, want %q", h.id, o.id, known[o.id], want)
				}
			}
			if len(known) != len(houses) {
				return fmt.Errorf("%s knows of %v", h.id, known)
			}
		}
		if len(clusters) != 1 {
			return fmt.Errorf("the clusters are %v", slices.Sorted(maps.Keys(clusters)))
		}
		return nil
	})
	for _, h := range houses {
		if text, _ := h.disk.files.read(promiseFile); text != "" {
			await(w.t, "promise", func() error {
				if text, _ := h.disk.files.read(promiseFile); text != "" {
					return fmt.Errorf("%s is still bound: %s", h.id, text)
				}
				return nil
			})
		}
	}
}

// wait lets virtual time pass.
func wait(d time.Duration) { <-time.After(d) }
