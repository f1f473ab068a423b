package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// remote is what every client command has: where to, how long, and in which form.
type remote struct {
	addr    string
	timeout time.Duration
	json    bool
}

// flags declares the client flags on a command.
func (r *remote) flags(cmd *cobra.Command) {
	def := os.Getenv("KVCTRL_ADDR")
	if def == "" {
		def = "http://127.0.0.1:9000"
	}
	cmd.Flags().StringVar(&r.addr, "addr", def, "REST addresses of replicas, comma separated; the next is tried when one does not answer (KVCTRL_ADDR)")
	cmd.Flags().DurationVar(&r.timeout, "timeout", 60*time.Second, "longest wait for an answer")
	cmd.Flags().BoolVar(&r.json, "json", false, "print the answer's raw body")
}

// read asks with GET or a POST that changes nothing.
func (r *remote) call(cmd *cobra.Command, method, path string, body any) ([]byte, error) {
	c, err := newClient(r.addr, r.timeout)
	if err != nil {
		return nil, &exitError{code: 2, err: err}
	}
	return c.call(cmd.Context(), method, path, body, true)
}

// show prints the raw body, or hands the decoded answer to print.
func show[T any](r *remote, cmd *cobra.Command, body []byte, print func(w io.Writer, v T)) error {
	out := cmd.OutOrStdout()
	if r.json {
		_, err := fmt.Fprintf(out, "%s\n", body)
		return err
	}
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("answer is not what was expected: %w", err)
	}
	w := tabwriter.NewWriter(out, 2, 8, 2, ' ', 0)
	print(w, v)
	return w.Flush()
}

func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		fmt.Fprint(w, c)
	}
	fmt.Fprintln(w)
}
