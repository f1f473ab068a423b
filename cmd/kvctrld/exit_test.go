package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"

	zmq "github.com/pebbe/zmq4"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/fsm"
)

func TestExitOf(t *testing.T) {
	_, listenErr := net.Listen("tcp", "203.0.113.1:1")
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"anything", errors.New("out of luck"), exitFailed},
		{"configuration", configError(errors.New("port is -1")), exitConfig},
		{"options of the log", fmt.Errorf("%w: node id", cluster.ErrOptions), exitConfig},
		{"data directory", fmt.Errorf("%w: held", cluster.ErrDataDir), exitDataDir},
		{"data directory on a full disk", fmt.Errorf("%w: %w", cluster.ErrDataDir, syscall.ENOSPC), exitStorage},
		{"REST or peer address of another host", fmt.Errorf("peer port: %w", listenErr), exitAddress},
		{"worker port in use", fmt.Errorf("bind: %w", zmq.EADDRINUSE), exitAddress},
		{"worker address of another host", fmt.Errorf("bind: %w", zmq.EADDRNOTAVAIL), exitAddress},
		{"worker address of nobody", fmt.Errorf("bind: %w", zmq.Errno(syscall.ENODEV)), exitAddress},
		{"another fault of libzmq", fmt.Errorf("poll: %w", zmq.ETERM), exitFailed},
		{"disk", fmt.Errorf("%w: hangs", cluster.ErrStore), exitStorage},
		{"removed, while it ran", fmt.Errorf("node n3: %w", cluster.ErrRemoved), exitRemoved},
		{"removed, at the next start", fmt.Errorf("%w: %w", cluster.ErrDataDir, cluster.ErrRemoved), exitRemoved},
		{"entry", fmt.Errorf("stopped: %w", &fsm.RefusedError{Index: 7}), exitEntry},
	} {
		var exit *exitError
		if err := exitOf(c.err); !errors.As(err, &exit) || exit.code != c.want {
			t.Errorf("%s: %v, want exit code %d", c.name, err, c.want)
		}
	}
	if err := exitOf(nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}
