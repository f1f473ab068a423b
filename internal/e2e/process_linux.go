package e2e

import "syscall"

// attributes let the kernel kill the replica when the test process dies, however that
// happens. The signal follows the thread that started it: see process.run.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
