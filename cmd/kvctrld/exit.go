package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
)

// Exit codes of serve. A supervisor may act on them: 3 and 6 do not go away by
// themselves, 5 may; 7 is as an operator wanted it.
const (
	exitFailed  = 1 // anything not named below
	exitConfig  = 2 // command line, environment or configuration file
	exitDataDir = 3 // the data directory is held by another process, not writable, or damaged
	exitAddress = 4 // an address is in use or not ours
	exitStorage = 5 // the disk failed, hangs or is full
	exitEntry   = 6 // the log holds an entry that this build cannot apply
	exitRemoved = 7 // this node was removed from its cluster
)

// exitOf gives an error of serve its exit code.
func exitOf(err error) error {
	if err == nil {
		return nil
	}
	var exit *exitError
	if errors.As(err, &exit) {
		return err
	}
	code := exitFailed
	var entry *fsm.RefusedError
	switch {
	case errors.Is(err, cluster.ErrRemoved):
		code = exitRemoved
	case errors.As(err, &entry):
		code = exitEntry
	case errors.Is(err, cluster.ErrStore), errors.Is(err, cluster.ErrDiskSpace), errors.Is(err, syscall.ENOSPC):
		code = exitStorage
	case errors.Is(err, cluster.ErrDataDir):
		code = exitDataDir
	case errors.Is(err, cluster.ErrOptions):
		return configError(err)
	case cannotListen(err):
		code = exitAddress
	}
	return &exitError{code: code, err: err}
}

// cannotListen reports whether an address is in use, not ours, or nobody's. libzmq's
// numbers are those of the system and no syscall.Errno.
func cannotListen(err error) bool {
	var (
		listen *net.OpError
		bind   zmq.Errno
	)
	switch {
	case errors.As(err, &listen):
		return listen.Op == "listen"
	case errors.As(err, &bind):
		switch syscall.Errno(bind) {
		case syscall.EADDRINUSE, syscall.EADDRNOTAVAIL, syscall.EACCES, syscall.ENODEV:
			return true
		}
	}
	return false
}

// configError marks a fault of the command line or the configuration.
func configError(err error) error {
	return &exitError{code: exitConfig, err: fmt.Errorf("configuration: %w", err)}
}
