package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/migrations"
)

const (
	// With the schema's name, because for a user called earmark the schema earmark comes
	// first on the search path, and does not exist when goose creates the table.
	migrationsTable = "public.earmark_migrations"
	// The pause between tries to get the lock while another process migrates.
	migrationLockProbeSeconds = 1
	migrationLockProbesAtMost = 60
)

// Migration is one step of the schema, or the set of functions, and when it was applied.
type Migration struct {
	Version   int64 // 0 for the functions
	Name      string
	AppliedAt time.Time // zero: pending
	Took      time.Duration
}

// Migrate applies the steps and functions that this program needs, and returns those that
// it applied. If several processes call it at once, one works and the others wait.
// Functions of a newer program stay, because they serve the calls of this one too.
func Migrate(ctx context.Context, pool *pgxpool.Pool) (applied []Migration, err error) {
	if err := requireDirect(ctx, pool); err != nil {
		return nil, fmt.Errorf("migrate the database: %w", err)
	}
	err = withProvider(pool, func(db *sql.DB, provider *goose.Provider) error {
		return locked(ctx, db, func() error {
			if err := requireKnown(ctx, pool); err != nil {
				return err
			}
			results, err := provider.Up(ctx)
			for _, result := range results {
				applied = append(applied, Migration{Version: result.Source.Version, Name: result.Source.Path, AppliedAt: time.Now(), Took: result.Duration})
			}
			if err != nil {
				return err
			}
			functions, err := applyFunctions(ctx, pool)
			if functions != nil {
				applied = append(applied, *functions)
			}
			if err != nil {
				return err
			}
			if _, err := pool.Exec(ctx, migrations.AccessSQL(), pgx.QueryExecModeSimpleProtocol); err != nil {
				return fmt.Errorf("the access of the role %s: %w", AppRole, err)
			}
			return nil
		})
	})
	if err != nil {
		return applied, fmt.Errorf("migrate the database: %w", err)
	}
	return applied, nil
}

// applyFunctions replaces the functions in one transaction, unless this set was applied
// before. It returns nil if it had nothing to do.
func applyFunctions(ctx context.Context, pool *pgxpool.Pool) (*Migration, error) {
	began := time.Now()
	known, _, err := functionsApplied(ctx, pool)
	if err != nil || known {
		return nil, err
	}
	const record = "INSERT INTO earmark.function_sets (checksum, fingerprint) VALUES ($1, earmark.functions_fingerprint())"
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Conn().PgConn().Exec(ctx, migrations.FunctionsSQL()).ReadAll(); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, record, migrations.FunctionsChecksum())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the functions: %w", err)
	}
	return &Migration{Name: functionsName(), AppliedAt: time.Now(), Took: time.Since(began)}, nil
}

func functionsName() string { return "functions " + migrations.FunctionsChecksum()[:12] }

// functionsApplied reports whether this program's set of functions was ever applied, and
// when.
func functionsApplied(ctx context.Context, pool *pgxpool.Pool) (applied bool, at time.Time, err error) {
	var exists bool
	if err := pool.QueryRow(ctx, "SELECT to_regclass('earmark.function_sets') IS NOT NULL").Scan(&exists); err != nil || !exists {
		return false, time.Time{}, err
	}
	err = pool.QueryRow(ctx, "SELECT applied_at FROM earmark.function_sets WHERE checksum = $1", migrations.FunctionsChecksum()).Scan(&at)
	if isNoRows(err) {
		return false, time.Time{}, nil
	}
	return err == nil, at, err
}

// AppRole is the database role for `earmark serve` and `earmark worker`: it reads everything, and changes
// something only through the ledger's functions. It owns nothing and cannot log in; accounts that can
// are made its members.
const AppRole = "earmark_app"

// HasAppRole reports whether AppRole exists and may use this database's ledger.
func HasAppRole(ctx context.Context, pool *pgxpool.Pool) (has bool, err error) {
	err = pool.QueryRow(ctx, "SELECT coalesce((SELECT has_schema_privilege(oid, 'earmark', 'USAGE') FROM pg_roles WHERE rolname = $1), false)", AppRole).Scan(&has)
	return has, err
}

// MigrationStatus returns every step of the schema, oldest first, and then the functions.
func MigrationStatus(ctx context.Context, pool *pgxpool.Pool) ([]Migration, error) {
	var steps []Migration
	err := withProvider(pool, func(_ *sql.DB, provider *goose.Provider) error {
		statuses, err := provider.Status(ctx)
		for _, status := range statuses {
			steps = append(steps, Migration{Version: status.Source.Version, Name: status.Source.Path, AppliedAt: status.AppliedAt})
		}
		return err
	})
	if err == nil {
		functions := Migration{Name: functionsName()}
		_, functions.AppliedAt, err = functionsApplied(ctx, pool)
		steps = append(steps, functions)
	}
	if err != nil {
		return nil, fmt.Errorf("read the schema's version: %w", err)
	}
	return steps, nil
}

// SchemaVersion returns the database's version, 0 if it was never migrated, and the version
// that this program needs.
func SchemaVersion(ctx context.Context, pool *pgxpool.Pool) (current, latest int64, err error) {
	latest = migrations.Latest()
	var exists bool
	if err := pool.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", migrationsTable).Scan(&exists); err != nil {
		return 0, latest, err
	}
	if exists {
		err = pool.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+migrationsTable).Scan(&current)
	}
	return current, latest, err
}

// requireKnown returns an error if the database's schema is newer than this program's.
func requireKnown(ctx context.Context, pool *pgxpool.Pool) error {
	current, latest, err := SchemaVersion(ctx, pool)
	if err != nil || current <= latest {
		return err
	}
	return earmark.Errorf(earmark.CodeInvalidRequest, "the database's schema is at version %d, and this program knows versions up to %d: a newer program made it, "+
		"or a build from before the first release, whose schema cannot be upgraded; run the newer program, or use an empty database", current, latest)
}

// requireDirect returns an error if the connection goes through a pooler: the lock that
// serialises migrations belongs to a session, and a pooler may give that session to another
// client, with the lock. It recognises a pooler by the id of the server process, which a
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

// locked runs f while no other process migrates.
func locked(ctx context.Context, db *sql.DB, f func() error) (err error) {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(migrationLockProbeSeconds, migrationLockProbesAtMost))
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // returns it to the pool
	if err := locker.SessionLock(ctx, conn); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, locker.SessionUnlock(context.WithoutCancel(ctx), conn)) }()
	return f()
}

func withProvider(pool *pgxpool.Pool, f func(*sql.DB, *goose.Provider) error) error {
	store, err := database.NewStore(database.DialectPostgres, migrationsTable)
	if err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { _ = db.Close() }() // closes the wrapper, not the pool
	provider, err := goose.NewProvider("", db, migrations.Schema(), goose.WithStore(store))
	if err != nil {
		return err
	}
	return f(db, provider)
}
