package httpapi

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
)

// diagnosis answers /diagnose.
type diagnosis struct {
	Tokens   int          `json:"tokens"`
	Profiles []profileRow `json:"profiles"`
	Holders  []holderRow  `json:"holders"`
	Reasons  []reason     `json:"reasons"`
}

// profileRow is what one profile finds, at one chunk size.
type profileRow struct {
	Profile    string        `json:"profile"`
	ChunkSize  int           `json:"chunk_size"`
	FullChunks int           `json:"full_chunks"`
	HitChunks  int           `json:"hit_chunks"`
	Tried      bool          `json:"tried"`
	InUse      bool          `json:"in_use"`
	Instances  []instanceRow `json:"instances"`
}

// instanceRow is an instance that a profile finds.
type instanceRow struct {
	Instance string `json:"instance_id"`
	Location string `json:"location"`
	Tokens   int    `json:"tokens"`
	Suspect  bool   `json:"suspect"`
	Lossy    bool   `json:"lossy"`
}

// holderRow is a worker's location that holds some of the prompt's chunks.
type holderRow struct {
	Instance  string `json:"instance_id"`
	Worker    int64  `json:"worker_id"`
	Location  string `json:"location"`
	Profile   string `json:"profile"`
	ChunkSize int    `json:"chunk_size"`
	Chunks    int    `json:"chunks"`
	Prefix    int    `json:"prefix_chunks"`
	First     int    `json:"first_chunk"`
}

// maxDiagnoses bounds the diagnoses under way: it is
// for people.
const maxDiagnoses = 2

// maxHolders bounds the holders in an answer: the longest prefixes.
const maxHolders = 256

// diagnose explains what a lookup of the same prompt finds. It is for people: it takes a
// thousand times as long as a lookup does, in a large fleet more, so only maxDiagnoses are
// made beside each other.
func (s *Server) diagnose(w http.ResponseWriter, r *http.Request) error {
	return s.parsed(w, r, bodyDiagnose, func(vs values) error {
		select {
		case s.diagnosing <- struct{}{}:
			defer func() { <-s.diagnosing }()
		default:
			return &problem{code: codeBusy, detail: fmt.Sprintf("%d diagnoses are under way, the most there may be: try again", maxDiagnoses)}
		}
		fresh, err := s.freshAs(w, r, queryOf(r))
		if err != nil {
			return err
		}
		e := s.evidenceOf(s.opts.State.Registry(), promptkeys.Prompt{
			Tokens: vs[diagnoseTokens].ints, Beyond: vs[diagnoseTokens].beyond(), Instance: vs[diagnoseInstance].str,
		})
		e.staleness = fresh.Staleness
		return s.writeJSON(w, http.StatusOK, diagnosisOf(e))
	})
}

func diagnosisOf(e *evidence) diagnosis {
	d := diagnosis{Tokens: e.tokens, Profiles: []profileRow{}, Holders: []holderRow{}, Reasons: explain(e)}
	for i := range e.profiles {
		p := &e.profiles[i]
		row := profileRow{Profile: p.name, ChunkSize: p.chunkSize, FullChunks: p.fullChunks, Tried: p.tried, InUse: p.inUse, Instances: []instanceRow{}}
		for _, h := range p.hits {
			row.HitChunks = max(row.HitChunks, h.Chunks)
			row.Instances = append(row.Instances, instanceRow{h.Instance, h.Location, p.tokensHeld(h.Chunks, e.tokens), h.Suspect, h.Lossy})
		}
		d.Profiles = append(d.Profiles, row)
		for _, st := range p.streams {
			d.Holders = append(d.Holders, holderRow{st.Instance, st.Worker, st.Location, p.name, p.chunkSize, st.held, st.prefix, st.first})
		}
	}
	slices.SortStableFunc(d.Holders, func(a, b holderRow) int { return cmp.Compare(b.Prefix*b.ChunkSize, a.Prefix*a.ChunkSize) })
	d.Holders = d.Holders[:min(len(d.Holders), maxHolders)]
	return d
}
