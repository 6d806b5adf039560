package postgres

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/migrations"
)

const (
	// The schema is spelled out: for a user called earmark the schema earmark comes
	// first on the search path, and does not exist when the table is made.
	migrationsTable = "public.earmark_migrations"
	// How long one of several processes that migrate at once waits for the others.
	migrationLockProbeSeconds = 1
	migrationLockProbesAtMost = 60
)

// Migration is one step of the schema, and when it was applied.
type Migration struct {
	Version   int64
	Name      string
	AppliedAt time.Time // zero: pending
	Took      time.Duration
}

// Migrate brings the schema to the version that this program needs and returns
// the steps that it applied. Of several processes that call it at once, one works
// and the others wait.
func Migrate(ctx context.Context, pool *pgxpool.Pool) ([]Migration, error) {
	var applied []Migration
	if err := requireDirect(ctx, pool); err != nil {
		return nil, fmt.Errorf("migrate the database: %w", err)
	}
	err := withProvider(pool, func(provider *goose.Provider) error {
		results, err := provider.Up(ctx)
		for _, result := range results {
			applied = append(applied, Migration{Version: result.Source.Version, Name: result.Source.Path, AppliedAt: time.Now(), Took: result.Duration})
		}
		return err
	})
	if err != nil {
		return applied, fmt.Errorf("migrate the database: %w", err)
	}
	return applied, nil
}

// MigrationStatus lists every step of the schema, oldest first.
func MigrationStatus(ctx context.Context, pool *pgxpool.Pool) ([]Migration, error) {
	var migrations []Migration
	err := withProvider(pool, func(provider *goose.Provider) error {
		statuses, err := provider.Status(ctx)
		for _, status := range statuses {
			migrations = append(migrations, Migration{Version: status.Source.Version, Name: status.Source.Path, AppliedAt: status.AppliedAt})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the schema's version: %w", err)
	}
	return migrations, nil
}

// SchemaVersion returns the database's version, 0 when it was never migrated,
// and the one that this program needs.
func SchemaVersion(ctx context.Context, pool *pgxpool.Pool) (current, latest int64, err error) {
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		return 0, 0, fmt.Errorf("list the migrations: %w", err)
	}
	latest = int64(len(names)) // they are numbered from 1 without gaps, see the test
	var exists bool
	if err := pool.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", migrationsTable).Scan(&exists); err != nil {
		return 0, latest, err
	}
	if exists {
		err = pool.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+migrationsTable).Scan(&current)
	}
	return current, latest, err
}

// requireDirect refuses a connection that goes through a pooler: the lock that keeps
// two migrations apart belongs to a session, and a pooler may hand on that session
// with the lock. It is known by the id of the process that serves us, which a
// pooler does not pass on.
func requireDirect(ctx context.Context, pool *pgxpool.Pool) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var pid uint32
	if err := conn.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid); err != nil {
		return err
	}
	if pid != conn.Conn().PgConn().PID() {
		return earmark.Errorf(earmark.CodeInvalidRequest, "the database URL goes through a pooler; migrations need a connection to Postgres itself")
	}
	return nil
}

func withProvider(pool *pgxpool.Pool, f func(*goose.Provider) error) error {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(migrationLockProbeSeconds, migrationLockProbesAtMost))
	if err != nil {
		return err
	}
	store, err := database.NewStore(database.DialectPostgres, migrationsTable)
	if err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }() // closes the wrapper, not the pool
	provider, err := goose.NewProvider("", db, migrations.FS, goose.WithSessionLocker(locker), goose.WithStore(store))
	if err != nil {
		return err
	}
	return f(provider)
}
