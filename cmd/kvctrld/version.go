package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/kvctrl/kvctrl/fsm"
)

// Set by the Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "version, commit, Go version, protocol and log-format versions",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "kvctrld %s (%s) %s\nLMCache worker protocol 0.3.3 to 0.5.6\nlog entry format %d, snapshot format %d\n",
				version, commit, runtime.Version(), fsm.EntryVersion, fsm.SnapshotVersion)
		},
	}
}
