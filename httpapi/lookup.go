package httpapi

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
	"github.com/kvctrl/kvctrl/registry"
)

// tokenPool keeps token slices of up to keepTokens.
var tokenPool = sync.Pool{New: func() any { return new([]int64) }}

const keepTokens = 1 << 18

// lookup answers which instances hold the beginning of a prompt.
func (s *Server) lookup(w http.ResponseWriter, r *http.Request) error {
	return s.withBody(w, r, func(body []byte) error {
		if err := contentType(r, body); err != nil {
			return err
		}
		slice := tokenPool.Get().(*[]int64)
		defer func() {
			if cap(*slice) <= keepTokens {
				tokenPool.Put(slice)
			}
		}()
		p, err := lookupPrompt(body, slice)
		if err != nil {
			return err
		}
		// Only now: a body may take its time.
		if err := s.fresh(w, r, queryOf(r)); err != nil {
			return err
		}
		reg := s.opts.State.Registry()
		restrict(&p, reg)
		began := time.Now()
		found := s.opts.Finder.Find(reg, p)
		s.metrics.lookup(time.Since(began), found.Hits)
		if len(found.Hits) == 0 {
			w.Header().Set(headerMiss, s.misses.code(reg, p, found.First, s.opts.Now()))
		}
		s.writeHits(w, found.Hits)
		return nil
	})
}

// lookupPrompt reads the body, the usual one in one pass.
func lookupPrompt(body []byte, slice *[]int64) (p promptkeys.Prompt, err error) {
	var usual bool
	if *slice, usual = scanTokens(body, *slice); usual {
		return promptkeys.Prompt{Tokens: *slice}, nil
	}
	vs, err := bodyLookup.parse(body)
	if err != nil {
		return p, err
	}
	return promptkeys.Prompt{Tokens: vs[lookupTokens].ints, Beyond: vs[lookupTokens].beyond(), Instance: vs[lookupInstance].str}, nil
}

// restrict lets instance_id stand only when that instance is registered. LMCache does
// not know the field and its clients send it (its documentation's own example does):
// an instance that is not there must not turn their hit into a miss.
func restrict(p *promptkeys.Prompt, reg *registry.Registry) {
	if p.Instance != "" && !reg.Registered(p.Instance) {
		p.Instance = ""
	}
}

// writeHits answers {"event_id":…,"layout_info":{instance:[location,tokens]}}, in the
// order of hits: LMCache's clients take the first.
func (s *Server) writeHits(w http.ResponseWriter, hits []promptkeys.Hit) {
	b := make([]byte, 0, 96+64*len(hits))
	b = append(b, `{"event_id":"Lookup`...)
	b = append(b, uuid.NewString()...)
	b = append(b, `","layout_info":{`...)
	for i, hit := range hits {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, hit.Instance)
		b = append(b, ":["...)
		b = appendString(b, hit.Location)
		b = append(b, ',')
		b = strconv.AppendInt(b, int64(hit.Tokens), 10)
		b = append(b, ']')
	}
	b = append(b, "}}"...)
	s.write(w, http.StatusOK, "application/json", b)
}
