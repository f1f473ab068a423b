package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The hello: what both ends of a connection to the peer port say before anything
// else travels on it. The dialer says who it is and whom it wants; the acceptor
// says who it is, or why not. Each is one frame:
//
//	length   2 bytes, big endian, of what follows; at most maxHello
//	version  1 byte
//	fields   each a length of 2 bytes, big endian, and that many bytes
//
// A dialer's fields: cluster id, node id, peer address, wanted node id. An
// acceptor's: refusal code ("" = ok), node id, cluster id, words. More fields than
// these are a later version's and are skipped. docs/formats.md has the bytes.
const (
	helloVersion = 1
	maxHello     = 1024
	maxWords     = 512
	// maxPeerAddr bounds a peer address, so that every hello fits.
	maxPeerAddr = 512
)

// hello is what a dialer says.
type hello struct {
	ClusterID string // "" = in none yet
	NodeID    string
	PeerAddr  string
	Wanted    string // node id, "" = whoever is there
}

// welcome is what an acceptor answers.
type welcome struct {
	Code      string // of a refusal, "" = ok
	NodeID    string
	ClusterID string
	Words     string // of a refusal
}

// Codes of refusals.
const (
	helloMalformed    = "malformed"     // no hello at all
	helloVersionOther = "version"       // of a build that this one does not know
	helloWrongNode    = "wrong-node"    // the address belongs to another node by now
	helloSameNode     = "same-node"     // two replicas with one node id
	helloWrongCluster = "wrong-cluster" // of another cluster
	helloNoCluster    = "no-cluster"    // raft from who is in no cluster
	helloNotExpected  = "not-expected"  // raft for who has not agreed to be in that cluster
	helloFull         = "full"          // too many connections
)

// helloRefused is an acceptor's refusal, at either end.
type helloRefused struct{ welcome }

func (e *helloRefused) Error() string {
	return fmt.Sprintf("refused by node %q: %s", e.NodeID, e.Words)
}

func refuse(code, format string, args ...any) *helloRefused {
	words := fmt.Sprintf(format, args...)
	return &helloRefused{welcome{Code: code, Words: words[:min(len(words), maxWords)]}}
}

func appendHelloFrame(fields ...string) []byte {
	b := []byte{0, 0, helloVersion}
	for _, f := range fields {
		b = binary.BigEndian.AppendUint16(b, uint16(len(f)))
		b = append(b, f...)
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

func (h hello) frame() []byte { return appendHelloFrame(h.ClusterID, h.NodeID, h.PeerAddr, h.Wanted) }

func (w welcome) frame() []byte { return appendHelloFrame(w.Code, w.NodeID, w.ClusterID, w.Words) }

var errHelloSize = fmt.Errorf("hello of no or more than %d bytes", maxHello)

// readHelloFrame reads one frame. The caller sets the deadline.
func readHelloFrame(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint16(head[:]))
	if size == 0 || size > maxHello {
		return nil, errHelloSize
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, nil
}

var errHelloCut = errors.New("hello is cut short")

// helloFields takes a frame apart into n fields.
func helloFields(frame []byte, n int) ([]string, error) {
	frame = frame[1:] // the version
	fields := make([]string, n)
	for i := range fields {
		if len(frame) < 2 {
			return nil, errHelloCut
		}
		size := int(binary.BigEndian.Uint16(frame))
		if frame = frame[2:]; len(frame) < size {
			return nil, errHelloCut
		}
		fields[i], frame = string(frame[:size]), frame[size:]
	}
	return fields, nil
}

// parseHello reads what a dialer said.
func parseHello(frame []byte) (hello, *helloRefused) {
	if v := frame[0]; v != helloVersion {
		return hello{}, refuse(helloVersionOther, "the peer protocol is version %d there and %d here: run the same release on all replicas", v, helloVersion)
	}
	f, err := helloFields(frame, 4)
	if err != nil {
		return hello{}, refuse(helloMalformed, "%v", err)
	}
	h := hello{ClusterID: f[0], NodeID: f[1], PeerAddr: f[2], Wanted: f[3]}
	switch {
	case h.ClusterID != "" && !nodeIDPattern.MatchString(h.ClusterID):
		return hello{}, refuse(helloMalformed, "cluster id %.64q is none", h.ClusterID)
	case !nodeIDPattern.MatchString(h.NodeID):
		return hello{}, refuse(helloMalformed, "node id %.64q is none", h.NodeID)
	case h.Wanted != "" && !nodeIDPattern.MatchString(h.Wanted):
		return hello{}, refuse(helloMalformed, "wanted node id %.64q is none", h.Wanted)
	case h.PeerAddr == "" || len(h.PeerAddr) > maxPeerAddr:
		return hello{}, refuse(helloMalformed, "peer address of %d bytes, want 1 to %d", len(h.PeerAddr), maxPeerAddr)
	}
	return h, nil
}

// parseWelcome reads what an acceptor answered.
func parseWelcome(frame []byte) (welcome, error) {
	// The version is not looked at: these four fields stay, so that a refusal for the
	// sake of the version can be read.
	f, err := helloFields(frame, 4)
	if err != nil {
		return welcome{}, err
	}
	w := welcome{Code: f[0], NodeID: f[1], ClusterID: f[2], Words: f[3]}
	if !nodeIDPattern.MatchString(w.NodeID) || w.ClusterID != "" && !nodeIDPattern.MatchString(w.ClusterID) {
		return welcome{}, fmt.Errorf("answer from node %.64q of cluster %.64q: these are no ids", w.NodeID, w.ClusterID)
	}
	return w, nil
}
