package cluster

import "github.com/hashicorp/raft"

// How many entries stay behind a snapshot. raft counts entries; what they are for is
// bytes: enough for followers that are a little late, and not so many that the disk
// fills. Entries are of some hundred bytes to some hundred KiB.

// trailing says how many entries to keep behind a snapshot: limit, or fewer when they
// are large, so that their bytes are about 1.75 times snapshotBytes by the mean size of
// an entry (0: not known).
//
// distance is how many entries lie between the last two snapshots, or since the last
// one when that is more. 1.5 times that always stay, whatever their size: when the
// newest snapshot is damaged raft starts from the one before and needs every entry
// since.
func trailing(limit uint64, snapshotBytes int64, mean, distance uint64) uint64 {
	keep := limit
	if mean > 0 {
		keep = min(keep, uint64(snapshotBytes)*7/4/mean)
	}
	return max(keep, distance+(distance+1)/2, min(limit, minTrailing))
}

// minTrailing is for a log of a few huge entries: raft is in trouble without any.
const minTrailing = 64

// trailingWatch turns what the watcher sees into raft's setting. Of the watcher's
// goroutine.
type trailingWatch struct {
	mean     uint64 // bytes of an entry, 0 = not known yet
	last     uint64 // index of the last snapshot
	distance uint64 // between it and the one before
	set      uint64 // what raft was told, 0 = nothing yet
}

// meanOf is how many entries must have come before their mean says something.
const meanOf = 64

// note takes the index of the last snapshot, that of the newest entry, and the bytes
// and number of entries since that snapshot. It returns what raft is to be told, and
// false when that is about what it was told last.
func (w *trailingWatch) note(o Options, snapshot, newest, bytes, entries uint64) (uint64, bool) {
	if snapshot > w.last {
		if w.last > 0 {
			w.distance = snapshot - w.last
		}
		w.last = snapshot
	}
	if entries >= meanOf {
		w.mean = max(bytes/entries, 1)
	}
	keep := trailing(o.TrailingLogs, o.SnapshotBytes, w.mean, max(w.distance, newest-min(newest, snapshot)))
	// An eighth too few of 1.5 times the distance is still more than the distance.
	if slack := w.set / 8; w.set > 0 && keep <= w.set+slack && keep+slack >= w.set {
		return 0, false
	}
	w.set = keep
	return keep, true
}

// keepTrailing tells raft how many entries to keep behind the next snapshot.
func (n *Node) keepTrailing(w *trailingWatch) {
	snapshot := n.snapshotIndex()
	bytes, entries := n.marks.since(snapshot)
	keep, ok := w.note(n.opts, snapshot, n.raft.LastIndex(), bytes, entries)
	if !ok {
		return
	}
	if err := n.reload(func(rc *raft.ReloadableConfig) { rc.TrailingLogs = keep }); err != nil {
		n.log.Warn("cannot change how much log is kept behind a snapshot", "entries", keep, "error", err)
		return
	}
	n.log.Debug("log kept behind a snapshot", "entries", keep, "mean_bytes", w.mean)
}
