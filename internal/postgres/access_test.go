package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

// asApp returns a pool on pool's database whose sessions have the rights of postgres.AppRole, as those
// of `earmark serve` should.
func asApp(t *testing.T, pool *pgxpool.Pool) *pgxpool.Pool {
	t.Helper()
	config := pool.Config().Copy()
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SET SESSION AUTHORIZATION "+postgres.AppRole)
		return err
	}
	app, err := pgxpool.NewWithConfig(ctx(), config)
	require.NoError(t, err)
	t.Cleanup(app.Close)
	return app
}

// Whoever has the credentials of `earmark serve` alone changes no row but through the ledger's
// functions, and nothing about the tables and functions themselves.
func TestAppRoleChangesNothingByItself(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.held(admission("one", tokens(10), "acme"))
	app := asApp(t, b.pool)

	rows, err := b.pool.Query(ctx(), "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'earmark'")
	require.NoError(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Greater(t, len(tables), 6)
	tables = append(tables, "public.earmark_migrations")

	var statements []string
	for _, table := range tables {
		if !strings.Contains(table, ".") {
			table = "earmark." + table
		}
		var column string
		require.NoError(t, b.pool.QueryRow(ctx(), "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum DESC LIMIT 1", table).Scan(&column))
		statements = append(statements,
			"INSERT INTO "+table+" DEFAULT VALUES",
			"UPDATE "+table+" SET "+column+" = "+column, "DELETE FROM "+table, "TRUNCATE "+table+" CASCADE",
			"SELECT * FROM "+table+" FOR UPDATE",
			"ALTER TABLE "+table+" ADD COLUMN x text", "ALTER TABLE "+table+" DISABLE TRIGGER ALL", "ALTER TABLE "+table+" OWNER TO "+postgres.AppRole,
			"DROP TABLE "+table+" CASCADE", "CREATE INDEX ON "+table+" ("+column+")", "CREATE RULE r AS ON INSERT TO "+table+" DO INSTEAD NOTHING",
			"CREATE TRIGGER t BEFORE INSERT ON "+table+" EXECUTE FUNCTION earmark.refuse_change()",
			"COPY "+table+" FROM STDIN")
	}
	statements = append(statements,
		"CREATE TABLE earmark.x (y int)", "CREATE FUNCTION earmark.x() RETURNS void LANGUAGE sql AS ''",
		"CREATE OR REPLACE FUNCTION earmark.require_read_committed() RETURNS void LANGUAGE plpgsql AS 'BEGIN END'",
		"DROP FUNCTION earmark.require_read_committed", "ALTER FUNCTION earmark.require_read_committed() SECURITY DEFINER",
		"DROP SCHEMA earmark CASCADE", "ALTER SCHEMA earmark RENAME TO x", "SET session_replication_role = replica",
		"CREATE ROLE x", "CREATE DATABASE x", "ALTER SYSTEM SET fsync = off",
		// The functions that only others call run with the rights of this role.
		"SELECT earmark.note('budget', 'default', NULL, 'x', 'me', '')",
		"SELECT earmark.post(p_kind => 'commit', p_tenant => 'default', p_reservation_id => r.reservation_id, p_budget_id => r.budget_id, p_window_start => r.window_start, "+
			"p_reserved_delta => -1, p_committed_delta => 0, p_actor => 'me', p_reason => '') FROM earmark.reservation_budgets r",
		"SELECT earmark.lock_reservation('default', id) FROM earmark.reservations",
		"SELECT earmark.apply_expiry(r, 'me', '') FROM earmark.reservations r",
		"SELECT earmark.log_change('default', 'me', 'budget.change', 'x', '', NULL, NULL)",
		// Those that belong to the operator of the database.
		"SELECT earmark.create_tenant('x', 'me', '')", "SELECT earmark.set_tenant_disabled('default', true, 'me', '')",
	)
	before := b.dump(tables)
	for _, statement := range statements {
		_, err := app.Exec(ctx(), statement, pgx.QueryExecModeSimpleProtocol)
		var fault *pgconn.PgError
		require.ErrorAs(t, err, &fault, statement)
		require.Equal(t, "42501", fault.Code, "%s: %s", statement, fault.Message) // insufficient privilege
	}
	require.Equal(t, before, b.dump(tables))
}

// dump is all rows of the tables.
func (b *env) dump(tables []string) (rows []string) {
	for _, table := range tables {
		if !strings.Contains(table, ".") {
			table = "earmark." + table
		}
		found, err := b.pool.Query(ctx(), "SELECT x::text FROM "+table+" x ORDER BY 1")
		require.NoError(b.t, err)
		texts, err := pgx.CollectRows(found, pgx.RowTo[string])
		require.NoError(b.t, err)
		rows = append(rows, texts...)
	}
	return rows
}

// Where the account that migrates may not make roles, migrate up succeeds without the role; once
// somebody else has made it, the next one grants it what it needs.
func TestMigrateWithoutTheRightToMakeRoles(t *testing.T) {
	t.Parallel()
	pool := postgrestest.Pool(t, stack.PostgresURL())
	has, err := postgres.HasAppRole(ctx(), pool)
	require.NoError(t, err)
	require.True(t, has)
	_, err = pool.Exec(ctx(), "REVOKE ALL ON SCHEMA earmark FROM "+postgres.AppRole)
	require.NoError(t, err)
	has, err = postgres.HasAppRole(ctx(), pool)
	require.NoError(t, err)
	require.False(t, has)
	_, err = postgres.Migrate(ctx(), pool)
	require.NoError(t, err)
	has, err = postgres.HasAppRole(ctx(), pool)
	require.NoError(t, err)
	require.True(t, has)
}
