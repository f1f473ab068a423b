package main

import (
	"fmt"
	"io"
	"net/url"

	"github.com/spf13/cobra"
)

// diagnosis is what /diagnose says.
type diagnosis struct {
	Tokens   int `json:"tokens"`
	Profiles []struct {
		Profile    string `json:"profile"`
		ChunkSize  int    `json:"chunk_size"`
		FullChunks int    `json:"full_chunks"`
		HitChunks  int    `json:"hit_chunks"`
		Tried      bool   `json:"tried"`
		InUse      bool   `json:"in_use"`
		Instances  []struct {
			Instance string `json:"instance_id"`
			Location string `json:"location"`
			Tokens   int    `json:"tokens"`
			Suspect  bool   `json:"suspect"`
			Lossy    bool   `json:"lossy"`
		} `json:"instances"`
	} `json:"profiles"`
	Holders []struct {
		Instance  string `json:"instance_id"`
		Worker    int64  `json:"worker_id"`
		Location  string `json:"location"`
		Profile   string `json:"profile"`
		ChunkSize int    `json:"chunk_size"`
		Chunks    int    `json:"chunks"`
		Prefix    int    `json:"prefix_chunks"`
		First     int    `json:"first_chunk"`
	} `json:"holders"`
	Reasons []struct {
		Code   string `json:"code"`
		Detail string `json:"detail"`
		Advice string `json:"advice"`
	} `json:"reasons"`
}

func newDiagnose() *cobra.Command {
	var r remote
	var p promptArgs
	var instance, consistency string
	cmd := &cobra.Command{
		Use:   "diagnose --tokens 1,2,3 | 0..1023 | @FILE | -",
		Short: "why a lookup finds what it finds, and what to do",
		Long: `Explains what a lookup of a prompt finds: what each hash profile finds, who holds the
prompt's chunks, and the likely reasons of a miss with what to do, the likeliest first.

The prompt is given by its token ids, or as text that is turned into token ids by a vLLM
server (--tokenize-url) or by the model's tokenizer.json (--tokenizer). It must be the text
that the model gets: for a chat, after the chat template, and with --no-special-tokens.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tokens, err := p.read(cmd, &r)
			if err != nil {
				return err
			}
			body := map[string]any{"tokens": tokens}
			if instance != "" {
				body["instance_id"] = instance
			}
			query := url.Values{}
			if cmd.Flags().Changed("consistency") {
				query.Set("consistency", consistency)
			}
			answer, err := r.call(cmd, "POST", "/diagnose?"+query.Encode(), body)
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, printDiagnosis)
		},
	}
	r.flags(cmd)
	p.flags(cmd)
	cmd.Flags().StringVar(&instance, "instance", "", "why this instance does not hold it")
	cmd.Flags().StringVar(&consistency, "consistency", "stale", "stale, or linearizable")
	return cmd
}

// printDiagnosis tells the reasons first: they are what was asked for.
func printDiagnosis(w io.Writer, d diagnosis) {
	for i, r := range d.Reasons {
		row(w, fmt.Sprintf("%d. %s: %s", i+1, r.Code, r.Detail))
		row(w, "   "+r.Advice)
	}
	row(w)
	silent := 0
	head := false
	for _, p := range d.Profiles {
		if p.HitChunks == 0 && !p.InUse {
			silent++
			continue
		}
		if !head {
			row(w, "PROFILE", "CHUNK", "HELD", "LOOKUPS", "INSTANCE", "LOCATION", "TOKENS", "NOTE")
			head = true
		}
		held, lookups := fmt.Sprintf("%d of %d chunks", p.HitChunks, p.FullChunks), "do not try it"
		switch {
		case p.InUse:
			lookups = "use it"
		case p.Tried:
			lookups = "try it"
		}
		if len(p.Instances) == 0 {
			row(w, p.Profile, p.ChunkSize, held, lookups, "-", "-", 0, "")
		}
		for _, i := range p.Instances {
			note := ""
			switch {
			case i.Suspect:
				note = "silent"
			case i.Lossy:
				note = "events lost"
			}
			row(w, p.Profile, p.ChunkSize, held, lookups, i.Instance, i.Location, i.Tokens, note)
		}
	}
	switch silent {
	case 0:
	case 1:
		row(w, fmt.Sprintf("1 further profile finds nothing of the %d tokens", d.Tokens))
	default:
		row(w, fmt.Sprintf("%d further profiles find nothing of the %d tokens", silent, d.Tokens))
	}
	if len(d.Holders) == 0 {
		return
	}
	row(w)
	row(w, "INSTANCE", "WORKER", "LOCATION", "PROFILE", "CHUNK", "FROM THE FIRST", "IN ALL", "FIRST")
	for _, h := range d.Holders {
		row(w, h.Instance, h.Worker, h.Location, h.Profile, h.ChunkSize, h.Prefix, h.Chunks, h.First+1)
	}
}
