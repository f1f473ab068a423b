// Package dirlock keeps a second process out of a directory.
//
// The lock is the kernel's (flock), so it ends with the process that holds it,
// however that ends; the file only says who the holder is.
package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FileName is the lock's file inside the directory. It stays there when the lock
// is gone: removing it would let two processes lock two different files.
const FileName = "LOCK"

// HeldError is returned when another process, or another Lock of this one, holds
// the directory.
type HeldError struct {
	Dir string
	PID int // 0 when the holder has not written it
}

func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("directory %q is in use by another process", e.Dir)
	}
	return fmt.Sprintf("directory %q is in use by process %d", e.Dir, e.PID)
}

// Lock is a held directory.
type Lock struct{ file *os.File }

// Acquire locks dir, which must exist, or returns a *HeldError at once.
func Acquire(dir string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, FileName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &HeldError{Dir: dir, PID: holder(f)}
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	pid := []byte(strconv.Itoa(os.Getpid()) + "\n")
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(pid, 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write the process id to %s: %w", f.Name(), err)
	}
	return &Lock{f}, nil
}

// Release gives the directory up. It may be called once.
func (l *Lock) Release() error {
	err := l.file.Truncate(0) // nobody is asked to look for a process that has gone
	return errors.Join(err, l.file.Close())
}

func holder(f *os.File) int {
	buf := make([]byte, 32)
	n, _ := f.ReadAt(buf, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}

// flock retries when a signal interrupts it.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
