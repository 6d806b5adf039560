package postgres_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/earmark-dev/earmark"
	"github.com/earmark-dev/earmark/internal/postgres"
	"github.com/earmark-dev/earmark/internal/postgres/postgrestest"
)

func TestHoldsAreThoseThatSetBudgetAside(t *testing.T) {
	b := setup(t)
	none, err := b.Holds(ctx())
	require.NoError(t, err)
	require.Equal(t, postgres.Holds{Amounts: map[string]float64{}}, none)

	b.budget("acme", "tokens", 1000)
	b.budget("acme", "usd_micros", 1000)
	b.budget("acme/ml", "tokens", 1000) // a reservation counts once, however many budgets it touches
	hold := func(name string, amounts earmark.Amounts) earmark.Transition {
		a := admission(name, amounts, "acme/ml")
		a.Request.OnExpiry = earmark.OnExpiryReview
		return b.held(a)
	}
	hold("held", earmark.Amounts{"tokens": 10, "usd_micros": 7})
	b.due(hold("overdue", tokens(20)).ID)
	lost := hold("lost", tokens(40))
	require.NoError(t, b.MarkChecked(ctx(), lost.Tenant, lost.ID, true, false))
	review := hold("review", tokens(80))
	b.due(review.ID)
	b.expire(review)
	b.commit(hold("committed", tokens(160)), tokens(160))
	b.release(hold("released", tokens(320)))

	holds, err := b.Holds(ctx())
	require.NoError(t, err)
	require.InDelta(t, time.Minute, holds.MostOverdue, float64(30*time.Second), "what is in review is overdue no more")
	require.Positive(t, holds.OldestAge)
	require.Less(t, holds.OldestAge, time.Minute)
	holds.MostOverdue, holds.OldestAge = 0, 0
	require.Equal(t, postgres.Holds{Held: 3, Review: 1, Orphans: 1, Overdue: 1, Amounts: map[string]float64{"tokens": 150, "usd_micros": 7}}, holds)
}

// Settled reservations are by far the most, and the query does not look at them.
func TestHoldsReadOpenReservationsAlone(t *testing.T) {
	t.Parallel()
	pool := postgrestest.Pool(t, stack.PostgresURL())
	_, err := pool.Exec(ctx(), `INSERT INTO earmark.reservations (id, tenant, state, request_hash, scopes, amounts, on_expiry, expires_at, settled_at)
		SELECT 'rsv_' || i, 'default', CASE WHEN i % 100 = 0 THEN 'held' ELSE 'released' END, '', '{acme}', '{"tokens": 1}', 'release', now(), CASE WHEN i % 100 > 0 THEN now() END
		FROM generate_series(1, 20000) AS i`)
	require.NoError(t, err)
	_, err = pool.Exec(ctx(), "ANALYZE earmark.reservations")
	require.NoError(t, err)
	query, err := os.ReadFile("sql/holds.sql")
	require.NoError(t, err)
	rows, err := pool.Query(ctx(), "EXPLAIN "+string(query))
	require.NoError(t, err)
	var plan []string
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		plan = append(plan, line)
	}
	require.NoError(t, rows.Err())
	require.Contains(t, strings.Join(plan, "\n"), "reservations_check_idx")
	require.NotContains(t, strings.Join(plan, "\n"), "Seq Scan")
	holds, err := postgres.New(pool).Holds(ctx())
	require.NoError(t, err)
	require.Equal(t, int64(200), holds.Held)
}
