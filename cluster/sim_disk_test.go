package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// simDisk is what survives a crash of a simulated replica: the log, the votes and
// the snapshots that had been written and synced. A replica reaches it through a
// simStore, one for each of its lives.
type simDisk struct {
	mu    sync.Mutex
	rand  *rand.Rand
	syncs time.Duration // the longest time that a write takes to be safe
	// monotonic: the log takes entries without a gap only, as raft-wal does, and raft
	// empties it when it installs a snapshot.
	monotonic bool
	stuck     chan struct{} // while not nil, writes wait for it to close
	log       map[uint64]*raft.Log
	vars      map[string]string
	snaps     []*simSnapshot // whole ones, the newest first
	writer    *simStore      // who may write now
}

func newSimDisk(seed uint64) *simDisk {
	return &simDisk{
		rand: rand.New(rand.NewPCG(seed, 7)), syncs: 2 * time.Millisecond,
		log: map[uint64]*raft.Log{}, vars: map[string]string{},
	}
}

// open begins a new life of the replica on this disk.
func (d *simDisk) open() *simStore {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &simStore{disk: d, log: maps.Clone(d.log), vars: maps.Clone(d.vars), pending: map[*simWrite]bool{}}
	d.writer = s
	return s
}

// crash ends the present life: whatever is written from now on goes nowhere, and
// of what was being written a part is there or is not.
func (d *simDisk) crash() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writer == nil {
		return
	}
	for w := range d.writer.pending {
		w.keep(d, d.rand.IntN(len(w.logs)+1), d.rand.IntN(2) == 0)
	}
	d.writer = nil
}

// wipe makes the disk an empty one.
func (d *simDisk) wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log, d.vars, d.snaps = map[uint64]*raft.Log{}, map[string]string{}, nil
}

// slow makes writes take up to that long.
func (d *simDisk) slow(syncs time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs = syncs
}

// hang makes every write wait until the returned function is called.
func (d *simDisk) hang() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	stuck := make(chan struct{})
	d.stuck = stuck
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.stuck = nil
		close(stuck)
	}
}

// newest gives the newest snapshot.
func (d *simDisk) newest() *simSnapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.snaps[0]
}

// holdsTerm gives the index of an entry of that term, 0 when there is none.
func (d *simDisk) holdsTerm(term uint64) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	for index, l := range d.log {
		if l.Term == term {
			return index
		}
	}
	return 0
}

// simWrite is one write: entries, or one named value.
type simWrite struct {
	logs     []*raft.Log
	key, val string
}

// keep makes the first of the write's entries, or its value, survive. It needs the
// disk's mutex.
func (w *simWrite) keep(d *simDisk, entries int, value bool) {
	for _, l := range w.logs[:entries] {
		d.log[l.Index] = l
	}
	if w.key != "" && value {
		d.vars[w.key] = w.val
	}
}

// simStore is a log and stable store in memory. What is written shows at once, as
// with a file in the page cache, and is safe when the call returns.
type simStore struct {
	disk *simDisk

	// of disk.mu
	log     map[uint64]*raft.Log
	vars    map[string]string
	pending map[*simWrite]bool
}

var _ logStore = (*simStore)(nil)

// write shows the write, waits for the disk, and makes it safe if this life still
// owns the disk.
func (s *simStore) write(w *simWrite, show func()) {
	d := s.disk
	d.mu.Lock()
	show()
	s.pending[w] = true
	took := time.Duration(d.rand.Int64N(int64(d.syncs) + 1))
	stuck := d.stuck
	d.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	if took > 0 {
		<-time.After(took)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(s.pending, w)
	if d.writer == s {
		w.keep(d, len(w.logs), true)
	}
}

func (s *simStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// IsMonotonic is for raft.
func (s *simStore) IsMonotonic() bool { return s.disk.monotonic }

func (s *simStore) StoreLogs(logs []*raft.Log) error {
	if last, _ := s.LastIndex(); s.disk.monotonic && last != 0 && logs[0].Index != last+1 {
		return fmt.Errorf("entry %d behind entry %d", logs[0].Index, last)
	}
	w := &simWrite{}
	for _, l := range logs {
		c := *l
		w.logs = append(w.logs, &c)
	}
	s.write(w, func() {
		for _, l := range w.logs {
			s.log[l.Index] = l
		}
	})
	return nil
}

func (s *simStore) GetLog(index uint64, out *raft.Log) error {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	l := s.log[index]
	if l == nil {
		return raft.ErrLogNotFound
	}
	*out = *l
	return nil
}

// DeleteRange is safe at once.
func (s *simStore) DeleteRange(lo, hi uint64) error {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	within := func(i uint64, _ *raft.Log) bool { return lo <= i && i <= hi }
	maps.DeleteFunc(s.log, within)
	if s.disk.writer == s {
		maps.DeleteFunc(s.disk.log, within)
	}
	return nil
}

func (s *simStore) FirstIndex() (uint64, error) { return s.edge(slices.Min[[]uint64]) }
func (s *simStore) LastIndex() (uint64, error)  { return s.edge(slices.Max[[]uint64]) }

func (s *simStore) edge(pick func([]uint64) uint64) (uint64, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	if len(s.log) == 0 {
		return 0, nil
	}
	return pick(slices.Collect(maps.Keys(s.log))), nil
}

func (s *simStore) Set(key, val []byte) error {
	w := &simWrite{key: string(key), val: string(val)}
	s.write(w, func() { s.vars[w.key] = w.val })
	return nil
}

// errNoValue is in raft's own words, by which it knows that there is no value.
var errNoValue = fmt.Errorf("not found")

func (s *simStore) Get(key []byte) ([]byte, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	v, ok := s.vars[string(key)]
	if !ok {
		return nil, errNoValue
	}
	return []byte(v), nil
}

func (s *simStore) SetUint64(key []byte, v uint64) error { return s.Set(key, fmt.Append(nil, v)) }

func (s *simStore) GetUint64(key []byte) (v uint64, err error) {
	b, err := s.Get(key)
	if err == nil {
		_, err = fmt.Sscan(string(b), &v)
	}
	return v, err
}

func (s *simStore) Close() error { return nil }

// simFiles are the small files beside the log. A write is safe at once: nodes write
// them with a mutex held, and who waits for a mutex stops a bubble's clock.
type simFiles struct{ store *simStore }

var _ smallFiles = simFiles{}

func fileKey(name string) []byte { return []byte("file " + name) }

func (f simFiles) read(name string) (string, error) {
	text, err := f.store.Get(fileKey(name))
	if errors.Is(err, errNoValue) {
		return "", nil
	}
	return string(text), err
}

func (f simFiles) write(name, text string) error {
	d, key := f.store.disk, string(fileKey(name))
	d.mu.Lock()
	defer d.mu.Unlock()
	f.store.vars[key] = text
	if d.writer == f.store {
		d.vars[key] = text
	}
	return nil
}

func (f simFiles) remove(name string) error { return f.write(name, "") }

// belongsTo makes it the disk of a member of that cluster.
func (d *simDisk) belongsTo(cluster string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.vars[string(fileKey(clusterIDFile))] = cluster
	d.vars[string(fileKey(memberFile))] = cluster
}

// file gives what a small file will say after a crash.
func (d *simDisk) file(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.vars[string(fileKey(name))]
}

// simSnapshots is the snapshot store of one life. It keeps the newest two, and only
// what was closed.
type simSnapshots struct {
	disk  *simDisk
	store *simStore
}

var _ raft.SnapshotStore = simSnapshots{}

type simSnapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

// simSink is a snapshot being written.
type simSink struct {
	simSnapshot
	store simSnapshots
	buf   bytes.Buffer
	done  bool
}

func (s simSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &simSink{store: s, simSnapshot: simSnapshot{meta: raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d-%d", term, index, time.Now().UnixNano()),
		Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex,
	}}}, nil
}

func (s simSnapshots) List() ([]*raft.SnapshotMeta, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	var out []*raft.SnapshotMeta
	for _, snap := range s.disk.snaps {
		meta := snap.meta
		out = append(out, &meta)
	}
	return out, nil
}

func (s simSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	for _, snap := range s.disk.snaps {
		if snap.meta.ID == id {
			meta := snap.meta
			return &meta, io.NopCloser(bytes.NewReader(snap.data)), nil
		}
	}
	return nil, nil, fmt.Errorf("no snapshot %q", id)
}

func (k *simSink) ID() string                  { return k.meta.ID }
func (k *simSink) Write(b []byte) (int, error) { return k.buf.Write(b) }
func (k *simSink) Cancel() error               { k.done = true; return nil }

func (k *simSink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	snap := k.simSnapshot
	snap.data = k.buf.Bytes()
	snap.meta.Size = int64(len(snap.data))
	d := k.store.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writer != k.store.store {
		return nil
	}
	d.snaps = append(d.snaps, &snap)
	slices.SortStableFunc(d.snaps, func(a, b *simSnapshot) int { return int(b.meta.Index) - int(a.meta.Index) })
	d.snaps = d.snaps[:min(len(d.snaps), 2)]
	return nil
}
