package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes let the kernel kill the replica when the test process dies, however that
// happens. The signal follows the thread that started it: see process.run.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// namespaces is where ip netns keeps them, by name.
const namespaces = "/run/netns"

// enterNamespace moves the calling thread, which must be locked, into a network
// namespace; what it starts from now on lives there. "" is the present one.
func enterNamespace(name string) error {
	if name == "" {
		return nil
	}
	f, err := os.Open(filepath.Join(namespaces, name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	return nil
}

// standsStill reports whether every thread of a process is stopped.
func standsStill(pid int) (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil {
		return false, err
	}
	if len(threads) == 0 {
		return false, fmt.Errorf("there is no process %d", pid)
	}
	for _, path := range threads {
		stat, err := os.ReadFile(path)
		if err != nil {
			return false, err
		}
		// pid (name) state ...; a name may hold anything
		if _, rest, ok := bytes.Cut(stat[bytes.LastIndexByte(stat, ')'):], []byte(" ")); !ok || len(rest) == 0 || rest[0] != 'T' {
			return false, nil
		}
	}
	return true, nil
}
