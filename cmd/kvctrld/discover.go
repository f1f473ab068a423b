package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
)

// discoverWithin bounds one question to a replica that may not be there.
const discoverWithin = 3 * time.Second

// errNameless is returned for a replica that has not opened its data directory yet.
var errNameless = errors.New("it does not know its node id yet: its log is being opened")

// discovery asks REST addresses who answers there, as cluster.Options.Discover wants.
// Replicas that serve REST over TLS are asked with this one's own certificate; their
// certificates are of tls-ca or of the system's authorities.
type discovery struct{ http *http.Client }

func newDiscovery(c config) (*discovery, error) {
	security, err := tlsFiles{cert: c.TLSCert, key: c.TLSKey}.config()
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = security
	if c.TLSCA != "" {
		if security.RootCAs, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("the system's certificate authorities: %w", err)
		}
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		security.RootCAs.AppendCertsFromPEM(pem) // that there is one is REST's to check
	}
	return &discovery{http: &http.Client{Transport: transport, Timeout: discoverWithin}}, nil
}

func (d *discovery) close() { d.http.CloseIdleConnections() }

// ask is who answers at a REST address. Any goroutine.
func (d *discovery) ask(ctx context.Context, url string) (cluster.Identity, error) {
	c := &client{http: d.http}
	answer, err := c.send(ctx, http.MethodGet, url+"/admin/status", nil)
	if err != nil {
		return cluster.Identity{}, fmt.Errorf("%s: %w", url, err)
	}
	var s status
	if err := json.Unmarshal(answer, &s); err != nil {
		return cluster.Identity{}, fmt.Errorf("%s: no replica of kvctrl answers there: %w", url, err)
	}
	if s.NodeID == "" {
		return cluster.Identity{}, fmt.Errorf("%s: %w", url, errNameless)
	}
	return cluster.Identity{NodeID: s.NodeID, PeerAddr: s.PeerAddr, URL: s.URL, ClusterID: s.ClusterID}, nil
}
