package postgres_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
)

func TestSpendingByDayAndModel(t *testing.T) {
	t.Parallel()
	pool := timedPool(t)
	b := &env{Ledger: postgres.New(asApp(t, pool)), owner: postgres.New(pool), t: t, pool: pool}
	b.budget("acme", "tokens", 1000, overage(earmark.OverageAllowIfAvailable))
	spend := func(at string, key string, used int64, metadata earmark.Metadata) string {
		moment, err := time.Parse(time.RFC3339, at)
		require.NoError(t, err)
		setClock(t, pool, moment)
		a := admission(key, tokens(0), "acme") // fits a full budget
		a.Request.Metadata = metadata
		s := b.held(a)
		require.Equal(t, earmark.OutcomeApplied, b.commit(s, tokens(used)).Outcome)
		return s.ID
	}
	spend("2026-04-30T21:59:59Z", "before", 1, earmark.Metadata{"model": "a"})
	corrected := spend("2026-04-30T22:00:00Z", "first", 400, earmark.Metadata{"model": "a", "other": "b"})
	spend("2026-05-01T10:00:00Z", "own", 30, earmark.Metadata{"model": "a"})
	spend("2026-05-02T10:00:00Z", "short", 2_000, nil) // the budget is charged what fits
	spend("2026-05-02T22:00:00Z", "after", 1, earmark.Metadata{"model": "a"})
	b.held(admission("open", tokens(0), "acme"))
	b.correct(correction(corrected, "refund", tokens(-100)))

	day := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	q := postgres.SpendingQuery{Tenant: earmark.DefaultTenant, First: day, Last: day.AddDate(0, 0, 1), Unit: "tokens", TimeZone: "Europe/Berlin", Metadata: []string{"other", "model"}}
	spent, err := b.Spending(ctx(), q)
	require.NoError(t, err)
	require.ElementsMatch(t, []postgres.Spending{{"2026-05-01", "b", 300}, {"2026-05-01", "a", 30}, {"2026-05-02", "", 2_000}}, spent)
	q.Tenant = "other"
	spent, err = b.Spending(ctx(), q)
	require.NoError(t, err)
	require.Empty(t, spent)
}
