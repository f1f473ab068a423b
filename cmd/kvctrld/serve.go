package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/kvctrl/kvctrl/cluster"
	"github.com/kvctrl/kvctrl/executor"
	"github.com/kvctrl/kvctrl/fsm"
	"github.com/kvctrl/kvctrl/httpapi"
	"github.com/kvctrl/kvctrl/ingest"
	"github.com/kvctrl/kvctrl/internal/promptkeys"
	"github.com/kvctrl/kvctrl/registry"
)

// stopWithin bounds the last part of a clean stop, once leadership is handed over, clients
// are answered and what workers sent is in the log.
const stopWithin = 15 * time.Second

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve [key=value ...]",
		Short: "run a replica in the foreground",
		Long: "Runs a replica until SIGTERM or SIGINT. Every flag is also a key of the YAML file (--config) and an environment\n" +
			"variable (KVCTRL_ and the name in capitals). LMCache's own flags, key=value words, keys and LMCACHE_CONTROLLER_\n" +
			"variables are accepted unchanged. With an empty data directory and no other flag this is a cluster of one.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, words []string) error {
			c, err := loadConfig(cmd.Flags(), words, osEnviron())
			if err != nil {
				return configError(err)
			}
			signal.Ignore(syscall.SIGPIPE) // whoever reads our log may end before we do
			return exitOf(serve(cmd.Context(), c, cmd.ErrOrStderr()))
		},
	}
	addFlags(cmd.Flags())
	return cmd
}

// serve runs a replica until ctx ends or a part of it fails.
//
// The order is the point of this function. Addresses are bound before the data
// directory is touched, so that a port in use changes nothing. REST answers while a
// long log is read back, and while a cluster forms, which asks it; workers that connect
// early are held. Stopping begins with a hand-over of leadership while everything still
// works, so that the others hardly miss a leader (handOver); then clients and workers,
// whose last words go to the new leader, then the log.
func serve(ctx context.Context, c config, stderr io.Writer) error {
	log := hclog.New(&hclog.LoggerOptions{
		Name: "kvctrld", Level: hclog.LevelFromString(c.LogLevel), JSONFormat: c.LogFormat == "json", Output: stderr, TimeFormat: "2006-01-02T15:04:05.000Z0700",
	})
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	state := fsm.New(fsm.Options{
		Registry: registry.Options{SyncThreshold: c.SyncThreshold},
		Logger:   log.Named("fsm"),
		OnFatal:  fail,
	})
	node := &openingNode{}
	finder, err := c.finder(log.Named("hash"))
	if err != nil {
		return configError(err)
	}

	exec, err := executor.New(executor.Options{Log: node, Registry: state.Registry, KeysOf: keysOf(finder), Deadline: c.WorkerDeadline, Logger: log.Named("executor")})
	if err != nil {
		return err
	}
	var session registry.SessionID
	rand.Read(session[:])
	ingestOptions := ingest.Options{
		Log: submitter{node}, Leader: node, State: state, Session: session,
		Host: c.Host, PullPorts: zmqPorts(c.PullPorts), ReplyPort: c.ReplyPort, HeartbeatPort: c.HeartbeatPort,
		AdvertiseHost: c.AdvertiseHost, MaxSyncs: c.MaxSyncs, Logger: log.Named("ingest"),
	}
	if err := ingestOptions.Validate(); err != nil {
		return configError(err)
	}
	discover, err := newDiscovery(c)
	if err != nil {
		return configError(err)
	}
	defer discover.close()
	workers := ingest.New(ingestOptions)
	if err := workers.Open(); err != nil {
		return errors.Join(err, workers.Close())
	}
	defer workers.Close()

	rest, err := httpapi.New(httpapi.Options{
		Addr: net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), TLSCert: c.TLSCert, TLSKey: c.TLSKey, TLSClientCA: c.TLSCA,
		Node: node, State: state, Executor: exec, Ingest: workers,
		Finder:  finder,
		MaxBody: c.MaxBody, MaxConns: maxConns(), WorkerDeadline: c.WorkerDeadline, Environ: osEnviron(), Version: version, Logger: log.Named("http"),
	})
	if err != nil {
		return configError(err)
	}
	if err := rest.Open(); err != nil {
		if !cannotListen(err) { // the certificate, then
			err = configError(err)
		}
		return err
	}
	defer rest.Close(context.Background())

	// Owner: this function, which waits for both below. They end with roomsCtx, or when
	// one of them fails.
	roomsCtx, endRooms := context.WithCancel(context.WithoutCancel(ctx))
	defer endRooms()
	rooms, roomsCtx := errgroup.WithContext(roomsCtx)
	rooms.Go(func() error { return workers.Serve(roomsCtx) })
	rooms.Go(func() error { return rest.Serve(roomsCtx) })

	started := time.Now()
	opening, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(roomsCtx, cancel)()
	opened, err := cluster.Open(opening, cluster.Options{
		DataDir: c.DataDir, NodeID: c.NodeID, PeerAddr: c.PeerAddr, PeerAdvertise: c.PeerAdvertise, URL: advertisedURL(c, rest.Addr()),
		PeerTLS:      cluster.PeerTLS{Cert: c.PeerTLSCert, Key: c.PeerTLSKey, CA: c.PeerTLSCA},
		PeerHandlers: map[string]http.Handler{"/rest/": rest.PeerHandler(), "/ingest/": workers.PeerHandler()},
		Join:         c.Join, BootstrapExpect: c.BootstrapExpect, Discover: discover.ask,
		FSM: state, Members: func() []registry.Member { return state.Registry().Members() },
		LogStore: c.LogStore, SnapshotBytes: c.LogBytesSnapshot,
		LeaderTasks: []cluster.LeaderTask{
			{Name: "executor", Run: exec.Lead},
			ingest.LeaseTask(ingest.LeaseOptions{
				Log: node, State: state, Heard: workers.TakeHeard, PutBack: workers.PutBackHeard,
				HealthCheckInterval: c.HealthCheckInterval, WorkerTimeout: c.WorkerTimeout, SyncTimeout: c.SyncTimeout, Logger: log.Named("lease"),
			}),
		},
		Logger: log, OnFatal: fail,
	})
	if err != nil {
		endRooms()
		return errors.Join(err, rooms.Wait())
	}
	node.set(opened)
	log.Info("serving", "node", opened.NodeID(), "rest", rest.Addr(), "pull", workers.Ports().Pull, "reply", workers.Ports().Reply,
		"heartbeat", workers.Ports().Heartbeat, "peer", opened.PeerAddr(), "data", c.DataDir, "took", time.Since(started).Round(time.Millisecond))

	select {
	case <-ctx.Done(): // asked to stop, or the node cannot go on
	case <-roomsCtx.Done(): // a room has failed
	}
	log.Info("stopping")
	broken := context.Cause(ctx)
	if errors.Is(broken, context.Canceled) {
		broken = nil
	}
	stop := func() error {
		limit, cancel := context.WithTimeout(context.Background(), stopWithin)
		defer cancel()
		return opened.Close(limit)
	}
	if broken != nil { // the others wait for this one to be gone
		err = stop()
		endRooms()
		return errors.Join(broken, rooms.Wait(), err)
	}
	handOver(opened, rest, log)
	endRooms()
	if err = errors.Join(rooms.Wait(), stop()); err == nil {
		log.Info("stopped")
	}
	return err
}

// keysOf is the finder as the executor asks it.
func keysOf(f *promptkeys.Finder) executor.KeysOf {
	return func(r *registry.Registry, instance string, tokens []int64) (func(int) (registry.Key, bool), bool) {
		keys, ok := f.KeysOf(r, instance, tokens)
		return keys.Last, ok
	}
}

// submitter is the log as the workers' side sees it: what it proposes goes to the leader,
// wherever that is.
type submitter struct{ node *openingNode }

func (s submitter) Propose(ctx context.Context, entry []byte) (cluster.Applied, error) {
	return s.node.Submit(ctx, entry)
}

// zmqPorts gives ports the form that ingest takes, where 0 on the command line asks
// for any free port.
func zmqPorts(ports []int) []int {
	out := make([]int, len(ports))
	for i, p := range ports {
		if p == 0 {
			p = ingest.AnyPort
		}
		out[i] = p
	}
	return out
}

// maxConns leaves at least half of the files that the process may open to the log, the
// snapshots and the workers.
func maxConns() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return httpapi.DefaultMaxConns
	}
	return int(max(min(files.Cur/2, httpapi.DefaultMaxConns), 1))
}

// advertisedURL is where others reach this replica's REST. One that listens on every
// address is reached by the name that its peers dial.
func advertisedURL(c config, bound string) string {
	if c.AdvertiseURL != "" {
		return c.AdvertiseURL
	}
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(bound)
	if err != nil {
		return fmt.Sprintf("%s://%s", scheme, bound)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if peer, _, err := net.SplitHostPort(cmp.Or(c.PeerAdvertise, c.PeerAddr)); err == nil && peer != "" {
			if ip := net.ParseIP(peer); ip == nil || !ip.IsUnspecified() {
				host = peer
			}
		}
	}
	return fmt.Sprintf("%s://%s", scheme, net.JoinHostPort(host, port))
}
