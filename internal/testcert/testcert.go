// Package testcert makes certificates for tests. They are good for an hour.
package testcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA signs certificates. Its files go with the test.
type CA struct {
	File string // its own certificate

	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority.
func New(t testing.TB, name string) *CA {
	t.Helper()
	ca := &CA{t: t, cert: template(name), key: newKey(t)}
	ca.cert.IsCA, ca.cert.BasicConstraintsValid, ca.cert.KeyUsage = true, true, x509.KeyUsageCertSign
	ca.File = ca.write(t.TempDir(), "CERTIFICATE", ca.sign(ca.cert, ca.key))
	return ca
}

// Leaf makes a certificate of 127.0.0.1 for servers and clients, changed by tune, and
// returns its file and that of its key.
func (ca *CA) Leaf(tune ...func(*x509.Certificate)) (cert, key string) {
	ca.t.Helper()
	leaf, private := template("leaf"), newKey(ca.t)
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, f := range tune {
		f(leaf)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		ca.t.Fatal(err)
	}
	dir := ca.t.TempDir()
	return ca.write(dir, "CERTIFICATE", ca.sign(leaf, private)), ca.write(dir, "PRIVATE KEY", der)
}

func template(name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (ca *CA) sign(cert *x509.Certificate, key *ecdsa.PrivateKey) (der []byte) {
	ca.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	return der
}

func (ca *CA) write(dir, kind string, der []byte) (file string) {
	ca.t.Helper()
	file = filepath.Join(dir, kind+".pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		ca.t.Fatal(err)
	}
	return file
}
