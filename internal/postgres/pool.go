package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/migrations"
)

// Defaults of the pool; a connection string can override them (pool_max_conns=…).
const (
	connectTimeout    = 5 * time.Second
	healthCheckPeriod = 5 * time.Second // how soon the pool notices broken idle connections
	minMaxConns       = 16
	maxListConns      = 4 // the 3 lists that the API makes at once, and the overview
)

// ApplicationName is how connections of this program show in pg_stat_activity: earmark/N, where N is the schema that it needs.
func ApplicationName() string { return fmt.Sprintf("earmark/%d", migrations.Latest()) }

// Open returns a pool for a connection string, such as
// postgres://user:password@host:5432/earmark. It does not connect yet, so that a process
// can start before its database. adjust is applied after all other settings. The error is
// CodeInvalidRequest.
func Open(ctx context.Context, databaseURL string, adjust ...func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(databaseURL)
	if err != nil {
		// pgx's message may contain the connection string, without its password.
		return nil, earmark.Errorf(earmark.CodeInvalidRequest, "the database URL is not usable: %w", err)
	}
	if err := checkExecMode(config.ConnConfig); err != nil {
		return nil, err
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectTimeout
	}
	avoidFormerPrimaries(config)
	config.HealthCheckPeriod = healthCheckPeriod
	config.MaxConns = max(config.MaxConns, minMaxConns)
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = ApplicationName()
	}
	config.ConnConfig.RuntimeParams["timezone"] = "UTC" // so that times in JSON are UTC, whatever the server's time zone
	for _, change := range adjust {
		change(config)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open the database pool: %w", err)
	}
	return pool, nil
}

// OpenLists returns a pool of the few connections that Ledger.ListFrom needs, with all else as Open has it.
func OpenLists(ctx context.Context, databaseURL string, adjust ...func(*pgxpool.Config)) (*pgxpool.Pool, error) {
	return Open(ctx, databaseURL, append(adjust, func(c *pgxpool.Config) { c.MaxConns, c.MinConns, c.MinIdleConns = maxListConns, 0, 0 })...)
}

// checkExecMode refuses the exec modes that the ledger's calls do not work with. exec and
// simple_protocol send arguments without Postgres' types, so the ledger's JSON does not
// arrive. describe_exec asks for a statement's types in one transaction and runs it in the
// next; a transaction pooler may change the session in between, and the statement of
// another caller may run.
func checkExecMode(config *pgx.ConnConfig) error {
	switch config.DefaultQueryExecMode {
	case pgx.QueryExecModeCacheStatement:
		if config.StatementCacheCapacity == 0 {
			return earmark.Errorf(earmark.CodeInvalidRequest, "statement_cache_capacity in the database URL is 0, with which no statement runs; leave it out, or set default_query_exec_mode=cache_describe to prepare nothing")
		}
	case pgx.QueryExecModeCacheDescribe:
	default:
		return earmark.Errorf(earmark.CodeInvalidRequest, "default_query_exec_mode in the database URL is %s, which Earmark does not work with; "+
			"leave it out, or set cache_describe to go through a transaction pooler such as PgBouncer", urlWords[config.DefaultQueryExecMode])
	}
	if config.DescriptionCacheCapacity == 0 {
		return earmark.Errorf(earmark.CodeInvalidRequest, "description_cache_capacity in the database URL is 0, with which lists do not run; leave it out")
	}
	return nil
}

// urlWords are the names in a connection string of the modes that checkExecMode refuses.
var urlWords = map[pgx.QueryExecMode]string{
	pgx.QueryExecModeDescribeExec:   "describe_exec",
	pgx.QueryExecModeExec:           "exec",
	pgx.QueryExecModeSimpleProtocol: "simple_protocol",
}
