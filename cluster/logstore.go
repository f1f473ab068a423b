package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/bbolt"

	"github.com/kvctrl/kvctrl/internal/boltcheck"
)

// logStore keeps raft's log and its vote. It is chosen by name, once per data
// directory.
type logStore interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// openLogStore opens the log of a data directory. A damaged one is an error that
// says which file and what to do; nothing here panics for it.
func openLogStore(d *dataDir, name string, log hclog.Logger) (store logStore, path string, err error) {
	switch name {
	case LogStoreWAL:
		path = d.file(walDir)
		err = guard(func() error { store, err = openWAL(d, path, log); return err })
	default:
		path = d.file(boltFile)
		err = guard(func() error { store, err = openBolt(d, path); return err })
	}
	if err != nil {
		return nil, path, damagedLog(d.path, path, err)
	}
	return store, path, nil
}

func damagedLog(dir, path string, cause error) error {
	return dirError(dir, "the log %s cannot be read back: %w: %w; "+
		"if this replica is one of several, move the directory away and let it join again; if it is the only one, bring back a copy of the directory",
		path, ErrDamaged, cause)
}

func openBolt(d *dataDir, path string) (logStore, error) {
	if err := mustExist(d, path); err != nil {
		return nil, err
	}
	if err := boltcheck.Check(path); err != nil {
		return nil, err
	}
	return raftboltdb.New(raftboltdb.Options{
		Path: path,
		BoltOptions: &bbolt.Options{
			Timeout:        2 * time.Second, // the default waits for ever on another process's lock
			NoFreelistSync: true,            // keeps appends flat after a big truncation
			FreelistType:   bbolt.FreelistMapType,
		},
		MsgpackUseNewTimeFormat: true,
	})
}

func openWAL(d *dataDir, path string, log hclog.Logger) (logStore, error) {
	meta := filepath.Join(path, "wal-meta.db")
	if err := mustExist(d, meta); err != nil {
		return nil, err
	}
	if err := boltcheck.Check(meta); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	db := &metadb.BoltMetaDB{} // ours, so that it can be closed when Open fails
	store, err := wal.Open(path, wal.WithLogger(log.Named("wal")), wal.WithMetaStore(db))
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return store, nil
}

// mustExist refuses to begin anew where there has been a log: bbolt would make an
// empty one, and a replica that has forgotten its vote may vote twice.
func mustExist(d *dataDir, path string) error {
	if d.logStore == "" {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return fmt.Errorf("%s is empty", filepath.Base(path))
	}
	return nil
}

// guard turns what a library throws at bad files into an error: panics, and
// faults on a memory map that the file under it does not fill.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case error:
			err = r
		default:
			err = fmt.Errorf("%v", r)
		}
	}()
	return f()
}

// notFound reports whether a store only says that it has no such thing.
func notFound(err error) bool {
	return errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, raftboltdb.ErrKeyNotFound) || errors.Is(err, wal.ErrNotFound) ||
		err.Error() == "not found" // the text that raft itself goes by
}
