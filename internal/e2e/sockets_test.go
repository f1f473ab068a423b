package e2e

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	zmq "github.com/pebbe/zmq4"
)

func interruptedCall(err error) bool {
	switch zmq.AsErrno(err) {
	case zmq.Errno(syscall.EAGAIN), zmq.Errno(syscall.EINTR):
		return true
	}
	return false
}

var errNoReply = errors.New("no reply")

// dealer asks on one of the ROUTER sockets. After a question without an answer the
// connection is a new one, so that a late answer is not taken for the next one's.
type dealer struct {
	zctx *zmq.Context
	addr string
	sock *zmq.Socket
}

func connect(zctx *zmq.Context, kind zmq.Type, to string) (*zmq.Socket, error) {
	sock, err := zctx.NewSocket(kind)
	if err != nil {
		return nil, err
	}
	err = errors.Join(sock.SetLinger(0), sock.SetReconnectIvl(20*time.Millisecond), sock.Connect("tcp://"+to))
	if err != nil {
		return nil, errors.Join(err, sock.Close())
	}
	return sock, nil
}

// ask sends a frame and waits for the answer.
func (d *dealer) ask(frame []byte, limit time.Duration) ([]byte, error) {
	if d.sock == nil {
		sock, err := connect(d.zctx, zmq.DEALER, d.addr)
		if err != nil {
			return nil, err
		}
		d.sock = sock
	}
	if _, err := d.sock.SendMessage([][]byte{{}, frame}); err != nil {
		return nil, err
	}
	if err := d.sock.SetRcvtimeo(limit); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(limit)
	for {
		parts, err := d.sock.RecvMessageBytes(0)
		if err == nil {
			if len(parts) != 2 || len(parts[0]) != 0 {
				return nil, fmt.Errorf("reply has the frames %x, want an empty one and the payload", parts)
			}
			return parts[1], nil
		}
		if !interruptedCall(err) {
			return nil, err
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("%w on %s within %s", errNoReply, d.addr, limit), d.close())
		}
	}
}

func (d *dealer) close() error {
	if d.sock == nil {
		return nil
	}
	err := d.sock.Close()
	d.sock = nil
	return err
}
