package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// newMembership returns the commands that change the cluster. Each goes to any replica.
func newMembership() []*cobra.Command {
	return []*cobra.Command{newJoin(), newLeave(), newTransfer()}
}

func newJoin() *cobra.Command {
	var r remote
	var id, peer, rest string
	var noVote bool
	cmd := &cobra.Command{
		Use:   "join --node-id ID --peer-addr HOST:PORT",
		Short: "add a running replica to the cluster, or change the address of one",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body := map[string]any{"node_id": id, "peer_addr": peer, "voter": !noVote}
			if rest != "" {
				to, err := restURL(rest)
				if err != nil {
					return &exitError{code: exitConfig, err: fmt.Errorf("--url: %w", err)}
				}
				body["url"] = to
			}
			answer, err := r.call(cmd, "POST", "/admin/join", body)
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, func(w io.Writer, v struct {
				NodeID  string `json:"node_id"`
				Voter   bool   `json:"voter"`
				Changed bool   `json:"changed"`
			}) {
				switch {
				case !v.Changed:
					row(w, fmt.Sprintf("node %q is in the cluster as asked for", v.NodeID))
				case v.Voter || noVote:
					row(w, fmt.Sprintf("node %q is in the cluster", v.NodeID))
				default:
					row(w, fmt.Sprintf("node %q is in the cluster; it votes once it has caught up", v.NodeID))
				}
			})
		},
	}
	r.flags(cmd)
	cmd.Flags().StringVar(&id, "node-id", "", "the replica's node id, as its own status shows it")
	cmd.Flags().StringVar(&peer, "peer-addr", "", "where other replicas dial it")
	cmd.Flags().StringVar(&rest, "url", "", "where clients reach its REST (default: what the replica says)")
	cmd.Flags().BoolVar(&noVote, "no-vote", false, "keep a copy of the state only")
	must(cmd.MarkFlagRequired("node-id"))
	must(cmd.MarkFlagRequired("peer-addr"))
	return cmd
}

func newLeave() *cobra.Command {
	var r remote
	var force bool
	cmd := &cobra.Command{
		Use:   "leave NODE",
		Short: "remove a replica from the cluster; it then stops by itself",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := r.call(cmd, "POST", "/admin/leave", map[string]any{"node_id": args[0], "force": force})
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, func(w io.Writer, v struct {
				NodeID string `json:"node_id"`
			}) {
				row(w, fmt.Sprintf("node %q has left the cluster", v.NodeID))
			})
		},
	}
	r.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also when the rest cannot commit then")
	return cmd
}

func newTransfer() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use:   "transfer [NODE]",
		Short: "hand leadership over, to the voter that is furthest or to the one named",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{}
			if len(args) == 1 {
				body["node_id"] = args[0]
			}
			answer, err := r.call(cmd, "POST", "/admin/transfer", body)
			if err != nil {
				return err
			}
			return show(&r, cmd, answer, func(w io.Writer, v struct {
				Leader struct {
					NodeID string `json:"node_id"`
				} `json:"leader"`
			}) {
				if v.Leader.NodeID == "" {
					row(w, "leadership is handed over; who leads is not known yet")
					return
				}
				row(w, fmt.Sprintf("node %q leads", v.Leader.NodeID))
			})
		},
	}
	r.flags(cmd)
	return cmd
}
