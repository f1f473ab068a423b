package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/kvctrl/kvctrl/internal/simworker"
)

// simulation is what simulate runs.
type simulation struct {
	pull, reply []string
	instances   int
	ranks       int
	name        string
	ip          string
	seed        uint64
	rate        float64
	heartbeat   time.Duration
	capacity    int
	duration    time.Duration
	prompts     []string
}

func newSimulate() *cobra.Command {
	var s simulation
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "a fleet of simulated LMCache workers that speak the real wire protocol",
		Long: "Registers instances with a controller, sends heartbeats, admits and evicts, answers commands and full syncs, as LMCache's\n" +
			"workers do. Runs until SIGTERM, SIGINT or --duration. With several --reply addresses the workers are shared out.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(s.pull) != len(s.reply) {
				return configError(fmt.Errorf("%d --pull and %d --reply addresses: want one of each per replica", len(s.pull), len(s.reply)))
			}
			return s.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&s.pull, "pull", []string{"127.0.0.1:8300"}, "PULL addresses of replicas, comma separated")
	f.StringSliceVar(&s.reply, "reply", []string{"127.0.0.1:8400"}, "ROUTER addresses of replicas, in the same order")
	f.IntVar(&s.instances, "instances", 4, "how many instances")
	f.IntVar(&s.ranks, "ranks", 1, "workers per instance")
	f.StringVar(&s.name, "name", "sim-", "instances are called this and a number from 0")
	f.StringVar(&s.ip, "ip", "", "address that the workers register and take commands at (default: this host's, as the first --pull is reached from it)")
	f.Uint64Var(&s.seed, "seed", 1, "the same seed stores the same prompts")
	f.Float64Var(&s.rate, "rate", 20, "prompts stored a second over the whole fleet; 0 is as fast as it goes, below 0 none")
	f.DurationVar(&s.heartbeat, "heartbeat", time.Second, "between heartbeats; 0 is none, LMCache's default")
	f.IntVar(&s.capacity, "capacity", 4096, "chunks a location holds before it evicts; 0 is any number")
	f.DurationVar(&s.duration, "duration", 0, "how long; 0 is until stopped")
	f.StringArrayVar(&s.prompts, "prompt", nil, "a prompt (0..1023) that the first instance stores at the start; may be repeated")
	return cmd
}

func (s *simulation) run(cmd *cobra.Command) error {
	ctx := cmd.Context()
	if s.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.duration)
		defer cancel()
	}
	ip := s.ip
	if ip == "" {
		var err error
		if ip, err = ownAddress(s.pull[0]); err != nil {
			return err
		}
	}
	o := simworker.FleetOptions{
		Instances: s.instances, Ranks: s.ranks, Seed: s.seed, Name: s.name, Parallel: 8,
		Worker: simworker.Options{IP: ip, HeartbeatEvery: s.heartbeat, Capacity: s.capacity},
	}
	if s.instances*s.ranks <= 64 {
		o.Parallel = 1 // a small fleet registers in order, so that answers are the same each time
	}
	for i := range s.pull {
		o.Endpoints = append(o.Endpoints, simworker.Endpoint{Pull: s.pull[i], Reply: s.reply[i]})
	}
	fleet, err := simworker.NewFleet(o)
	if err != nil {
		return configError(err)
	}
	if err := fleet.Start(ctx); err != nil {
		return fmt.Errorf("no controller answers at %v: %w", s.reply, err)
	}
	for _, p := range s.prompts {
		tokens, err := readTokens(p, os.Stdin)
		if err != nil {
			return configError(err)
		}
		for rank := range s.ranks {
			fleet.Worker(0, rank).Store(tokens)
		}
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%d instances of %d workers are registered: %s0 to %s%d\n", s.instances, s.ranks, s.name, s.name, s.instances-1)
	if s.rate >= 0 {
		fleet.Run(ctx, s.rate)
	} else {
		<-ctx.Done()
	}
	fleet.Flush(5 * time.Second) // what does not leave in time is lost, as in LMCache
	st := fleet.Stats()
	fmt.Fprintf(out, "sent %d operations in %d messages, %d heartbeats, %d full syncs\n", st.Sent.Operations, st.Sent.Messages, st.Heartbeats, st.Syncs)
	return fleet.Stop()
}

// ownAddress is this host's address on the way to another, as LMCache's workers find
// theirs. Nothing is sent.
func ownAddress(to string) (string, error) {
	conn, err := net.Dial("udp", to)
	if err != nil {
		return "", fmt.Errorf("this host's address on the way to %s, for the workers to register (or name it with --ip): %w", to, err)
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	return host, err
}
