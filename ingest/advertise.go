package ingest

import (
	"net"
	"strconv"
	"strings"
)

// heartbeatURL is the address a worker is told to send heartbeats to: host:port
// without scheme, which is what LMCache's workers prepend "tcp://" to.
//
// LMCache's rule: a bind host that is no address (all interfaces) becomes the
// controller's own address, or 127.0.0.1 for a worker on the same machine; any other
// bind host is given as configured. AdvertiseHost, ours, comes before all that.
func heartbeatURL(advertise, bind, own, worker string, port int) string {
	host := bind
	switch {
	case advertise != "":
		host = advertise
	case anyHost(bind) && worker == own:
		host = "127.0.0.1"
	case anyHost(bind):
		host = own
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(port))
}

// anyHost tells the bind hosts that mean every interface.
func anyHost(host string) bool {
	switch host {
	case "", "*", "0.0.0.0", "::", "[::]":
		return true
	}
	return false
}

// ownIP is the address from which this machine would reach the internet, found as
// LMCache's controller and workers find theirs. Nothing is sent.
func ownIP() string {
	conn, err := net.Dial("udp4", "8.8.8.8:80")
	if err != nil {
		return "127.0.0.1"
	}
	defer conn.Close()
	if addr, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		return addr.IP.String()
	}
	return "127.0.0.1"
}
