package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

// remote is what every client command has: where to, how long, and in which form.
type remote struct {
	addr    string
	timeout time.Duration
	json    bool
	tls     tlsFiles
}

// flags declares the client flags on a command.
func (r *remote) flags(cmd *cobra.Command) {
	def := os.Getenv("KVCTRL_ADDR")
	if def == "" {
		def = "http://127.0.0.1:9000"
	}
	cmd.Flags().StringVar(&r.addr, "addr", def, "REST addresses of replicas, comma separated; the next is tried when one does not answer (KVCTRL_ADDR)")
	cmd.Flags().DurationVar(&r.timeout, "timeout", 60*time.Second, "longest wait for an answer")
	cmd.Flags().StringVar(&r.tls.ca, "cacert", os.Getenv("KVCTRL_CACERT"), "CA file that signs the replicas' certificates, in place of the system's (KVCTRL_CACERT)")
	cmd.Flags().StringVar(&r.tls.cert, "cert", os.Getenv("KVCTRL_CERT"), "own certificate file, for replicas with tls-ca (KVCTRL_CERT)")
	cmd.Flags().StringVar(&r.tls.key, "key", os.Getenv("KVCTRL_KEY"), "key file of cert (KVCTRL_KEY)")
	cmd.Flags().BoolVar(&r.json, "json", false, "print the answer's raw body")
}

// call asks the replicas. Every request may be repeated: reads change nothing, commands
// carry their event id, a replica joins or leaves once, and neither a snapshot nor a
// transfer more does harm.
func (r *remote) call(cmd *cobra.Command, method, path string, body any) ([]byte, error) {
	c, err := r.client(r.addr)
	if err != nil {
		return nil, err
	}
	defer c.close()
	return c.call(cmd.Context(), method, path, body)
}

// client speaks to the replicas at addrs.
func (r *remote) client(addrs string) (*client, error) {
	security, err := r.tls.config()
	if err == nil {
		var c *client
		if c, err = newClient(addrs, r.timeout, security); err == nil {
			return c, nil
		}
	}
	return nil, &exitError{code: exitConfig, err: err}
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
		fmt.Fprint(w, printable(fmt.Sprint(c)))
	}
	fmt.Fprintln(w)
}

// printable escapes what would break a table or reach the terminal as a command: names
// are what workers and callers chose.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	quoted := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
