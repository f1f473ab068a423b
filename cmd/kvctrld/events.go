package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

// place is an instance's location.
type place struct {
	Instance string `json:"instance_id"`
	Location string `json:"location"`
}

// event is what /events says of a command.
type event struct {
	ID       string `json:"event_id"`
	Kind     string `json:"kind"`
	Status   string `json:"status"`
	Tokens   int64  `json:"num_tokens"`
	Confirm  string `json:"confirmed"` // of a move
	Detail   string `json:"detail"`
	Created  int64  `json:"created_us"`
	Finished int64  `json:"finished_us"`
	Source   place  `json:"source"`
	Dest     place  `json:"destination"` // of a move
	Workers  []struct {
		Instance string `json:"instance_id"`
		Worker   int64  `json:"worker_id"`
		Status   string `json:"status"`
		Tokens   int64  `json:"num_tokens"`
		Error    string `json:"error"`
	} `json:"workers"`
}

// on is what a command acts on.
func (e event) on() string {
	on := e.Source.Instance + "/" + e.Source.Location
	if e.Dest != (place{}) {
		on += " -> " + e.Dest.Instance + "/" + e.Dest.Location
	}
	return on
}

// confirmed is whether the destination of a move has reported what was moved.
func (e event) confirmed() string {
	if e.Confirm == "" {
		return "-"
	}
	return e.Confirm
}

// took is how long a command took.
func (e event) took() string {
	if e.Finished == 0 {
		return "-"
	}
	return (time.Duration(e.Finished-e.Created) * time.Microsecond).Round(time.Millisecond).String()
}

func newEvents() *cobra.Command {
	var r remote
	var kind, status string
	var limit int
	cmd := &cobra.Command{
		Use:   "events [EVENT]",
		Short: "commands and their outcomes, newest first; or one with each worker's part",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				answer, err := r.call(cmd, "GET", "/events/"+url.PathEscape(args[0]), nil)
				if err != nil {
					return err
				}
				return show(&r, cmd, answer, printEvent)
			}
			query := url.Values{} // what may be asked for is the server's to say
			if kind != "" {
				query.Set("kind", kind)
			}
			if status != "" {
				query.Set("status", status)
			}
			if cmd.Flags().Changed("limit") {
				query.Set("limit", strconv.Itoa(limit))
			}
			answer, err := r.call(cmd, "GET", "/events?"+query.Encode(), nil)
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, printEvents)
		},
	}
	r.flags(cmd)
	cmd.Flags().StringVar(&kind, "kind", "", "only clear, pin, compress, decompress or move")
	cmd.Flags().StringVar(&status, "status", "", "only pending, running, done, partial, failed, timed_out or interrupted")
	cmd.Flags().IntVar(&limit, "limit", 100, "how many at most, up to 1000")
	return cmd
}

func printEvents(w io.Writer, v struct {
	Events []event `json:"events"`
}) {
	row(w, "CREATED", "EVENT", "COMMAND", "ON", "STATUS", "CONFIRMED", "TOKENS", "TOOK", "DETAIL")
	for _, e := range v.Events {
		row(w, clock(e.Created), e.ID, e.Kind, e.on(), e.Status, e.confirmed(), e.Tokens, e.took(), e.Detail)
	}
}

func printEvent(w io.Writer, e event) {
	row(w, fmt.Sprintf("%s: %s on %s is %s, %d tokens", e.ID, e.Kind, e.on(), e.Status, e.Tokens))
	if e.Detail != "" {
		row(w, e.Detail)
	}
	switch e.Confirm {
	case "awaited":
		row(w, fmt.Sprintf("instance %s has not reported the chunks yet", e.Dest.Instance))
	case "confirmed":
		row(w, fmt.Sprintf("instance %s has reported the chunks", e.Dest.Instance))
	}
	row(w, fmt.Sprintf("created %s, took %s", clock(e.Created), e.took()))
	row(w)
	row(w, "INSTANCE", "WORKER", "STATUS", "TOKENS", "ERROR")
	for _, x := range e.Workers {
		row(w, x.Instance, x.Worker, x.Status, x.Tokens, x.Error)
	}
}
