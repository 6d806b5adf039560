package postgres_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

// Usage of 90 days, spread evenly over them: 1,000 scopes below the budget, a metadata key with 20 values and one with 5,000.
const (
	usageCharges = 10_000_000
	usageDays    = 90
	usageTail    = 1_000 // the last charges, which the sums do not have yet; 13 minutes
)

const usageWindows = `
INSERT INTO earmark.windows (budget_id, window_start, window_end)
SELECT DISTINCT b.id, w.window_start, w.window_end FROM earmark.budgets b, generate_series(0, $1) AS day,
     earmark.window_bounds(b.period, b.timezone, now() - day * interval '1 day') AS w`

// usageSeed writes the charges from $1 to $2 of $3 straight into the tables.
const usageSeed = `
WITH made AS MATERIALIZED (
    SELECT n, 'rsv_' || lpad(n::text, 10, '0') AS id, now() - $4 * interval '1 day' * (1 - n / $3::float8) AS at FROM generate_series($1::bigint, $2) AS n
), reservations AS (
    INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, usage, on_expiry, metadata, created_at, settled_at)
    SELECT id, 'default', 'committed', '', ARRAY ['acme/users/u' || n * 7919 % 1000], '{"tokens": 1}', '{"tokens": 1}', 'release',
           jsonb_build_object('feature', 'f' || n * 31 % 20, 'customer', 'c' || n * 104729 % 5000), at, at FROM made
)
INSERT INTO earmark.entries (kind, tenant, reservation_id, budget_id, window_start, committed_delta, reserved_after, committed_after, actor, reason, created_at)
SELECT 'charge', 'default', m.id, w.budget_id, w.window_start, 1, 0, n, 'api', '', at
FROM made m JOIN earmark.windows w ON w.window_start <= at AND at < w.window_end ORDER BY n`

// BenchmarkUsage makes usage reports of 90 days with 10 million charges. It needs 9 GB, and half an hour for them:
//
//	go test ./internal/postgres -run '^$' -bench 'Usage$' -benchtime 50x -timeout 2h
func BenchmarkUsage(b *testing.B) {
	pool := postgrestest.Pool(b, stack.PostgresURL())
	l := postgres.New(pool)
	budget, err := l.CreateBudget(ctx(), earmark.DefaultTenant, earmark.BudgetRequest{Scope: "acme", Unit: "tokens", Limit: new(int64(usageCharges)),
		Window: earmark.Window{Period: earmark.PeriodMonth, Timezone: "Europe/Berlin"}}.WithDefaults(), earmark.ActorAPI)
	require.NoError(b, err)
	seedUsage(b, pool)
	to := time.Now().Add(time.Second)
	from := to.AddDate(0, 0, -usageDays)
	for _, by := range []string{earmark.UsageByHour, earmark.UsageByDay, earmark.UsageByScope, "metadata.feature", "metadata.customer"} {
		b.Run(by, func(b *testing.B) {
			var took []time.Duration
			for range b.N {
				began := time.Now()
				report, err := l.UsageReport(ctx(), earmark.DefaultTenant, budget.ID, earmark.UsageQuery{From: &from, To: &to, By: by})
				took = append(took, time.Since(began))
				require.NoError(b, err)
				require.Greater(b, report.Total.Charges, int64(0.99*usageCharges), "the first hours may be outside")
			}
			slices.Sort(took)
			for _, part := range []int{50, 99} {
				b.ReportMetric(float64(took[len(took)*part/100].Microseconds())/1000, fmt.Sprintf("p%d-ms", part))
			}
		})
	}
}

func seedUsage(b *testing.B, pool *pgxpool.Pool) {
	b.Helper()
	conn, err := pool.Acquire(ctx())
	require.NoError(b, err)
	defer conn.Release()
	run := func(sql string, args ...any) {
		_, err := conn.Exec(ctx(), sql, args...)
		require.NoError(b, err)
	}
	run(usageWindows, usageDays)
	run("SET session_replication_role = replica") // without the checks of foreign keys
	const batch = 500_000
	write := func(first, last int64) { run(usageSeed, first, last, int64(usageCharges), usageDays) }
	for first := int64(1); first <= usageCharges-usageTail; first += batch {
		write(first, min(first+batch-1, usageCharges-usageTail))
	}
	for began := time.Now(); ; {
		var moved int64
		require.NoError(b, conn.QueryRow(ctx(), "SELECT earmark.roll_up_usage($1)", batch).Scan(&moved))
		var behind bool
		require.NoError(b, conn.QueryRow(ctx(), "SELECT (SELECT max(id) FROM earmark.entries) > (SELECT entry_id FROM earmark.usage_watermark)").Scan(&behind))
		if !behind {
			b.Logf("%d entries in the sums after %s", usageCharges-usageTail, time.Since(began).Round(time.Second))
			break
		}
	}
	write(usageCharges-usageTail+1, usageCharges)
	run("RESET session_replication_role")
	run("VACUUM ANALYZE")
}
