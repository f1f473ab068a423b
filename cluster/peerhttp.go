package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// maxPeerBody bounds a request's body where its path says nothing else.
	maxPeerBody = 64 << 10
	// peerBodyTimeout is how long a body may take to arrive, peerWriteTimeout how long
	// one write of an answer.
	peerBodyTimeout  = 10 * time.Second
	peerWriteTimeout = 10 * time.Second
	// peerHandlerLimit is how long a request of ours is worked at. The asker's own
	// deadline is sooner; when it goes, its connection does, and so does the work.
	peerHandlerLimit = 30 * time.Second
	// peerIdle is how long an idle connection is kept, by the server. The client gives
	// it up sooner, so that it does not send into a closing one.
	peerIdle = 2 * time.Minute

	// maxPeerRequests and maxPeerForwards bound the requests under way: our own, and
	// those for PeerHandlers, which may take as long as a worker does. They are apart
	// so that nothing of the log waits for an operator's command.
	maxPeerRequests = 64
	maxPeerForwards = 128
)

// peerHandler answers a request of another replica. Its error is the answer to it.
type peerHandler func(ctx context.Context, from Identity, body []byte) ([]byte, error)

type peerRoute struct {
	handle  peerHandler
	maxBody int
}

// peerServer answers requests on the peer port.
type peerServer struct {
	port   *peerPort
	log    hclog.Logger
	own    func() string // cluster id
	enter  func() error
	leave  func()
	routes map[string]peerRoute // by path, fixed before start
	rooms  map[string]http.Handler
	served sync.WaitGroup // Serve
	conns  intake         // net/http's goroutines, one per connection
	work   intake         // requests under way
	http   *http.Server

	slots, forwards chan struct{}
	busy            atomic.Uint64 // requests refused for there being too many
	requests        atomic.Uint64
}

func newPeerServer(port *peerPort, log hclog.Logger, rooms map[string]http.Handler) *peerServer {
	s := &peerServer{
		port: port, log: log.Named("peer"), rooms: rooms,
		routes: map[string]peerRoute{},
		slots:  make(chan struct{}, maxPeerRequests), forwards: make(chan struct{}, maxPeerForwards),
	}
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: helloTimeout,
		IdleTimeout:       peerIdle,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		BaseContext:       func(net.Listener) context.Context { return port.life },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, c.(*peerConn).from)
		},
	}
	s.http.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.conns.enter() // before close: Serve has ended by then
		case http.StateClosed:
			s.conns.leave()
		}
	}
	return s
}

type peerKey struct{}

// PeerIdentity says which replica a request to a handler of Options.PeerHandlers
// comes from, by what it said of itself (TLS or a private network make that true).
// Its URL is not known.
func PeerIdentity(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(peerKey{}).(Identity)
	return id, ok
}

// start serves until close. The routes are fixed by now.
func (s *peerServer) start() {
	s.served.Add(1)
	// Owner: the node, until close.
	go func() {
		defer s.served.Done()
		_ = s.http.Serve(httpConns{s.port.toHTTP}) // ends with the port
	}()
}

// close ends all requests, also those under way, and waits for them until ctx ends.
// The port is closed by now.
func (s *peerServer) close(ctx context.Context) error {
	s.work.close()
	_ = s.http.Close()
	s.served.Wait()
	s.conns.close()
	if left := s.work.wait(ctx); left > 0 {
		return fmt.Errorf("%d requests of other replicas do not end", left)
	}
	s.conns.wait(ctx) // after a body that was too large net/http lingers for half a second
	return nil
}

// httpConns sets what connections under net/http need.
type httpConns struct{ handover }

func (l httpConns) Accept() (net.Conn, error) {
	c, err := l.handover.Accept()
	if err == nil {
		c.(*peerConn).writeLimit = peerWriteTimeout
	}
	return c, err
}

// ServeHTTP answers one request.
func (s *peerServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.work.enter() {
		s.refuse(w, http.StatusServiceUnavailable, codeStopping, "this replica stops")
		return
	}
	defer s.work.leave()
	s.requests.Add(1)
	from, _ := PeerIdentity(r.Context())
	if own := s.own(); (from.ClusterID != own || own == "") && !(openPath(r.URL.Path) && (from.ClusterID == "" || own == "")) {
		// The other end may be of our cluster by now: it says so on its next connection.
		w.Header().Set("Connection", "close")
		s.refuse(w, http.StatusForbidden, codeCluster,
			fmt.Sprintf("this is node %q of cluster %q, and you are of cluster %q: %s is for replicas of one cluster", s.port.hooks.self().NodeID, own, from.ClusterID, r.URL.Path))
		return
	}
	if r.Body != http.NoBody {
		r.Body = &timedBody{ReadCloser: r.Body, control: http.NewResponseController(w)}
	}
	route, ok := s.routes[r.URL.Path]
	slots := s.slots
	var room http.Handler
	if !ok {
		if room = s.room(r.URL.Path); room == nil {
			s.refuse(w, http.StatusNotFound, codeNoPath, fmt.Sprintf("this replica answers nothing under %.200q: does it run the same release?", r.URL.Path))
			return
		}
		slots = s.forwards
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	default:
		s.busy.Add(1)
		s.fail(w, fmt.Errorf("%w: %d requests of other replicas are under way", ErrBusy, cap(slots)))
		return
	}
	if room != nil {
		room.ServeHTTP(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		s.refuse(w, http.StatusMethodNotAllowed, codeMethod, "want POST")
		return
	}
	s.answer(w, r, route, from)
}

func (s *peerServer) answer(w http.ResponseWriter, r *http.Request, route peerRoute, from Identity) {
	body, err := readBody(http.MaxBytesReader(w, r.Body, int64(route.maxBody)), r.ContentLength, route.maxBody)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		s.refuse(w, http.StatusRequestEntityTooLarge, codeBodyLimit, fmt.Sprintf("the body of %s is larger than %d bytes", r.URL.Path, route.maxBody))
		return
	case err != nil:
		s.refuse(w, http.StatusBadRequest, codeBody, fmt.Sprintf("the body of %s: %v", r.URL.Path, err))
		return
	}
	if err := s.enter(); err != nil {
		s.fail(w, err)
		return
	}
	defer s.leave()
	ctx, cancel := context.WithTimeout(r.Context(), peerHandlerLimit)
	defer cancel()
	answer, err := route.handle(ctx, from, body)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(answer) // who does not hear it has its own deadline
}

// readBody reads a body whose size is known into a slice that is no larger: an entry's
// is kept by raft.
func readBody(r io.Reader, size int64, most int) ([]byte, error) {
	if size < 0 || size > int64(most) {
		return io.ReadAll(r)
	}
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
}

func (s *peerServer) fail(w http.ResponseWriter, err error) {
	status, body := encodePeerError(err)
	s.write(w, status, body)
}

func (s *peerServer) refuse(w http.ResponseWriter, status int, code, detail string) {
	s.write(w, status, peerErrorBody{Code: code, Detail: detail})
}

func (s *peerServer) write(w http.ResponseWriter, status int, body peerErrorBody) {
	b, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("bug: %+v has no JSON: %v", body, err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// room is the handler of the longest prefix that fits.
func (s *peerServer) room(path string) http.Handler {
	var best string
	for prefix := range s.rooms {
		if strings.HasPrefix(path, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	return s.rooms[best]
}

// timedBody gives a body its time. The deadline goes with its end: later it would
// look to net/http as if the other end had hung up.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
	begun   bool
}

func (b *timedBody) Read(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		if err := b.control.SetReadDeadline(time.Now().Add(peerBodyTimeout)); err != nil {
			return 0, err
		}
	}
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		if err := b.control.SetReadDeadline(time.Time{}); err != nil {
			return n, err
		}
	}
	return n, err
}

// handlePeer sets what answers a path. Before start.
func (n *Node) handlePeer(path string, h peerHandler) { n.handlePeerSized(path, maxPeerBody, h) }

// handlePeerSized is handlePeer for bodies of another size.
func (n *Node) handlePeerSized(path string, maxBody int, h peerHandler) {
	if _, ok := n.server.routes[path]; ok {
		panic(fmt.Sprintf("bug: %s is answered twice", path))
	}
	n.server.routes[path] = peerRoute{h, maxBody}
}

// Paths that only replicas use.
const (
	pathJoin  = "/cluster/join"
	pathFound = "/cluster/found/" // and what is below
)

// openPath reports whether a path is for nodes that are in no cluster, too.
func openPath(path string) bool {
	return path == pathJoin || strings.HasPrefix(path, pathFound)
}

// peerPaths says what this node answers to others.
func (n *Node) peerPaths() {
	n.handlePeerSized(pathPropose, n.opts.MaxEntry, n.servePropose)
	n.handlePeer(pathReadIndex, n.serveReadIndex)
	n.handlePeer(pathCommit, n.serveCommit)
	n.membershipPaths()
}
