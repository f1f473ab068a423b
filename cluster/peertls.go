package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
)

// PeerTLS names the PEM files for mutual TLS on the peer port: all three or none.
//
// Both ends show a certificate of the CA that is good for servers and for clients: a
// certificate that the CA gave a mere client opens nothing here. The name or address
// that is dialled must stand in it. Files are read once, at the start.
type PeerTLS struct {
	Cert, Key, CA string
}

func (t PeerTLS) set() bool { return t != PeerTLS{} }

// peerTLS is the same, read.
type peerTLS struct {
	cert tls.Certificate
	ca   *x509.CertPool
}

// peerUsages are what every replica's certificate is for: it dials and is dialled.
var peerUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}

// loadPeerTLS reads the files and checks that others will take the certificate. It
// returns nil when none are named.
func loadPeerTLS(files PeerTLS) (*peerTLS, error) {
	if !files.set() {
		return nil, nil
	}
	t := &peerTLS{ca: x509.NewCertPool()}
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, fmt.Errorf("%w: peer TLS: %w", ErrOptions, err)
	}
	if !t.ca.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: peer TLS: %q has no certificate in PEM form", ErrOptions, files.CA)
	}
	if t.cert, err = tls.LoadX509KeyPair(files.Cert, files.Key); err != nil {
		return nil, fmt.Errorf("%w: peer TLS: certificate %q with key %q: %w", ErrOptions, files.Cert, files.Key, err)
	}
	var chain []*x509.Certificate
	for _, der := range t.cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: peer TLS: certificate %q: %w", ErrOptions, files.Cert, err)
		}
		chain = append(chain, c)
	}
	if err := t.verify(chain); err != nil {
		return nil, fmt.Errorf("%w: peer TLS: certificate %q would be refused by the other replicas: %w", ErrOptions, files.Cert, err)
	}
	return t, nil
}

// verify holds a chain against the CA, once for each usage: a chain that is good for
// any of several is not enough.
func (t *peerTLS) verify(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("no certificate was shown")
	}
	o := x509.VerifyOptions{Roots: t.ca, Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	for _, usage := range peerUsages {
		o.KeyUsages = []x509.ExtKeyUsage{usage}
		if _, err := chain[0].Verify(o); err != nil {
			return fmt.Errorf("certificate of %q: %w; a replica's certificate must be from the peer CA and for servers and clients (serverAuth and clientAuth)", chain[0].Subject.CommonName, err)
		}
	}
	return nil
}

func (t *peerTLS) config() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS12,
		Certificates:     []tls.Certificate{t.cert},
		VerifyConnection: func(s tls.ConnectionState) error { return t.verify(s.PeerCertificates) }, // also of resumed ones
	}
}

func (t *peerTLS) server() *tls.Config {
	c := t.config()
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, t.ca
	return c
}

// client is for dialling an address: the host in it is what the certificate must say.
func (t *peerTLS) client(addr string) *tls.Config {
	c := t.config()
	c.RootCAs = t.ca
	c.ServerName, _, _ = net.SplitHostPort(addr)
	return c
}
