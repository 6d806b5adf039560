package postgres_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

// SQLSTATEs of what the database itself refuses.
const (
	restrictViolation  = "23001"
	checkViolation     = "23514"
	wrongPrerequisites = "55000"
)

func requireSQLState(t *testing.T, want string, err error) {
	t.Helper()
	var pgErr *pgconn.PgError
	require.ErrorAs(t, err, &pgErr)
	require.Equal(t, want, pgErr.Code, pgErr.Message)
}

// unaudited is setup for tests that break the rules on purpose.
func unaudited(t *testing.T) *env {
	t.Helper()
	t.Parallel()
	pool := postgrestest.Pool(t, stack.PostgresURL())
	return &env{Ledger: postgres.New(pool), owner: postgres.New(pool), t: t, pool: pool}
}

// TestEntriesAreAppendOnly tries as the table's owner, who is a superuser here.
func TestEntriesAreAppendOnly(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	b.held(admission("k", tokens(1), "acme"))
	for _, role := range []string{"origin", "replica", "local"} {
		for _, sql := range []string{
			"UPDATE earmark.entries SET reason = 'other'",
			"UPDATE earmark.entries SET reserved_delta = 0 WHERE false",
			"DELETE FROM earmark.entries",
			"TRUNCATE earmark.entries",
			"TRUNCATE earmark.entries, earmark.reservations CASCADE",
			"MERGE INTO earmark.entries e USING (SELECT 1) AS x ON true WHEN MATCHED THEN DELETE",
			"INSERT INTO earmark.entries OVERRIDING SYSTEM VALUE SELECT * FROM earmark.entries ON CONFLICT (id) DO UPDATE SET reason = 'other'",
		} {
			err := pgx.BeginFunc(ctx(), b.pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx(), "SET LOCAL session_replication_role = "+role)
				require.NoError(t, err)
				_, err = tx.Exec(ctx(), sql)
				return err
			})
			requireSQLState(t, restrictViolation, err)
		}
	}
}

func TestDatabaseRefusesAnAdmissionPastItsCeiling(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	b.held(admission("k", tokens(600), "acme"))
	const byHand = `INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_delta, reserved_after, committed_after, ceiling, actor, reason)
		VALUES ('reserve', 'default', 'rsv_x', $1, 'epoch', 401, 1001, 0, 1000, 'operator', 'by hand')`
	_, err := b.pool.Exec(ctx(), byHand, budget.ID)
	requireSQLState(t, checkViolation, err)
	_, err = b.pool.Exec(ctx(), "SELECT earmark.post('reserve', 'default', 'rsv_x', $1, 'epoch', 401, 0, 'operator', 'by hand', p_ceiling => 1000)", budget.ID)
	requireSQLState(t, checkViolation, err)
	b.requireBalance(budget.ID, 600, 0)
}

func TestBalancesAreNeverNegative(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	b.held(admission("k", tokens(600), "acme"))
	for _, sql := range []string{
		"UPDATE earmark.windows SET reserved = -1 WHERE budget_id = $1",
		"UPDATE earmark.windows SET committed = -1 WHERE budget_id = $1",
		"SELECT earmark.post('release', 'default', 'rsv_x', $1, 'epoch', -601, 0, 'operator', 'by hand')",
		"SELECT earmark.post('commit', 'default', 'rsv_x', $1, 'epoch', 0, -1, 'operator', 'by hand')",
	} {
		_, err := b.pool.Exec(ctx(), sql, budget.ID)
		requireSQLState(t, checkViolation, err)
	}
	b.requireBalance(budget.ID, 600, 0)
}

func TestOnlyReadCommittedCallersAreServed(t *testing.T) {
	b := setup(t)
	b.budget("acme", "tokens", 1000)
	s := b.held(admission("k", tokens(1), "acme"))
	for _, level := range []pgx.TxIsoLevel{pgx.RepeatableRead, pgx.Serializable} {
		for _, sql := range []string{
			"SELECT earmark.reserve('x', 'default', '', '{acme}', '{\"tokens\": 1}', 1000, 'release', '{}', '', NULL, false, 'workflow')",
			"SELECT earmark.charge('x', 'default', '', '{acme}', '{\"tokens\": 1}', '{}', NULL, 'api', '')",
			"SELECT earmark.commit('default', '" + s.ID + "', '{\"tokens\": 1}', 'api', '')",
			"SELECT earmark.release('default', '" + s.ID + "', true, 'api', '')",
			"SELECT earmark.correct('default', '" + s.ID + "', 'cor_x', '', '{\"tokens\": 1}', 'api', 'why')",
			"SELECT earmark.expire('default', '" + s.ID + "', 'api', '')",
			"SELECT earmark.extend('default', '" + s.ID + "', 1000, 'api')",
			"SELECT earmark.sweep(0, 10, 'api', '')",
		} {
			err := pgx.BeginTxFunc(ctx(), b.pool, pgx.TxOptions{IsoLevel: level}, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx(), sql)
				return err
			})
			requireSQLState(t, wrongPrerequisites, err)
		}
	}
}

// TestAuditFindsWhatIsBroken breaks each rule by hand, past everything that guards it.
func TestAuditFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	const unguarded = "ALTER TABLE earmark.entries DISABLE TRIGGER entries_append_only, DISABLE TRIGGER entries_pruned; "
	for _, test := range []struct{ name, rule, sql string }{
		{"admitted past the limit", "R1", `ALTER TABLE earmark.entries DROP CONSTRAINT entries_admission_check;
			INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, reserved_after, committed_after, ceiling, actor, reason)
			SELECT 'reserve', 'default', 'rsv_x', id, 'epoch', 1001, 0, 1000, 'operator', 'by hand' FROM earmark.budgets`},
		{"only one budget changed", "R2", unguarded + "DELETE FROM earmark.entries WHERE id = (SELECT min(id) FROM earmark.entries WHERE kind = 'commit')"},
		{"reserved on one budget too much", "R2", "UPDATE earmark.reservation_budgets SET reserved = reserved + 1 WHERE committed = 0"},
		{"in the way, and not found", "R2", "UPDATE earmark.reservation_budgets SET overdue_at = NULL"},
		{"free on expiry, and not found", "R2", "UPDATE earmark.reservation_budgets SET frees_on_expiry = false"},
		{"balance does not match", "R3", "UPDATE earmark.windows SET reserved = reserved + 1"},
		{"spent and not counted", "R3", "UPDATE earmark.windows SET committed = committed - 1"},
		{"entry taken out", "R4", unguarded + "DELETE FROM earmark.entries WHERE id = (SELECT min(id) FROM earmark.entries WHERE kind = 'reserve')"},
		{"entry changed", "R4", unguarded + "UPDATE earmark.entries SET reserved_after = reserved_after + 1 WHERE kind = 'reserve'"},
		{"journal without its guard", "R4", unguarded},
		{"pruning without its guard", "R4", "ALTER TABLE earmark.entries DISABLE TRIGGER entries_pruned"},
		{"journal whose guard replication switches off", "R4", "ALTER TABLE earmark.entries ENABLE TRIGGER entries_append_only"},
		{"reserved twice", "R5", "SELECT earmark.post('reserve', 'default', reservation_id, budget_id, window_start, 1, 0, 'operator', 'by hand') FROM earmark.reservation_budgets"},
		{"released twice", "R5", "SELECT earmark.post('release', 'default', reservation_id, budget_id, window_start, 0, 0, 'operator', 'by hand') FROM earmark.reservation_budgets, generate_series(1, 2)"},
		{"corrected in the journal alone", "R5", `SELECT earmark.post('correction', 'default', s.reservation_id, s.budget_id, s.window_start, 0, -1, 'operator', 'by hand')
			FROM earmark.reservation_budgets s WHERE s.committed > 0`},
		{"correction that the journal lacks", "R5", `INSERT INTO earmark.corrections (reservation_id, id, request_hash, amounts)
			SELECT id, 'cor_x', '', '{"tokens": -1}' FROM earmark.reservations WHERE state = 'committed'`},
		{"corrected below zero", "R8", `UPDATE earmark.reservations SET usage = '{"tokens": 4}' WHERE correction IS NOT NULL`},
		{"sum of corrections changed", "R8", `UPDATE earmark.reservations SET correction = '{"tokens": -4}' WHERE correction IS NOT NULL`},
		{"settled in another window", "R7", `INSERT INTO earmark.windows (budget_id, window_start, window_end) SELECT id, '1960-01-01Z', '1960-02-01Z' FROM earmark.budgets;
			UPDATE earmark.reservation_budgets SET window_start = '1960-01-01Z'`},
		{"made outside its window", "R7", "UPDATE earmark.reservations SET created_at = '1960-01-01Z' WHERE state = 'held'"},
		{"windows that overlap", "R7", `INSERT INTO earmark.windows (budget_id, window_start, window_end) SELECT id, '2001-01-01Z', '2001-02-01Z' FROM earmark.budgets`},
		{"less than nothing reserved", "R8", `UPDATE earmark.reservations SET amounts = '{"tokens": -1}' WHERE state = 'held'`},
		{"usage in another unit", "R8", `UPDATE earmark.reservations SET usage = '{"requests": 1}' WHERE state = 'committed'`},
		{"grant that nothing has used", "grants", `INSERT INTO earmark.grants (id, tenant, budget_id, request_hash, amount, committed, priority, effective_at, reason)
			SELECT id, tenant, id, '', 9, 5, 50, created_at, 'by hand' FROM earmark.budgets`},
		{"more rolled over than was left", "grants", `INSERT INTO earmark.grants (id, tenant, budget_id, request_hash, amount, priority, effective_at, expires_at, rolled_from, rolled_left, reason)
			SELECT id, tenant, id, '', 9, 50, created_at, created_at + interval '1 day', created_at - interval '1 day', 8, 'by hand' FROM earmark.budgets`},
		{"window that no grant bears", "grants", "UPDATE earmark.windows SET granted_committed = 5"},
		{"function changed by hand", "functions", "ALTER FUNCTION earmark.reserve RESET lock_timeout"},
		{"key without a tenant", "keys", `ALTER TABLE earmark.keys DROP CONSTRAINT keys_tenant_fkey; UPDATE earmark.keys SET tenant = 'nobody'`},
		{"key that nobody created", "keys", "INSERT INTO earmark.keys (id, tenant, name, role, scopes, hash) SELECT 'byhand000000', tenant, '', 'admin', '{}', hash FROM earmark.keys"},
		{"key that nobody revoked", "keys", "UPDATE earmark.keys SET revoked_at = clock_timestamp()"},
		{"key that nobody rotated", "keys", "UPDATE earmark.keys SET replaced_by = id"},
		{"audit log without its guard", "keys", "ALTER TABLE earmark.audit_log DISABLE TRIGGER audit_log_append_only"},
		{"prices that nobody added", "prices", "INSERT INTO earmark.price_versions (id, prices, source, actor, reason) VALUES (1, '{}', '', 'operator', 'by hand')"},
		{"prices with a gap", "prices", `SELECT earmark.add_price_version(0, NULL, '{}', '', 'me', ''), earmark.add_price_version(1, NULL, '{}', '', 'me', '');
			ALTER TABLE earmark.price_versions DISABLE TRIGGER price_versions_append_only; DELETE FROM earmark.price_versions WHERE id = 1;
			ALTER TABLE earmark.price_versions ENABLE ALWAYS TRIGGER price_versions_append_only`},
		{"prices without their guard", "prices", "ALTER TABLE earmark.price_versions DISABLE TRIGGER price_versions_append_only"},
		{"usage that is in no report", "usage", "UPDATE earmark.usage_watermark SET entry_id = 9999, final_entry_id = 9999, next_entry_id = 9999"},
		{"usage reported without a charge", "usage", `INSERT INTO earmark.usage_rollups (budget_id, dimension, bucket, value, committed, charges)
			SELECT budget_id, '', window_start, '', 1, 1 FROM earmark.windows`},
		{"usage below zero", "R8", `UPDATE earmark.reservations SET usage = '{"tokens": -1}' WHERE state = 'committed'`},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := unaudited(t)
			b.budget("acme", "tokens", 1000)
			b.budget("acme/ml", "tokens", 1000)
			committed := b.held(admission("a", tokens(100), "acme/ml"))
			b.commit(committed, tokens(60))
			b.correct(correction(committed.ID, "a", tokens(-5)))
			b.held(admission("b", tokens(200), "acme/ml"))
			b.key(earmark.DefaultTenant, earmark.KeyRequest{Role: earmark.RoleRead})
			clean, err := b.CheckRules(ctx())
			require.NoError(t, err)
			require.Empty(t, clean.Mismatches())

			_, err = b.pool.Exec(ctx(), test.sql)
			require.NoError(t, err)
			report, err := b.CheckRules(ctx())
			require.NoError(t, err)
			broken := map[string]int64{}
			for _, check := range report.Checks {
				broken[check.Rule] += check.Mismatched
			}
			require.Positive(t, broken[test.rule], "%v", report.Mismatches())
		})
	}
}

// TestEntriesComeInPagesOldestFirst also shows what an entry says: what, who, why.
func TestEntriesComeInPagesOldestFirst(t *testing.T) {
	b := setup(t)
	budget := b.budget("acme", "tokens", 1000)
	other := b.budget("other", "tokens", 1000)
	s := b.held(admission("k", tokens(100), "acme"))
	s.Reason, s.Actor = "answered", earmark.ActorAPI
	b.commit(s, tokens(30))
	b.held(admission("l", tokens(1), "other"))

	var kinds []string
	filter := earmark.EntryFilter{BudgetID: budget.ID, Limit: 2}
	for {
		page, err := b.Entries(ctx(), earmark.DefaultTenant, filter)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Data), filter.Limit)
		for _, entry := range page.Data {
			kinds = append(kinds, entry.Kind)
		}
		if filter.Cursor = page.NextCursor; filter.Cursor == "" {
			break
		}
	}
	require.Equal(t, []string{"budget", "reserve", "commit"}, kinds)

	page, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{ReservationID: s.ID})
	require.NoError(t, err)
	require.Len(t, page.Data, 2)
	commit := page.Data[1]
	require.Equal(t, [2]int64{-100, 30}, [2]int64{commit.ReservedDelta, commit.CommittedDelta})
	require.Equal(t, [2]string{earmark.ActorAPI.String(), "answered"}, [2]string{commit.Actor, commit.Reason})
	require.WithinDuration(t, time.Now(), commit.CreatedAt, time.Minute)

	both, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{BudgetID: other.ID, ReservationID: s.ID})
	require.NoError(t, err)
	require.Empty(t, both.Data)
	foreign, err := b.Entries(ctx(), "other", earmark.EntryFilter{})
	require.NoError(t, err)
	require.Empty(t, foreign.Data)
	_, err = b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{Cursor: "x"})
	require.Equal(t, earmark.CodeInvalidRequest, earmark.ErrorCode(err))
}

// The journal is no feed, as the API's reference says: an entry has its id before its transaction ends. A reader that
// begins again at a cursor from before that transaction finds it.
func TestEntriesOfASlowTransactionAppearLate(t *testing.T) {
	b := setup(t)
	b.budget("slow", "tokens", 1000)
	b.budget("fast", "tokens", 1000)
	read := func(cursor string, limit int) (ids []string, next string) {
		page, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{Cursor: cursor, Limit: limit})
		require.NoError(t, err)
		for _, entry := range page.Data {
			ids = append(ids, entry.ReservationID)
		}
		return ids, page.NextCursor
	}
	_, before := read("", 1)
	require.NotEmpty(t, before)

	tx, err := b.pool.Begin(ctx())
	require.NoError(t, err)
	_, err = tx.Exec(ctx(), `SELECT earmark.reserve('slow', 'default', 'slow', '{slow}', '{"tokens": 1}', 60000, 'release', '{}', 'slow', NULL, false, 'workflow')`)
	require.NoError(t, err)
	fast := b.held(admission("fast", tokens(1), "fast"))
	b.commit(fast, tokens(1))
	ids, last := read(before, 2)
	require.Equal(t, []string{"", fast.ID}, ids)
	require.NoError(t, tx.Commit(ctx()))

	ids, _ = read(last, 10)
	require.Equal(t, []string{fast.ID}, ids, "the slow one's id is lower")
	ids, _ = read(before, 10)
	require.Equal(t, []string{"", "slow", fast.ID, fast.ID}, ids)
	page, err := b.Entries(ctx(), earmark.DefaultTenant, earmark.EntryFilter{ReservationID: "slow"})
	require.NoError(t, err)
	require.Len(t, page.Data, 1)
}
