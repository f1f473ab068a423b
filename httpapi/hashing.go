package httpapi

import "github.com/kvctrl/kvctrl/internal/promptkeys"

// hashStatus is the status's part about hash profiles. It is of this replica since it
// began: each finds out for itself.
type hashStatus struct {
	Mode       string            `json:"mode"` // auto or fixed
	ChunkSize  int               `json:"chunk_size"`
	ChunkSizes []int             `json:"chunk_sizes"` // all that lookups try
	Candidates int               `json:"candidates"`
	Profiles   []hashProfileView `json:"profiles"`
}

type hashProfileView struct {
	Name      string   `json:"name"`
	ChunkSize int      `json:"chunk_size"`
	InUse     bool     `json:"in_use"`
	Hits      uint64   `json:"hits"`
	LastHit   int64    `json:"last_hit_us"` // 0: never
	Instances []string `json:"instances"`   // some
	Count     int      `json:"instance_count"`
}

func (s *Server) hashStatus() hashStatus {
	st := s.opts.Finder.Stats(s.opts.State.Registry())
	v := hashStatus{Mode: "fixed", ChunkSize: st.ChunkSizes[0], ChunkSizes: st.ChunkSizes, Candidates: st.Candidates, Profiles: []hashProfileView{}}
	if st.Auto {
		v.Mode = promptkeys.Auto
	}
	for _, p := range st.Profiles {
		v.Profiles = append(v.Profiles, hashProfileView{
			Name: p.Profile, ChunkSize: p.ChunkSize, InUse: p.InUse, Hits: p.Hits, LastHit: int64(p.LastHit),
			Instances: append([]string{}, p.Instances...), Count: p.Found,
		})
	}
	return v
}
