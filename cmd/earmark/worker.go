package main

import (
	"context"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark/api"
	"github.com/earmark-dev/earmark/internal/lifecycle"
	"github.com/earmark-dev/earmark/worker"
)

func newWorker() *cobra.Command {
	s := &settings{}
	cmd := &cobra.Command{
		Use:     "worker",
		Short:   "Run a worker: the workflows, their activities, and the sweeper",
		Example: "  EARMARK_DATABASE_URL=postgres://earmark@127.0.0.1:5432/earmark TEMPORAL_ADDRESS=127.0.0.1:7233 earmark worker",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.loadWithDatabase(cmd); err != nil {
				return err
			}
			return runWorker(cmd, s)
		},
	}
	s.databaseFlags(cmd.Flags())
	s.temporalFlags(cmd.Flags())
	s.workerFlags(cmd.Flags())
	s.opsFlags(cmd.Flags())
	s.networkFlags(cmd.Flags(), "show metrics, health and profiles on an address that is not loopback: whoever can reach it can read them")
	s.logFlags(cmd.Flags())
	return cmd
}

func runWorker(cmd *cobra.Command, s *settings) error {
	ctx, logger := cmd.Context(), s.logger()
	p, err := s.open(ctx, logger, true)
	if err != nil {
		return err
	}
	defer p.close(ctx)
	showOps, err := p.ops(ctx, s)
	if err != nil {
		return err
	}
	w := worker.New(p.temporal, worker.Options{Ledger: p.metrics.Ledger, Logger: logger, Grace: s.Grace, Prefix: s.prefix(), Unindexed: s.WithoutSearchAttributes, Webhooks: s.webhooks()})
	logger.InfoContext(ctx, "The worker starts.", "namespace", p.namespace, "version", version, "commit", commit)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.Run(ctx) })
	temporal := &lifecycle.Coordinator{Client: p.temporal, Namespace: p.namespace, Prefix: s.prefix(), Unindexed: s.WithoutSearchAttributes}
	health := api.HealthHandler(map[string]func(context.Context) error{"postgres": p.metrics.Ledger.Ready, "temporal": temporal.Ready}, version, commit)
	group.Go(func() error { return showOps(ctx, health) })
	return group.Wait()
}
