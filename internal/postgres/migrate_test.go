package postgres_test

import (
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/migrations"
)

var emptyDatabases atomic.Int64

// emptyPool is a pool on a database that was never migrated.
func emptyPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	conn, err := pgx.Connect(ctx(), stack.PostgresURL())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx())) }()
	name := fmt.Sprintf("earmark_empty_%d", emptyDatabases.Add(1))
	_, err = conn.Exec(ctx(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	address, err := url.Parse(stack.PostgresURL())
	require.NoError(t, err)
	address.Path = "/" + name
	pool, err := postgres.Open(ctx(), address.String())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

// TestMigrationsAreNumberedWithoutGaps matters because their number is taken for
// the version that the program needs.
func TestMigrationsAreNumberedWithoutGaps(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrations.FS, "*.sql")
	require.NoError(t, err)
	require.NotEmpty(t, names)
	for i, name := range names {
		require.True(t, strings.HasPrefix(name, fmt.Sprintf("%05d_", i+1)), "%s is number %d", name, i+1)
	}
}

func TestReadySaysWhenTheDatabaseIsNotMigrated(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	ledger := postgres.New(pool)
	err := ledger.Ready(ctx())
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	require.ErrorContains(t, err, "earmark migrate")

	status, err := postgres.MigrationStatus(ctx(), pool)
	require.NoError(t, err)
	require.True(t, status[0].AppliedAt.IsZero())
	_, err = postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	require.NoError(t, ledger.Ready(ctx()))

	_, err = pool.Exec(ctx(), "DELETE FROM public.earmark_migrations WHERE version_id = (SELECT max(version_id) FROM public.earmark_migrations)")
	require.NoError(t, err)
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(ledger.Ready(ctx())), "the newest step is missing")
}

func TestMigratingTwiceOrTogetherIsOnce(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	_, latest, err := postgres.SchemaVersion(ctx(), pool)
	require.NoError(t, err)
	var applied atomic.Int64
	var group errgroup.Group
	for range 3 {
		group.Go(func() error {
			steps, err := postgres.Migrate(ctx(), pool)
			applied.Add(int64(len(steps)))
			return err
		})
	}
	require.NoError(t, group.Wait())
	require.Equal(t, latest, applied.Load())

	again, err := postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	require.Empty(t, again)
	status, err := postgres.MigrationStatus(ctx(), pool)
	require.NoError(t, err)
	require.Len(t, status, int(latest))
	for _, step := range status {
		require.False(t, step.AppliedAt.IsZero(), step.Name)
	}
}

func TestMigrationsGoDownAndUpAgain(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	_, err := postgres.Migrate(ctx(), pool)
	require.NoError(t, err)

	store, err := database.NewStore(database.DialectPostgres, "public.earmark_migrations")
	require.NoError(t, err)
	db := stdlib.OpenDBFromPool(pool)
	defer func() { require.NoError(t, db.Close()) }()
	provider, err := goose.NewProvider("", db, migrations.FS, goose.WithStore(store))
	require.NoError(t, err)
	_, latest, err := postgres.SchemaVersion(ctx(), pool)
	require.NoError(t, err)
	for version := latest - 1; version >= 0; version-- {
		_, err = provider.Down(ctx())
		require.NoError(t, err)
		current, _, err := postgres.SchemaVersion(ctx(), pool)
		require.NoError(t, err)
		require.Equal(t, version, current)
		if version == latest-1 { // what processes call goes on, also those of the release before
			b := &bundle{Ledger: postgres.New(pool), t: t, pool: pool}
			b.budget("acme", "tokens", 10)
			s := b.held(admission("k", tokens(10), "acme"))
			var answer earmark.Result
			require.NoError(t, pool.QueryRow(ctx(), "SELECT earmark.commit($1, $2, $3, 'workflow', '')", s.Tenant, s.ID, tokens(7)).Scan(&answer))
			require.Equal(t, earmark.OutcomeApplied, answer.Outcome)
			require.Equal(t, earmark.OutcomeSame, b.commit(s, tokens(7)).Outcome)
		}
	}
	var exists bool
	require.NoError(t, pool.QueryRow(ctx(), "SELECT to_regnamespace('earmark') IS NOT NULL").Scan(&exists))
	require.False(t, exists, "nothing is left behind")

	_, err = postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	b := &bundle{Ledger: postgres.New(pool), t: t, pool: pool}
	budget := b.budget("acme", "tokens", 10)
	b.held(admission("k", tokens(10), "acme"))
	b.requireBalance(budget.ID, 10, 0)
}
