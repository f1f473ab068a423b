package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// process is one run of the binary.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // of Wait; read after done
}

// launch starts the binary with its output appended to logPath, in a network namespace
// if one is named.
func launch(binary string, args, env []string, logPath, namespace string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = env, log, log, attributes()
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(log, namespace, started)
	if err := <-started; err != nil {
		<-p.done
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	return p, nil
}

// run is owned by the replica and ends with the process, for which it waits. It keeps
// its thread: the kernel kills the child when the thread that started it ends. A thread
// that is in a network namespace is never given back.
func (p *process) run(log *os.File, namespace string, started chan<- error) {
	runtime.LockOSThread()
	if namespace == "" {
		defer runtime.UnlockOSThread()
	}
	defer close(p.done)
	defer log.Close()
	err := enterNamespace(namespace)
	if err == nil {
		err = p.cmd.Start()
	}
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
}

func (p *process) signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %v to process %d: %w", s, p.cmd.Process.Pid, err)
	}
	return nil
}

// awaitStopped waits until the process stands still after SIGSTOP.
func (p *process) awaitStopped(limit time.Duration) error {
	return Poll(limit, func() error {
		if p.ended() {
			return fmt.Errorf("process %d has ended instead of being stopped", p.cmd.Process.Pid)
		}
		stopped, err := standsStill(p.cmd.Process.Pid)
		if err == nil && !stopped {
			err = fmt.Errorf("process %d still runs", p.cmd.Process.Pid)
		}
		return err
	})
}

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// code is the exit code of an ended process, -1 when a signal ended it.
func (p *process) code() int { return p.cmd.ProcessState.ExitCode() }
