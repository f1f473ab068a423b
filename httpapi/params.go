package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kvctrl/kvctrl/cluster"
)

// maxTimeout is the longest wait that a client may ask for.
const maxTimeout = 10 * time.Minute

// query reads query parameters and gathers their faults. Unknown ones are ignored; of
// a repeated one the last counts, as in LMCache.
type query struct {
	values url.Values
	faults faults
}

func queryOf(r *http.Request) *query {
	q := &query{}
	if r.URL.RawQuery != "" {
		q.values = r.URL.Query()
	}
	return q
}

// get returns a parameter and whether it was given.
func (q *query) get(name string) (string, bool) {
	all := q.values[name]
	if len(all) == 0 {
		return "", false
	}
	return all[len(all)-1], true
}

func (q *query) fault(name, typ, msg string, ctx json.RawMessage) {
	f := fault{Type: typ, Loc: []any{"query", name}, Msg: msg, Ctx: ctx, Input: json.RawMessage("null")}
	if v, given := q.get(name); given {
		f.Input = asText([]byte(v))
	}
	q.faults = append(q.faults, f)
}

func (q *query) err() error {
	if len(q.faults) > 0 {
		return q.faults
	}
	return nil
}

// integer reads an integer parameter the way FastAPI does.
func (q *query) integer(name string) (v int64, given bool) {
	s, given := q.get(name)
	if !given {
		return 0, false
	}
	v, large, ok := intOfText(s)
	if !ok || large != nil {
		q.fault(name, "int_parsing", intParsing, nil)
	}
	return v, true
}

func (q *query) boolean(name string, def bool) bool {
	s, given := q.get(name)
	if !given {
		return def
	}
	b, ok := boolOf(s)
	if !ok {
		q.fault(name, "bool_parsing", "Input should be a valid boolean, unable to interpret input", nil)
	}
	return b
}

// duration reads 250ms, 2s, 1m30s, or a plain number of seconds.
func (q *query) duration(name string, most time.Duration) (d time.Duration, given bool) {
	s, given := q.get(name)
	if !given {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		d, err = time.ParseDuration(s + "s")
	}
	if err != nil || d < 0 || d > most {
		q.fault(name, "time_delta_parsing", fmt.Sprintf("Input should be a duration from 0 to %s, such as 250ms or 2s", most), nil)
		return 0, true
	}
	return d, true
}

// consistencies are the words of the parameter consistency.
var consistencies = []string{"stale", "bounded", "linearizable"}

// choice reads one of a few words the way pydantic does; empty when it is not given.
func (q *query) choice(name string, words []string) string {
	word, given := q.get(name)
	if given && !slices.Contains(words, word) {
		last := len(words) - 1
		expected := "'" + strings.Join(words[:last], "', '") + "' or '" + words[last] + "'"
		q.fault(name, "literal_error", "Input should be "+expected, ctxOf("expected", expected))
	}
	return word
}

// freshnessOf reads what a read asks for, and how long it will wait for it.
func (s *Server) freshnessOf(q *query) (read cluster.Read, wait time.Duration) {
	word := q.choice("consistency", consistencies)
	switch word {
	case "bounded":
		read.Consistency = cluster.Bounded
	case "linearizable":
		read.Consistency = cluster.Linearizable
	}
	bound, given := q.duration("max_staleness", 24*time.Hour)
	switch {
	case given && read.Consistency != cluster.Bounded && word != "":
		q.fault("max_staleness", "value_error", "max_staleness goes with consistency=bounded", nil)
	case given:
		read.Consistency, read.MaxStaleness = cluster.Bounded, bound
	case read.Consistency == cluster.Bounded:
		q.fault("max_staleness", "missing", "Field required", nil)
	}
	if v, given := q.integer("min_index"); given {
		if v < 0 {
			q.fault("min_index", "greater_than_equal", "Input should be greater than or equal to 0", ctxOf("ge", 0))
		}
		read.MinIndex = uint64(max(v, 0))
	}
	wait = s.opts.ReadWait
	if d, given := q.duration("timeout", maxTimeout); given {
		wait = d
	}
	return read, wait
}

// fresh waits for the freshness that the request's query asks for, and puts what was
// reached into the headers. It comes before the state is asked.
func (s *Server) fresh(w http.ResponseWriter, r *http.Request, q *query) error {
	_, err := s.freshAs(w, r, q)
	return err
}

// freshAs is fresh, and says what was reached.
func (s *Server) freshAs(w http.ResponseWriter, r *http.Request, q *query) (cluster.Freshness, error) {
	read, wait := s.freshnessOf(q)
	if err := q.err(); err != nil {
		return cluster.Freshness{}, err
	}
	ctx := r.Context()
	if read != (cluster.Read{}) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait)
		defer cancel()
	}
	got, err := s.opts.Node.Read(ctx, read)
	if err != nil {
		if r.Context().Err() == nil && errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, cluster.ErrStale) {
			err = fmt.Errorf("%w: %w", cluster.ErrStale, err)
		}
		return cluster.Freshness{}, err
	}
	setFreshness(w.Header(), got)
	return got, nil
}

// The headers that every answer has.
const (
	headerNode      = "X-Kvctrl-Node"
	headerRole      = "X-Kvctrl-Role"
	headerLeader    = "X-Kvctrl-Leader"
	headerIndex     = "X-Kvctrl-Index"
	headerStaleness = "X-Kvctrl-Staleness-Ms"
)

// setPlace says who answers, and until fresh knows better from how fresh a state.
func (s *Server) setPlace(h http.Header) {
	n := s.opts.Node
	role := "candidate"
	leader, known := n.Leader()
	switch {
	case n.IsLeader():
		role = "leader"
	case known:
		role = "follower"
	}
	h.Set(headerNode, n.NodeID())
	h.Set(headerRole, role)
	h.Set(headerLeader, leader.URL)
	got, err := n.Read(s.life, cluster.Read{})
	if err != nil {
		got = cluster.Freshness{Index: s.opts.State.Applied(), Staleness: cluster.StalenessUnknown}
	}
	setFreshness(h, got)
}

// setFreshness leaves the staleness empty when nothing is known of it.
func setFreshness(h http.Header, f cluster.Freshness) {
	h.Set(headerIndex, strconv.FormatUint(f.Index, 10))
	if f.Staleness == cluster.StalenessUnknown {
		h.Set(headerStaleness, "")
		return
	}
	// Rounded up: it is an upper bound.
	h.Set(headerStaleness, strconv.FormatInt(int64((f.Staleness+time.Millisecond-1)/time.Millisecond), 10))
}
