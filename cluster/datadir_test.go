package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// openError opens a node that must not open.
func openError(t *testing.T, o Options) error {
	t.Helper()
	n, err := Open(context.Background(), o)
	if err == nil {
		mustClose(t, n)
		t.Fatal("opened")
	}
	t.Log(err)
	return err
}

func mustWrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// usedDir is the directory of a replica that has applied some entries and stopped.
// With snapshots > 0 it has that many.
func usedDir(t *testing.T, store string, snapshots int) Options {
	t.Helper()
	o := testOptions(t, t.TempDir())
	o.LogStore, o.SnapshotThreshold, o.TrailingLogs = store, 16, 24
	n := mustOpen(t, o)
	mustPropose(t, n, "x:first")
	for range snapshots {
		for range 40 {
			mustPropose(t, n, "x:more")
		}
		if err := n.Snapshot(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	mustPropose(t, n, "x:last")
	mustClose(t, n)
	o.FSM = &ledger{}
	return o
}

func TestOpen_DirectoryRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		setup func(t *testing.T, o *Options)
		want  string // advice or value in the text
	}{
		{"a file", func(t *testing.T, o *Options) { mustWrite(t, o.DataDir, "") }, "it is a file"},
		{"not to be made", func(t *testing.T, o *Options) { o.DataDir = "/proc/self/data" }, "cannot be made"},
		{"not writable", func(t *testing.T, o *Options) { o.DataDir = "/proc/self" }, "cannot be used by user id"},
		{"somebody else's", func(t *testing.T, o *Options) {
			o.DataDir = t.TempDir()
			mustWrite(t, filepath.Join(o.DataDir, "thesis.tex"), "")
		}, `holds "thesis.tex"`},
		{"of a newer program", func(t *testing.T, o *Options) {
			*o = usedDir(t, LogStoreBolt, 0)
			mustWrite(t, filepath.Join(o.DataDir, versionFile), "2\n")
		}, "format 2, this program knows up to 1"},
		{"version unreadable", func(t *testing.T, o *Options) {
			*o = usedDir(t, LogStoreBolt, 0)
			mustWrite(t, filepath.Join(o.DataDir, versionFile), "one\n")
		}, `says "one"`},
		{"another node's", func(t *testing.T, o *Options) {
			*o = usedDir(t, LogStoreBolt, 0)
			o.NodeID = "n2"
		}, `"n2" was asked for`},
		{"node id gone", func(t *testing.T, o *Options) {
			*o = usedDir(t, LogStoreBolt, 0)
			if err := os.Remove(filepath.Join(o.DataDir, nodeIDFile)); err != nil {
				t.Fatal(err)
			}
		}, "--node-id"},
		{"node id torn", func(t *testing.T, o *Options) {
			*o = usedDir(t, LogStoreBolt, 0)
			mustWrite(t, filepath.Join(o.DataDir, nodeIDFile), "")
		}, "is empty"},
		{"node id overwritten", func(t *testing.T, o *Options) {
			*o = usedDir(t, LogStoreBolt, 0)
			mustWrite(t, filepath.Join(o.DataDir, nodeIDFile), "\x00\x01")
		}, "no node id"},
		{"another log store", func(t *testing.T, o *Options) {
			*o = usedDir(t, LogStoreBolt, 0)
			o.LogStore = LogStoreWAL
		}, "--log-store=bolt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := testOptions(t, filepath.Join(t.TempDir(), "data"))
			c.setup(t, &o)
			if err := openError(t, o); !errors.Is(err, ErrDataDir) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want ErrDataDir with %q", err, c.want)
			}
		})
	}
}

// The identity is the directory's, not the address's; naming it is allowed.
func TestOpen_NodeID(t *testing.T) {
	o := testOptions(t, t.TempDir())
	o.NodeID = "n1"
	n := mustOpen(t, o)
	if n.NodeID() != "n1" {
		t.Errorf("node id %q, want n1", n.NodeID())
	}
	mustClose(t, n)
	for _, id := range []string{"", "n1"} {
		o.NodeID, o.FSM = id, &ledger{}
		n := mustOpen(t, o)
		if n.NodeID() != "n1" {
			t.Errorf("node id %q with --node-id %q, want n1", n.NodeID(), id)
		}
		mustClose(t, n)
	}
}

// A fresh volume has a lost+found.
func TestOpen_FreshVolume(t *testing.T) {
	o := testOptions(t, t.TempDir())
	if err := os.Mkdir(filepath.Join(o.DataDir, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	mustClose(t, mustOpen(t, o))
}

func TestOpen_RemovesUnfinishedSnapshots(t *testing.T) {
	o := usedDir(t, LogStoreBolt, 1)
	tmp := filepath.Join(o.DataDir, snapshotDir, "3-90-1700000000000.tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(tmp, "state.bin"), "half")
	n := mustOpen(t, o)
	if _, err := os.Stat(tmp); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", tmp, err)
	}
	if n.Status().LastSnapshotIndex == 0 {
		t.Error("the finished snapshot is gone, too")
	}
	mustClose(t, n)
}

// A damaged log is an error that names the file, never a panic, and never a new
// beginning.
func TestOpen_DamagedLog(t *testing.T) {
	edit := func(name string, change func([]byte) []byte) func(*testing.T, Options) {
		return func(t *testing.T, o Options) {
			path := filepath.Join(o.DataDir, name)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	bolt := func(f func(logs *bbolt.Bucket) error) func(*testing.T, Options) {
		return func(t *testing.T, o Options) {
			db, err := bbolt.Open(filepath.Join(o.DataDir, boltFile), 0o600, &bbolt.Options{NoFreelistSync: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Update(func(tx *bbolt.Tx) error { return f(tx.Bucket([]byte("logs"))) }); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	key := func(i uint64) []byte { return binary.BigEndian.AppendUint64(nil, i) }
	for _, c := range []struct {
		name, store string
		damage      func(*testing.T, Options)
	}{
		{"garbage", LogStoreBolt, edit(boltFile, func(b []byte) []byte { return []byte(strings.Repeat("garbage ", len(b)/8)) })},
		{"cut short", LogStoreBolt, edit(boltFile, func(b []byte) []byte { return b[:3*os.Getpagesize()] })},
		{"empty", LogStoreBolt, edit(boltFile, func([]byte) []byte { return nil })},
		{"gone", LogStoreBolt, func(t *testing.T, o Options) {
			if err := os.Remove(filepath.Join(o.DataDir, boltFile)); err != nil {
				t.Fatal(err)
			}
		}},
		{"pages overwritten", LogStoreBolt, edit(boltFile, func(b []byte) []byte { clear(b[2*os.Getpagesize() : 8*os.Getpagesize()]); return b })},
		{"entry missing", LogStoreBolt, bolt(func(logs *bbolt.Bucket) error { return logs.Delete(key(3)) })},
		{"entry unreadable", LogStoreBolt, bolt(func(logs *bbolt.Bucket) error { return logs.Put(key(3), []byte("\xc1not msgpack")) })},
		{"last entry unreadable", LogStoreBolt, bolt(func(logs *bbolt.Bucket) error {
			last, _ := logs.Cursor().Last()
			return logs.Put(slices.Clone(last), []byte{0xff})
		})},
		{"meta garbage", LogStoreWAL, edit(filepath.Join(walDir, "wal-meta.db"), func(b []byte) []byte { clear(b); return b })},
		{"meta empty", LogStoreWAL, edit(filepath.Join(walDir, "wal-meta.db"), func([]byte) []byte { return nil })},
		{"segment gone", LogStoreWAL, func(t *testing.T, o Options) {
			files, err := filepath.Glob(filepath.Join(o.DataDir, walDir, "*.wal"))
			if err != nil || len(files) == 0 {
				t.Fatalf("%v, %v", files, err)
			}
			for _, f := range files {
				mustWrite(t, f, "")
			}
		}},
	} {
		t.Run(c.store+"/"+c.name, func(t *testing.T) {
			o := usedDir(t, c.store, 0)
			c.damage(t, o)
			err := openError(t, o)
			if !errors.Is(err, ErrDataDir) || !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), o.DataDir) || !strings.Contains(err.Error(), "bring back a copy") {
				t.Errorf("got %v, want ErrDamaged with the file and advice", err)
			}
			// And the directory is free again.
			d, err := openDataDir(o, testLogger(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.lock.Release(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// snapshotsOf lists the snapshot directories, oldest first.
func snapshotsOf(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, snapshotDir, "*-*-*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x20
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// cutLog removes the entries up to a snapshot from a bolt log.
func cutLog(t *testing.T, dir, snapshot string) {
	t.Helper()
	var term, index uint64
	if _, err := fmt.Sscanf(filepath.Base(snapshot), "%d-%d-", &term, &index); err != nil {
		t.Fatal(err)
	}
	s, err := raftboltdb.New(raftboltdb.Options{Path: filepath.Join(dir, boltFile), BoltOptions: &bbolt.Options{NoFreelistSync: true}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.FirstIndex()
	if err == nil {
		err = s.DeleteRange(first, index)
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestOpen_DamagedSnapshots(t *testing.T) {
	const store = LogStoreBolt
	t.Run("newest, the log reaches", func(t *testing.T) {
		o := testOptions(t, t.TempDir())
		o.SnapshotThreshold, o.TrailingLogs = 16, 4096
		n := mustOpen(t, o)
		for range 2 {
			mustPropose(t, n, "x:more")
			if err := n.Snapshot(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		mustPropose(t, n, "x:last")
		mustClose(t, n)
		list := snapshotsOf(t, o.DataDir)
		if len(list) != 2 {
			t.Fatalf("%d snapshots", len(list))
		}
		slices.Sort(list)
		flip(t, filepath.Join(list[1], "state.bin"))
		state := &ledger{}
		o.FSM = state
		n = mustOpen(t, o)
		await(t, "ready", n.Ready)
		wantLines(t, state, "x:more", "x:more", "x:last")
		mustClose(t, n)
	})
	t.Run("newest, the log does not reach", func(t *testing.T) {
		o := usedDir(t, store, 2)
		list := snapshotsOf(t, o.DataDir)
		slices.Sort(list)
		newest := list[len(list)-1]
		flip(t, filepath.Join(newest, "state.bin"))
		cutLog(t, o.DataDir, newest)
		err := openError(t, o)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "does not join up") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("all", func(t *testing.T) {
		o := usedDir(t, store, 2)
		for _, s := range snapshotsOf(t, o.DataDir) {
			flip(t, filepath.Join(s, "state.bin"))
		}
		err := openError(t, o)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "none of the 2 snapshots") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("meta unreadable", func(t *testing.T) {
		o := usedDir(t, store, 1)
		for _, s := range snapshotsOf(t, o.DataDir) {
			mustWrite(t, filepath.Join(s, "meta.json"), "{")
		}
		if err := openError(t, o); !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v", err)
		}
	})
}
