package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
)

// newCommands returns the commands that make workers act. Each carries an event id
// made here, so that asking another replica after a lost answer cannot make it
// happen twice.
func newCommands() []*cobra.Command {
	return []*cobra.Command{
		newClear(), newPin(), newCompress("compress", "Compress"), newCompress("decompress", "Decompress"), newMove(),
	}
}

// order is what the command verbs share.
type order struct {
	remote
	eventID  string
	tokens   string
	wait     bool
	deadline time.Duration
}

func (o *order) flags(cmd *cobra.Command, withTokens bool) {
	o.remote.flags(cmd)
	cmd.Flags().StringVar(&o.eventID, "event-id", "", "own id of this command; the same id again returns the first outcome")
	cmd.Flags().BoolVar(&o.wait, "wait", true, "wait for the outcome; without, kvctrld events tells it")
	cmd.Flags().DurationVar(&o.deadline, "deadline", 0, "longest wait for each worker's answer (default: the server's --worker-deadline)")
	if withTokens {
		cmd.Flags().StringVar(&o.tokens, "tokens", "", "the prompt's token ids: 1,2,3, 0..1023, @FILE or -")
		must(cmd.MarkFlagRequired("tokens"))
	}
}

// run sends the command and prints its outcome.
func (o *order) run(cmd *cobra.Command, path, prefix, done string, body map[string]any) error {
	if o.eventID == "" {
		o.eventID = prefix + uuid.NewString()
	}
	body["event_id"] = o.eventID
	if o.tokens != "" {
		t, err := readTokens(o.tokens, cmd.InOrStdin())
		if err != nil {
			return &exitError{code: 2, err: err}
		}
		body["tokens"] = t
	}
	query := url.Values{}
	if o.deadline != 0 {
		query.Set("timeout", o.deadline.String())
		if !cmd.Flags().Changed("timeout") { // the workers may be held by others for as long again
			o.timeout = max(o.timeout, 2*o.deadline+o.timeout/2)
		}
	}
	if !o.wait {
		query.Set("wait", "false")
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	answer, err := o.call(cmd, "POST", path, body)
	switch {
	case errors.Is(err, errNoAnswer):
		return fmt.Errorf("event %q: %w: it may still be carried out: kvctrld events tells", o.eventID, err)
	case err != nil:
		return fmt.Errorf("event %q: %w", o.eventID, err)
	}
	return show(&o.remote, cmd, answer, func(w io.Writer, v struct {
		Event  string `json:"event_id"`
		Tokens int64  `json:"num_tokens"`
	}) {
		if !o.wait {
			row(w, fmt.Sprintf("event %s is under way: kvctrld events tells what becomes of it", v.Event))
			return
		}
		row(w, fmt.Sprintf("%s %d tokens (event %s)", done, v.Tokens, v.Event))
	})
}

func newClear() *cobra.Command {
	var o order
	cmd := &cobra.Command{
		Use:   "clear INSTANCE[/LOCATION]",
		Short: "remove every chunk of an instance's location",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			instance, location := splitTarget(args[0])
			return o.run(cmd, "/clear", "Clear", "cleared", map[string]any{"instance_id": instance, "location": location})
		},
	}
	o.flags(cmd, false)
	return cmd
}

func newPin() *cobra.Command {
	var o order
	cmd := &cobra.Command{
		Use:   "pin INSTANCE[/LOCATION] --tokens ...",
		Short: "keep a prompt's chunks from being evicted",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			instance, location := splitTarget(args[0])
			return o.run(cmd, "/pin", "Pin", "pinned", map[string]any{"instance_id": instance, "location": location})
		},
	}
	o.flags(cmd, true)
	return cmd
}

func newCompress(verb, prefix string) *cobra.Command {
	var o order
	var method string
	cmd := &cobra.Command{
		Use:   verb + " INSTANCE[/LOCATION] --tokens ...",
		Short: verb + " a prompt's chunks where they are",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			instance, location := splitTarget(args[0])
			return o.run(cmd, "/"+verb, prefix, verb+"ed", map[string]any{"instance_id": instance, "location": location, "method": method})
		},
	}
	o.flags(cmd, true)
	cmd.Flags().StringVar(&method, "method", "cachegen", "compression method")
	return cmd
}

func newMove() *cobra.Command {
	var o order
	var keep bool
	cmd := &cobra.Command{
		Use:   "move FROM[/LOCATION] TO[/LOCATION] --tokens ...",
		Short: "move (or copy) a prompt's chunks between instances",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, fromLocation := splitTarget(args[0])
			to, toLocation := splitTarget(args[1])
			return o.run(cmd, "/move", "Move", "moved", map[string]any{
				"old_position": []string{from, fromLocation},
				"new_position": []string{to, toLocation},
				"should_copy":  keep,
			})
		},
	}
	o.flags(cmd, true)
	cmd.Flags().BoolVar(&keep, "copy", false, "leave the source's chunks where they are")
	return cmd
}
