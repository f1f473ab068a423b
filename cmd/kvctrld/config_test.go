package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

func load(t *testing.T, args, words, environ []string) (config, error) {
	t.Helper()
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	addFlags(fs)
	if err := fs.Parse(args); err != nil {
		return config{}, err
	}
	return loadConfig(fs, words, environ)
}

func mustLoad(t *testing.T, args, words, environ []string) config {
	t.Helper()
	c, err := load(t, args, words, environ)
	if err != nil {
		t.Fatalf("load %q %q %q: %v", args, words, environ, err)
	}
	return c
}

func TestConfig_DefaultsAreLMCaches(t *testing.T) {
	c := mustLoad(t, nil, nil, nil)
	if c.Host != "0.0.0.0" || c.Port != 9000 || c.ReplyPort != 8400 || c.HeartbeatPort != 8082 {
		t.Errorf("host %q port %d reply %d heartbeat %d, want 0.0.0.0 9000 8400 8082", c.Host, c.Port, c.ReplyPort, c.HeartbeatPort)
	}
	if diff := cmp.Diff([]int{8300, 9001}, c.PullPorts); diff != "" {
		t.Errorf("pull ports (-want +got):\n%s", diff)
	}
	if c.HealthCheckInterval > 0 || c.WorkerTimeout != 300*time.Second {
		t.Errorf("health check %s, timeout %s, want off and 300s", c.HealthCheckInterval, c.WorkerTimeout)
	}
}

func TestConfig_LMCachesStartLine(t *testing.T) {
	c := mustLoad(t, []string{"--host", "127.0.0.1", "--port", "9100", "--monitor-ports", `{"pull":1,"reply":2}`,
		"--health-check-interval", "7", "--lmcache-worker-timeout", "20"}, nil, nil)
	if diff := cmp.Diff([]int{1}, c.PullPorts); diff != "" {
		t.Errorf("pull ports (-want +got):\n%s", diff)
	}
	if c.ReplyPort != 2 || c.HeartbeatPort != 0 || c.Port != 9100 || c.HealthCheckInterval != 7*time.Second || c.WorkerTimeout != 20*time.Second {
		t.Errorf("got %+v", c)
	}
}

// LMCache's extras may be written as flags, and every key as LMCache names it.
func TestConfig_ExtrasAsFlags(t *testing.T) {
	want := mustLoad(t, nil, []string{"controller_port=9100", "health_check_interval=7", "full_sync_timeout_s=60"}, nil)
	if want.Port != 9100 || want.HealthCheckInterval != 7*time.Second || want.SyncTimeout != time.Minute {
		t.Fatalf("as words: %+v", want)
	}
	for _, args := range [][]string{
		{"--controller_port=9100", "--health_check_interval=7", "--full_sync_timeout_s=60"},
		{"--controller_port", "9100", "--health-check-interval", "7", "--full-sync-timeout", "1m"},
	} {
		if diff := cmp.Diff(want, mustLoad(t, args, []string{"extra_config={}"}, nil)); diff != "" {
			t.Errorf("%q (-word +flag):\n%s", args, diff)
		}
	}
}

// The order of sources is the interface's: flag over environment over file, and
// LMCache's trailing words over all, as there.
func TestConfig_Precedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("controller_port: 1\nmax-syncs: 11\nlog_level: warn\ncontroller_monitor_ports: {pull: 5, reply: 6}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"LMCACHE_CONTROLLER_CONTROLLER_PORT=2", "KVCTRL_MAX_SYNCS=12", "KVCTRL_ADDR=http://x"}
	for _, tt := range []struct {
		name  string
		args  []string
		words []string
		env   []string
		port  int
		syncs int
	}{
		{"file", []string{"--config", file}, nil, nil, 1, 11},
		{"environment over file", []string{"--config", file}, nil, env, 2, 12},
		{"flag over environment", []string{"--config", file, "--port", "3"}, nil, env, 3, 12},
		{"word over flag", []string{"--config", file, "--port", "3"}, []string{"controller_port=4", "max_syncs=14"}, env, 4, 14},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := mustLoad(t, tt.args, tt.words, tt.env)
			if c.Port != tt.port || c.MaxSyncs != tt.syncs {
				t.Errorf("port %d, max-syncs %d, want %d, %d", c.Port, c.MaxSyncs, tt.port, tt.syncs)
			}
			if c.LogLevel != "warn" || c.ReplyPort != 6 {
				t.Errorf("log level %q, reply port %d, want warn and 6 from the file", c.LogLevel, c.ReplyPort)
			}
		})
	}
}

func TestConfig_Refusals(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("max-sincs: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken.yaml")
	if err := os.WriteFile(broken, []byte("a: [1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		args  []string
		words []string
		env   []string
		want  string
	}{
		{"unknown key in the file", []string{"--config", bad}, nil, nil, `unknown setting "max-sincs"; the nearest is "max-syncs"`},
		{"broken file", []string{"--config", broken}, nil, nil, "broken.yaml"},
		{"absent file", []string{"--config", filepath.Join(dir, "none")}, nil, nil, "none"},
		{"unknown variable", nil, nil, []string{"KVCTRL_DATADIR=x"}, `unknown setting "datadir"; the nearest is "data-dir"`},
		{"unknown word", nil, []string{"prot=1"}, nil, `unknown setting "prot"; the nearest is "port"`},
		{"word without =", nil, []string{"port"}, nil, "want key=value"},
		{"no number", nil, []string{"port=x"}, nil, `port is "x", want a whole number`},
		{"port too high", []string{"--port", "70000"}, nil, nil, "port is 70000, want 0 to 65535"},
		{"ports not JSON", []string{"--monitor-ports", "x"}, nil, nil, "monitor-ports"},
		{"reply missing", []string{"--monitor-ports", `{"pull":1}`}, nil, nil, `"reply" is missing`},
		{"unknown port", []string{"--monitor-ports", `{"pull":1,"reply":2,"hart":3}`}, nil, nil, `names "hart"`},
		{"port a word", []string{"--monitor-ports", `{"pull":1,"reply":"x"}`}, nil, nil, "monitor-ports"},
		{"interval 0", []string{"--health-check-interval", "0"}, nil, nil, "health-check-interval is 0"},
		{"timeout 0", []string{"--lmcache-worker-timeout", "0"}, nil, nil, "lmcache-worker-timeout"},
		{"peer address", []string{"--peer-addr", "x"}, nil, nil, `peer-addr is "x", want host:port`},
		{"log store", []string{"--log-store", "rocks"}, nil, nil, `log-store is "rocks", want bolt or wal`},
		{"chunk size", []string{"--chunk-size", "0"}, nil, nil, "chunk size 0: want 1 to"},
		{"chunk sizes", []string{"--chunk-sizes", "512,x"}, nil, nil, `chunk-sizes names "x", want numbers`},
		{"chunk sizes of a fixed profile", []string{"--chunk-sizes", "512", "--hash", "builtin@0"}, nil, nil, "2 chunk sizes with a fixed hash profile"},
		{"hash profile", []string{"--hash", "builtin"}, nil, nil, `hash profile "builtin": no root`},
		{"threshold", []string{"--full-sync-completion-threshold", "1.5"}, nil, nil, "full-sync-completion-threshold is 1.5"},
		{"syncs", []string{"--max-syncs", "0"}, nil, nil, "max-syncs is 0"},
		{"deadline", []string{"--worker-deadline", "1ms"}, nil, nil, "worker-deadline is 1ms"},
		{"deadline beyond sense", []string{"--worker-deadline", "2500000h"}, nil, nil, "worker-deadline is 2500000h0m0s, want 10ms to 24h"},
		{"deadline without end", nil, []string{"worker-deadline=inf"}, nil, `worker-deadline is "inf", want a duration`},
		{"seconds that overflow", []string{"--lmcache-worker-timeout", "18446744074"}, nil, nil, "lmcache-worker-timeout is 18446744074, want 1 to"},
		{"interval that overflows", []string{"--health-check-interval", "18446744074"}, nil, nil, "health-check-interval is 18446744074"},
		{"body", []string{"--max-body", "1"}, nil, nil, "max-body is 1"},
		{"level", []string{"--log-level", "loud"}, nil, nil, `log-level is "loud"`},
		{"format", []string{"--log-format", "xml"}, nil, nil, `log-format is "xml"`},
		{"join without an address", []string{"--join", "http://"}, nil, nil, `join: "http://" is no REST address`},
		{"join with a query", []string{"--join", "http://a:1,http://b:2/?x"}, nil, nil, `join: "http://b:2/?x" is no REST address`},
		{"expect without join", []string{"--bootstrap-expect", "3"}, nil, nil, "bootstrap-expect is 3 without join"},
		{"expect below 0", []string{"--join", "a:1", "--bootstrap-expect", "-1"}, nil, nil, "bootstrap-expect is -1"},
		{"a misspelt flag of forming", nil, []string{"boostrap-expect=3"}, nil, `the nearest is "bootstrap-expect"`},
		{"advertised URL", []string{"--advertise-url", "ftp://a"}, nil, nil, `advertise-url: "ftp://a"`},
		{"peer key alone", []string{"--peer-tls-key", "k"}, nil, nil, `peer-tls-cert, peer-tls-key and peer-tls-ca go together: "", "k", ""`},
		{"key without certificate", []string{"--tls-key", "k"}, nil, nil, "tls-cert and tls-key go together"},
		{"CA alone", []string{"--tls-ca", "k"}, nil, nil, "without tls-cert"},
		{"unknown flag", []string{"--nope"}, nil, nil, "nope"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.args, tt.words, tt.env)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// TestConfig_EnginesEnvironment: what an engine on the same machine has in its
// environment is no setting of ours, although it begins as ours do.
func TestConfig_EnginesEnvironment(t *testing.T) {
	mustLoad(t, nil, nil, []string{"LMCACHE_CONTROLLER_PULL_URL=h:8300", "LMCACHE_CONTROLLER_REPLY_URL=h:8400", "LMCACHE_CONTROLLER_URL=h:9001", "LMCACHE_ENABLE_CONTROLLER=true"})
}

// A Service named kvctrl gives every pod beside it these variables.
func TestConfig_KubernetesServiceLinks(t *testing.T) {
	c := mustLoad(t, nil, nil, []string{
		"KVCTRL_SERVICE_HOST=10.0.0.1", "KVCTRL_SERVICE_PORT=9000", "KVCTRL_SERVICE_PORT_REST=9000", "KVCTRL_PORT=tcp://10.0.0.1:9000",
		"KVCTRL_PORT_9000_TCP=tcp://10.0.0.1:9000", "KVCTRL_PORT_9000_TCP_PROTO=tcp", "KVCTRL_PORT_9000_TCP_PORT=9000", "KVCTRL_PORT_9000_TCP_ADDR=10.0.0.1",
	})
	if diff := cmp.Diff(mustLoad(t, nil, nil, nil), c); diff != "" {
		t.Errorf("they changed something:\n%s", diff)
	}
	if c := mustLoad(t, nil, nil, []string{"KVCTRL_PORT=9001"}); c.Port != 9001 {
		t.Errorf("KVCTRL_PORT=9001 gave port %d", c.Port)
	}
	if _, err := load(t, nil, nil, []string{"KVCTRL_SERVICE=x"}); err == nil {
		t.Error("KVCTRL_SERVICE was taken")
	}
}

func TestConfig_AllFaultsAtOnce(t *testing.T) {
	_, err := load(t, []string{"--port", "-1", "--max-syncs", "0"}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "port is -1") || !strings.Contains(err.Error(), "max-syncs is 0") {
		t.Fatalf("error %v, want both faults", err)
	}
}

func TestConfig_EveryOptionFromEverySource(t *testing.T) {
	sample := map[string]string{"monitor-ports": `{"pull":1,"reply":2}`, "peer-addr": "h:1", "peer-advertise": "h:1", "log-store": "wal",
		"log-level": "debug", "log-format": "json", "full-sync-completion-threshold": "0.5", "health-check-interval": "3", "bootstrap-expect": "0", "hash": "builtin@0", "chunk-sizes": "512"}
	for _, o := range serveOptions {
		v, ok := sample[o.name]
		if !ok {
			switch o.def.(type) {
			case int:
				v = "5000000"
				if strings.HasSuffix(o.name, "port") || o.name == "chunk-size" {
					v = "5000"
				}
			case time.Duration:
				v = "77s"
			default:
				v = "x"
			}
		}
		if strings.Contains(o.name, "tls-") { // these only go together
			continue
		}
		t.Run(o.name, func(t *testing.T) {
			byFlag := mustLoad(t, []string{"--" + o.name, v}, nil, nil)
			byEnv := mustLoad(t, nil, nil, []string{"KVCTRL_" + strings.ToUpper(strings.ReplaceAll(o.name, "-", "_")) + "=" + v})
			byWord := mustLoad(t, nil, []string{o.name + "=" + v}, nil)
			if diff := cmp.Diff(byFlag, byEnv); diff != "" {
				t.Errorf("environment differs from flag:\n%s", diff)
			}
			if diff := cmp.Diff(byFlag, byWord); diff != "" {
				t.Errorf("word differs from flag:\n%s", diff)
			}
			if cmp.Equal(byFlag, mustLoad(t, nil, nil, nil)) {
				t.Errorf("--%s %s changes nothing", o.name, v)
			}
		})
	}
}

// TestConfig_Hashing: what this process has in its own environment is tried before the
// seeds that are named, and --chunk-size before other sizes.
func TestConfig_Hashing(t *testing.T) {
	c := mustLoad(t, []string{"--hash-seeds", "a,9", "--chunk-sizes", "512,256,16"}, []string{"chunk_size=128"}, []string{"PYTHONHASHSEED=77"})
	if diff := cmp.Diff([]string{"77", "a", "9"}, c.HashSeeds); diff != "" {
		t.Errorf("seeds (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{128, 512, 256, 16}, c.ChunkSizes); diff != "" {
		t.Errorf("chunk sizes (-want +got):\n%s", diff)
	}
	if c := mustLoad(t, nil, nil, []string{"PYTHONHASHSEED="}); len(c.HashSeeds) != 0 || len(c.ChunkSizes) != 1 || c.ChunkSizes[0] != 256 {
		t.Errorf("without any: %q, %v", c.HashSeeds, c.ChunkSizes)
	}
}

func TestConfig_TLS(t *testing.T) {
	c := mustLoad(t, []string{"--tls-cert", "a", "--tls-key", "b", "--tls-ca", "c", "--peer-tls-cert", "d"}, []string{"peer_tls_key=e"}, []string{"KVCTRL_PEER_TLS_CA=f"})
	if got := []string{c.TLSCert, c.TLSKey, c.TLSCA, c.PeerTLSCert, c.PeerTLSKey, c.PeerTLSCA}; !cmp.Equal(got, []string{"a", "b", "c", "d", "e", "f"}) {
		t.Errorf("got %q", got)
	}
}

// TestConfig_Join: the same list in every source and form.
func TestConfig_Join(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("join: [a:9000, 'https://b:9001/']\nbootstrap_expect: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []string{"http://a:9000", "https://b:9001"}
	for _, c := range []config{
		mustLoad(t, []string{"--config", file}, nil, nil),
		mustLoad(t, []string{"--join", "http://a:9000,https://b:9001", "--bootstrap-expect=3"}, nil, nil),
		mustLoad(t, nil, []string{"join=a:9000, https://b:9001"}, []string{"KVCTRL_BOOTSTRAP_EXPECT=3"}),
		mustLoad(t, nil, nil, []string{"KVCTRL_JOIN=http://a:9000/,https://b:9001", "KVCTRL_BOOTSTRAP_EXPECT=3"}),
	} {
		if diff := cmp.Diff(want, c.Join); diff != "" || c.BootstrapExpect != 3 {
			t.Errorf("expect %d, join (-want +got):\n%s", c.BootstrapExpect, diff)
		}
	}
	if c := mustLoad(t, nil, nil, nil); len(c.Join) != 0 || c.BootstrapExpect != 1 {
		t.Errorf("by default %+v", c)
	}
}
