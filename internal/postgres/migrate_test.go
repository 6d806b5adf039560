package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
// A program that would break on the schema of this one keeps it from being applied, until that program has gone.
func TestMigrateRefusesWhileAnOlderProgramIsConnected(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	config := pool.Config().ConnConfig
	config.RuntimeParams["application_name"] = fmt.Sprintf("earmark/%d", migrations.OldestBeside-1)
	older, err := pgx.ConnectConfig(ctx(), config)
	require.NoError(t, err)
	programs, err := postgres.ConnectedPrograms(ctx(), pool)
	require.NoError(t, err)
	require.Equal(t, []postgres.Program{{Schema: migrations.OldestBeside - 1, Client: "127.0.0.1", Connections: 1}}, programs)
	_, err = postgres.Migrate(ctx(), pool)
	require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
	require.ErrorContains(t, err, fmt.Sprintf("a program for schema %d is connected from 127.0.0.1 (1 connections)", migrations.OldestBeside-1))
	version, _, err := postgres.SchemaVersion(ctx(), pool)
	require.NoError(t, err)
	require.Zero(t, version, "nothing was applied")

	require.NoError(t, older.Close(ctx()))
	config.RuntimeParams["application_name"] = fmt.Sprintf("earmark/%d", migrations.OldestBeside)
	beside, err := pgx.ConnectConfig(ctx(), config)
	require.NoError(t, err)
	defer func() { require.NoError(t, beside.Close(ctx())) }()
	require.Eventually(t, func() bool { // a closed session shows for a moment
		_, err := postgres.Migrate(ctx(), pool)
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
}

// A migration that waits for a table lets others through who come after it.
func TestMigrationDoesNotQueueAdmissionsBehindIt(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	_, err := stepProvider(t, pool).UpTo(ctx(), 4)
	require.NoError(t, err)
	reader, err := pool.Begin(ctx()) // such as an audit
	require.NoError(t, err)
	_, err = reader.Exec(ctx(), "SELECT count(*) FROM earmark.keys") // which step 5 changes
	require.NoError(t, err)

	migrated := make(chan error, 1)
	go func() {
		_, err := postgres.Migrate(ctx(), pool)
		migrated <- err
	}()
	waiting := func() (waits bool) {
		err := pool.QueryRow(ctx(), "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'earmark.keys'::regclass AND NOT granted)").Scan(&waits)
		return err == nil && waits
	}
	require.Eventually(t, waiting, 30*time.Second, 5*time.Millisecond)
	soon, cancel := context.WithTimeout(ctx(), 30*time.Second)
	defer cancel()
	_, err = pool.Exec(soon, "SELECT count(*) FROM earmark.keys") // while the first one is still at it
	require.NoError(t, err)
	require.Empty(t, migrated)
	require.NoError(t, reader.Rollback(ctx()))
	require.NoError(t, <-migrated)
}

// A deadlock with a call undoes a step, and the step is tried again.
func TestMigrationIsTriedAgainAfterADeadlock(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	_, err := stepProvider(t, pool).UpTo(ctx(), migrations.OldestBeside)
	require.NoError(t, err)
	_, err = pool.Exec(ctx(), `CREATE SEQUENCE public.steps; -- which no rollback sets back
		CREATE FUNCTION public.fail_once() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('public.steps') = 1 THEN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = 'deadlock_detected'; END IF;
		END $$;
		CREATE EVENT TRIGGER fail_once ON ddl_command_start EXECUTE FUNCTION public.fail_once()`)
	require.NoError(t, err)
	_, err = postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
}

// A step that has a lock of a table and then takes a stronger one of it is in a deadlock with each call that reads the table
// and then writes to it.
func TestStepsTakeTheStrongestLockOfATableFirst(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	provider := stepProvider(t, pool)
	_, err := provider.UpTo(ctx(), migrations.OldestBeside)
	require.NoError(t, err)
	for {
		begun := map[string]bool{} // tables that nobody reads any more, so that the step gets through to the next
		for {
			reader, err := pool.Begin(ctx())
			require.NoError(t, err)
			tables, err := reader.Query(ctx(), "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'earmark'::regnamespace AND relkind = 'r'")
			require.NoError(t, err)
			names, err := pgx.CollectRows(tables, pgx.RowTo[string])
			require.NoError(t, err)
			for _, name := range names {
				if !begun[name] {
					_, err := reader.Exec(ctx(), "LOCK TABLE "+name+" IN ACCESS SHARE MODE")
					require.NoError(t, err)
				}
			}
			type outcome struct {
				step *goose.MigrationResult
				err  error
			}
			ended := make(chan outcome, 1)
			stepping, stop := context.WithCancel(ctx())
			go func() {
				step, err := provider.UpByOne(stepping)
				ended <- outcome{step, err}
			}()
			var waitsFor string
			var has []string
			var result *outcome
			require.Eventually(t, func() bool {
				select {
				case o := <-ended:
					result = &o
					return true
				default:
				}
				err := pool.QueryRow(ctx(), `WITH l AS MATERIALIZED (SELECT * FROM pg_locks) -- of one moment
					SELECT w.relation::regclass::text, array(SELECT mode FROM l h WHERE h.pid = w.pid AND h.relation = w.relation AND h.granted)
					FROM l w JOIN pg_stat_activity USING (pid) WHERE NOT w.granted AND w.mode = 'AccessExclusiveLock' AND datname = current_database()`).Scan(&waitsFor, &has)
				return err == nil
			}, 30*time.Second, 5*time.Millisecond)
			stop()
			if result == nil {
				<-ended
			}
			require.NoError(t, reader.Rollback(ctx()))
			if result != nil {
				if errors.Is(result.err, goose.ErrNoNextVersion) {
					return
				}
				require.NoError(t, result.err)
				break
			}
			require.Empty(t, has, "a step has these locks of %s and wants all of it", waitsFor)
			begun[waitsFor] = true
		}
	}
}

// A step locks the tables that grow for moments only, however many rows they have: it writes none of them anew, reads
// them to check no constraint, and builds no index on them in its transaction.
func TestStepsDoNotWorkThroughLargeTables(t *testing.T) {
	t.Parallel()
	pool := emptyPool(t)
	provider := stepProvider(t, pool)
	_, err := provider.UpTo(ctx(), migrations.OldestBeside)
	require.NoError(t, err)
	const sql = `SELECT 'table ' || c.relname || ' in file ' || pg_relation_filenode(c.oid) FROM pg_class c WHERE c.oid = ANY ($1::text[]::regclass[])
		UNION ALL SELECT 'index ' || i.indexrelid::regclass || ' in file ' || pg_relation_filenode(i.indexrelid) FROM pg_index i WHERE i.indrelid = ANY ($1::text[]::regclass[])
		UNION ALL SELECT 'constraint ' || conname || ' of ' || conrelid::regclass FROM pg_constraint WHERE conrelid = ANY ($1::text[]::regclass[]) AND convalidated AND contype IN ('c', 'f')`
	large := []string{"earmark.reservations", "earmark.reservation_budgets", "earmark.entries", "earmark.windows", "earmark.corrections"}
	state := func() (rows []string) {
		found, err := pool.Query(ctx(), sql, large)
		require.NoError(t, err)
		rows, err = pgx.CollectRows(found, pgx.RowTo[string])
		require.NoError(t, err)
		return rows
	}
	before := state()
	require.Len(t, slices.DeleteFunc(slices.Clone(before), func(row string) bool { return !strings.HasPrefix(row, "table ") }), len(large))
	for {
		step, err := provider.UpByOne(ctx())
		if errors.Is(err, goose.ErrNoNextVersion) {
			return
		}
		require.NoError(t, err)
		after := state()
		for _, row := range after {
			require.Contains(t, before, row, "%s works through a large table: add the constraint NOT VALID, make the index CONCURRENTLY, or leave the rows alone", step.Source.Path)
		}
		before = after
	}
}

// Each step says what it is for, which `earmark migrate up --plan` shows.
func TestStepsSayWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrations.Schema(), "*.sql")
	require.NoError(t, err)
	for _, name := range names {
		require.NotEmpty(t, migrations.Purpose(name), name)
	}
	require.Equal(t, "Browsers that are signed in with a key.", migrations.Purpose("00007_sign_ins.sql"))
}

func TestFunctionsHaveOneDefinition(t *testing.T) {
	b := setup(t)
	definedIn := map[string]string{}
	names, err := fs.Glob(migrations.Functions(), "*.sql")
	require.NoError(t, err)
	for _, name := range names {
		text, err := fs.ReadFile(migrations.Functions(), name)
		require.NoError(t, err)
		for _, match := range functionHead.FindAllStringSubmatch(string(text), -1) {
			if match[1] == "window_at" && definedIn[match[1]] == name {
				continue // the form that earlier programs call, beside its heir
			}
			require.NotContains(t, definedIn, match[1], "it is defined in %s too", name)
			definedIn[match[1]] = name
		}
	}
	rows, err := b.pool.Query(ctx(), "SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = 'earmark'::regnamespace")
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
