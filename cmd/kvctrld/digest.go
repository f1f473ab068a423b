package main

import (
	"io"

	"github.com/spf13/cobra"
)

func newDigest() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "digest",
		Short: "a digest of a replica's whole state: equal on all at an equal index",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := r.call(cmd, "GET", "/admin/digest", nil)
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, func(w io.Writer, v struct {
				Index  uint64 `json:"index"`
				Digest string `json:"digest"`
			}) {
				row(w, "INDEX", "DIGEST")
				row(w, v.Index, v.Digest)
			})
		},
	}
	r.flags(cmd)
	return cmd
}
