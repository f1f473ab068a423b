package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// newReads returns the commands that ask and change nothing.
func newReads() []*cobra.Command {
	return []*cobra.Command{newLookup(), newHealth(), newCheckFinish(), newWorkers(), newInstances(), newEvents(), newDiagnose(), newSnapshot(), newDigest()}
}

// hit is one entry of a lookup's layout_info, in the order of the answer: longest
// first.
type hit struct {
	instance string
	location string
	tokens   int64
}

// hits decodes layout_info without losing its order, which a map would.
type hits []hit

func (h *hits) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("layout_info is no object")
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var place struct {
			location string
			tokens   int64
		}
		if err := d.Decode(&[]any{&place.location, &place.tokens}); err != nil {
			return err
		}
		*h = append(*h, hit{fmt.Sprint(name), place.location, place.tokens})
	}
	return nil
}

func newLookup() *cobra.Command {
	var r remote
	var tokens, instance, consistency string
	var staleness time.Duration
	cmd := &cobra.Command{
		Use:   "lookup --tokens 1,2,3 | 0..1023 | @FILE | -",
		Short: "which instances hold the beginning of a prompt",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := readTokens(tokens, cmd.InOrStdin())
			if err != nil {
				return &exitError{code: 2, err: err}
			}
			body := map[string]any{"tokens": t}
			if instance != "" {
				body["instance_id"] = instance
			}
			query := url.Values{} // what goes with what is the server's to say
			if cmd.Flags().Changed("consistency") {
				query.Set("consistency", consistency)
			}
			if cmd.Flags().Changed("max-staleness") {
				query.Set("max_staleness", staleness.String())
			}
			answer, err := r.call(cmd, "POST", "/lookup?"+query.Encode(), body)
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, func(w io.Writer, v struct {
				Layout hits `json:"layout_info"`
			}) {
				if len(v.Layout) == 0 {
					row(w, "no instance holds the beginning of this prompt")
					return
				}
				row(w, "INSTANCE", "LOCATION", "TOKENS")
				for _, h := range v.Layout {
					row(w, h.instance, h.location, h.tokens)
				}
			})
		},
	}
	r.flags(cmd)
	cmd.Flags().StringVar(&tokens, "tokens", "", "the prompt's token ids")
	cmd.Flags().StringVar(&instance, "instance", "", "answer for this instance only")
	cmd.Flags().StringVar(&consistency, "consistency", "stale", "stale, bounded (with --max-staleness) or linearizable")
	cmd.Flags().DurationVar(&staleness, "max-staleness", 0, "oldest state to answer from, such as 250ms; means --consistency bounded")
	must(cmd.MarkFlagRequired("tokens"))
	return cmd
}

func newHealth() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "health INSTANCE",
		Short: "ask every worker of an instance for its self-check",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := r.call(cmd, "POST", "/health", map[string]any{"instance_id": args[0]})
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, func(w io.Writer, v struct {
				Codes map[int64]int64 `json:"error_codes"`
			}) {
				if len(v.Codes) == 0 {
					row(w, fmt.Sprintf("instance %q is not known", args[0]))
					return
				}
				row(w, "WORKER", "CODE")
				for _, k := range slices.Sorted(maps.Keys(v.Codes)) {
					row(w, k, v.Codes[k])
				}
			})
		},
	}
	r.flags(cmd)
	return cmd
}

func newCheckFinish() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "check-finish EVENT",
		Short: "where a command stands",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := r.call(cmd, "POST", "/check_finish", map[string]any{"event_id": args[0]})
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, func(w io.Writer, v struct {
				Status string `json:"status"`
			}) {
				row(w, v.Status)
			})
		},
	}
	r.flags(cmd)
	return cmd
}

func newWorkers() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "workers [INSTANCE]",
		Short: "registered workers",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/controller/workers"
			if len(args) == 1 {
				path += "?instance_id=" + url.QueryEscape(args[0])
			}
			answer, err := r.call(cmd, "GET", path, nil)
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, func(w io.Writer, v struct {
				Workers []struct {
					Instance string  `json:"instance_id"`
					Worker   int64   `json:"worker_id"`
					IP       string  `json:"ip"`
					Port     int64   `json:"port"`
					Peer     *string `json:"peer_init_url"`
					Since    float64 `json:"registration_time"`
					Keys     int64   `json:"key_count"`
				} `json:"workers"`
			}) {
				row(w, "INSTANCE", "WORKER", "ADDRESS", "PEER", "REGISTERED", "KEYS")
				for _, x := range v.Workers {
					peer := "-"
					if x.Peer != nil {
						peer = *x.Peer
					}
					row(w, x.Instance, x.Worker, fmt.Sprintf("%s:%d", x.IP, x.Port), peer, clock(int64(x.Since*1e6)), x.Keys)
				}
			})
		},
	}
	r.flags(cmd)
	return cmd
}

func newInstances() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "instances",
		Short: "instances, workers and locations, with liveness and losses",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := r.call(cmd, "GET", "/instances", nil)
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, func(w io.Writer, v struct {
				Instances []struct {
					Instance string `json:"instance_id"`
					Workers  []struct {
						Worker    int64  `json:"worker_id"`
						Liveness  string `json:"liveness"`
						Sync      string `json:"sync_state"`
						Failures  int    `json:"sync_failures"`
						Locations []struct {
							Location string `json:"location"`
							Keys     int64  `json:"key_count"`
							Gaps     int64  `json:"gaps"`
							Lossy    bool   `json:"lossy"`
						} `json:"locations"`
					} `json:"workers"`
				} `json:"instances"`
			}) {
				row(w, "INSTANCE", "WORKER", "LIVENESS", "SYNC", "LOCATION", "KEYS", "GAPS", "LOSSY")
				for _, i := range v.Instances {
					for _, x := range i.Workers {
						if x.Failures > 0 {
							x.Sync += fmt.Sprintf(" (%d failed)", x.Failures)
						}
						if len(x.Locations) == 0 {
							row(w, i.Instance, x.Worker, x.Liveness, x.Sync, "-", 0, 0, "no")
						}
						for _, l := range x.Locations {
							row(w, i.Instance, x.Worker, x.Liveness, x.Sync, l.Location, l.Keys, l.Gaps, yesNo(l.Lossy))
						}
					}
				}
			})
		},
	}
	r.flags(cmd)
	return cmd
}

func newSnapshot() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "make the replica take a snapshot of its state now",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := r.call(cmd, "POST", "/admin/snapshot", map[string]any{})
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, func(w io.Writer, v struct {
				Index uint64 `json:"last_snapshot_index"`
			}) {
				row(w, fmt.Sprintf("snapshot at index %d", v.Index))
			})
		},
	}
	r.flags(cmd)
	return cmd
}

func clock(micros int64) string {
	return time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000Z")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// must panics on an error that only a programming mistake can cause.
func must(err error) {
	if err != nil {
		panic("bug: " + err.Error())
	}
}

// splitTarget reads INSTANCE or INSTANCE/LOCATION; the location defaults to the
// CPU cache.
func splitTarget(s string) (instance, location string) {
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		return s[:i], s[i+1:]
	}
	return s, "LocalCPUBackend"
}
