package boltcheck

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// mustFile makes a bbolt file like a raft log's: many large values, some deleted,
// a small second bucket.
func mustFile(t *testing.T, path string, noFreelistSync bool) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: noFreelistSync, FreelistType: bbolt.FreelistMapType, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	value := make([]byte, 9000)
	for i := range 40 {
		err := db.Update(func(tx *bbolt.Tx) error {
			logs, err := tx.CreateBucketIfNotExists([]byte("logs"))
			if err != nil {
				return err
			}
			conf, err := tx.CreateBucketIfNotExists([]byte("conf"))
			if err != nil {
				return err
			}
			for j := range 10 {
				if err := logs.Put(binary.BigEndian.AppendUint64(nil, uint64(i*10+j)), value[:rand.IntN(len(value))]); err != nil {
					return err
				}
			}
			if i > 5 {
				if err := logs.Delete(binary.BigEndian.AppendUint64(nil, uint64(i))); err != nil {
					return err
				}
			}
			return conf.Put([]byte("term"), []byte(fmt.Sprint(i)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCheck_Sound(t *testing.T) {
	for _, noFreelistSync := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "db")
		if err := Check(path); err != nil {
			t.Errorf("missing file: %v", err)
		}
		mustFile(t, path, noFreelistSync)
		if err := Check(path); err != nil {
			t.Errorf("noFreelistSync=%v: %v", noFreelistSync, err)
		}
	}
}

func TestCheck_Damaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	mustFile(t, path, true)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"text":         func([]byte) []byte { return []byte("this is not a log\n") },
		"zeros":        func(b []byte) []byte { clear(b); return b },
		"cut short":    func(b []byte) []byte { return b[:5*os.Getpagesize()] },
		"cut to one":   func(b []byte) []byte { return b[:100] },
		"no metas":     func(b []byte) []byte { clear(b[:2*os.Getpagesize()]); return b },
		"pages zeroed": func(b []byte) []byte { clear(b[2*os.Getpagesize():]); return b },
	} {
		t.Run(name, func(t *testing.T) {
			bad := filepath.Join(t.TempDir(), "db")
			if err := os.WriteFile(bad, change(append([]byte(nil), sound...)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := Check(bad); !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v, want ErrDamaged", err)
			}
		})
	}
}

// TestCheck_WhatPassesOpens overwrites random places and lets bbolt open in a
// child process what Check has passed: the child must not die.
func TestCheck_WhatPassesOpens(t *testing.T) {
	if path := os.Getenv("BOLTCHECK_CHILD"); path != "" {
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
		if err == nil {
			db.Close()
		}
		return
	}
	path := filepath.Join(t.TempDir(), "db")
	mustFile(t, path, true)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	passed, refused := 0, 0
	for range 400 {
		b := append([]byte(nil), sound...)
		for range 1 + rnd.IntN(3) {
			// Heads of pages are where the tree is.
			at := rnd.IntN(len(b)/4096)*4096 + rnd.IntN(64)
			b[at] ^= byte(1 + rnd.IntN(255))
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Check(path); err != nil {
			refused++
			continue
		}
		if passed++; passed > 15 { // a process each: enough of them
			continue
		}
		cmd := exec.Command(os.Args[0], "-test.run", "^TestCheck_WhatPassesOpens$")
		cmd.Env = append(os.Environ(), "BOLTCHECK_CHILD="+path)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("bbolt died of a file that Check passed: %v\n%s", err, out)
		}
	}
	t.Logf("%d passed, %d refused", passed, refused)
	if refused == 0 || passed == 0 {
		t.Errorf("%d passed, %d refused: the damage is not in the right places", passed, refused)
	}
}

func TestCheck_AnyBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	mustFile(t, path, false)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for range 300 {
		b := append([]byte(nil), sound[:rand.IntN(len(sound))]...)
		for range rand.IntN(200) {
			if len(b) > 0 {
				b[rand.IntN(len(b))] = byte(rand.IntN(256))
			}
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = Check(path) // must return
	}
}
