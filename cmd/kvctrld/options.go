package main

import "time"

// This file is the one list of serve's settings. Each row is a flag, a key of the
// YAML file and an environment variable (KVCTRL_ and the name in capitals, with
// underscores); where LMCache's controller has the setting too, its own key is
// accepted in the same places.

// option is one setting. The type of def decides how texts are read: string, int,
// float64, bool, time.Duration, []string (comma separated).
type option struct {
	name    string
	def     any
	lmcache string // LMCache's config key, also LMCACHE_CONTROLLER_<KEY>
	usage   string
}

var serveOptions = []option{
	{"host", "0.0.0.0", "controller_host", "address that REST and the worker sockets listen on"},
	{"port", 9000, "controller_port", "REST port"},
	{"monitor-ports", `{"pull":8300,"reply":8400,"heartbeat":8082}`, "controller_monitor_ports", "worker ports as JSON; without heartbeat no worker is asked for heartbeats"},
	{"monitor-port", defaultOldPort, "", "second PULL port, for workers set up before LMCache 0.3.12; 0 is none"},
	{"health-check-interval", -1, "health_check_interval", "seconds between looks for workers that have gone silent; -1 expires nobody"},
	{"lmcache-worker-timeout", 300, "lmcache_worker_timeout", "seconds of silence after which such a look expires a worker"},

	{"node-id", "", "", "who this replica is, whatever its address; made and kept in the data directory on the first start"},
	{"data-dir", "kvctrl-data", "", "log, snapshots and identity"},
	{"peer-addr", "127.0.0.1:9400", "", "where replicas talk to each other"},
	{"peer-advertise", "", "", "address that other replicas dial (default: peer-addr)"},
	{"advertise-url", "", "", "this replica's REST URL as others reach it (default: from host and port)"},
	{"advertise-host", "", "", "name that workers are given for heartbeats (default: the host a worker reached)"},
	{"join", []string{}, "", "REST URLs of replicas, comma separated: join their cluster; the same list on every node, itself included, is fine"},
	{"bootstrap-expect", 1, "", "with join: form a new cluster once that many replicas see each other and none has one yet; 0 only waits to be added"},
	{"log-store", "bolt", "", "bolt or wal"},
	{"log-bytes-snapshot", 256 << 20, "", "bytes of log after which a snapshot is taken even when entries are few"},

	{"hash", "auto", "", "chunk-hash profile of lookups: a name such as builtin@0 or sha256_cbor@seed=0, or auto"},
	{"chunk-size", 256, "", "tokens in a chunk"},
	{"chunk-sizes", []string{}, "", "further chunk sizes that auto tries, comma separated; each makes a miss dearer, the larger the more"},
	{"hash-seeds", []string{}, "", "further PYTHONHASHSEED texts that auto tries, comma separated, after that of kvctrld's own environment"},

	{"full-sync-completion-threshold", 0.8, "full_sync_completion_threshold", "a worker in a full sync may store again when its data is in; else, after 30s, when this share of those that sync with it are done"},
	{"full-sync-timeout", 300 * time.Second, "full_sync_timeout_s", "a full sync that takes longer is given up"},
	{"max-syncs", 4, "", "workers asked to full-sync at the same time"},
	{"worker-deadline", 30 * time.Second, "", "longest wait for a worker's answer to a command"},

	{"max-body", 32 << 20, "", "largest REST body in bytes"},
	{"log-level", "info", "", "trace, debug, info, warn or error"},
	{"log-format", "text", "", "text or json"},
	{"tls-cert", "", "", "certificate file: REST over TLS"},
	{"tls-key", "", "", "key file of tls-cert"},
	{"tls-ca", "", "", "CA file: clients must show a certificate of it"},
	{"peer-tls-cert", "", "", "certificate file: mutual TLS between replicas, with peer-tls-key and peer-tls-ca"},
	{"peer-tls-key", "", "", "key file of peer-tls-cert"},
	{"peer-tls-ca", "", "", "CA file that signs the replicas' certificates"},
}

// optionNamed returns the option that a key names: its own name, with dashes or
// underscores, or LMCache's key for it.
func optionNamed(key string) (option, bool) {
	k := dashed(key)
	for _, o := range serveOptions {
		if k == o.name || (o.lmcache != "" && k == dashed(o.lmcache)) {
			return o, true
		}
	}
	return option{}, false
}
