package httpapi

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

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
		p.restrict(reg)
		began := time.Now()
		hits, by := s.hash.find(reg, p)
		if len(hits) > 0 {
			s.noteProfile(by, p)
		}
		s.metrics.lookup(time.Since(began), hits)
		s.writeHits(w, hits, len(p.tokens))
		return nil
	})
}

// lookupPrompt reads the body, the usual one in one pass.
func lookupPrompt(body []byte, slice *[]int64) (p prompt, err error) {
	var usual bool
	if *slice, usual = scanTokens(body, *slice); usual {
		return prompt{tokens: *slice}, nil
	}
	vs, err := bodyLookup.parse(body)
	if err != nil {
		return p, err
	}
	return prompt{tokens: vs[lookupTokens].ints, beyond: vs[lookupTokens].beyond(), instance: vs[lookupInstance].str}, nil
}

// restrict lets instance_id stand only when that instance is registered. LMCache does
// not know the field and its clients send it (its documentation's own example does):
// an instance that is not there must not turn their hit into a miss.
func (p *prompt) restrict(reg *registry.Registry) {
	if p.instance != "" && len(reg.Workers(p.instance)) == 0 {
		p.instance = ""
	}
}

// noteProfile remembers what has hit, once it is evidence: a full chunk.
func (s *Server) noteProfile(c *candidate, p prompt) {
	h := s.hash
	if len(h.candidates) == 1 || len(p.tokens) < h.chunkSize || h.current.Load() == c && h.proven.Load() {
		return
	}
	if h.remember(c) {
		s.log.Info("hash profile found", "profile", c.profile.String(), "chunk_size", h.chunkSize)
	}
}

// writeHits answers {"event_id":…,"layout_info":{instance:[location,tokens]}}, in the
// order of hits: LMCache's clients take the first.
func (s *Server) writeHits(w http.ResponseWriter, hits []registry.Hit, tokens int) {
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
		b = strconv.AppendInt(b, int64(min(hit.Chunks*s.hash.chunkSize, tokens)), 10)
		b = append(b, ']')
	}
	b = append(b, "}}"...)
	s.write(w, http.StatusOK, "application/json", b)
}
