package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kvctrl/kvctrl/internal/testcert"
)

// leaf makes a certificate for 127.0.0.1, changed by tune.
func leaf(ca *testcert.CA, tune ...func(*x509.Certificate)) PeerTLS {
	cert, key := ca.Leaf(tune...)
	return PeerTLS{Cert: cert, Key: key, CA: ca.File}
}

func usage(u ...x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = u }
}

// unchecked reads a certificate that loadPeerTLS would refuse.
func unchecked(t *testing.T, files PeerTLS, ca *x509.CertPool) *peerTLS {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &peerTLS{cert: cert, ca: ca}
}

// A cluster forms over mutual TLS and does all that it does without.
func TestPeerTLS_Cluster(t *testing.T) {
	ca := testcert.New(t, "peers")
	c := openCluster(t, 3, func(i int, o *Options) {
		// A certificate without usages is good for any.
		o.PeerTLS = leaf(ca, usage([][]x509.ExtKeyUsage{peerUsages, peerUsages, nil}[i]...))
	})
	leader, others := c.leader()
	for i, n := range c.nodes {
		if _, err := n.Submit(ctxFor(t, 10*time.Second), batch(byte(i+1), 1, i)); err != nil {
			t.Errorf("%s: %v", n.id, err)
		}
		if _, err := n.Read(ctxFor(t, 10*time.Second), Read{Consistency: Linearizable}); err != nil {
			t.Errorf("%s: %v", n.id, err)
		}
		await(t, "ready", n.Ready)
	}
	// Without a certificate nothing is heard of, or told to, the cluster.
	plain := startPort(t, peerPortConfig{}, "n9", "real")
	if _, err := plain.dial(ctxFor(t, 10*time.Second), streamHTTP, leader.PeerAddr(), ""); err == nil {
		t.Error("a connection without TLS was let in")
	}
	if leader.Counters().PeerConnectionsRefused == 0 {
		t.Error("it was not counted")
	}
	if err := leader.Transfer(ctxFor(t, 10*time.Second), others[0].id); err != nil {
		t.Error(err)
	}
	c.leader()
	for _, n := range c.nodes {
		mustClose(t, n)
	}
}

// Who shows another certificate than a replica's own kind is refused, whichever end it
// is at.
func TestPeerTLS_Refused(t *testing.T) {
	ca, other := testcert.New(t, "peers"), testcert.New(t, "others")
	good, err := loadPeerTLS(leaf(ca))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		tls    *peerTLS
		dials  bool // may it dial; it may not be dialled anyway
		dialed bool
	}{
		{"good", good, true, true},
		{"client only", unchecked(t, leaf(ca, usage(x509.ExtKeyUsageClientAuth)), good.ca), false, false},
		{"server only", unchecked(t, leaf(ca, usage(x509.ExtKeyUsageServerAuth)), good.ca), false, false},
		{"for code signing", unchecked(t, leaf(ca, usage(x509.ExtKeyUsageCodeSigning)), good.ca), false, false},
		{"of another CA", unchecked(t, leaf(other), good.ca), false, false},
		{"expired", unchecked(t, leaf(ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), good.ca), false, false},
		{"for another address", unchecked(t, leaf(ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }), good.ca), true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPort(t, peerPortConfig{network: tcpNetwork{}, listen: "127.0.0.1:0", tls: good}, "n1", "c")
			q := startPort(t, peerPortConfig{network: tcpNetwork{}, listen: "127.0.0.1:0", tls: c.tls}, "n2", "c")
			for _, try := range []struct {
				what     string
				from, to testPort
				want     bool
			}{{"dials", q, p, c.dials}, {"is dialled", p, q, c.dialed}} {
				conn, err := try.from.dial(ctxFor(t, 10*time.Second), streamRaft, try.to.Addr().String(), "")
				if (err == nil) != try.want {
					t.Errorf("%s: %v, want it let in: %v", try.what, err, try.want)
				}
				if err == nil {
					if v := conn.Conn.(*tls.Conn).ConnectionState().Version; v < tls.VersionTLS12 {
						t.Errorf("TLS version %x", v)
					}
					conn.Close()
				}
			}
		})
	}
	// An old version is not spoken.
	p := startPort(t, peerPortConfig{network: tcpNetwork{}, listen: "127.0.0.1:0", tls: good}, "n1", "c")
	old := good.client(p.Addr().String())
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if conn, err := tls.Dial("tcp", p.Addr().String(), old); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was spoken")
	} else if !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.1: %v, want it refused for the version", err)
	}
}

// Faults of the files are found at the start, in words.
func TestPeerTLS_Files(t *testing.T) {
	ca, other := testcert.New(t, "peers"), testcert.New(t, "others")
	good := leaf(ca)
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		files PeerTLS
		words string
	}{
		{"half of them", PeerTLS{Cert: good.Cert, Key: good.Key}, "all three or none"},
		{"no such file", PeerTLS{good.Cert, good.Key, empty + "-not"}, "no such file"},
		{"no CA in it", PeerTLS{good.Cert, good.Key, empty}, "no certificate"},
		{"no certificate in it", PeerTLS{empty, good.Key, good.CA}, "certificate"},
		{"another key", PeerTLS{good.Cert, leaf(ca).Key, good.CA}, "does not match"},
		{"another CA", PeerTLS{good.Cert, good.Key, leaf(other).CA}, "refused by the other replicas"},
		{"for clients only", leaf(ca, usage(x509.ExtKeyUsageClientAuth)), "serverAuth and clientAuth"},
	} {
		o := testOptions(t, t.TempDir())
		o.PeerTLS = c.files
		if _, err := Open(context.Background(), o); !errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want ErrOptions and %q", c.name, err, c.words)
		}
	}
}
