//go:build !linux

package e2e

import "syscall"

// attributes keep signals from the terminal away from the replica; its death with the
// test process is left to the tests' cleanup.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
