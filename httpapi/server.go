package httpapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Server answers REST. New makes it, Open listens, Serve answers until its context
// ends, Close ends it.
type Server struct {
	opts    Options
	log     hclog.Logger
	routes  []route
	handler http.Handler
	metrics *metrics
	gather  *prometheus.Registry
	openapi []byte
	page    page

	http     *http.Server
	listener net.Listener // set by Open

	// life ends when Close gives up on requests that do not finish.
	life     context.Context
	endLife  context.CancelFunc
	requests gate         // handlers under way, of clients and of other replicas
	acts     gate         // mutations that this replica carries out
	stopping atomic.Bool  // StopReady was called
	bodies   atomic.Int64 // bytes of bodies under way
	conns    connections
	misses   misses
	// diagnosing has one place for each diagnosis that may be under way.
	diagnosing chan struct{}

	closeOnce sync.Once
	closeErr  error
}

// New makes a server that does not listen yet.
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, log: o.Logger, page: newPage(o.Version), conns: connections{max: int64(o.MaxConns)}}
	s.misses.finder, s.diagnosing = o.Finder, make(chan struct{}, maxDiagnoses)
	s.life, s.endLife = context.WithCancel(context.Background())
	s.routes = s.routeTable()
	s.openapi = openAPI(s.routes, o.Version)
	s.metrics, s.gather = newMetrics(s)
	s.handler = s.newRouter()
	s.http = &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: o.HeaderTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeaderBytes,
		ConnState:         s.conns.track,
		ErrorLog:          o.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		BaseContext:       func(net.Listener) context.Context { return s.life },
	}
	return s, nil
}

// Handler answers requests without a listener, for tests and for embedding.
func (s *Server) Handler() http.Handler { return s.handler }

// Open listens. Connections wait until Serve takes them.
func (s *Server) Open() error {
	config, err := s.opts.tlsConfig()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", s.opts.Addr)
	if err != nil {
		return fmt.Errorf("REST on %s: %w: is another controller running, or is the port taken?", s.opts.Addr, err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	s.listener = l
	return nil
}

// Addr is the address that Open listens on; empty before.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Serve answers until ctx ends, lets requests finish for DrainTimeout, and returns
// when none is left. It returns nil unless the listener failed.
func (s *Server) Serve(ctx context.Context) error {
	if s.listener == nil {
		return errors.New("bug: httpapi: Serve before Open")
	}
	failed := make(chan error, 1)
	// Owner: Serve. It ends when the listener closes, and is waited for below.
	go func() { failed <- s.http.Serve(s.listener) }()
	var err error
	select {
	case err = <-failed:
		failed <- nil
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.DrainTimeout)
	defer cancel()
	closeErr := s.Close(limit)
	<-failed
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("REST on %s: %w", s.Addr(), err)
	}
	return closeErr
}

// LastWords is how long requests that were cut off may take to say so.
const LastWords = time.Second

// Close stops listening, waits for the requests under way until ctx ends, and then
// cancels what is left. It returns when no handler runs any more.
func (s *Server) Close(ctx context.Context) error {
	s.closeOnce.Do(func() {
		err := s.http.Shutdown(ctx)
		s.endLife()
		if err != nil { // ctx ended first: the rest is cut off, with an answer that says so
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), LastWords)
			defer cancel()
			if err = s.http.Shutdown(last); err != nil {
				err = s.http.Close()
			}
		}
		if s.listener != nil { // not yet given to http when Serve never ran
			if closeErr := s.listener.Close(); !errors.Is(closeErr, net.ErrClosed) {
				err = errors.Join(err, closeErr)
			}
		}
		s.requests.close()
		s.requests.wait() // their contexts have ended
		s.closeErr = err
	})
	return s.closeErr
}

// tlsConfig is nil without a certificate.
func (o Options) tlsConfig() (*tls.Config, error) {
	if o.TLSCert == "" {
		return nil, nil
	}
	cert, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("REST certificate %s with key %s: %w", o.TLSCert, o.TLSKey, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	if o.TLSClientCA != "" {
		pem, err := os.ReadFile(o.TLSClientCA)
		if err != nil {
			return nil, fmt.Errorf("REST client authority: %w", err)
		}
		config.ClientCAs = x509.NewCertPool()
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("REST client authority %s: no certificate in it", o.TLSClientCA)
		}
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return config, nil
}
