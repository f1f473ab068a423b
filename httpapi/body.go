package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// bodyPool keeps buffers for bodies of up to keepBody bytes; larger ones are rare and
// not worth holding on to.
var bodyPool = sync.Pool{New: func() any { return new(bytes.Buffer) }}

const keepBody = 1 << 20

// withBody reads the request's body, within the limits of one and of all, and calls f
// with it. Ownership: f must not keep the bytes.
func (s *Server) withBody(w http.ResponseWriter, r *http.Request, f func(body []byte) error) error {
	if r.ContentLength > s.opts.MaxBody {
		return s.bodyTooLarge()
	}
	in := &countedBody{from: http.MaxBytesReader(w, r.Body, s.opts.MaxBody), all: &s.bodies, most: s.opts.MaxBodies}
	defer in.release()
	buf := bodyPool.Get().(*bytes.Buffer)
	defer func() {
		if buf.Cap() <= keepBody {
			bodyPool.Put(buf)
		}
	}()
	buf.Reset()
	_, err := buf.ReadFrom(in)
	var tooLarge *http.MaxBytesError
	var full *problem
	switch {
	case errors.As(err, &full):
		return full
	case errors.As(err, &tooLarge):
		return s.bodyTooLarge()
	case err != nil:
		return &problem{code: codeBadBody, detail: fmt.Sprintf("the body did not come to its end: %v", unwrapEOF(err)), closing: true}
	}
	// The deadline (track) is for the body alone: left standing it would cancel a command
	// that takes longer, because net/http watches the connection meanwhile.
	s.setReadDeadline(w, time.Time{})
	return f(buf.Bytes())
}

// countedBody counts a body's bytes against the bound of all bodies: as they come and
// not as they are announced, so that clients that announce much and send nothing keep
// nobody out.
type countedBody struct {
	from io.Reader
	all  *atomic.Int64
	most int64
	n    int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.from.Read(p)
	b.n += int64(n)
	if total := b.all.Add(int64(n)); n > 0 && total > b.most {
		return n, &problem{code: codeBusy, closing: true, detail: fmt.Sprintf("requests of %d bytes are under way, the limit is %d: try again", total, b.most)}
	}
	return n, err
}

// release gives the place back: the body is not needed any more.
func (b *countedBody) release() { b.all.Add(-b.n) }

// setReadDeadline bounds what still comes from the client. A writer that has no deadline
// has no network either.
func (s *Server) setReadDeadline(w http.ResponseWriter, t time.Time) {
	_ = http.NewResponseController(w).SetReadDeadline(t)
}

func unwrapEOF(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (s *Server) bodyTooLarge() error {
	return &problem{code: codeTooLarge, detail: fmt.Sprintf("the body is larger than %d bytes (--max-body)", s.opts.MaxBody)}
}

// parsed reads a body by its schema and calls f with the fields.
func (s *Server) parsed(w http.ResponseWriter, r *http.Request, sc schema, f func(values) error) error {
	return s.withBody(w, r, func(body []byte) error {
		if err := contentType(r, body); err != nil {
			return err
		}
		vs, err := sc.parse(body)
		if err != nil {
			return err
		}
		return f(vs)
	})
}

// contentType refuses a body of another type than JSON with the 422 that FastAPI gives
// it. A missing type is taken as JSON, as older FastAPI did: LMCache does not pin it.
func contentType(r *http.Request, body []byte) error {
	given := r.Header.Get("Content-Type")
	if given == "" || given == "application/json" || len(body) == 0 {
		return nil
	}
	media, _, err := mime.ParseMediaType(given)
	if media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json") {
		if err == nil || errors.Is(err, mime.ErrInvalidMediaParameter) {
			return nil
		}
	}
	return faults{notAnObject(asText(body))}
}
