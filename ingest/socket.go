package ingest

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	zmq "github.com/pebbe/zmq4"
)

// receive takes one message off a socket without waiting, with the peer's address as
// far as libzmq knows it: a ROUTER's identity frame, which libzmq makes itself, has
// none, so the frames are asked until one has it. The parts are the caller's.
func receive(sock *zmq.Socket) (parts [][]byte, from string, err error) {
	const address = "Peer-Address"
	for more := true; more; {
		// A message is in the socket whole or not at all: only the first part can be missing.
		var part []byte
		if from == "" {
			var meta map[string]string
			part, meta, err = sock.RecvBytesWithMetadata(zmq.DONTWAIT, address)
			from = meta[address]
		} else {
			part, err = sock.RecvBytes(zmq.DONTWAIT)
		}
		if err != nil {
			return nil, "", err
		}
		parts = append(parts, part)
		if more, err = sock.GetRcvmore(); err != nil {
			return nil, "", err
		}
	}
	return parts, from, nil
}

// interrupted tells that nothing is wrong, only nothing there, or a signal came.
func interrupted(err error) bool {
	switch zmq.AsErrno(err) {
	case zmq.Errno(syscall.EAGAIN), zmq.Errno(syscall.EINTR):
		return true
	}
	return false
}

// listen makes a socket bound to host and port, and returns the port it has.
func listen(zctx *zmq.Context, kind zmq.Type, host string, port int, maxFrame int64, flag string) (*zmq.Socket, int, error) {
	sock, err := zctx.NewSocket(kind)
	if err != nil {
		return nil, 0, fmt.Errorf("make %s socket: %w", kind, err)
	}
	endpoint, err := bindTo(sock, kind, host, port, maxFrame)
	if err != nil {
		sock.Close()
		hint := ""
		switch zmq.AsErrno(err) {
		case zmq.EADDRINUSE:
			hint = ": stop whoever has it or choose another port"
		case zmq.EADDRNOTAVAIL, zmq.Errno(syscall.ENODEV): // the latter of a name that has no address
			hint = ": --host is no address of this machine"
		}
		return nil, 0, fmt.Errorf("bind %s (%s): %w%s", endpoint, flag, err, hint)
	}
	bound, err := sock.GetLastEndpoint()
	if err == nil {
		_, text, ok := cutLast(strings.TrimRight(bound, "\x00"), ":")
		if port, err = strconv.Atoi(text); ok && err == nil {
			return sock, port, nil
		}
	}
	sock.Close()
	return nil, 0, fmt.Errorf("bind %s: bound to %q, which has no port", endpoint, bound)
}

// bindTo sets the options and binds; it returns the endpoint for error texts.
func bindTo(sock *zmq.Socket, kind zmq.Type, host string, port int, maxFrame int64) (string, error) {
	endpoint := "tcp://" + bindHost(host) + ":*"
	if port != AnyPort {
		endpoint = "tcp://" + bindHost(host) + ":" + strconv.Itoa(port)
	}
	set := []error{
		sock.SetMaxmsgsize(maxFrame),
		// Replies on their way when the socket is closed get this long to leave.
		sock.SetLinger(500 * time.Millisecond),
		sock.SetIpv6(strings.Contains(host, ":")),
		// Find out within two minutes that a worker's machine is gone.
		sock.SetTcpKeepalive(1), sock.SetTcpKeepaliveIdle(60),
		sock.SetTcpKeepaliveIntvl(20), sock.SetTcpKeepaliveCnt(3),
	}
	if kind == zmq.ROUTER {
		// An answer that cannot be delivered is an error that can be counted.
		set = append(set, sock.SetRouterMandatory(1))
	}
	for _, err := range set {
		if err != nil {
			return endpoint, err
		}
	}
	return endpoint, sock.Bind(endpoint)
}

// bindHost is how libzmq wants the host of a bind: an address or "*"; unlike for
// connect, it looks no names up.
func bindHost(host string) string {
	if anyHost(host) && !strings.Contains(host, ":") {
		return "*"
	}
	host = strings.Trim(host, "[]")
	if net.ParseIP(host) == nil {
		if addrs, err := net.LookupIP(host); err == nil && len(addrs) > 0 {
			for _, a := range addrs {
				if a.To4() != nil {
					return a.String()
				}
			}
			host = addrs[0].String()
		}
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// unreachable tells that a ROUTER's peer is gone or takes nothing more.
func unreachable(err error) bool {
	switch zmq.AsErrno(err) {
	case zmq.EHOSTUNREACH, zmq.Errno(syscall.EAGAIN):
		return true
	}
	return false
}
