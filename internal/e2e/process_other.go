//go:build !linux

package e2e

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// attributes keep signals from the terminal away from the replica; its death with the
// test process is left to the tests' cleanup.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// enterNamespace is for Linux only.
func enterNamespace(name string) error {
	if name != "" {
		return fmt.Errorf("network namespace %s: only Linux has those", name)
	}
	return nil
}

// standsStill reports whether a process is stopped.
func standsStill(pid int) (bool, error) {
	out, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return false, fmt.Errorf("state of process %d: %w", pid, err)
	}
	return strings.HasPrefix(strings.TrimSpace(string(out)), "T"), nil
}
