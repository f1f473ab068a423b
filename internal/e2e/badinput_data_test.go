package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/kvctrl/kvctrl/internal/simworker"
)

// usedData is the data directory of a replica that has run: entries, two snapshots,
// entries above them, stopped. Cases work on copies.
type usedData struct {
	dir    string
	prompt []int64 // held by the worker "kept"
}

func newUsedData(t *testing.T, b *badBench) *usedData {
	t.Helper()
	r := Start(t, Options{Args: []string{"--hash", "builtin@0", "--chunk-size", fmt.Sprint(crashChunk)}})
	u := &usedData{dir: r.DataDir}
	c := newClient(t, r)
	w, err := simworker.New(simworker.Options{Instance: "kept", Pull: r.PullAddr(), Reply: r.ReplyAddr(), ChunkSize: crashChunk, Context: b.zctx})
	if err == nil {
		err = w.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	for part := range 6 {
		u.prompt = append(u.prompt, slices.Repeat([]int64{int64(part)}, crashChunk)...)
		w.Store(u.prompt)
		Eventually(t, 20*time.Second, "the prompt", func() error { return u.found(c) })
		if part >= 2 {
			continue // entries above the snapshots
		}
		if status, answer, err := c.post("/admin/snapshot", nil); err != nil || status != http.StatusOK {
			t.Fatalf("snapshot is answered %d %s: %v", status, answer, err)
		}
	}
	if err := w.Stop(); err != nil {
		t.Error(err)
	}
	if code := r.Terminate(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if n := len(snapshotDirs(t, u.dir)); n != 2 {
		t.Fatalf("%d snapshots, want 2", n)
	}
	return u
}

func (u *usedData) found(c *client) error {
	hits, err := c.lookup(u.prompt)
	if err == nil && hits["kept"] != len(u.prompt) {
		err = fmt.Errorf("a lookup answers %v, want %d tokens", hits, len(u.prompt))
	}
	return err
}

// copy is a copy of the directory, for one case.
func (u *usedData) copy(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(dir, os.DirFS(u.dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// snapshotDirs lists the snapshots, oldest first.
func snapshotDirs(t *testing.T, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "snapshots", "*-*-*"))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(a, b string) int {
		x, y := fileInfo(t, a).ModTime(), fileInfo(t, b).ModTime()
		if c := x.Compare(y); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return list
}

func fileInfo(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// badDataDir are directories that a replica cannot or must not use: exit code 3.
func badDataDir(t *testing.T, b *badBench) {
	used := newUsedData(t, b)
	edit := func(name, text string) func(*testing.T) string {
		return func(t *testing.T) string {
			dir := used.copy(t)
			mustFile(t, filepath.Join(dir, name), text)
			return dir
		}
	}
	for _, c := range []struct {
		name  string
		dir   func(t *testing.T) string
		args  []string
		words []string
	}{
		{"held by another process", func(*testing.T) string { return b.r.DataDir }, nil, []string{fmt.Sprint(b.r.Pid()), "in use"}},
		{"a file", func(t *testing.T) string { return mustFile(t, filepath.Join(t.TempDir(), "data"), "") }, nil, []string{"it is a file"}},
		{"in a file", func(t *testing.T) string {
			return filepath.Join(mustFile(t, filepath.Join(t.TempDir(), "file"), ""), "data")
		}, nil, []string{"cannot be made"}},
		{"a link to nowhere", func(t *testing.T) string {
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.Symlink("/nonexistent/data", dir); err != nil {
				t.Fatal(err)
			}
			return dir
		}, nil, []string{"data directory"}},
		{"without rights", noRights, nil, []string{"cannot be used by user id"}},
		{"a used one that has become read-only", func(t *testing.T) string {
			mount := mountTmpfs(t, "64m")
			dir := filepath.Join(mount, "data")
			if err := os.CopyFS(dir, os.DirFS(used.dir)); err != nil {
				t.Fatal(err)
			}
			remountReadOnly(t, mount)
			return dir
		}, nil, []string{"cannot be used by user id", "read-only"}},
		{"where none can be made", func(t *testing.T) string { return filepath.Join(noRights(t), "data") }, nil, []string{"cannot be made"}},
		{"a name of 300 letters", func(t *testing.T) string { return filepath.Join(t.TempDir(), strings.Repeat("d", 300)) }, nil, []string{"file name too long"}},
		{"a directory of somebody else", func(t *testing.T) string {
			dir := t.TempDir()
			mustFile(t, filepath.Join(dir, "thesis.tex"), "")
			return dir
		}, nil, []string{`"thesis.tex"`}},
		{"of a newer program", edit("VERSION", "2\n"), nil, []string{"format 2", "newer"}},
		{"of an unknown format", edit("VERSION", "one\n"), nil, []string{`"one"`}},
		{"an empty format", edit("VERSION", ""), nil, []string{"VERSION is empty"}},
		{"another node's", used.copy, []string{"--node-id", "other"}, []string{`"other"`}},
		{"an empty node id", edit("node-id", ""), nil, []string{"node-id is empty"}},
		{"a node id of garbage", edit("node-id", "\x00\x01\xff"), nil, []string{"node-id"}},
		{"the node id gone", func(t *testing.T) string {
			dir := used.copy(t)
			if err := os.Remove(filepath.Join(dir, "node-id")); err != nil {
				t.Fatal(err)
			}
			return dir
		}, nil, []string{"--node-id"}},
		{"another log store", used.copy, []string{"--log-store", "wal"}, []string{"--log-store=bolt"}},
		{"a log store of garbage", edit("log-store", "paper"), nil, []string{"paper"}},
	} {
		b.separate(t, c.name, func(t *testing.T) {
			dir := c.dir(t)
			code, output := startOnce(t, nil, append(freeArgs(t, dir), c.args...)...)
			wantEnd(t, code, output, codeDataDir, append(c.words, filepath.Base(dir))...)
		})
	}
}

// noRights is a directory that this user cannot write to. Rights do not bind root, a
// read-only file system does.
func noRights(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir := mountTmpfs(t, "1m")
	remountReadOnly(t, dir)
	return dir
}

// editFile changes a file in place.
func editFile(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o600); err != nil {
		t.Fatal(err)
	}
}

func flipMiddle(b []byte) []byte { b[len(b)/2] ^= 0x20; return b }

// editBolt changes the log's buckets.
func editBolt(t *testing.T, dir string, f func(logs *bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, "log.db"), 0o600, &bbolt.Options{NoFreelistSync: true, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return f(tx.Bucket([]byte("logs"))) })
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// badDamage are damaged logs and snapshots: a message that names the file and what to
// do, or, where another copy is whole, a start with all that was there.
func badDamage(t *testing.T, b *badBench) {
	used := newUsedData(t, b)
	const logFile = "log.db"
	edit := func(change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) { editFile(t, filepath.Join(dir, logFile), change) }
	}
	snapshots := func(which func([]string) []string, file string, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, s := range which(snapshotDirs(t, dir)) {
				editFile(t, filepath.Join(s, file), change)
			}
		}
	}
	newest := func(list []string) []string { return list[len(list)-1:] }
	all := func(list []string) []string { return list }
	page := os.Getpagesize()
	const copyBack = "bring back a copy"
	for _, c := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		code   int // 0: it starts and has everything
		words  []string
	}{
		{"log: garbage", edit(func(b []byte) []byte { return []byte(strings.Repeat("garbage ", len(b)/8)) }), codeDataDir, []string{logFile, copyBack}},
		{"log: one page", edit(func(b []byte) []byte { return b[:page] }), codeDataDir, []string{logFile, copyBack}},
		{"log: half", edit(func(b []byte) []byte { return b[:max(3*page, len(b)/8)] }), codeDataDir, []string{logFile, copyBack}},
		{"log: one byte", edit(func(b []byte) []byte { return b[:1] }), codeDataDir, []string{logFile, copyBack}},
		{"log: empty", edit(func([]byte) []byte { return nil }), codeDataDir, []string{logFile, copyBack}},
		{"log: gone", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, logFile)); err != nil {
				t.Fatal(err)
			}
		}, codeDataDir, []string{logFile, copyBack}},
		{"log: a directory", func(t *testing.T, dir string) {
			path := filepath.Join(dir, logFile)
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		}, codeDataDir, []string{logFile}},
		{"log: both heads flipped", edit(func(b []byte) []byte { b[20] ^= 1; b[page+20] ^= 1; return b }), codeDataDir, []string{logFile, copyBack}},
		{"log: pages of zeros", edit(func(b []byte) []byte { clear(b[2*page : min(len(b), 32*page)]); return b }), codeDataDir, []string{logFile, copyBack}},
		{"log: an entry missing", func(t *testing.T, dir string) {
			editBolt(t, dir, func(logs *bbolt.Bucket) error { return logs.Delete(lastKeys(logs, 2)[1]) })
		}, codeDataDir, []string{copyBack}},
		{"log: the last entry unreadable", func(t *testing.T, dir string) {
			editBolt(t, dir, func(logs *bbolt.Bucket) error { return logs.Put(lastKeys(logs, 1)[0], []byte{0xff}) })
		}, codeDataDir, []string{logFile, copyBack}},
		{"log: a bit of an entry", func(t *testing.T, dir string) { flipEntry(t, dir) }, codeEntry, []string{"log entry", "checksum"}},
		{"snapshot: newest flipped", snapshots(newest, "state.bin", flipMiddle), 0, nil},
		{"snapshot: newest cut short", snapshots(newest, "state.bin", func(b []byte) []byte { return b[:len(b)/2] }), 0, nil},
		{"snapshot: newest empty", snapshots(newest, "state.bin", func([]byte) []byte { return nil }), 0, nil},
		{"snapshot: newest without its file", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(newest(snapshotDirs(t, dir))[0], "state.bin")); err != nil {
				t.Fatal(err)
			}
		}, 0, nil},
		{"snapshot: newest without a description", snapshots(newest, "meta.json", func([]byte) []byte { return []byte("{") }), 0, nil},
		{"snapshot: newest damaged, the log begins above the other", func(t *testing.T, dir string) {
			cutLog(t, dir)
			snapshots(newest, "state.bin", flipMiddle)(t, dir)
		}, codeDataDir, []string{"does not join up", copyBack}},
		{"snapshot: both flipped", snapshots(all, "state.bin", flipMiddle), codeDataDir, []string{"none of the 2 snapshots", copyBack}},
		{"snapshot: both empty", snapshots(all, "state.bin", func([]byte) []byte { return nil }), codeDataDir, []string{"none of the 2 snapshots", copyBack}},
		{"snapshot: both cut short", snapshots(all, "state.bin", func(b []byte) []byte { return b[:len(b)-1] }), codeDataDir, []string{"none of the 2 snapshots", copyBack}},
		{"snapshot: an unfinished one", func(t *testing.T, dir string) {
			tmp := filepath.Join(dir, "snapshots", "9-999-1700000000000.tmp")
			if err := os.MkdirAll(tmp, 0o700); err != nil {
				t.Fatal(err)
			}
			mustFile(t, filepath.Join(tmp, "state.bin"), "half")
		}, 0, nil},
	} {
		b.separate(t, c.name, func(t *testing.T) {
			dir := used.copy(t)
			c.damage(t, dir)
			if c.code == 0 {
				r := Start(t, Options{DataDir: dir, Args: []string{"--hash", "builtin@0", "--chunk-size", fmt.Sprint(crashChunk)}})
				if err := used.found(newClient(t, r)); err != nil {
					t.Error(err)
				}
				if code := r.Terminate(); code != 0 {
					t.Errorf("exit code %d, want 0", code)
				}
				return
			}
			code, output := startOnce(t, nil, freeArgs(t, dir)...)
			wantEnd(t, code, output, c.code, c.words...)
		})
	}
}

// lastKeys are the last n keys of the log, the last one first.
func lastKeys(logs *bbolt.Bucket, n int) [][]byte {
	var keys [][]byte
	c := logs.Cursor()
	for k, _ := c.Last(); k != nil && len(keys) < n; k, _ = c.Prev() {
		keys = append(keys, slices.Clone(k))
	}
	return keys
}

// flipEntry changes one bit of what is in the newest worker batch, which is above the
// snapshots.
func flipEntry(t *testing.T, dir string) {
	t.Helper()
	name := []byte("kept")
	editBolt(t, dir, func(logs *bbolt.Bucket) error {
		c := logs.Cursor()
		for k, v := c.Last(); k != nil; k, v = c.Prev() {
			if i := strings.Index(string(v), string(name)); i >= 0 {
				v = slices.Clone(v)
				v[i] ^= 1
				return logs.Put(slices.Clone(k), v)
			}
		}
		return errors.New("no entry names the worker")
	})
}

// cutLog removes the entries up to the newest snapshot, as a long run does.
func cutLog(t *testing.T, dir string) {
	t.Helper()
	list := snapshotDirs(t, dir)
	var term, index, at uint64
	if _, err := fmt.Sscanf(filepath.Base(list[len(list)-1]), "%d-%d-%d", &term, &index, &at); err != nil {
		t.Fatal(err)
	}
	store, err := raftboltdb.NewBoltStore(filepath.Join(dir, "log.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.DeleteRange(1, index), store.Close()); err != nil {
		t.Fatal(err)
	}
	editBolt(t, dir, func(logs *bbolt.Bucket) error {
		if first, _ := logs.Cursor().First(); first == nil || binary.BigEndian.Uint64(first) != index+1 {
			return fmt.Errorf("the log begins with %x, want entry %d", first, index+1)
		}
		return nil
	})
}

// badDisk are full disks: exit code 5, and everything there once there is room.
func badDisk(t *testing.T, b *badBench) {
	b.separate(t, "full at the start", func(t *testing.T) {
		dir := filepath.Join(mountTmpfs(t, "16m"), "data")
		code, output := startOnce(t, nil, freeArgs(t, dir)...)
		wantEnd(t, code, output, codeStorage, "too little disk space", dir)
	})
	for _, c := range []struct {
		name string
		left int64 // bytes that stay free
	}{{"full", 0}, {"nearly full", 64 << 20}} {
		b.separate(t, c.name+" while it runs", func(t *testing.T) { b.fillsUp(t, c.left) })
	}
}

func (b *badBench) fillsUp(t *testing.T, left int64) {
	mount := mountTmpfs(t, "176m")
	r := Start(t, Options{DataDir: filepath.Join(mount, "data"), Args: []string{"--hash", "builtin@0", "--chunk-size", fmt.Sprint(crashChunk)}})
	c := newClient(t, r)
	w, err := simworker.New(simworker.Options{Instance: "full", Pull: r.PullAddr(), Reply: r.ReplyAddr(), ChunkSize: crashChunk, Context: b.zctx})
	if err == nil {
		err = w.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Kill()
	prompt := slices.Repeat([]int64{5}, 2*crashChunk)
	found := func() error {
		hits, err := c.lookup(prompt)
		if err == nil && hits["full"] != len(prompt) {
			err = fmt.Errorf("a lookup answers %v", hits)
		}
		return err
	}
	w.Store(prompt)
	Eventually(t, 20*time.Second, "the prompt", found)

	filler := filepath.Join(mount, "filler")
	fillDisk(t, filler, mount, left)
	n := int64(0)
	err = Poll(30*time.Second, func() error { // events keep coming, so that a write meets the end
		n++
		more := slices.Repeat([]int64{1000 + n}, 64*crashChunk)
		w.Store(more)
		if r.Running() {
			return errors.New("the replica still runs")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	code := r.AwaitEnd()
	wantEnd(t, code, r.Log(), codeStorage, "start this replica again")

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.Restart()
	Eventually(t, 20*time.Second, "the prompt, after room was made", found)
	if code := r.Terminate(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
