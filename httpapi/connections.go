package httpapi

import (
	"net"
	"net/http"
	"sync/atomic"
)

// connections counts the clients' connections and closes at once what comes beyond the
// bound. An idle connection costs a file descriptor, which the log, the snapshots and
// the workers' sockets need too: clients must not be able to take all.
type connections struct {
	max     int64
	open    atomic.Int64
	refused atomic.Uint64
}

// track is an http.Server's ConnState.
func (c *connections) track(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if c.open.Add(1) > c.max {
			c.refused.Add(1)
			_ = conn.Close() // the server finds it closed and forgets it
		}
	case http.StateClosed, http.StateHijacked:
		c.open.Add(-1)
	}
}
