package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/earmark-dev/earmark"
)

// Defaults of the pool; a connection string may set its own (pool_max_conns=…).
const (
	connectTimeout    = 5 * time.Second
	healthCheckPeriod = 5 * time.Second // how soon broken idle connections are noticed
	minMaxConns       = 16
)

// Open makes a pool for a connection string, such as
// postgres://user:password@host:5432/earmark. It does not connect yet, so that a
// process can start before its database. adjust has the last word on its settings.
func Open(ctx context.Context, databaseURL string, adjust ...func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		// pgx's message can hold the connection string with its password cut out.
		return nil, earmark.Errorf(earmark.CodeInvalidRequest, "the database URL is not usable: %w", err)
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	config.HealthCheckPeriod = healthCheckPeriod
	config.MaxConns = max(config.MaxConns, minMaxConns)
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "earmark"
	}
	config.ConnConfig.RuntimeParams["timezone"] = "UTC" // so that times in JSON are, whatever zone the server is set to
	for _, change := range adjust {
		change(config)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the database pool: %w", err)
	}
	return pool, nil
}
