// Command kvctrld is a replica of the cache controller, and the client that talks
// to one. See the README for what it is and docs/operating.md for how to run it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(runWith(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// exitError carries an exit code other than 1.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// runWith executes one command line and returns the exit code: 0 success, 1 the
// command failed, 2 the command line or the configuration is wrong; serve has more,
// see exit.go.
func runWith(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	began := false // a command's own work, which cobra reaches once its line is right
	for _, cmd := range root.Commands() {
		if work := cmd.RunE; work != nil {
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				began = true
				return work(cmd, args)
			}
		}
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if !began {
		err = &exitError{code: exitConfig, err: fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	}
	fmt.Fprintln(stderr, "kvctrld:", err)
	var exit *exitError
	if errors.As(err, &exit) {
		return exit.code
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "kvctrld",
		Short:         "highly available cache controller for LMCache fleets",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(newServe(), newVersion(), newSimulate())
	root.AddCommand(newStatus())
	root.AddCommand(newReads()...)
	root.AddCommand(newCommands()...)
	root.AddCommand(newMembership()...)
	return root
}
