package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kvctrl/kvctrl/cluster"
)

func TestDiscovery(t *testing.T) {
	const me = `{"node_id":"n2","cluster_id":"c1","peer_addr":"10.0.0.2:9400","url":"http://10.0.0.2:9000","nodes":[]}`
	d, err := newDiscovery(config{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	got, err := d.ask(context.Background(), startReplica(t, 200, map[string]string{"/admin/status": me}).URL)
	if want := (cluster.Identity{NodeID: "n2", ClusterID: "c1", PeerAddr: "10.0.0.2:9400", URL: "http://10.0.0.2:9000"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, tt := range []struct {
		url, has string
	}{
		{startReplica(t, 200, map[string]string{"/admin/status": `{"node_id":""}`}).URL, errNameless.Error()},
		{startReplica(t, 200, map[string]string{"/admin/status": `<html>`}).URL, "no replica of kvctrl answers there"},
		{startReplica(t, 404, map[string]string{"/admin/status": `{"detail":"Not Found","code":"not_found"}`}).URL, "404"},
		{deadAddr(t), "connection refused"},
	} {
		if got, err := d.ask(context.Background(), tt.url); err == nil || !strings.Contains(err.Error(), tt.has) || !strings.Contains(err.Error(), tt.url) || got != (cluster.Identity{}) {
			t.Errorf("%s: %+v, %v; want %q", tt.url, got, err, tt.has)
		}
	}
}

// TestDiscovery_TLS: replicas that want certificates of their clients get this replica's.
func TestDiscovery_TLS(t *testing.T) {
	url, files := startTLS(t, `{"node_id":"n2"}`)
	for _, tt := range []struct {
		c  config
		ok bool
	}{{config{TLSCert: files.cert, TLSKey: files.key, TLSCA: files.ca}, true}, {config{}, false}} {
		d, err := newDiscovery(tt.c)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := d.ask(context.Background(), url); (err == nil) != tt.ok || tt.ok && got.NodeID != "n2" {
			t.Errorf("%+v: %+v, %v", tt.c, got, err)
		}
		d.close()
	}
	if _, err := newDiscovery(config{TLSCert: "/nonexistent", TLSKey: files.key}); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("without its certificate: %v", err)
	}
}

// TestOpeningNode: whoever asks before the log is open is told that there is no leader.
func TestOpeningNode(t *testing.T) {
	n := &openingNode{}
	ctx := context.Background()
	_, submitted := submitter{n}.Propose(ctx, nil)
	_, proposed := n.Propose(ctx, nil)
	_, asked := n.AskLeader(ctx, "/ingest/heard", nil)
	_, joined := n.Join(ctx, cluster.JoinRequest{})
	_, read := n.Read(ctx, cluster.Read{})
	body := &closing{Reader: strings.NewReader("x")}
	_, sent := n.LeaderTransport().RoundTrip(&http.Request{Body: body})
	for what, err := range map[string]error{"submit": submitted, "propose": proposed, "ask": asked, "join": joined, "read": read, "send": sent,
		"leave": n.Leave(ctx, "n", false), "transfer": n.Transfer(ctx, ""), "snapshot": n.Snapshot(ctx)} {
		if !errors.Is(err, cluster.ErrNoLeader) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if !body.closed {
		t.Error("the body of a request that was not sent stays open")
	}
	if n.IsLeader() || n.NodeID() != "" || n.Term() != 0 || n.Identity() != (cluster.Identity{}) || !errors.Is(n.Ready(), errOpening) {
		t.Error("a node that is not open is somebody")
	}
}

type closing struct {
	io.Reader
	closed bool
}

func (c *closing) Close() error { c.closed = true; return nil }

func TestAdvertisedURL(t *testing.T) {
	for _, tt := range []struct {
		c     config
		bound string
		want  string
	}{
		{config{PeerAddr: "127.0.0.1:9400"}, "[::]:9000", "http://127.0.0.1:9000"},
		{config{PeerAddr: "10.0.0.1:9400"}, "0.0.0.0:9000", "http://10.0.0.1:9000"},
		{config{PeerAddr: "0.0.0.0:9400", PeerAdvertise: "n1.kv:9400", TLSCert: "c"}, "0.0.0.0:9000", "https://n1.kv:9000"},
		{config{PeerAddr: "0.0.0.0:9400"}, "0.0.0.0:9000", "http://127.0.0.1:9000"},
		{config{PeerAddr: "10.0.0.1:9400"}, "10.1.0.1:9000", "http://10.1.0.1:9000"},
		{config{AdvertiseURL: "http://kv/1", PeerAddr: "10.0.0.1:9400"}, "0.0.0.0:9000", "http://kv/1"},
	} {
		if got := advertisedURL(tt.c, tt.bound); got != tt.want {
			t.Errorf("%+v on %s: %s, want %s", tt.c, tt.bound, got, tt.want)
		}
	}
}
