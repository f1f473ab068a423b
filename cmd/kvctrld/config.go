package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
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
	LogStore         string
	LogBytesSnapshot int64

	Hash      string
	ChunkSize int
	HashSeeds []string

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
}

// settings are the merged values by option name, and which of them some source gave.
type settings struct {
	value map[string]any
	given map[string]bool
}

// addFlags declares every option as a flag with its default. A flag may be written as
// any of its keys (--controller_port=9000), which is LMCache's other form of key=value.
func addFlags(fs *pflag.FlagSet) {
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if o, ok := optionNamed(name); ok {
			name = o.name
		}
		return pflag.NormalizedName(name)
	})
	fs.String("config", "", "YAML file with any of these settings as keys")
	for _, o := range serveOptions {
		switch d := o.def.(type) {
		case string:
			fs.String(o.name, d, o.usage)
		case int:
			fs.Int(o.name, d, o.usage)
		case float64:
			fs.Float64(o.name, d, o.usage)
		case time.Duration:
			fs.Var(&durationFlag{o, d}, o.name, o.usage)
		case []string:
			fs.StringSlice(o.name, d, o.usage)
		default:
			panic(fmt.Sprintf("bug: option %s has a default of type %T", o.name, o.def))
		}
	}
}

// durationFlag takes what the other sources take: 30s, or seconds as LMCache writes them.
type durationFlag struct {
	option option
	d      time.Duration
}

func (f *durationFlag) String() string { return f.d.String() }
func (f *durationFlag) Type() string   { return "duration" }
func (f *durationFlag) Set(text string) error {
	v, err := parse(f.option, text)
	if err == nil {
		f.d = v.(time.Duration)
	}
	return err
}

// loadConfig merges all sources, weakest first: defaults, YAML file, environment
// (LMCache's names, then ours), flags, key=value words. An unknown key anywhere is
// an error that names the nearest known one.
func loadConfig(fs *pflag.FlagSet, words, environ []string) (config, error) {
	merged := settings{value: map[string]any{}, given: map[string]bool{}}
	for _, o := range serveOptions {
		merged.value[o.name] = o.def
	}
	env := environment(environ)

	path, _ := fs.GetString("config")
	from := "--config"
	for _, name := range []string{"KVCTRL_CONFIG", "LMCACHE_CONTROLLER_CONFIG_FILE"} {
		if path == "" {
			path, from = env[name], name
		}
	}
	var faults []error
	if path != "" {
		faults = append(faults, mergeFile(merged, path, from)...)
	}
	faults = append(faults, mergeEnvironment(merged, env)...)
	fs.Visit(func(f *pflag.Flag) {
		if o, ok := optionNamed(f.Name); ok {
			faults = append(faults, set(merged, o, f.Value.String(), "--"+f.Name))
		}
	})
	for _, w := range words {
		faults = append(faults, mergeWord(merged, w))
	}
	if err := errors.Join(faults...); err != nil {
		return config{}, err
	}
	return buildConfig(merged)
}

func mergeFile(merged settings, path, from string) []error {
	k := koanf.New("\x00") // keys may hold dots; nothing nests
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return []error{fmt.Errorf("%s %q: %w", from, path, err)}
	}
	raw := k.Raw()
	var faults []error
	for _, key := range sortedKeys(raw) {
		o, ok := optionNamed(key)
		switch {
		case unread(key):
		case !ok:
			faults = append(faults, fmt.Errorf("%s: %w", path, unknownKey(key)))
		case raw[key] == nil: // an empty value leaves the default
		default:
			faults = append(faults, set(merged, o, text(raw[key]), path+": "+key))
		}
	}
	return faults
}

func mergeEnvironment(merged settings, env map[string]string) []error {
	var faults []error
	for _, prefix := range []string{"LMCACHE_CONTROLLER_", "KVCTRL_"} {
		for _, name := range sortedKeys(env) {
			key, ours := strings.CutPrefix(name, prefix)
			if !ours || clientVariable(name) {
				continue
			}
			o, ok := optionNamed(strings.ToLower(key))
			if !ok {
				faults = append(faults, fmt.Errorf("environment %s: %w", name, unknownKey(strings.ToLower(key))))
				continue
			}
			faults = append(faults, set(merged, o, env[name], "environment "+name))
		}
	}
	return faults
}

// clientVariable reports names that share our prefixes and are no setting of serve.
func clientVariable(name string) bool {
	switch name {
	case "KVCTRL_CONFIG", "KVCTRL_ADDR", "KVCTRL_TOKEN", "LMCACHE_CONTROLLER_CONFIG_FILE", "LMCACHE_CONTROLLER_EXTRA_CONFIG":
		return true
	case "LMCACHE_CONTROLLER_URL", "LMCACHE_CONTROLLER_PULL_URL", "LMCACHE_CONTROLLER_REPLY_URL":
		return true // where an engine finds its controller: on one machine they share the environment
	}
	return strings.HasPrefix(name, "KVCTRL_INTEROP_") || strings.HasPrefix(name, "KVCTRL_TEST_")
}

// mergeWord takes one of LMCache's trailing key=value words.
func mergeWord(merged settings, word string) error {
	key, value, ok := strings.Cut(strings.TrimPrefix(word, "--"), "=")
	if !ok {
		return fmt.Errorf("argument %q: want key=value", word)
	}
	if unread(key) {
		return nil
	}
	o, known := optionNamed(key)
	if !known {
		return fmt.Errorf("argument %q: %w", word, unknownKey(key))
	}
	return set(merged, o, value, "argument "+word)
}

// unread is a key of LMCache's that its controller takes and nobody reads.
func unread(key string) bool { return dashed(key) == "extra-config" }

// set reads a text as the option's type and stores it.
func set(merged settings, o option, value, from string) error {
	v, err := parse(o, value)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	merged.value[o.name], merged.given[o.name] = v, true
	return nil
}

func parse(o option, value string) (any, error) {
	value = strings.TrimSpace(value)
	switch o.def.(type) {
	case string:
		return value, nil
	case int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return nil, fmt.Errorf("%s is %q, want a whole number", o.name, value)
		}
		return n, nil
	case float64:
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || f != f {
			return nil, fmt.Errorf("%s is %q, want a number", o.name, value)
		}
		return f, nil
	case time.Duration:
		if s, err := strconv.ParseFloat(value, 64); err == nil && s >= -maxSeconds && s <= maxSeconds { // LMCache writes seconds
			return time.Duration(s * float64(time.Second)), nil
		}
		d, err := time.ParseDuration(value)
		if err != nil {
			return nil, fmt.Errorf("%s is %q, want a duration such as 30s", o.name, value)
		}
		return d, nil
	case []string:
		var list []string
		for _, s := range strings.Split(strings.Trim(value, "[]"), ",") {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
		return list, nil
	}
	panic(fmt.Sprintf("bug: option %s has a default of type %T", o.name, o.def))
}

// maxSeconds is the largest time that a setting takes: beyond any use, and far from
// where a time.Duration ends.
const maxSeconds = 1_000_000_000

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
		LogStore:            m["log-store"].(string),
		LogBytesSnapshot:    int64(m["log-bytes-snapshot"].(int)),
		Hash:                m["hash"].(string),
		ChunkSize:           m["chunk-size"].(int),
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
	if c.LogStore != "bolt" && c.LogStore != "wal" {
		fault("log-store is %q, want bolt or wal", c.LogStore)
	}
	if c.ChunkSize < 1 || c.ChunkSize > 1<<20 {
		fault("chunk-size is %d, want 1 to %d tokens", c.ChunkSize, 1<<20)
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
	return c, errors.Join(faults...)
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

func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return env
}

// text gives a YAML value the form a flag would have.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var parts []string
		for _, p := range v {
			parts = append(parts, fmt.Sprint(p))
		}
		return strings.Join(parts, ",")
	case map[string]any:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(b)
	default:
		return fmt.Sprint(v)
	}
}

func unknownKey(key string) error {
	best, distance := "", 1<<30
	for _, o := range serveOptions {
		if d := editDistance(dashed(key), o.name); d < distance {
			best, distance = o.name, d
		}
	}
	return fmt.Errorf("unknown setting %q; the nearest is %q", key, best)
}

// editDistance is Levenshtein's, over bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

func dashed(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }

func oneOf(s string, choices ...string) bool {
	for _, c := range choices {
		if s == c {
			return true
		}
	}
	return false
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// osEnviron is the process environment; tests pass their own to loadConfig.
func osEnviron() []string { return os.Environ() }
