package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark/api"
	"github.com/earmark-dev/earmark/internal/certificate"
	"github.com/earmark-dev/earmark/internal/handoff"
	"github.com/earmark-dev/earmark/internal/lifecycle"
	"github.com/earmark-dev/earmark/internal/prices"
	"github.com/earmark-dev/earmark/internal/workflowstore"
	"github.com/earmark-dev/earmark/worker"
)

// drainTimeout is how long running calls may take after a signal to stop.
const drainTimeout = 15 * time.Second

func newServe() *cobra.Command {
	s := &settings{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the HTTP API, with a worker in the same process",
		Long: `Serve the HTTP API. A worker runs in the same process unless --without-worker is
given; then workers run elsewhere (earmark worker), and admissions take longer.

Every call needs an API key, unless --without-keys is given. "earmark key create" makes
one, on the database.

After SIGTERM or SIGINT /readyz answers 503 for --drain-delay while calls are still
answered, so that a load balancer stops sending them here. Then the port closes, and
the calls under way end. A second signal ends the process at once.

Temporal's address, namespace, key and certificates come from its standard
environment variables (TEMPORAL_ADDRESS, …) and profile file.`,
		Example: "  EARMARK_DATABASE_URL=postgres://earmark@127.0.0.1:5432/earmark TEMPORAL_ADDRESS=127.0.0.1:7233 earmark serve",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.loadWithDatabase(cmd); err != nil {
				return err
			}
			return serve(cmd.Context(), s, s.logger(), nil)
		},
	}
	s.databaseFlags(cmd.Flags())
	s.temporalFlags(cmd.Flags())
	s.apiFlags(cmd.Flags())
	s.tlsFlags(cmd.Flags())
	s.opsFlags(cmd.Flags())
	s.workerFlags(cmd.Flags())
	s.logFlags(cmd.Flags())
	cmd.Flags().BoolVar(&s.WithoutKeys, "without-keys", false, "ask nobody for a key: every caller is the administrator of the tenant \"default\"; on a loopback address alone (env EARMARK_WITHOUT_KEYS)")
	cmd.Flags().BoolVar(&s.WithoutWorker, "without-worker", false, "serve the API alone; workers run elsewhere (env EARMARK_WITHOUT_WORKER)")
	return cmd
}

// serve runs the API, and the worker unless it is switched off, until ctx is done. Then it
// keeps answering for the drain delay, and lets calls finish before the worker stops. It
// calls ready once it listens.
func serve(ctx context.Context, s *settings, logger *slog.Logger, ready func(address string)) error {
	files, err := s.certificate(logger)
	if err != nil {
		return err
	}
	p, err := s.open(ctx, logger, !s.WithoutWorker)
	if err != nil {
		return err
	}
	if files == nil {
		p.metrics.WatchCertificate(nil)
	} else {
		p.metrics.WatchCertificate(files.Expiry)
	}
	defer p.close(ctx)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("the HTTP API cannot listen on %s (choose another with --addr): %w", s.Addr, err)
	}
	showOps, err := p.ops(ctx, s)
	if err != nil {
		return err
	}

	coordinator := &lifecycle.Coordinator{Client: p.temporal, Ledger: p.metrics.Ledger, Deadline: s.AdmissionDeadline, SettleWindow: s.SettleWindow, Namespace: p.namespace, Prefix: s.prefix(), Unindexed: s.WithoutSearchAttributes, Logger: logger}
	if !s.WithoutWorker {
		coordinator.Handoff = &handoff.Exchange{}
	}
	finder := &workflowstore.StuckFinder{Client: p.temporal, Namespace: p.namespace, Prefix: s.prefix(), Unindexed: s.WithoutSearchAttributes}
	handler := api.New(api.Options{ //nolint:contextcheck // a handler has the context of its request
		WithoutKeys: s.WithoutKeys, Ledger: p.metrics.Ledger, Coordinator: coordinator, StuckFinder: finder, Prices: prices.NewBook(p.metrics.Ledger),
		UIURL: s.UIURL, Namespace: p.namespace, Prefix: s.prefix(), Codec: p.codec(), Hosts: s.AllowedHosts,
		Webhooks: s.webhooks(), AdmissionDeadline: s.AdmissionDeadline, Stopping: ctx.Done(),
		Version: version, Commit: commit, TemporalDetail: s.temporalDetail,
		Logger: logger, Registry: p.metrics.Registry, MetricsElsewhere: s.OpsAddr != "", Traces: p.traces.Provider(),
	})

	// The worker continues after ctx has ended, until the last call is answered.
	workerCtx, stopWorker := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorker()
	group, groupCtx := errgroup.WithContext(ctx)
	if !s.WithoutWorker {
		w := worker.New(p.temporal, worker.Options{Ledger: p.metrics.Ledger, Handoff: coordinator.Handoff, Logger: logger, Grace: s.Grace, Prefix: s.prefix(), Unindexed: s.WithoutSearchAttributes, Webhooks: s.webhooks()})
		group.Go(func() error { return w.Run(workerCtx) })
	} else {
		group.Go(func() error { worker.AwaitLedger(groupCtx, p.metrics.Ledger, logger); return nil })
	}
	group.Go(func() error { return showOps(workerCtx, handler) })
	server := api.Server(s.Addr, handler, logger)
	group.Go(func() error {
		if err := serveOn(server, listener, files); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-groupCtx.Done()
		defer stopWorker()
		if ctx.Err() != nil && s.DrainDelay > 0 { // a signal to stop, not a failure
			logger.InfoContext(ctx, "The server stops: /readyz answers 503 from now on, and calls are answered until the delay is over.", "drain_delay", s.DrainDelay.String())
			time.Sleep(s.DrainDelay) // a second signal ends the process at once
		}
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		defer coordinator.Close()
		return server.Shutdown(drain)
	})
	if host, _, _ := net.SplitHostPort(s.Addr); files == nil && !s.WithoutKeys && !isLoopback(host) {
		logger.WarnContext(ctx, "The HTTP API listens for a network without TLS: keys can be read on the way, unless a proxy in front speaks TLS. Give --tls-cert and --tls-key.", "address", s.Addr)
	}
	logger.InfoContext(ctx, "The HTTP API listens.", "address", listener.Addr().String(), "tls", files != nil, "worker", !s.WithoutWorker, "keys", !s.WithoutKeys, "version", version, "commit", commit)
	if ready != nil {
		ready(listener.Addr().String())
	}
	return group.Wait()
}

// certificate returns nil if the HTTP API uses no TLS.
func (s *settings) certificate(logger *slog.Logger) (*certificate.Files, error) {
	if s.TLSCert == "" {
		return nil, nil //nolint:nilnil // no certificate is no error
	}
	files, err := certificate.Load(s.TLSCert, s.TLSKey, logger)
	if err != nil {
		return nil, usageError{fmt.Errorf("--tls-cert, --tls-key: %w", err)}
	}
	return files, nil
}

// serveOn serves until the server is closed, with TLS if there is a certificate.
func serveOn(server *http.Server, listener net.Listener, files *certificate.Files) error {
	if files == nil {
		return server.Serve(listener)
	}
	server.TLSConfig = files.Config()
	return server.ServeTLS(listener, "", "") // the configuration has the certificate
}
