package httpapi

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"runtime/debug"
	"time"
)

// series are a route's metrics.
type series interface {
	done(method string, status int, took time.Duration)
}

// handler answers a request, or returns why it could not and has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// asked is what the context of a request knows of it.
type asked struct {
	route string // its pattern, never what the client wrote
	peer  bool   // another replica asks, on the peer port
}

type askedKey struct{}

func askedOf(r *http.Request) asked {
	a, _ := r.Context().Value(askedKey{}).(asked)
	return a
}

// track makes an http.Handler for clients of a handler, counted and timed under the
// route's name.
func (s *Server) track(name string, h handler) http.Handler {
	return s.wrap(asked{route: name}, s.metrics.http.route(name), h)
}

// wrap makes an http.Handler of a handler, with the headers of every answer, errors put
// into words and panics caught.
func (s *Server) wrap(a asked, series series, h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		rec := &recorder{ResponseWriter: w, timeout: s.opts.WriteTimeout}
		if a.peer { // the deadlines of its connections are the peer port's
			rec.timeout = 0
		}
		defer func() { series.done(r.Method, cmp.Or(rec.status, http.StatusOK), time.Since(began)) }()
		r = r.WithContext(context.WithValue(r.Context(), askedKey{}, a))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		s.setPlace(w.Header())
		if !s.requests.enter() {
			s.writeProblem(rec, r, &problem{code: codeStopping, detail: "this replica is stopping"})
			return
		}
		defer s.requests.leave()
		defer s.caught(rec, r)
		if r.ContentLength != 0 { // also for a handler that reads none: net/http then does
			s.setReadDeadline(w, time.Now().Add(s.opts.BodyTimeout))
		}
		if err := h(rec, r); err != nil {
			s.writeProblem(rec, r, err)
		}
	})
}

// caught turns a panic of a handler into a 500. It must be deferred directly.
func (s *Server) caught(w *recorder, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	s.metrics.http.panics.Inc()
	s.log.Error("panic in a handler", "route", askedOf(r).route, "panic", p, "stack", string(debug.Stack()))
	if w.status == 0 {
		s.writeProblem(w, r, &problem{code: codeInternal, detail: "a fault of the controller; its log has the details"})
	}
}

// recorder notes the status of an answer, and bounds the time that the client takes to
// receive it: one that does not is cut off.
type recorder struct {
	http.ResponseWriter
	timeout time.Duration
	status  int // 0: nothing sent yet
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		if w.timeout > 0 {
			_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.timeout)) // not every writer has one
		}
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
