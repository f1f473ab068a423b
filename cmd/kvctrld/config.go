package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
)

// config is what serve runs with, after every source has been merged.
type config struct {
	Host          string
	Port          int
	PullPorts     []int
	ReplyPort     int
	HeartbeatPort int // 0: none

	HealthCheckInterval time.Duration // <= 0: nobody is expired
	WorkerTimeout       time.Duration

	NodeID           string
	DataDir          string
	PeerAddr         string
	PeerAdvertise    string
	AdvertiseURL     string
	AdvertiseHost    string
	Join             []string // REST URLs
	BootstrapExpect  int
	LogStore         string
	LogBytesSnapshot int64

	Hash       string
	HashSeeds  []string // this process's own first
	ChunkSizes []int    // chunk-size first

	SyncThreshold  float64
	SyncTimeout    time.Duration
	MaxSyncs       int
	WorkerDeadline time.Duration

	MaxBody   int64
	LogLevel  string
	LogFormat string
	TLSCert   string
	TLSKey    string
	TLSCA     string

	PeerTLSCert string
	PeerTLSKey  string
	PeerTLSCA   string
}

// buildConfig turns the merged values into a config and checks them together, so
// that one start shows every fault.
func buildConfig(s settings) (config, error) {
	m := s.value
	c := config{
		Host:                m["host"].(string),
		Port:                m["port"].(int),
		HealthCheckInterval: time.Duration(m["health-check-interval"].(int)) * time.Second,
		WorkerTimeout:       time.Duration(m["lmcache-worker-timeout"].(int)) * time.Second,
		NodeID:              m["node-id"].(string),
		DataDir:             m["data-dir"].(string),
		PeerAddr:            m["peer-addr"].(string),
		PeerAdvertise:       m["peer-advertise"].(string),
		AdvertiseURL:        m["advertise-url"].(string),
		AdvertiseHost:       m["advertise-host"].(string),
		BootstrapExpect:     m["bootstrap-expect"].(int),
		LogStore:            m["log-store"].(string),
		LogBytesSnapshot:    int64(m["log-bytes-snapshot"].(int)),
		Hash:                m["hash"].(string),
		HashSeeds:           m["hash-seeds"].([]string),
		SyncThreshold:       m["full-sync-completion-threshold"].(float64),
		SyncTimeout:         m["full-sync-timeout"].(time.Duration),
		MaxSyncs:            m["max-syncs"].(int),
		WorkerDeadline:      m["worker-deadline"].(time.Duration),
		MaxBody:             int64(m["max-body"].(int)),
		LogLevel:            m["log-level"].(string),
		LogFormat:           m["log-format"].(string),
		TLSCert:             m["tls-cert"].(string),
		TLSKey:              m["tls-key"].(string),
		TLSCA:               m["tls-ca"].(string),
		PeerTLSCert:         m["peer-tls-cert"].(string),
		PeerTLSKey:          m["peer-tls-key"].(string),
		PeerTLSCA:           m["peer-tls-ca"].(string),
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	oldPort := m["monitor-port"].(int)
	if s.given["monitor-ports"] && !s.given["monitor-port"] {
		oldPort = 0 // a start line that names its ports wants no others bound
	}
	if err := c.setPorts(m["monitor-ports"].(string), oldPort); err != nil {
		faults = append(faults, err)
	}
	if c.Host == "*" || c.Host == "" {
		c.Host = "0.0.0.0"
	}
	if c.Port < 0 || c.Port > 65535 {
		fault("port is %d, want 0 to 65535", c.Port)
	}
	if n := m["health-check-interval"].(int); n != -1 && n < 1 || n > maxSeconds {
		fault("health-check-interval is %d, want -1 (off) or 1 to %d seconds", n, maxSeconds)
	}
	if n := m["lmcache-worker-timeout"].(int); n < 1 || n > maxSeconds {
		fault("lmcache-worker-timeout is %d, want 1 to %d seconds", n, maxSeconds)
	}
	if _, _, err := net.SplitHostPort(c.PeerAddr); err != nil {
		fault("peer-addr is %q, want host:port", c.PeerAddr)
	}
	if c.PeerAdvertise != "" {
		if _, _, err := net.SplitHostPort(c.PeerAdvertise); err != nil {
			fault("peer-advertise is %q, want host:port", c.PeerAdvertise)
		}
	}
	for _, text := range m["join"].([]string) {
		to, err := restURL(text)
		if err != nil {
			fault("join: %w", err)
		}
		c.Join = append(c.Join, to)
	}
	if c.AdvertiseURL != "" {
		to, err := restURL(c.AdvertiseURL)
		if err != nil {
			fault("advertise-url: %w", err)
		}
		c.AdvertiseURL = to
	}
	switch {
	case c.BootstrapExpect < 0 || c.BootstrapExpect > maxReplicas:
		fault("bootstrap-expect is %d, want 0 to %d replicas", c.BootstrapExpect, maxReplicas)
	case c.BootstrapExpect > 1 && len(c.Join) == 0:
		fault("bootstrap-expect is %d without join: where are the other replicas?", c.BootstrapExpect)
	}
	if c.LogStore != "bolt" && c.LogStore != "wal" {
		fault("log-store is %q, want bolt or wal", c.LogStore)
	}
	if s.hashSeed != "" {
		c.HashSeeds = append([]string{s.hashSeed}, c.HashSeeds...)
	}
	c.ChunkSizes = []int{m["chunk-size"].(int)}
	for _, text := range m["chunk-sizes"].([]string) {
		n, err := strconv.Atoi(text)
		if err != nil {
			fault("chunk-sizes names %q, want numbers of tokens such as 256,512", text)
		} else if !slices.Contains(c.ChunkSizes, n) {
			c.ChunkSizes = append(c.ChunkSizes, n)
		}
	}
	if _, err := c.finder(nil); err != nil {
		fault("hash, chunk-size or chunk-sizes: %w", err)
	}
	if c.SyncThreshold <= 0 || c.SyncThreshold > 1 {
		fault("full-sync-completion-threshold is %v, want above 0 and at most 1", c.SyncThreshold)
	}
	if c.SyncTimeout < time.Second {
		fault("full-sync-timeout is %s, want at least 1s", c.SyncTimeout)
	}
	if c.MaxSyncs < 1 {
		fault("max-syncs is %d, want at least 1", c.MaxSyncs)
	}
	if c.WorkerDeadline < 10*time.Millisecond || c.WorkerDeadline > 24*time.Hour {
		fault("worker-deadline is %s, want 10ms to 24h", c.WorkerDeadline)
	}
	if c.MaxBody < 1024 {
		fault("max-body is %d bytes, want at least 1024", c.MaxBody)
	}
	if c.LogBytesSnapshot < 1<<20 {
		fault("log-bytes-snapshot is %d, want at least %d bytes", c.LogBytesSnapshot, 1<<20)
	}
	if !oneOf(c.LogLevel, "trace", "debug", "info", "warn", "error") {
		fault("log-level is %q, want trace, debug, info, warn or error", c.LogLevel)
	}
	if !oneOf(c.LogFormat, "text", "json") {
		fault("log-format is %q, want text or json", c.LogFormat)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		fault("tls-cert and tls-key go together: %q, %q", c.TLSCert, c.TLSKey)
	}
	if c.TLSCA != "" && c.TLSCert == "" {
		fault("tls-ca is %q without tls-cert", c.TLSCA)
	}
	if none := c.PeerTLSCert == "" && c.PeerTLSKey == "" && c.PeerTLSCA == ""; !none && (c.PeerTLSCert == "" || c.PeerTLSKey == "" || c.PeerTLSCA == "") {
		fault("peer-tls-cert, peer-tls-key and peer-tls-ca go together: %q, %q, %q", c.PeerTLSCert, c.PeerTLSKey, c.PeerTLSCA)
	}
	return c, errors.Join(faults...)
}

// finder hashes prompts as the workers do.
func (c config) finder(log hclog.Logger) (*promptkeys.Finder, error) {
	return promptkeys.New(promptkeys.Options{Profile: c.Hash, Seeds: c.HashSeeds, ChunkSizes: c.ChunkSizes, Logger: log})
}

// maxReplicas is beyond any cluster: every replica more makes each commit slower.
const maxReplicas = 99

// restURL reads the address of a replica's REST. Without a scheme it is HTTP.
func restURL(text string) (string, error) {
	whole := text
	if !strings.Contains(text, "://") {
		whole = "http://" + text
	}
	u, err := url.Parse(whole)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		return "", fmt.Errorf("%q is no REST address, want a URL such as http://10.0.0.1:9000", text)
	}
	return strings.TrimRight(whole, "/"), nil
}

// defaultOldPort is where LMCache's controller took events before 0.3.12.
const defaultOldPort = 9001

// setPorts reads the worker ports. The JSON form needs pull and reply; LMCache
// falls back to the one old port when it is empty or null, and so do we, although
// workers since 0.3.12 cannot register there.
func (c *config) setPorts(ports string, old int) error {
	if old < 0 || old > 65535 {
		return fmt.Errorf("monitor-port is %d, want 0 to 65535", old)
	}
	if ports == "" || ports == "null" || ports == "{}" {
		if old == 0 {
			old = defaultOldPort
		}
		c.PullPorts = []int{old}
		return nil
	}
	var p map[string]int
	if err := json.Unmarshal([]byte(ports), &p); err != nil {
		return fmt.Errorf(`monitor-ports is %q, want JSON such as {"pull":8300,"reply":8400,"heartbeat":8082}: %w`, ports, err)
	}
	for _, name := range sortedKeys(p) {
		if !oneOf(name, "pull", "reply", "heartbeat") {
			return fmt.Errorf("monitor-ports names %q, want pull, reply and heartbeat", name)
		}
		if p[name] < 0 || p[name] > 65535 {
			return fmt.Errorf("monitor-ports: %s is %d, want 0 to 65535", name, p[name])
		}
	}
	for _, name := range []string{"pull", "reply"} {
		if _, ok := p[name]; !ok {
			return fmt.Errorf("monitor-ports is %q: %q is missing", ports, name)
		}
	}
	c.PullPorts, c.ReplyPort, c.HeartbeatPort = []int{p["pull"]}, p["reply"], p["heartbeat"]
	if old != 0 && old != p["pull"] {
		c.PullPorts = append(c.PullPorts, old)
	}
	return nil
}
