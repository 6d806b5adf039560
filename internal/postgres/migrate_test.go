package postgres_test

import (
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"regexp"
	"slices"
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
	names, err := fs.Glob(migrations.Schema(), "*.sql")
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

// A database that holds another program's functions is not ready, until migrate up has applied
// this program's. Functions of a newer program stay, and serve this one.
func TestFunctionsAreAppliedWhenTheyChanged(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	ledger := postgres.New(pool)
	_, err := postgres.Migrate(ctx(), pool)
	require.NoError(t, err)

	_, err = pool.Exec(ctx(), "UPDATE earmark.function_sets SET checksum = 'older', applied_at = clock_timestamp() - interval '1 day'")
	require.NoError(t, err)
	err = ledger.Ready(ctx())
	require.Equal(t, earmark.CodeUnavailable, earmark.ErrorCode(err))
	require.ErrorContains(t, err, "earmark migrate up")
	status, err := postgres.MigrationStatus(ctx(), pool)
	require.NoError(t, err)
	require.Contains(t, status[len(status)-1].Name, "functions")
	require.True(t, status[len(status)-1].AppliedAt.IsZero())

	steps, err := postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	require.Len(t, steps, 1)
	require.Equal(t, status[len(status)-1].Name, steps[0].Name)
	require.NoError(t, ledger.Ready(ctx()))

	const newer = "INSERT INTO earmark.function_sets (checksum, fingerprint) VALUES ('newer', earmark.functions_fingerprint())"
	_, err = pool.Exec(ctx(), newer)
	require.NoError(t, err)
	steps, err = postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	require.Empty(t, steps)
	require.NoError(t, ledger.Ready(ctx()))
}

// A role that owns the database and is no superuser can migrate it, and prune.
func TestMigrateWithoutASuperuser(t *testing.T) {
	t.Parallel()
	admin := emptyPool(t)
	config := admin.Config().ConnConfig
	role := config.Database + "_owner"
	_, err := admin.Exec(ctx(), "CREATE ROLE "+role+" ROLE "+config.User)
	require.NoError(t, err)
	_, err = admin.Exec(ctx(), "ALTER DATABASE "+config.Database+" OWNER TO "+role)
	require.NoError(t, err)
	_, err = admin.Exec(ctx(), "GRANT ALL ON SCHEMA public TO "+role)
	require.NoError(t, err)
	address, err := url.Parse(stack.PostgresURL())
	require.NoError(t, err)
	address.User, address.Path = url.UserPassword(config.User, config.Password), "/"+config.Database
	address.RawQuery = url.Values{"role": {role}}.Encode() // which may do what that role may, and no more
	pool, err := postgres.Open(ctx(), address.String())
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	_, err = postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
	b.budget("acme", "tokens", 10)
	b.commit(b.held(admission("k", tokens(10), "acme")), tokens(7))
	_, err = b.owner.Prune(ctx(), postgres.PruneOptions{Keep: postgres.LeastKept, Actor: earmark.OperatorActor("alice")})
	require.NoError(t, err)
}

func TestMigrateRefusesANewerSchema(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	_, err := postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	_, err = pool.Exec(ctx(), "INSERT INTO public.earmark_migrations (version_id, is_applied) VALUES (1000, true)")
	require.NoError(t, err)
	_, err = postgres.Migrate(ctx(), pool)
	require.ErrorContains(t, err, fmt.Sprint("the database's schema is at version 1000, and this program knows versions up to ", migrations.Latest(), ":"))
}

var functionHead = regexp.MustCompile(`(?m)^CREATE OR REPLACE FUNCTION earmark\.(\w+)\(`)

// Each function that the database has is defined in one file, once.
func TestFunctionsHaveOneDefinition(t *testing.T) {
	b := setup(t)
	definedIn := map[string]string{}
	names, err := fs.Glob(migrations.Functions(), "*.sql")
	require.NoError(t, err)
	for _, name := range names {
		text, err := fs.ReadFile(migrations.Functions(), name)
		require.NoError(t, err)
		for _, match := range functionHead.FindAllStringSubmatch(string(text), -1) {
			require.NotContains(t, definedIn, match[1], "it is defined in %s too", name)
			definedIn[match[1]] = name
		}
	}
	rows, err := b.pool.Query(ctx(), "SELECT proname::text FROM pg_proc WHERE pronamespace = 'earmark'::regnamespace")
	require.NoError(t, err)
	installed, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.ElementsMatch(t, slices.Collect(maps.Keys(definedIn)), installed)
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
	require.Equal(t, latest+1, applied.Load(), "the steps and the functions")

	again, err := postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	require.Empty(t, again)
	status, err := postgres.MigrationStatus(ctx(), pool)
	require.NoError(t, err)
	require.Len(t, status, int(latest)+1)
	for _, step := range status {
		require.False(t, step.AppliedAt.IsZero(), step.Name)
	}
}

// stepProvider runs the numbered steps one by one.
func stepProvider(t *testing.T, pool *pgxpool.Pool) *goose.Provider {
	t.Helper()
	store, err := database.NewStore(database.DialectPostgres, "public.earmark_migrations")
	require.NoError(t, err)
	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	provider, err := goose.NewProvider("", db, migrations.Schema(), goose.WithStore(store))
	require.NoError(t, err)
	return provider
}

func TestMigrationsGoDownAndUpAgain(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	_, err := postgres.Migrate(ctx(), pool)
	require.NoError(t, err)

	provider := stepProvider(t, pool)
	_, latest, err := postgres.SchemaVersion(ctx(), pool)
	require.NoError(t, err)
	for version := latest - 1; version >= 0; version-- {
		_, err = provider.Down(ctx())
		require.NoError(t, err)
		current, _, err := postgres.SchemaVersion(ctx(), pool)
		require.NoError(t, err)
		require.Equal(t, version, current)
	}
	var exists bool
	require.NoError(t, pool.QueryRow(ctx(), "SELECT to_regnamespace('earmark') IS NOT NULL").Scan(&exists))
	require.False(t, exists, "nothing is left behind")

	_, err = postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	b := &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
	budget := b.budget("acme", "tokens", 10)
	b.held(admission("k", tokens(10), "acme"))
	b.requireBalance(budget.ID, 10, 0)
}
