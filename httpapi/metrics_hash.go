package httpapi

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kvctrl/kvctrl/internal/promptkeys"
)

// hashMetrics are about the hash profiles of lookups. Their labels are names and sizes
// of the finder's candidates, which are fixed at the start; there are series of those
// alone that have hit, or are in use.
func hashMetrics() []metric {
	each := func(name, help string, kind prometheus.ValueType, v func(p *promptkeys.ProfileStats) float64) metric {
		return metric{name: "kvctrl_hash_profile_" + name, help: help, kind: kind, labels: []string{"profile", "chunk_size"},
			values: func(s *sample, emit func(float64, ...string)) {
				for i := range s.hash.Profiles {
					p := &s.hash.Profiles[i]
					emit(v(p), p.Profile, strconv.Itoa(p.ChunkSize))
				}
			}}
	}
	return []metric{
		each("in_use", "Whether lookups begin with the profile: it is the fixed one, or has hit of late.", gauge, func(p *promptkeys.ProfileStats) float64 { return flag(p.InUse) }),
		each("hits_total", "Lookups that found something under the profile.", counter, func(p *promptkeys.ProfileStats) float64 { return float64(p.Hits) }),
		each("last_hit_timestamp_seconds", "When a lookup last found something under the profile; 0 is never.", gauge, func(p *promptkeys.ProfileStats) float64 { return float64(p.LastHit) / 1e6 }),
		each("instances", "Registered instances that were last found under the profile.", gauge, func(p *promptkeys.ProfileStats) float64 { return float64(p.Found) }),
		one("kvctrl_hash_profiles_found_total", "How often auto took a profile in use.", counter, func(s *sample) float64 { return float64(s.hash.Found) }),
		one("kvctrl_hash_candidates", "Hash profiles, each at each chunk size, that lookups may try.", gauge, func(s *sample) float64 { return float64(s.hash.Candidates) }),
		{name: "kvctrl_hash_probes_total", help: "Lookups that tried the profiles not in use, by whether one of them hit.", kind: counter, labels: []string{"outcome"},
			values: func(s *sample, emit func(float64, ...string)) {
				emit(float64(s.hash.ProbesHit), "hit")
				emit(float64(s.hash.ProbesMiss), "miss")
			}},
	}
}
