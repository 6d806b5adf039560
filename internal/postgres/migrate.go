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
	"github.com/earmark-dev/earmark/internal/ctxtime"
	"github.com/earmark-dev/earmark/migrations"
)

const (
	// With the schema's name, because for a user called earmark the schema earmark comes
	// first on the search path, and does not exist when goose creates the table.
	migrationsTable = "public.earmark_migrations"
	// The pause between tries to get the lock while another process migrates.
	migrationLockProbeSeconds = 1
	migrationLockProbesAtMost = 60
	// A step that waits for a table makes everybody who comes after it wait too. It gives up soon, lets them through and
	// tries again: a long transaction, such as an audit's, then delays the migration and no admission.
	stepLockTimeout = 500 * time.Millisecond
	stepLockPause   = time.Second
	stepLockTries   = 300
)

// Migration is one step of the schema, or the set of functions, and when it was applied.
type Migration struct {
	Version   int64 // 0 for the functions
	Name      string
	Purpose   string
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
	pool, err = neverInTheWay(ctx, pool)
	if err != nil {
		return nil, fmt.Errorf("migrate the database: %w", err)
	}
	defer pool.Close()
	err = withProvider(pool, func(db *sql.DB, provider *goose.Provider) error {
		return locked(ctx, db, func() error {
			if err := requireKnown(ctx, pool); err != nil {
				return err
			}
			if err := requireNoneOlder(ctx, pool, migrations.OldestBeside); err != nil { // mutation: none-older
				return err
			}
			return retryLocks(ctx, func() error {
				results, err := provider.Up(ctx)
				for _, result := range appliedBy(results, err) {
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
	})
	if err != nil {
		return applied, fmt.Errorf("migrate the database: %w", err)
	}
	return applied, nil
}

// neverInTheWay returns a pool like this one whose statements wait for a lock no longer than stepLockTimeout.
func neverInTheWay(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Pool, error) {
	config := pool.Config()
	config.ConnConfig.RuntimeParams["lock_timeout"] = fmt.Sprint(stepLockTimeout.Milliseconds()) // mutation: step-lock-timeout
	return pgxpool.NewWithConfig(ctx, config)
}

// retryLocks repeats f while it fails since somebody holds what it needs.
func retryLocks(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		state := sqlState(err)
		if state != lockNotAvailable && state != deadlockDetected || try == stepLockTries || !ctxtime.Sleep(ctx, stepLockPause) { // mutation: step-deadlock
			return err
		}
	}
}

// appliedBy are the steps that took effect although a later one failed.
func appliedBy(results []*goose.MigrationResult, err error) []*goose.MigrationResult {
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		return partial.Applied
	}
	return results
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
			steps = append(steps, Migration{Version: status.Source.Version, Name: status.Source.Path, Purpose: migrations.Purpose(status.Source.Path), AppliedAt: status.AppliedAt})
		}
		return err
	})
	if err == nil {
		functions := Migration{Name: functionsName(), Purpose: "All functions of the ledger are replaced, in one transaction."}
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

// Program is a program of Earmark that is connected to the database.
type Program struct {
	Schema      int64 // that it needs; 0 if it does not say
	Client      string
	Connections int
}

// ConnectedPrograms returns the programs for other schemas that are connected, oldest first. Those that connect by an
// account whose sessions this one may not see, or through a pooler that names itself, are missing.
func ConnectedPrograms(ctx context.Context, pool *pgxpool.Pool) ([]Program, error) {
	const sql = `SELECT coalesce(substring(application_name FROM '^earmark/([0-9]{1,9})$')::bigint, 0), coalesce(host(client_addr), 'this machine'), count(*)
		FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^earmark(/[0-9]{1,9})?$' AND application_name <> $1
		GROUP BY 1, 2 ORDER BY 1, 2`
	rows, err := pool.Query(ctx, sql, ApplicationName())
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Program])
}

// requireNoneOlder returns an error if a program is connected that does not work beside this one.
func requireNoneOlder(ctx context.Context, pool *pgxpool.Pool, oldest int64) error {
	programs, err := ConnectedPrograms(ctx, pool)
	if err != nil {
		return err
	}
	for _, p := range programs {
		if p.Schema > 0 && p.Schema < oldest {
			return earmark.Errorf(earmark.CodeInvalidRequest, "a program for schema %d is connected from %s (%d connections), and this one works beside programs for schema %d or newer; "+
				"upgrade it or stop it first", p.Schema, p.Client, p.Connections, oldest)
		}
	}
	return nil
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
