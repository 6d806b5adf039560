package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"github.com/earmark-dev/earmark/api"
	"github.com/earmark-dev/earmark/internal/metrics"
	"github.com/earmark-dev/earmark/internal/payloads"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/tracing"
)

// process is what serve and worker have in common: Postgres and Temporal, and the
// metrics and traces of their use.
type process struct {
	pool      *pgxpool.Pool
	lists     *pgxpool.Pool // for lists and the overview
	temporal  client.Client
	namespace string
	payloads  *payloads.Keys // nil where payloads are not encrypted
	metrics   *metrics.Metrics
	traces    *tracing.Tracing
	logger    *slog.Logger
}

// open connects to nothing yet. works says whether a worker will run.
func (s *settings) open(ctx context.Context, logger *slog.Logger, works bool) (p *process, err error) {
	p = &process{logger: logger}
	defer func() {
		if err != nil {
			p.close(ctx)
		}
	}()
	if p.traces, err = tracing.FromEnv(ctx, version, logger); err != nil {
		return p, usageError{err}
	}
	if p.pool, err = openPool(ctx, s.DatabaseURL, p.traces.Pool); err != nil {
		return p, err
	}
	if p.lists, err = postgres.OpenLists(ctx, s.DatabaseURL, p.traces.Pool); err != nil {
		return p, usageError{err}
	}
	if p.metrics, err = metrics.New(metrics.Options{Version: version, Commit: commit, Pool: p.pool, Lists: p.lists, Works: works}); err != nil {
		return p, err
	}
	if s.PayloadKeys != "" {
		if p.payloads, err = payloads.ReadKeys(s.PayloadKeys); err != nil {
			return p, usageError{fmt.Errorf("--payload-keys (EARMARK_PAYLOAD_KEYS_FILE): %w", err)}
		}
	}
	p.temporal, p.namespace, err = s.temporal(logger, func(options *client.Options) error {
		if p.payloads != nil {
			if err := p.payloads.Apply(options); err != nil {
				return err
			}
		}
		p.metrics.Observe(options)
		return p.traces.Observe(options)
	})
	return p, err
}

// codec is nil if payloads are not encrypted.
func (p *process) codec() converter.PayloadCodec {
	if p.payloads == nil {
		return nil
	}
	return p.payloads
}

// openPool returns a pool without a connection. A database URL that cannot work is a usage
// error.
func openPool(ctx context.Context, databaseURL string, adjust ...func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	pool, err := postgres.Open(ctx, databaseURL, adjust...)
	if err != nil {
		return nil, usageError{err}
	}
	return pool, nil
}

// close ends the connections and sends the last traces.
func (p *process) close(ctx context.Context) {
	if p.temporal != nil {
		p.temporal.Close()
	}
	for _, pool := range []*pgxpool.Pool{p.pool, p.lists} {
		if pool != nil {
			pool.Close()
		}
	}
	p.traces.Shutdown(ctx, p.logger)
}

// ops listens on the operators' address, if there is one. show serves there until its
// context is done.
func (p *process) ops(ctx context.Context, s *settings) (show func(ctx context.Context, health http.Handler) error, err error) {
	if s.OpsAddr == "" {
		return func(context.Context, http.Handler) error { return nil }, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.OpsAddr)
	if err != nil {
		return nil, fmt.Errorf("metrics, health and profiles cannot be shown on %s (choose another with --ops-addr): %w", s.OpsAddr, err)
	}
	return func(ctx context.Context, health http.Handler) error {
		server := api.OpsServer(s.OpsAddr, health, p.metrics.Handler(), s.AllowedHosts, p.logger)
		defer context.AfterFunc(ctx, func() { _ = server.Close() })()
		p.logger.InfoContext(ctx, "Metrics, health and profiles are shown.", "address", listener.Addr().String())
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, nil
}
