package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// network is a network of replicas in namespaces of their own, made with ip and cut with
// iptables. The switch between them is in a namespace too, so that no rule of this
// machine's own (Docker's, say) is on the way. The test itself has the address host.
//
//	test (host) ── hub namespace: bridge ─┬─ namespace 0: eth0
//	                                      ├─ namespace 1: eth0
//
// Concurrency: one goroutine.
type network struct {
	t      testing.TB
	prefix string // of all namespaces' names
	subnet string // the first three bytes of all addresses
	nodes  int
}

// networkPrefix begins the name of every namespace; the process id comes behind it, so
// that those of a test that was killed are known.
const networkPrefix = "kvctrl-e2e-"

var networks atomic.Int64 // of this process so far

// newNetwork makes a network without replicas, or skips the test. Its cleanup takes the
// network away, after that of all replicas that are started later.
func newNetwork(t testing.TB) *network {
	t.Helper()
	for _, program := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(program); err != nil {
			skipAloud(t, fmt.Sprintf("no %s (Debian: iproute2, iptables)", program))
		}
	}
	sweepNetworks(t)
	n := &network{t: t, prefix: fmt.Sprintf("%s%d-%d-", networkPrefix, os.Getpid(), networks.Add(1)), subnet: freeSubnet(t)}
	outside := fmt.Sprintf("kve%d-%d", os.Getpid(), networks.Load())
	t.Cleanup(n.remove)
	for _, words := range []string{
		"netns add " + n.hub(),
		"-n " + n.hub() + " link add hub type bridge",
		"-n " + n.hub() + " link set hub up",
		"link add " + outside + " type veth peer name test netns " + n.hub(),
		"-n " + n.hub() + " link set test master hub up",
		"addr add " + n.host() + "/24 dev " + outside,
		"link set " + outside + " up",
	} {
		if err := run("ip", words); err != nil {
			skipAloud(t, "no network namespaces: "+err.Error())
		}
	}
	return n
}

func skipAloud(t testing.TB, why string) {
	t.Helper()
	t.Skipf("NOT TESTED: network partitions: %s", why)
}

// add makes the namespace of the next replica and returns its name and address.
func (n *network) add() (namespace, host string) {
	n.t.Helper()
	i := n.nodes
	n.nodes++
	namespace, host = n.namespace(i), n.address(i)
	port := "n" + strconv.Itoa(i)
	for _, words := range []string{
		"netns add " + namespace,
		"-n " + namespace + " link set lo up",
		"-n " + n.hub() + " link add " + port + " type veth peer name eth0 netns " + namespace,
		"-n " + n.hub() + " link set " + port + " master hub up",
		"-n " + namespace + " addr add " + host + "/24 dev eth0",
		"-n " + namespace + " link set eth0 up",
	} {
		if err := run("ip", words); err != nil {
			n.t.Fatal(err)
		}
	}
	return namespace, host
}

// drop lets everything vanish that replica from sends to replica to.
func (n *network) drop(from, to int) {
	n.t.Helper()
	if err := run("ip", "netns exec "+n.namespace(to)+" iptables -w -A INPUT -s "+n.address(from)+" -j DROP"); err != nil {
		n.t.Fatal(err)
	}
}

// heal ends all drops.
func (n *network) heal() {
	n.t.Helper()
	for i := range n.nodes {
		if err := run("ip", "netns exec "+n.namespace(i)+" iptables -w -F INPUT"); err != nil {
			n.t.Error(err)
		}
	}
}

func (n *network) hub() string            { return n.prefix + "hub" }
func (n *network) namespace(i int) string { return n.prefix + strconv.Itoa(i) }
func (n *network) host() string           { return n.subnet + ".1" }
func (n *network) address(i int) string   { return n.subnet + "." + strconv.Itoa(11+i) }

// remove takes away what is there of the network.
func (n *network) remove() {
	if err := removeNamespaces(func(name string) bool { return strings.HasPrefix(name, n.prefix) }); err != nil {
		n.t.Error(err)
	}
}

// sweepNetworks takes away the networks of tests that were killed.
func sweepNetworks(t testing.TB) {
	t.Helper()
	err := removeNamespaces(func(name string) bool {
		rest, ours := strings.CutPrefix(name, networkPrefix)
		digits, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(digits)
		return ours && err == nil && syscall.Kill(pid, 0) == syscall.ESRCH
	})
	if err != nil {
		skipAloud(t, err.Error())
	}
}

// removeNamespaces removes those that match, with the links in them.
func removeNamespaces(matches func(name string) bool) error {
	entries, err := os.ReadDir(namespaces)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !matches(e.Name()) {
			continue
		}
		if err := run("ip", "netns del "+e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// freeSubnet finds one that this machine has no address in.
func freeSubnet(t testing.TB) string {
	t.Helper()
	taken, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		subnet := fmt.Sprintf("10.%d.%d", 200+rand.IntN(50), rand.IntN(256))
		_, block, err := net.ParseCIDR(subnet + ".0/24")
		if err != nil {
			t.Fatal(err)
		}
		free := true
		for _, a := range taken {
			if ip, in := a.(*net.IPNet); in && (block.Contains(ip.IP) || ip.Contains(block.IP)) {
				free = false
			}
		}
		if free {
			return subnet
		}
	}
	skipAloud(t, "no free subnet in 10.200.0.0 to 10.249.255.255")
	return ""
}

// run runs a program; the error has what it said.
func run(program, words string) error {
	out, err := exec.Command(program, strings.Fields(words)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, words, err, bytes.TrimSpace(out))
	}
	return nil
}
