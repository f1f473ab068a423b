package simworker

import (
	"fmt"
	"strings"
	"syscall"
	"time"

	zmq "github.com/pebbe/zmq4"
)

// dial makes a socket that connects to host:port, with LMCache's options: all
// defaults, and what was not sent is lost when the socket is closed.
func dial(zctx *zmq.Context, kind zmq.Type, url string) (*zmq.Socket, error) {
	sock, err := zctx.NewSocket(kind)
	if err != nil {
		return nil, fmt.Errorf("make %s socket: %w", kind, err)
	}
	url = "tcp://" + strings.TrimPrefix(url, "tcp://")
	err = sock.SetLinger(0)
	if err == nil {
		err = sock.SetIpv6(strings.Contains(url, "[")) // a name is looked up as LMCache's workers do it
	}
	if err == nil {
		err = sock.SetReconnectIvl(50 * time.Millisecond)
	}
	if err == nil {
		err = sock.Connect(url)
	}
	if err != nil {
		sock.Close()
		return nil, fmt.Errorf("connect to %s: %w", url, err)
	}
	return sock, nil
}

// again tells that there is nothing to receive, or that a signal came.
func again(err error) bool {
	switch zmq.AsErrno(err) {
	case zmq.Errno(syscall.EAGAIN), zmq.Errno(syscall.EINTR):
		return true
	}
	return false
}
