package cluster

import (
	"context"
	"net"
)

// Network is how bytes travel between replicas: TCP, or in tests a network in
// memory.
//
// Concurrency: any goroutine. Both calls return when ctx ends. Connections obey
// deadlines and Close as TCP's do.
type Network interface {
	Listen(ctx context.Context, addr string) (net.Listener, error)
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// tcpNetwork is the default.
type tcpNetwork struct{}

func (tcpNetwork) Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}

func (tcpNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}
