package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/internal/dirlock"
)

// What stands in a data directory:
//
//	LOCK       held while a process uses it; names the process
//	VERSION    the format of the directory, a number
//	node-id    who this replica is
//	cluster-id which cluster it is in, once it is in one
//	log-store  "bolt" or "wal", written once there is a log that must not be lost
//	log.db     the bolt log, or
//	wal/       the raft-wal log
//	snapshots/ raft's snapshots
//	founding   a promise to found a cluster, while it binds (found.go)
//	member     says that the node has been a member for certain (removal.go)
//	removed    says that the node was removed from its cluster (removal.go)
//	peers.json the members that are left, put there by an operator (recovery.go)
const (
	versionFile   = "VERSION"
	nodeIDFile    = "node-id"
	clusterIDFile = "cluster-id"
	logStoreFile  = "log-store"
	boltFile      = "log.db"
	walDir        = "wal"
	snapshotDir   = "snapshots"

	// dirVersion is the newest format that this program reads, and the one it writes.
	dirVersion = 1
)

// dataDir is an open, locked data directory.
type dataDir struct {
	path      string
	nodeID    string
	clusterID string // "" = in none yet
	// logStore names the log that this directory has had entries in, "" when it has
	// none yet. From then on a missing log is a loss and not a new beginning.
	logStore string
	lock     *dirlock.Lock
}

// openDataDir makes or opens the directory, takes its lock, and settles who this
// node is.
func openDataDir(o Options, log hclog.Logger) (_ *dataDir, err error) {
	path, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, dirError(o.DataDir, "%w", err)
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return nil, dirError(path, "it is a file; name a directory with --data-dir")
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, dirError(path, "it cannot be made (%w); make it, owned by user id %d, or choose another with --data-dir", err, os.Geteuid())
	}
	d := &dataDir{path: path}
	d.lock, err = dirlock.Acquire(path)
	var held *dirlock.HeldError
	switch {
	case errors.As(err, &held) && held.PID == os.Getpid():
		return nil, dirError(path, "it is in use by another replica of this process (%d); each replica needs its own --data-dir", held.PID)
	case errors.As(err, &held) && held.PID != 0:
		return nil, dirError(path, "it is in use by process %d; stop that one, or choose another with --data-dir", held.PID)
	case errors.As(err, &held):
		return nil, dirError(path, "it is in use by another process; stop that one, or choose another with --data-dir")
	case err != nil:
		return nil, dirError(path, "it cannot be used by user id %d (%w); give it to that user, or choose another with --data-dir", os.Geteuid(), err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.lock.Release())
		}
	}()
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		log.Warn("data directory is open to other users", "path", path, "mode", info.Mode().Perm().String(), "want", "0700")
	}
	if err := d.checkVersion(); err != nil {
		return nil, err
	}
	if err := d.readLogStore(o.LogStore); err != nil {
		return nil, err
	}
	if err := d.settleNodeID(o.NodeID); err != nil {
		return nil, err
	}
	if err := d.readClusterID(); err != nil {
		return nil, err
	}
	if err := notRemoved(d, d.path, d.nodeID); err != nil {
		return nil, err
	}
	return d, d.removeUnfinished(log)
}

func dirError(path, format string, args ...any) error {
	return fmt.Errorf("%w %q: %w", ErrDataDir, path, fmt.Errorf(format, args...))
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// read returns a small file's text, "" when there is none.
func (d *dataDir) read(name string) (string, error) {
	b, err := os.ReadFile(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", dirError(d.path, "%w", err)
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return "", dirError(d.path, "its file %s is empty; write back what stood there, or start from an empty directory", name)
	}
	return text, nil
}

// write puts a small file in place so that a crash leaves the old one or the new.
func (d *dataDir) write(name, text string) error {
	err := writeDurably(d.path, name, []byte(text+"\n"))
	if err != nil {
		return dirError(d.path, "cannot write %s: %w", name, err)
	}
	return nil
}

// remove takes a small file away. One that is not there is removed.
func (d *dataDir) remove(name string) error {
	err := os.Remove(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(d.path)
	}
	if err != nil {
		return dirError(d.path, "cannot remove %s: %w", name, err)
	}
	return nil
}

// smallFiles are the small files of a data directory. A write or removal is on disk
// when it returns; read returns "" for one that is not there.
type smallFiles interface {
	read(name string) (string, error)
	write(name, text string) error
	remove(name string) error
}

func writeDurably(dir, name string, b []byte) (err error) {
	tmp := filepath.Join(dir, name+".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// checkVersion refuses what a newer program wrote, and what is no data directory
// at all: --data-dir /home should not fill /home.
func (d *dataDir) checkVersion() error {
	text, err := d.read(versionFile)
	if err != nil {
		return err
	}
	if text == "" {
		entries, err := os.ReadDir(d.path)
		if err != nil {
			return dirError(d.path, "%w", err)
		}
		for _, e := range entries {
			switch e.Name() {
			case dirlock.FileName, versionFile + ".new", "lost+found": // a fresh file system has the last one
			default:
				return dirError(d.path, "it holds %q and no %s file, so it is not a data directory of kvctrl; name an empty or new one with --data-dir", e.Name(), versionFile)
			}
		}
		return d.write(versionFile, strconv.Itoa(dirVersion))
	}
	version, err := strconv.Atoi(text)
	switch {
	case err != nil || version < 1:
		return dirError(d.path, "its %s file says %q, want a number", versionFile, text)
	case version > dirVersion:
		return dirError(d.path, "it has format %d, this program knows up to %d: it was written by a newer kvctrld, use that one", version, dirVersion)
	}
	return nil
}

// readLogStore refuses another log store than the one that holds the log: it
// would look like an empty log.
func (d *dataDir) readLogStore(want string) error {
	have, err := d.read(logStoreFile)
	if err != nil {
		return err
	}
	if have != "" && have != want {
		return dirError(d.path, "its log is a %q one, %q was asked for; start with --log-store=%s", have, want, have)
	}
	d.logStore = have
	return nil
}

// keepLogStore notes that the directory has a log now.
func (d *dataDir) keepLogStore(name string) error {
	if d.logStore == name {
		return nil
	}
	if err := d.write(logStoreFile, name); err != nil {
		return err
	}
	d.logStore = name
	return nil
}

func (d *dataDir) settleNodeID(want string) error {
	have, err := d.read(nodeIDFile)
	if err != nil {
		return err
	}
	switch {
	case have != "" && !nodeIDPattern.MatchString(have):
		return dirError(d.path, "its %s file says %q, which is no node id; write back the right one", nodeIDFile, have)
	case have != "" && want != "" && want != have:
		return dirError(d.path, "it belongs to node %q, %q was asked for; start without --node-id, or with an empty --data-dir for a new node", have, want)
	case have != "":
		d.nodeID = have
		return nil
	case d.logStore != "" && want == "":
		return dirError(d.path, "it has a log but its %s file is gone; name the node it belongs to with --node-id", nodeIDFile)
	case want == "":
		want = uuid.NewString()
	}
	d.nodeID = want
	return d.write(nodeIDFile, want)
}

func (d *dataDir) readClusterID() error {
	id, err := d.read(clusterIDFile)
	if err == nil && id != "" && !nodeIDPattern.MatchString(id) {
		err = dirError(d.path, "its %s file says %q, which is no cluster id; write back the right one, as another replica of the cluster has it", clusterIDFile, id)
	}
	d.clusterID = id
	return err
}

// keepClusterID notes which cluster the node is in.
func (d *dataDir) keepClusterID(id string) error { return d.write(clusterIDFile, id) }

// removeUnfinished removes the snapshots that a crash cut off. raft lists them at
// every look and never removes them.
func (d *dataDir) removeUnfinished(log hclog.Logger) error {
	entries, err := os.ReadDir(d.file(snapshotDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return dirError(d.path, "%w", err)
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasSuffix(e.Name(), ".tmp") {
			path := filepath.Join(d.file(snapshotDir), e.Name())
			if err := os.RemoveAll(path); err != nil {
				return dirError(d.path, "cannot remove an unfinished snapshot: %w", err)
			}
			log.Info("unfinished snapshot removed", "path", path)
		}
	}
	return nil
}

// logBytes is what the log takes on disk.
func (d *dataDir) logBytes() int64 {
	var sum int64
	for _, name := range []string{boltFile, walDir} {
		// A file that goes away meanwhile takes no room.
		_ = filepath.WalkDir(d.file(name), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return nil
			}
			if info, err := e.Info(); err == nil {
				sum += info.Size()
			}
			return nil
		})
	}
	return sum
}
